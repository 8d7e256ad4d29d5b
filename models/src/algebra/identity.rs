//! Transform VI of an identity: passing the input on is a 1x1 convolution.

use super::Kernel;

/// The 1x1 kernel of a map that passes every channel on: output `o` of a group reads input
/// `o mod (channels / groups)` of it, which is channel `o` itself.
///
/// # Panics
/// If the groups do not divide the channels.
pub fn identity_kernel(channels: usize, groups: usize) -> Kernel {
    super::average_pool_kernel(channels, [1, 1], groups)
}
