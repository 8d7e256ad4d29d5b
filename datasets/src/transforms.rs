//! Transforms of images, one file each: plain functions.
//!
//! They follow torchvision, so that accuracies of weights trained there can be reproduced.

mod affine;
mod color_jitter;
mod crop;
mod enhance;
mod flip;
mod hue;
mod lighting;
mod mix;
mod normalize;
mod policy;
mod random_erasing;
mod random_resized_crop;
#[cfg(test)]
mod reference;
mod resample;
mod resize;
mod to_channels;
mod tone;

pub use affine::{rotate, shear_x, shear_y, translate};
pub use color_jitter::{ColorJitter, color_jitter};
pub use crop::{center_crop, pad_crop};
pub use enhance::{brightness, contrast, saturation, sharpness};
pub use flip::flip;
pub use hue::hue;
pub use lighting::lighting;
pub use mix::{cutmix, mixup};
pub use normalize::normalize;
pub use policy::{MAX_MAGNITUDE, rand_augment, trivial_augment};
pub use random_erasing::random_erasing;
pub use random_resized_crop::random_resized_crop;
pub use resize::{resize, resize_center_crop, resize_short_side};
pub use to_channels::to_channels;
pub use tone::{auto_contrast, equalize, posterize, solarize};

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
