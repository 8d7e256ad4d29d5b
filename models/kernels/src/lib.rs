//! CPU kernels for training Diverse Branch Blocks: convolutions, batch norms, pools and whole blocks,
//! forward and backward. No tensor library is needed.
//!
//! Every kernel works on `f32` slices in the layout `[batch, channels, height, width]`; [`ConvShape`]
//! is the geometry that all of them share.
//!
//! | to compute | look in |
//! |---|---|
//! | a block in training: a sum of branches, each closed by a batch norm | [`branches`] |
//! | a convolution, with bias, residual and activation ([`Epilogue`]), and its gradients | [`conv`] |
//! | a Diverse Branch Block with `groups = 1`, as [`branches`] does | [`dense`] |
//! | a depthwise convolution in inference | [`depthwise`] |
//! | a folded network in inference, with maps in a layout of their own | [`blocked`] |
//! | batch norms, or a sum of several, in fused passes | [`norm`] |
//! | sums and covariances of channels | [`moments`] |
//! | max and average pools | [`pool`] |
//! | inference in 8-bit integers | [`int8`] |
//! | memory for maps, reused from step to step | [`buffer`] |
//! | the kernel of an OREPA block from its branches | [`orepa`] |
//! | a step of the optimizer | [`sgd`] |
//! | which vector instructions are used | [`InstructionSet`] |
//! | where the time goes | [`profile`] |
//!
//! ```
//! use dbb_kernels::{ConvShape, Epilogue, conv};
//!
//! // A 1x1 convolution from 3 to 2 channels of one image of 4 positions.
//! let shape = ConvShape::pointwise(1, [3, 2], 4);
//! let x = [1.0; 12];
//! let weight = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5];
//! let mut y = [0.0; 8];
//! conv::forward(&shape, &x, &weight, &mut y, Epilogue::default());
//! assert_eq!(y, [3.0, 3.0, 3.0, 3.0, 1.5, 1.5, 1.5, 1.5]);
//! ```
//!
//! # Safety and errors
//!
//! Every public function is safe. It checks its shape ([`ConvShape::check`]) and the lengths of its
//! slices, and panics on a mismatch, which is a bug in the caller. No map is empty: every extent of
//! a shape is at least 1.
//!
//! # Threads and determinism
//!
//! Work is divided among the threads of Rayon's current pool. Sums are added in an order that
//! depends on the shape, the number of threads and the instruction set alone: results are
//! bit-identical for the same number of threads and the same instruction set.
//!
//! `docs/PERFORMANCE.md` in the repository has the equations of the blocks and their costs.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod activation;
mod arithmetic;
pub mod blocked;
mod branch_sum;
pub mod branches;
pub mod buffer;
mod closing;
pub mod conv;
mod conv_norm;
pub mod dense;
pub mod depthwise;
mod gemm;
mod instruction_set;
pub mod int8;
mod members;
pub mod moments;
pub mod norm;
pub mod orepa;
mod padded_norm;
mod planes;
pub mod pool;
pub mod profile;
pub mod sgd;
mod shape;
mod shared;
mod shift;
mod simd;
mod team;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use activation::Activation;
pub use conv::Epilogue;
pub use conv_norm::{BatchStatistics, ConvNorm, FixedStatistics, Norm};
pub use instruction_set::{InstructionSet, InstructionSetError};
pub use members::Members;
pub use shape::{ConvShape, ShapeError};
