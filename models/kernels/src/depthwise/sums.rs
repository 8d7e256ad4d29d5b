//! Sums over the flat positions of a plane: of products of the values under two taps, of products
//! with a factor, and over border classes.
//!
//! Every function checks the lengths of its slices, so that the unchecked loads stay within them.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::grid::{Grid, SLACK};
use crate::simd::{add, load};

/// Values that a lane adds in `f32` before it is flushed to `f64`: few enough to keep the digits,
/// many enough that flushing is cheap. A block of so many vectors also stays in the first cache.
const IN_A_ROW: usize = 256;

/// Taps along one side of a tile of pair sums.
const TILE: usize = 5;

/// Sums in two levels: vectors of `f32`, flushed to `f64` after about [`IN_A_ROW`] values each.
pub(super) struct Sums {
    partial: Vec<f32>,
    pending: usize,
    pub total: Vec<f64>,
}

impl Sums {
    pub(super) fn new(count: usize) -> Self {
        Self { partial: vec![0.0; count * SLACK], pending: 0, total: vec![0.0; count] }
    }

    pub(super) fn reset(&mut self) {
        self.partial.fill(0.0);
        self.pending = 0;
        self.total.fill(0.0);
    }

    /// Adds the partial sums to the totals.
    pub(super) fn flush(&mut self) {
        for (total, lanes) in self.total.iter_mut().zip(self.partial.chunks_exact_mut(SLACK)) {
            *total += sum_lanes(lanes);
            lanes.fill(0.0);
        }
        self.pending = 0;
    }

    /// The blocks of `count` positions. Before it adds one of them, the caller makes room for it
    /// with [`Sums::reserve`].
    fn blocks<S: Simd>(count: usize) -> impl Iterator<Item = Range<usize>> {
        let block = IN_A_ROW * S::F32_LANES;
        (0..count).step_by(block).map(move |start| start..count.min(start + block))
    }

    /// Flushes unless a lane may add these positions to those that it has added.
    fn reserve<S: Simd>(&mut self, positions: &Range<usize>) {
        if self.pending + positions.len() > IN_A_ROW * S::F32_LANES {
            self.flush();
        }
        self.pending += positions.len();
    }

    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, index: usize, lanes: S::f32s) {
        let partial = &mut self.partial[index * SLACK..][..S::F32_LANES];
        // SAFETY: the slice is one vector long.
        unsafe { add(simd, partial.as_mut_ptr(), lanes) }
    }
}

/// Checks that every tap stays within the source over `count` positions in whole vectors.
fn check_taps(source: &[f32], offsets: &[usize], count: usize) {
    let last = offsets.iter().max().map_or(0, |offset| offset + count.next_multiple_of(SLACK));
    assert!(source.len() >= last, "a tap leaves the strips");
}

/// Adds `sum over q of mask[q] * source[offsets[a] + q] * source[offsets[b] + q]` for every pair
/// `a <= b`, in the order `(0, 0), (0, 1) .. (1, 1), (1, 2) ..`. The mask must be 0 or 1, and 0
/// from `count` to the next multiple of `SLACK`.
pub(super) fn add_pairs(
    arch: Arch,
    source: &[f32],
    offsets: &[usize],
    mask: &[f32],
    count: usize,
    sums: &mut Sums,
) {
    check_taps(source, offsets, count);
    assert!(mask.len() >= count.next_multiple_of(SLACK), "the mask is too short");
    assert_eq!(sums.total.len(), offsets.len() * (offsets.len() + 1) / 2, "one sum a pair");
    arch.dispatch(Pairs { source, offsets, mask, count, sums });
}

struct Pairs<'a> {
    source: &'a [f32],
    offsets: &'a [usize],
    mask: &'a [f32],
    count: usize,
    sums: &'a mut Sums,
}

impl WithSimd for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let taps = self.offsets.len();
        for range in Sums::blocks::<S>(self.count) {
            self.sums.reserve::<S>(&range);
            for a in (0..taps).step_by(TILE) {
                match taps - a {
                    1 => self.tile::<S, 1, 1>(simd, &range, a, a),
                    2 => self.tile::<S, 2, 2>(simd, &range, a, a),
                    3 => self.tile::<S, 3, 3>(simd, &range, a, a),
                    4 => self.tile::<S, 4, 4>(simd, &range, a, a),
                    _ => self.tile::<S, TILE, TILE>(simd, &range, a, a),
                }
                for b in (a + TILE..taps).step_by(TILE) {
                    match taps - b {
                        1 => self.tile::<S, TILE, 1>(simd, &range, a, b),
                        2 => self.tile::<S, TILE, 2>(simd, &range, a, b),
                        3 => self.tile::<S, TILE, 3>(simd, &range, a, b),
                        4 => self.tile::<S, TILE, 4>(simd, &range, a, b),
                        _ => self.tile::<S, TILE, TILE>(simd, &range, a, b),
                    }
                }
            }
        }
    }
}

impl Pairs<'_> {
    /// The pairs of the taps `a .. a + A` with `b .. b + B`; on the diagonal `a == b`.
    #[inline(always)]
    fn tile<S: Simd, const A: usize, const B: usize>(
        &mut self,
        simd: S,
        range: &Range<usize>,
        a: usize,
        b: usize,
    ) {
        let taps = self.offsets.len();
        let wanted = |i: usize, j: usize| a != b || j >= i;
        let (left, right) = (&self.offsets[a..a + A], &self.offsets[b..b + B]);
        let left: [usize; A] = std::array::from_fn(|i| left[i]);
        let right: [usize; B] = std::array::from_fn(|j| right[j]);
        let mut sums = [[simd.splat_f32s(0.0); B]; A];
        let mut at = range.start;
        while at < range.end {
            // SAFETY: `add_pairs` has checked the lengths.
            let mask = unsafe { load(simd, self.mask, at) };
            let values: [S::f32s; B] =
                // SAFETY: as above.
                std::array::from_fn(|j| unsafe { load(simd, self.source, right[j] + at) });
            for i in 0..A {
                // SAFETY: as above.
                let value = simd.mul_f32s(mask, unsafe { load(simd, self.source, left[i] + at) });
                for j in 0..B {
                    if wanted(i, j) {
                        sums[i][j] = simd.mul_add_e_f32s(value, values[j], sums[i][j]);
                    }
                }
            }
            at += S::F32_LANES;
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                if wanted(i, j) {
                    let (row, column) = (a + i, b + j);
                    let index = row * (2 * taps + 1 - row) / 2 + column - row;
                    self.sums.add(simd, index, sum);
                }
            }
        }
    }
}

/// Adds `sum over q of factor[q] * source[offsets[t] + q]` for every tap. The factor must be 0
/// from `count` to the next multiple of `SLACK`.
pub(super) fn add_dots(
    arch: Arch,
    source: &[f32],
    offsets: &[usize],
    factor: &[f32],
    count: usize,
    sums: &mut Sums,
) {
    check_taps(source, offsets, count);
    assert!(factor.len() >= count.next_multiple_of(SLACK), "the factor is too short");
    assert_eq!(sums.total.len(), offsets.len(), "one sum a tap");
    arch.dispatch(Dots { source, offsets, factor, count, sums });
}

struct Dots<'a> {
    source: &'a [f32],
    offsets: &'a [usize],
    factor: &'a [f32],
    count: usize,
    sums: &'a mut Sums,
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for range in Sums::blocks::<S>(self.count) {
            self.sums.reserve::<S>(&range);
            let mut first = 0;
            while first < self.offsets.len() {
                first += match self.offsets.len() - first {
                    13.. => self.group::<S, 13>(simd, &range, first),
                    9.. => self.group::<S, 9>(simd, &range, first),
                    3.. => self.group::<S, 3>(simd, &range, first),
                    _ => self.group::<S, 1>(simd, &range, first),
                };
            }
        }
    }
}

impl Dots<'_> {
    /// Adds the sums of `N` taps and returns `N`.
    #[inline(always)]
    fn group<S: Simd, const N: usize>(
        &mut self,
        simd: S,
        range: &Range<usize>,
        first: usize,
    ) -> usize {
        let offsets = &self.offsets[first..first + N];
        let offsets: [usize; N] = std::array::from_fn(|t| offsets[t]);
        let mut sums = [simd.splat_f32s(0.0); N];
        let mut at = range.start;
        while at < range.end {
            // SAFETY: `add_dots` has checked the lengths.
            let factor = unsafe { load(simd, self.factor, at) };
            for t in 0..N {
                // SAFETY: as above.
                let value = unsafe { load(simd, self.source, offsets[t] + at) };
                sums[t] = simd.mul_add_e_f32s(factor, value, sums[t]);
            }
            at += S::F32_LANES;
        }
        for (t, &sum) in sums.iter().enumerate() {
            self.sums.add(simd, first + t, sum);
        }
        N
    }
}

/// Sums over each class of outputs of the values under several taps of one kernel row, which are
/// `cols.stride` apart. The rows of `strip` are `pitch` apart; it starts at the value under the first tap at output
/// 0, `sums` at the classes of that tap. `row` is scratch for one row.
pub(super) fn class_sums(
    arch: Arch,
    grid: &Grid,
    (strip, pitch): (&[f32], usize),
    taps: usize,
    row: &mut [f32],
    sums: &mut [f64],
) {
    arch.dispatch(ClassSums { grid, strip, pitch, taps, row, sums });
}

struct ClassSums<'a> {
    grid: &'a Grid,
    strip: &'a [f32],
    pitch: usize,
    taps: usize,
    row: &'a mut [f32],
    sums: &'a mut [f64],
}

impl WithSimd for ClassSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (rows, cols) = (&self.grid.rows, &self.grid.cols);
        let row = &mut self.row[..cols.output + self.taps - 1];
        for (i, class) in rows.classes.iter().enumerate() {
            row.fill(0.0);
            for r in class.outputs.clone() {
                let values = &self.strip[r * self.pitch..][..row.len()];
                row.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
            }
            for (j, class) in cols.classes.iter().enumerate() {
                let outputs = class.outputs.clone();
                let mut sum = total(&row[outputs.clone()]);
                for tap in 0..self.taps {
                    if tap > 0 {
                        // The window moves by one value.
                        let [leaves, enters] =
                            [outputs.start, outputs.end].map(|x| row[x + tap - 1]);
                        sum += f64::from(enters) - f64::from(leaves);
                    }
                    let at = (tap * cols.stride * rows.classes.len() + i) * cols.classes.len() + j;
                    self.sums[at] = sum;
                }
            }
        }
    }
}

/// The sum of the lanes of a vector, as four independent sums.
#[inline(always)]
fn sum_lanes(lanes: &[f32]) -> f64 {
    let mut sums = [0.0; 4];
    for lanes in lanes.as_chunks::<4>().0 {
        sums.iter_mut().zip(lanes).for_each(|(sum, &lane)| *sum += f64::from(lane));
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// The sum of a slice, in `f32` over as many values as [`Sums`] adds.
#[inline(always)]
pub(super) fn total(values: &[f32]) -> f64 {
    values.chunks(IN_A_ROW * SLACK).map(total_of_block).sum()
}

/// The sum of a slice in `f32`, over several independent lanes.
#[inline(always)]
fn total_of_block(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; SLACK];
    let chunks = values.chunks_exact(SLACK);
    let rest: f64 = chunks.remainder().iter().map(|&v| f64::from(v)).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &v)| *lane += v);
    }
    sum_lanes(&lanes) + rest
}
