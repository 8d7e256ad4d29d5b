//! Training, evaluation, folding and comparison of the networks of [`dbb_models`] on the data of
//! [`dbb_datasets`]; the program `dbb` is a thin layer over this library.

pub mod checkpoint;
pub mod cli;
pub mod compare;
pub mod config;
pub mod device;
pub mod engine;
mod error;
pub mod evaluate;
pub mod fold;
pub mod metrics;
pub mod optim;
pub mod run_dir;
pub mod schedule;
pub mod target;

pub use error::{Error, Result};

use burn::module::Module;
use burn::tensor::Device;

/// The device a network is on.
pub(crate) fn network_device(network: &dbb_models::Classifier) -> Device {
    network.devices().into_iter().next().unwrap_or_default()
}
