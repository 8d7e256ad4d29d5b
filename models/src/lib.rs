//! ResNets and MobileNets with Diverse Branch Blocks (DBB, Ding et al., CVPR 2021) for Burn.
//!
//! A Diverse Branch Block trains a KxK convolution as four parallel branches and folds, exactly,
//! into one convolution afterwards: better accuracy at no inference cost. This crate holds the
//! algebra of the fold, the blocks, the networks, the [`Reparameterize`] trait that folds a whole
//! network, and the reading and writing of weights.
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

// The derive writes paths that begin with the name of this crate.
extern crate self as dbb_models;

pub mod algebra;
pub mod backbones;
pub mod blocks;
mod error;
mod freeze;
mod fused;
mod implementation;
pub mod onnx;
pub mod quantize;
mod reparam;
pub mod summary;
mod warm_start;
pub mod weights;
mod zoo;

pub use blocks::BlockKind;
pub use error::ConfigError;
pub use implementation::{Implementation, LayerCount};
pub use reparam::Reparameterize;
pub use warm_start::WarmStart;
pub use zoo::{Arch, Classifier, Form, LayerBlocks, ModelConfig};
