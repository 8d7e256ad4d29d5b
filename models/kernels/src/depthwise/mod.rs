//! Depthwise convolutions and the depthwise Diverse Branch Block.
//!
//! A channel of a depthwise layer depends on no other: one task takes it through all passes while
//! its planes are in the cache.

mod algebra;
mod backward;
mod channels;
mod conv;
mod copy;
mod dbb;
mod form;
mod forward;
mod grid;
mod second;
mod sweep;
#[cfg(test)]
mod tests;
mod vector;

pub use conv::{Activation, ConvBnGrads, conv_bn_backward, conv_bn_forward, conv_forward};
pub use dbb::{
    BatchStats, Dbb, DbbGrads, DbbSaved, DbbStats, Kxk, Norm, PointwiseKxk, dbb_backward,
    dbb_forward,
};
