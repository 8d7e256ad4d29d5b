//! ResNets and MobileNets with Diverse Branch Blocks (DBB, Ding et al., CVPR 2021) for Burn.
//!
//! A Diverse Branch Block trains a KxK convolution as four parallel branches, which fold exactly into
//! one convolution afterwards. This crate holds the algebra of the fold, the blocks, the networks, and
//! the reading and writing of weights.
//!
//! | to | look at |
//! |---|---|
//! | put blocks into a network of your own | [`blocks::ConvUnit`], [`blocks::ConvSpec`] |
//! | fold a network | [`Reparameterize`](trait@Reparameterize) and its derive |
//! | make a network of the zoo | [`ModelConfig`], [`Arch`], [`BlockKind`], [`Classifier`] |
//! | get stage maps, sizes or ONNX of a network | [`Walk`], [`summary`], [`onnx`] |
//! | read, write and rename weights | [`weights`] |
//! | start from the weights of a plain network | [`ModelConfig::warm_start`] |
//! | freeze layers | [`ModelConfig::freeze`] |
//! | measure what 8-bit weights cost | [`quantize`] |
//! | spread a batch over processes, with the batch statistics of all | [`WholeBatch`] |
//! | step along a gradient, in one pass on a CPU | [`descent`] |
//! | choose CPU kernels or the definition | [`Implementation`] |
//! | read the equations | [`algebra`] |
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use dbb_models::{Arch, BlockKind, Form, ModelConfig, Reparameterize};
//!
//! # fn main() -> Result<(), dbb_models::ConfigError> {
//! let device = Device::default();
//! let config = ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Dbb, 10) };
//! let network = config.init(Form::Train, &device)?;
//! let deploy = network.reparameterize();
//! let logits = deploy.forward(Tensor::zeros([1, 3, 32, 32], &device));
//! assert_eq!(logits.dims(), [1, 10]);
//! # Ok(())
//! # }
//! ```
//!
//! A file of this project rebuilds its network by itself; load, fold, run:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use dbb_models::weights::{LoadOptions, WeightsError, WeightsFile, rebuild};
//! use dbb_models::Reparameterize;
//!
//! fn logits(path: &std::path::Path, images: Tensor<4>) -> Result<Option<Tensor<2>>, WeightsError> {
//!     let file = WeightsFile::read(path)?;
//!     // Files of other programs have no metadata; `weights::adopt` takes a `ModelConfig` instead.
//!     let Some(metadata) = &file.metadata else { return Ok(None) };
//!     let network = rebuild(&file, metadata, LoadOptions::default(), &images.device())?;
//!     Ok(Some(network.reparameterize().forward(images)))
//! }
//! # use dbb_models::{Arch, BlockKind, Form, ModelConfig};
//! # use dbb_models::weights::{Dialect, KeyMap, Metadata, write_safetensors};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let device = Device::default();
//! # let model = ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Dbb, 10) };
//! # let network = model.init(Form::Train, &device)?;
//! # let tensors = KeyMap::new(Dialect::Native, &model, &network)?.save(&network);
//! # let (form, keys, preprocess) = (Form::Train, Dialect::Native, Default::default());
//! # let metadata = Metadata { model, form, keys, preprocess, classes: Vec::new() };
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("network.safetensors");
//! # write_safetensors(&path, &tensors, &metadata)?;
//! # let images = Tensor::ones([1, 3, 32, 32], &device);
//! # let expected = network.forward(images.clone());
//! # let logits = logits(&path, images)?.expect("our own file");
//! # let largest = |values: Tensor<2>| values.abs().max().into_scalar::<f32>();
//! # assert!(largest(logits - expected.clone()) < 1e-4 * largest(expected));
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// The derive writes paths that begin with the name of this crate.
extern crate self as dbb_models;

pub mod algebra;
pub mod backbones;
pub mod blocks;
mod by_layer;
mod cpu_ops;
pub mod descent;
mod dialects;
mod error;
mod form;
mod freeze;
mod implementation;
mod layer_path;
mod layer_pattern;
mod layers;
mod model_config;
mod names;
pub mod onnx;
mod operators;
pub mod quantize;
mod reparam;
mod state_dict;
pub mod summary;
pub mod walk;
mod warm_start;
pub mod weights;
mod whole_batch;

pub use backbones::{Arch, Classifier};
pub use blocks::BlockKind;
pub use by_layer::{ByLayer, LayerBlocks};
/// Where the time of a thread goes, by layer and by kind of work.
pub use dbb_kernels::profile;
/// The vector instructions of the CPU kernels.
#[cfg(feature = "flex")]
pub use dbb_kernels::{InstructionSet, InstructionSetError};
pub use error::ConfigError;
pub use form::Form;
pub use implementation::{Implementation, LayerCount};
pub use layer_path::LayerPath;
pub use model_config::ModelConfig;
pub use reparam::Reparameterize;
pub use walk::Walk;
pub use warm_start::WarmStart;
pub use whole_batch::{GroupSum, WholeBatch};
