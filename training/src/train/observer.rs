//! Observers of a run.

use dbb_models::ModelConfig;
use serde::{Deserialize, Serialize};

use crate::run::metrics::EpochRecord;

/// Is notified of the events of a run, to draw progress bars, print lines, or do nothing.
pub trait Observer {
    /// Training begins or resumes.
    fn started(&mut self, _info: &RunInfo) {}
    /// A step is done.
    fn step(&mut self, _step: &Step) {}
    /// An image could not be read and was left out; called once for each.
    fn skipped(&mut self, _reason: &str) {}
    /// Something a user should know and need not act on.
    fn note(&mut self, _text: &str) {}
    /// An epoch is done and validated.
    fn epoch(&mut self, _record: &EpochRecord) {}
}

/// An observer that ignores everything.
pub struct Silent;

impl Observer for Silent {}

/// Facts about a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunInfo {
    /// The network.
    pub model: ModelConfig,
    /// Training data in a line.
    pub train_data: String,
    /// Validation data in a line.
    pub val_data: String,
    /// Learnable parameters.
    pub params_train: usize,
    /// Steps of the optimizer in an epoch.
    pub steps_per_epoch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Epochs done before, when resumed.
    pub done: usize,
    /// Steps done of the epoch that follows them, when resumed.
    pub done_steps: usize,
}

/// A step as it has just been done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Step within the epoch, from 1.
    pub step: usize,
    /// Step within the run, from 1.
    pub run_step: usize,
    /// Learning rate.
    pub lr: f64,
    /// Mean loss of the images of this step.
    pub step_loss: f64,
    /// Euclidean norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Top-1 of the epoch so far, percent.
    pub top1: f64,
    /// Images of the epoch so far.
    pub images: usize,
    /// Images per second of the epoch so far.
    pub images_per_second: f64,
}
