//! Batch norm in training (Ioffe and Szegedy, 2015) of one map or of several that are summed:
//! `y = act(sum_i norm_i(o_i) + residual)`, with `act` an [`Activation`](crate::Activation).
//!
//! Maps are `[batch, channels, positions]`. The maps `o_i` of a sum are called branches; a buffer
//! may hold several branches, one after the other among its channels, so that one convolution can
//! compute them: a buffer `[batch, 2 channels, positions]` is two branches. Values per branch and
//! channel, `[branches, channels]`, follow the order of the buffers and of the branches in them.
//!
//! Forward takes two passes over memory: [`statistics`] of each buffer and [`apply`]. Backward
//! takes two: [`reduce`] and [`backward_input`], with `f64` algebra per channel between them
//! ([`Gradients::new`]).

mod apply;
mod branches;
mod gate;
mod gradients;
mod reduce;
mod statistics;

pub use apply::apply;
pub(crate) use branches::MAX_BRANCHES;
pub use gate::Gate;
pub use gradients::{Gradients, backward_input};
pub use reduce::{Sums, reduce};
pub use statistics::{Statistics, statistics};
pub(crate) use statistics::{check_count, inverse_std, unbiased, variance};

/// Values added in `f32` before they are flushed to `f64`.
const BLOCK: usize = 1024;

/// Batch, channels and positions of a plane.
type Dims = [usize; 3];

#[cfg(test)]
mod tests;
