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

pub use conv::{Activation, conv_bn_backward, conv_bn_forward, conv_forward};
pub use dbb::{Dbb, DbbGrads, DbbSaved, DbbStats, Kxk, PointwiseKxk, dbb_backward, dbb_forward};
