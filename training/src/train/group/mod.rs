//! Training of several members on parts of every batch.
//!
//! The members are devices of one process (`devices.rs`), or ranks: processes that a launcher of MPI
//! started, on one machine or many (`mpi.rs`). Both share
//!
//! - the split: [`dbb_datasets::parts`];
//! - the step of a member (`step.rs`): the gradient of its part, weighted by its images, is summed
//!   over the members, and batch norm takes the statistics of the part, or of the whole batch;
//! - the trait `Sum`, which is what the two engines differ in.
//!
//! Every rank keeps the state of the run and steps alike, so that there is nothing to distribute
//! but sums; the first alone writes and prints. Sums are added in the order of the ranks: equal
//! ranks, threads and instruction sets give equal bits.

pub mod devices;
pub mod launcher;
#[cfg(feature = "mpi")]
pub mod mpi;
mod place;
mod ranks;
pub(crate) mod step;
#[cfg(test)]
mod testing;

pub use place::Place;
pub use ranks::{Exchange, Ranks};

use burn::tensor::Tensor;

use crate::error::Result;

/// Sums over the members of a group.
pub(crate) trait Sum {
    /// The sum of what the members give, on every member with the same bits. Members give tensors
    /// of equal sizes in the same order.
    fn sum(&self, own: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>>;
}
