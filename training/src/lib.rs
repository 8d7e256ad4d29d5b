//! Training, evaluation, folding and comparison of the networks of [`dbb_models`] on the data of
//! [`dbb_datasets`]; the program `dbb` is a thin layer over this library.
//!
//! ```no_run
//! use dbb_training::{config::Config, engine::Trainer, observer::Silent, run_dir::RunDir};
//!
//! # fn main() -> dbb_training::Result<()> {
//! let overrides = ["train.epochs=1".to_string()];
//! let config = Config::load("configs/quick/resnet20-dbb.toml".as_ref(), &overrides)?;
//! let device = dbb_training::device::open("flex")?;
//! let result = Trainer::new(config, RunDir::new("runs/first"), &device)?.fit(&mut Silent)?;
//! println!("{:.2} % after folding, weights in {}", result.top1, result.run_dir.display());
//! # Ok(())
//! # }
//! ```

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod compare;
pub mod config;
pub mod device;
pub mod distributed;
pub mod ema;
pub mod engine;
mod error;
pub mod evaluate;
pub mod fold;
pub mod gradients;
pub mod identity;
pub mod input;
pub mod labels;
pub mod manifest;
pub mod metrics;
pub mod observer;
pub mod optim;
pub mod predict;
pub mod probe;
pub mod recalibrate;
pub mod report;
pub mod rounding;
pub mod run_dir;
pub mod schedule;
pub mod spikes;
pub mod start;
pub mod stop;
pub mod stored;
pub mod target;
pub mod tensorboard;
pub mod timm_folder;

pub use error::{Error, Result};

use burn::module::Module;
use burn::tensor::Device;

/// The device a network is on.
pub(crate) fn network_device(network: &dbb_models::Classifier) -> Device {
    network.devices().into_iter().next().unwrap_or_default()
}
