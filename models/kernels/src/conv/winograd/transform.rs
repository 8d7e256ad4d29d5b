//! The transforms of kernels, inputs and outputs, a vector of them at once.

use crate::gemm::Isa;
use crate::simd::WIDEST;

/// Elements of a transformed tile.
pub(crate) const ELEMENTS: usize = 16;

/// `G g G^T` of a vector of kernels, whose nine taps are given row by row.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
pub(crate) unsafe fn kernels<I: Isa>(g: &[I::Vector; 9]) -> [I::Vector; ELEMENTS] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut columns = [[I::splat(0.0); 4]; 3];
        for (x, column) in columns.iter_mut().enumerate() {
            *column = kernel_line::<I>([g[x], g[3 + x], g[6 + x]]);
        }
        let mut to = [I::splat(0.0); ELEMENTS];
        for (y, to) in to.chunks_exact_mut(4).enumerate() {
            to.copy_from_slice(&kernel_line::<I>(row(&columns, y)));
        }
        to
    }
}

/// `B^T d B` of the inputs of a vector of tiles, row by row.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
pub(crate) unsafe fn input_tile<I: Isa>(d: &[[I::Vector; 4]; 4]) -> [I::Vector; ELEMENTS] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut columns = [[I::splat(0.0); 4]; 4];
        for (x, column) in columns.iter_mut().enumerate() {
            *column = input_line::<I>([d[0][x], d[1][x], d[2][x], d[3][x]]);
        }
        let mut to = [I::splat(0.0); ELEMENTS];
        for (y, to) in to.chunks_exact_mut(4).enumerate() {
            to.copy_from_slice(&input_line::<I>(row(&columns, y)));
        }
        to
    }
}

/// `A^T m A` of a vector of tiles: both rows of both outputs.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
pub(crate) unsafe fn output_tile<I: Isa>(m: &[[I::Vector; 4]; 4]) -> [[I::Vector; 2]; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut columns = [[I::splat(0.0); 2]; 4];
        for (x, column) in columns.iter_mut().enumerate() {
            *column = output_line::<I>([m[0][x], m[1][x], m[2][x], m[3][x]]);
        }
        [output_line::<I>(row(&columns, 0)), output_line::<I>(row(&columns, 1))]
    }
}

/// `B^T d B` of the inputs of two vectors of tiles, `[element, 2 * LANES]`. The elements of the result
/// are `stride` apart.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
pub(super) unsafe fn input<I: Isa>(from: &[f32], to: &mut [f32], stride: usize) {
    let width = 2 * I::LANES;
    assert!(from.len() >= ELEMENTS * width && to.len() >= (ELEMENTS - 1) * stride + width);
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    for start in [0, I::LANES] {
        // SAFETY: the caller is inside `enter`; the slices hold a vector at each of these places.
        unsafe {
            let elements = input_tile::<I>(&square::<I>(from.add(start), width));
            for (element, value) in elements.into_iter().enumerate() {
                I::store(to.add(element * stride + start), value);
            }
        }
    }
}

/// `A^T m A` of `tiles` tiles, a multiple of two vectors, whose elements are `stride` apart: the
/// upper outputs of all tiles, then the lower ones.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
pub(super) unsafe fn output<I: Isa>(from: &[f32], stride: usize, tiles: usize, to: &mut [f32]) {
    assert!(from.len() >= (ELEMENTS - 1) * stride + tiles && to.len() >= 4 * tiles);
    let from = from.as_ptr();
    for start in (0..tiles).step_by(I::LANES) {
        let (mut left, mut right) = ([[0.0; WIDEST]; 2], [[0.0; WIDEST]; 2]);
        // SAFETY: the caller is inside `enter`; the slices and arrays hold a vector at each of these
        // places.
        unsafe {
            let outputs = output_tile::<I>(&square::<I>(from.add(start), stride));
            for (y, [even, odd]) in outputs.into_iter().enumerate() {
                I::store(left[y].as_mut_ptr(), even);
                I::store(right[y].as_mut_ptr(), odd);
            }
        }
        for y in 0..2 {
            let to = &mut to[2 * (y * tiles + start)..][..2 * I::LANES];
            for (lane, to) in to.chunks_exact_mut(2).enumerate() {
                to[0] = left[y][lane];
                to[1] = right[y][lane];
            }
        }
    }
}

/// `A Y A^T` of the gradients of two vectors of tiles, `[position, 2 * LANES]`. The elements of the
/// result are `stride` apart.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
pub(super) unsafe fn gradient<I: Isa>(from: &[f32], to: &mut [f32], stride: usize) {
    let width = 2 * I::LANES;
    assert!(from.len() >= 4 * width && to.len() >= (ELEMENTS - 1) * stride + width);
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    for start in [0, I::LANES] {
        // SAFETY: the caller is inside `enter`; the slices hold a vector at each of these places.
        unsafe {
            let at = from.add(start);
            let left = gradient_line::<I>([I::load(at), I::load(at.add(2 * width))]);
            let right = gradient_line::<I>([I::load(at.add(width)), I::load(at.add(3 * width))]);
            for y in 0..4 {
                let row = gradient_line::<I>(row(&[left, right], y));
                for (x, value) in row.into_iter().enumerate() {
                    I::store(to.add((4 * y + x) * stride + start), value);
                }
            }
        }
    }
}

/// `G^T m G`: the nine taps, row by row.
pub(super) fn kernel_grad(m: [f32; ELEMENTS]) -> [f32; 9] {
    let line = |[a, b, c, d]: [f32; 4]| {
        let (sum, difference) = (0.5 * (b + c), 0.5 * (b - c));
        [a + sum, difference, sum + d]
    };
    let columns: [[f32; 3]; 4] =
        std::array::from_fn(|x| line([m[x], m[4 + x], m[8 + x], m[12 + x]]));
    let mut taps = [0.0; 9];
    for (y, taps) in taps.chunks_exact_mut(3).enumerate() {
        taps.copy_from_slice(&line(columns.map(|column| column[y])));
    }
    taps
}

/// A row of elements that are given column by column.
#[inline(always)]
fn row<V: Copy, const ROWS: usize, const COLUMNS: usize>(
    columns: &[[V; ROWS]; COLUMNS],
    row: usize,
) -> [V; COLUMNS] {
    // With `map` of an array, gradients of weights took up to 1.4 times as long.
    let mut values = [columns[0][row]; COLUMNS];
    for (value, column) in values.iter_mut().zip(columns) {
        *value = column[row];
    }
    values
}

/// Four by four vectors, which are `stride` apart.
#[inline(always)]
unsafe fn square<I: Isa>(from: *const f32, stride: usize) -> [[I::Vector; 4]; 4] {
    // SAFETY: the caller is inside `enter` and gives vectors at these places.
    unsafe {
        let mut square = [[I::splat(0.0); 4]; 4];
        for (y, row) in square.iter_mut().enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                *value = I::load(from.add((4 * y + x) * stride));
            }
        }
        square
    }
}

/// `B^T` times a column.
#[inline(always)]
unsafe fn input_line<I: Isa>([a, b, c, d]: [I::Vector; 4]) -> [I::Vector; 4] {
    // SAFETY: the caller is inside `enter`.
    unsafe { [I::sub(a, c), I::add(b, c), I::sub(c, b), I::sub(b, d)] }
}

/// `A^T` times a column.
#[inline(always)]
unsafe fn output_line<I: Isa>([a, b, c, d]: [I::Vector; 4]) -> [I::Vector; 2] {
    // SAFETY: the caller is inside `enter`.
    unsafe { [I::add(a, I::add(b, c)), I::sub(I::sub(b, c), d)] }
}

/// `G` times a column.
#[inline(always)]
unsafe fn kernel_line<I: Isa>([a, b, c]: [I::Vector; 3]) -> [I::Vector; 4] {
    // SAFETY: the caller is inside `enter`.
    unsafe {
        let (half, outer) = (I::splat(0.5), I::add(a, c));
        let (sum, difference) = (I::add(outer, b), I::sub(outer, b));
        let zero = I::splat(0.0);
        [a, I::mul_add(half, sum, zero), I::mul_add(half, difference, zero), c]
    }
}

/// `A` times a column.
#[inline(always)]
unsafe fn gradient_line<I: Isa>([a, b]: [I::Vector; 2]) -> [I::Vector; 4] {
    // SAFETY: the caller is inside `enter`.
    unsafe { [a, I::add(a, b), I::sub(a, b), I::sub(I::splat(0.0), b)] }
}
