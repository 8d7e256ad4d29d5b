//! Inference in 8-bit integers, exact: products of 8 bits are added in `i32`, and a sum is rounded back to
//! 8 bits once, in `f32`, as onnxruntime's integer kernels do (`QLinearConv`, `QGemm`, `QLinearAdd`).
//!
//! A value of 8 bits stands for a real number by its [`Affine`] map; weights are symmetric, their zero
//! point is 0. Sums of integers have no rounding error: results do not depend on threads or instruction
//! set.

mod affine;
mod conv;
mod linear;
#[cfg(test)]
mod tests;

pub use affine::{Affine, add, mean};
pub use conv::{Rounding, conv};
pub use linear::linear;

/// The largest number of products in a sum. `i32` holds sums of this many, with a bias of up to
/// [`LARGEST_BIAS`].
pub const LARGEST_SUM: usize = 1 << 15;

/// The largest magnitude of a bias.
pub const LARGEST_BIAS: i32 = 1 << 30;

/// Values of the vectors of `i16` that sums are taken of: rows have a multiple of them.
const LANES: usize = 32;

/// The length of a row of `len` values with its padding.
fn pitch(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

/// Rows of `len` weights in 16 bits, each padded with zeros to a [`pitch`].
fn widened(weight: &[i8], len: usize) -> Vec<i16> {
    let pitch = pitch(len);
    let mut rows = vec![0; weight.len() / len * pitch];
    for (row, weight) in rows.chunks_exact_mut(pitch).zip(weight.chunks_exact(len)) {
        row.iter_mut().zip(weight).for_each(|(to, &from)| *to = from.into());
    }
    rows
}

/// The sums of products of a row with each of four others of its length.
#[inline(always)]
fn dots(row: &[i16], others: [&[i16]; 4]) -> [i32; 4] {
    let others = others.map(|other| &other[..row.len()]);
    let mut sums = [0; 4];
    for (index, &value) in row.iter().enumerate() {
        for (sum, other) in sums.iter_mut().zip(others) {
            *sum += i32::from(value) * i32::from(other[index]);
        }
    }
    sums
}

/// Four of the rows from `first` on; past the last, the last again.
#[inline(always)]
fn four_rows(rows: &[i16], pitch: usize, first: usize) -> [&[i16]; 4] {
    let last = rows.len() / pitch - 1;
    [0, 1, 2, 3].map(|index| &rows[(first + index).min(last) * pitch..][..pitch])
}
