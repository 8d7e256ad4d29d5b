//! Inference in 8-bit integers, exact: products of 8 bits are added without rounding, and a sum is rounded
//! back to 8 bits once, in `f32`, as onnxruntime's integer kernels do (`QLinearConv`, `QGemm`,
//! `QLinearAdd`).
//!
//! A value of 8 bits stands for a real number by its [`Affine`] map; weights are symmetric, their zero
//! point is 0. Sums are those of the kernels for `f32`, which are exact for integers up to 2^24: where the
//! sums of a layer may be larger, its weights are split into digits. Results depend neither on
//! threads nor on the instruction set.

mod affine;
mod digits;
mod layers;
#[cfg(test)]
mod tests;

pub use affine::{Affine, add, mean, requantize};
pub use layers::{conv, linear};

/// The largest number of products in a sum. `i32` holds sums of this many, with a bias of up to
/// [`LARGEST_BIAS`].
pub const LARGEST_SUM: usize = 1 << 15;

/// The largest magnitude of a bias.
pub const LARGEST_BIAS: i32 = 1 << 30;
