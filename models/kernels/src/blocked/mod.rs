//! Inference on maps in a channel-blocked layout.
//!
//! A [`Map`] is `[batch, channels / 16, height, width, 16]`: sixteen channels of a position lie side by
//! side. A convolution multiplies them with vectors of output channels and writes its result in the same
//! layout, so that maps are never packed; weights are, once ([`Weight`]). What a network computes from
//! convolution to convolution stays in this layout: [`convolve`], [`convolve_separable`], [`max_pool`],
//! [`means`], [`scale`], [`activate`]. [`linear`] computes logits.
//!
//! The layout is that of Georganas et al., Anatomy of High-Performance Deep Learning Convolutions on SIMD
//! Architectures (SC 2018).

mod activation;
mod convolution;
mod dense;
mod depthwise;
mod linear;
mod map;
mod pool;
mod separable;
mod tile;
mod weight;
mod windows;
mod winograd;

pub use activation::activate;
pub use convolution::{Epilogue, Source, convolve};
pub use linear::linear;
pub use map::Map;
pub use pool::{max_pool, means, scale};
pub use separable::{Depthwise, convolve_separable};
pub use weight::Weight;

use crate::team;

/// Channels of a block.
const BLOCK: usize = 16;

/// Values of a task's inputs, half of what the second cache of recent processors holds.
const TASK: usize = if cfg!(test) { 1 << 11 } else { 1 << 17 };

/// Runs the layers of a network on a thread of Rayon's current pool, whose other threads wait for their parts
/// of each layer without going to sleep.
pub fn in_team<T: Send>(layers: impl FnOnce() -> T + Send) -> T {
    team::lead(layers)
}

#[cfg(test)]
mod tests;
