//! Transforms of images, one file each: plain functions from image to image.
//!
//! They follow torchvision, so that accuracies of weights trained there can be reproduced.

mod crop;
mod flip;
mod normalize;
mod random_resized_crop;
mod resize;
mod to_channels;

pub use crop::{center_crop, pad_crop};
pub use flip::flip;
pub use normalize::normalize;
pub use random_resized_crop::random_resized_crop;
pub use resize::{resize, resize_short_side};
pub use to_channels::to_channels;

/// A rectangle inside an image.
#[derive(Debug, Clone, Copy)]
struct Area {
    /// First row.
    top: usize,
    /// First column.
    left: usize,
    /// Height and width.
    size: (usize, usize),
}
