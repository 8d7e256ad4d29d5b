//! Image classification data for Burn: data sets, decoding, augmentation and a deterministic loader.
//!
//! From a name to tensors, step by step:
//!
//! | step | look at |
//! |---|---|
//! | from a name to a data set | [`DataRef`], [`open`], [`open_pair`] |
//! | its images and classes; limits, splits, other labels | [`ImageDataset`] |
//! | a layout of your own | [`Source`] |
//! | one decoded image | [`Image`] |
//! | how it becomes a network's input | [`Preprocess`], and [`presets`] for the usual constants |
//! | random changes in training | [`Augment`]; single [`transforms`] |
//! | both in their order | [`Pipeline`] |
//! | batches in threads | [`Loader`], [`LoaderConfig`], [`Batch`] |
//! | a picture of what a network gets | [`Preprocess::picture`], [`Image::thumbnail`] |
//! | the same for Burn's own data loader | [`ImageBatcher`] |
//! | ImageNet's classes | [`imagenet`] |
//! | what can go wrong | [`DataError`] |
//!
//! The order of the images depends on seed and epoch, their augmentation on seed, epoch and index;
//! neither depends on the number of threads, and an epoch can be entered at any batch.
//!
//! ```
//! use std::sync::Arc;
//! use burn::tensor::Device;
//! use dbb_datasets::{Augment, Loader, LoaderConfig, Pipeline, Preprocess, open_pair};
//!
//! # fn main() -> Result<(), dbb_datasets::DataError> {
//! let (train, val) = open_pair(&"sample".parse()?)?;
//! assert_eq!((train.len(), val.len()), (10_000, 2_000));
//!
//! let augment = Augment { pad_crop: 2, hflip: true, ..Augment::default() };
//! let pipeline = Pipeline::new(Preprocess::of(&train), augment)?;
//! let config = LoaderConfig { batch_size: 128, workers: 2, shuffle: true, ..Default::default() };
//! let loader = Loader::new(Arc::new(train), config, pipeline)?;
//!
//! for batch in loader.epoch(0).take(1) {
//!     let (images, labels) = batch?.to_tensors(&Device::default());
//!     assert_eq!(images.dims(), [128, 1, 28, 28]);
//!     assert_eq!(labels.dims(), [128]);
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod augment;
mod batcher;
mod dataset;
mod decode;
mod error;
mod image;
pub mod imagenet;
mod loader;
mod pipeline;
mod preprocess;
pub mod presets;
mod reference;
mod rng;
pub mod shortest;
mod source;
mod sources;
mod split;
mod thumbnail;
pub mod transforms;

pub use augment::{Augment, Policy};
pub use batcher::{ImageBatch, ImageBatcher};
pub use dataset::ImageDataset;
pub use error::DataError;
pub use image::Image;
pub use loader::{
    Batch, CacheBudget, Epoch, Loader, LoaderConfig, Mixed, Share, label_tensor, parts,
};
pub use pipeline::Pipeline;
pub use preprocess::Preprocess;
pub use reference::{DataRef, Layout, is_data_set, open, open_pair};
pub use source::{Sample, Source};
pub use sources::files::{holds_images, image_files_below, is_image_name};
pub use split::Split;
pub use thumbnail::Thumbnail;
