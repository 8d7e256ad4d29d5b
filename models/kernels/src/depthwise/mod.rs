//! Depthwise convolutions and the depthwise Diverse Branch Block.
//!
//! The channels of a depthwise layer are independent: one task does all passes over a channel while
//! its planes are in the cache.

mod algebra;
mod backward;
mod channels;
mod conv;
mod convolve;
mod copy;
mod form;
mod forward;
mod grid;
mod group;
mod interleave;
mod planes;
mod rows;
mod second;
mod shuffle;
mod sums;
#[cfg(test)]
mod tests;

pub use conv::conv_forward;
pub(crate) use {backward::backward, form::serves, forward::forward};

use crate::Activation;
use crate::buffer::Buffer;

/// What the backward pass needs of the forward pass besides its inputs: the moments of each
/// channel, about 1 KB for 3x3 and 8 KB for 5x5.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    records: Vec<f64>,
    activation: Activation,
    /// The activation's input, if its derivative needs it.
    before: Option<Buffer>,
}
