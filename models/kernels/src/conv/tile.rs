//! The register tile: a block of the output of a matrix product, kept in vector registers.

/// Rows of a tile.
pub(super) const ROWS: usize = 12;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 32;

/// Computes a tile `C (+)= A B` over `depth` terms.
///
/// `A` has its rows `ROW` apart and its terms `TERM` apart, `B` its terms `COLUMNS` apart, `C` its
/// rows `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Tile(Instructions);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Tile {
    /// The best that this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self(Instructions::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self(Instructions::Avx2);
            }
        }
        Self(Instructions::Portable)
    }

    /// Runs on the first `rows` rows of a tile, or some more; `add` keeps what `c` holds.
    #[inline]
    pub fn run<const ROW: usize, const TERM: usize>(
        self,
        rows: usize,
        depth: usize,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        stride: usize,
        add: bool,
    ) {
        assert!(depth > 0 && a.len() > (ROWS - 1) * ROW + (depth - 1) * TERM, "length of A");
        assert!(b.len() >= depth * COLUMNS, "length of B");
        assert!(c.len() >= (ROWS - 1) * stride + COLUMNS, "length of C");
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the instructions were detected, the lengths are checked above.
            Instructions::Avx512 => unsafe {
                let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                match rows {
                    0..=4 => avx512::<4, ROW, TERM>(depth, a, b, c, stride, add),
                    5..=8 => avx512::<8, ROW, TERM>(depth, a, b, c, stride, add),
                    _ => avx512::<ROWS, ROW, TERM>(depth, a, b, c, stride, add),
                }
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Instructions::Avx2 => unsafe {
                let parts = if rows > ROWS / 2 { 2 } else { 1 };
                let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
                avx2::<ROW, TERM>(parts, depth, a, b, c, stride, add);
            },
            Instructions::Portable => portable::<ROW, TERM>(depth, a, b, c, stride, add),
        }
    }
}

fn portable<const ROW: usize, const TERM: usize>(
    depth: usize,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    for row in 0..ROWS {
        let mut sums = [0.0; COLUMNS];
        for (term, b) in b.chunks_exact(COLUMNS).take(depth).enumerate() {
            let a = a[row * ROW + term * TERM];
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
        for (c, sum) in c[row * stride..].iter_mut().zip(sums) {
            *c = if add { *c + sum } else { sum };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const HEIGHT: usize, const ROW: usize, const TERM: usize>(
    depth: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    use core::arch::x86_64::*;
    // SAFETY: the caller has checked that every address lies inside its slice.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let b0 = _mm512_loadu_ps(b);
            let b1 = _mm512_loadu_ps(b.add(16));
            for row in 0..HEIGHT {
                let a = _mm512_set1_ps(*a.add(row * ROW));
                sums[row][0] = _mm512_fmadd_ps(a, b0, sums[row][0]);
                sums[row][1] = _mm512_fmadd_ps(a, b1, sums[row][1]);
            }
            a = a.add(TERM);
            b = b.add(COLUMNS);
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let c = c.add(row * stride + 16 * half);
                let sum = if add { _mm512_add_ps(_mm512_loadu_ps(c), sum) } else { sum };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROW: usize, const TERM: usize>(
    parts: usize,
    depth: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    use core::arch::x86_64::*;
    const PART: usize = ROWS / 2;
    // SAFETY: the caller has checked that every address lies inside its slice.
    unsafe {
        // Sixteen registers hold a quarter of the tile.
        for part in 0..parts {
            for half in 0..COLUMNS / 16 {
                let mut sums = [[_mm256_setzero_ps(); 2]; PART];
                let (mut a, mut b) = (a.add(part * PART * ROW), b.add(16 * half));
                for _ in 0..depth {
                    let b0 = _mm256_loadu_ps(b);
                    let b1 = _mm256_loadu_ps(b.add(8));
                    for row in 0..PART {
                        let a = _mm256_set1_ps(*a.add(row * ROW));
                        sums[row][0] = _mm256_fmadd_ps(a, b0, sums[row][0]);
                        sums[row][1] = _mm256_fmadd_ps(a, b1, sums[row][1]);
                    }
                    a = a.add(TERM);
                    b = b.add(COLUMNS);
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    for (quarter, sum) in sums.into_iter().enumerate() {
                        let column = 16 * half + 8 * quarter;
                        let c = c.add((part * PART + row) * stride + column);
                        let sum = if add { _mm256_add_ps(_mm256_loadu_ps(c), sum) } else { sum };
                        _mm256_storeu_ps(c, sum);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one set of instructions can do, every other can.
    #[test]
    fn every_set_of_instructions_computes_the_tile() {
        let detected = Tile::detect().0;
        let mut sets = vec![Instructions::Portable];
        #[cfg(target_arch = "x86_64")]
        match detected {
            Instructions::Avx512 => sets.extend([Instructions::Avx2, Instructions::Avx512]),
            Instructions::Avx2 => sets.push(Instructions::Avx2),
            Instructions::Portable => {}
        }
        assert!(sets.contains(&detected));
        for rows in [1, 4, 5, 8, 9, 12] {
            for depth in [1, 2, 7] {
                let value = |i: usize| ((i * 37 + 11) % 64) as f32 / 32.0 - 1.0;
                let a: Vec<f32> = (0..ROWS * depth).map(value).collect();
                let b: Vec<f32> = (0..COLUMNS * depth).map(|i| value(i + 5)).collect();
                let before: Vec<f32> = (0..ROWS * 40).map(|i| value(i + 9)).collect();
                for add in [false, true] {
                    for &set in &sets {
                        let mut c = before.clone();
                        Tile(set).run::<1, ROWS>(rows, depth, &a, &b, &mut c, 40, add);
                        for row in 0..rows {
                            for column in 0..COLUMNS {
                                let mut sum = if add { before[row * 40 + column] } else { 0.0 };
                                for term in 0..depth {
                                    sum += a[term * ROWS + row] * b[term * COLUMNS + column];
                                }
                                let found = c[row * 40 + column];
                                assert!((found - sum).abs() < 1e-5, "{set:?} {rows} {depth}");
                            }
                        }
                    }
                }
            }
        }
    }
}
