//! Training kernels for Diverse Branch Blocks on a CPU.
//!
//! Every kernel works on `f32` slices in the layout `[batch, channels, height, width]`, finds
//! the vector instructions of the machine at run time ([`InstructionSet`]) and uses Rayon's current
//! pool. Every public
//! function is safe: it checks the shape it is given and the lengths of its slices against it, and
//! panics on a mismatch, which is a defect of the caller. No map is empty: every extent of a shape
//! is at least 1.
//!
//! Sums run in an order that depends on the shape, the number of threads and the instruction set
//! alone: two runs with equally many threads and the same set are equal bit for bit.

pub mod buffer;
mod closing;
pub mod conv;
mod conv_norm;
pub mod dense;
pub mod depthwise;
mod gemm;
mod instruction_set;
pub mod moments;
pub mod norm;
mod planes;
pub mod pool;
mod shape;
mod shared;
mod simd;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use conv::Epilogue;
pub use conv_norm::{BatchStatistics, ConvNorm, ConvNormGrad, ConvNormSaved, Norm};
pub use instruction_set::{InstructionSet, InstructionSetError};
pub use shape::{ConvShape, ShapeError};
