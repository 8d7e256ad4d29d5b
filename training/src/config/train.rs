//! `[train]`: how long and in which steps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BatchSize;
use super::check::{ABOVE_0_BELOW_1, FROM_0_BELOW_1, Fault, require, require_positive};

/// Epochs, batches, checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Passes over the training images, up to 1,000,000.
    pub epochs: usize,
    /// Images in a batch, or `"auto"`: the largest number that is estimated to fit into
    /// `train.memory_mb`.
    pub batch_size: BatchSize,
    /// MiB of memory that training and validation may take; a run whose estimate is above four fifths of
    /// it is refused. By default that is what the machine can give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<usize>,
    /// Part of the target that is spread over all classes, from 0 to below 1.
    #[serde(default)]
    pub label_smoothing: f64,
    /// End the run when the validation top-1 of the folded network has not risen for so many epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Percentage points that top-1 must rise by to count as risen, for `patience`.
    #[serde(default)]
    pub min_delta: f64,
    /// End the run when it has trained and validated for so many minutes, up to a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_minutes: Option<f64>,
    /// Batches whose gradients are accumulated for one step of the optimizer, up to 1,000,000.
    #[serde(default = "one_of")]
    pub accumulate: usize,
    /// Batch statistics of the whole batch rather than of each rank's part, where several ranks train
    /// together.
    #[serde(default)]
    pub sync_batch_norm: bool,
    /// Largest Euclidean norm of all gradients together; larger ones are scaled down to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Decay of an exponential moving average of weights and running statistics, such as 0.999, which
    /// is then validated and exported. By default there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Save a checkpoint every so many steps, besides the ends of epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<usize>,
    /// Save a checkpoint every so many minutes, up to a year, besides the ends of epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_minutes: Option<f64>,
    /// Number of newest checkpoints to keep, besides the best.
    #[serde(default = "one_of")]
    pub keep_last: usize,
    /// How often a non-finite loss or gradient may roll the run back to its last checkpoint; 0 ends
    /// the run.
    #[serde(default)]
    pub rollbacks: usize,
    /// Factor on the learning rate after each rollback.
    #[serde(default = "half")]
    pub rollback_lr: f64,
    /// Layers to freeze, by pattern, their batch norms included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
}

/// Most epochs, and most batches of a step: their products with the number of images stay countable.
const MOST: usize = 1_000_000;

/// Longest time that a key may have.
const MINUTES_OF_A_YEAR: f64 = 525_600.0;

fn one_of() -> usize {
    1
}

pub(super) fn half() -> f64 {
    0.5
}

impl TrainSection {
    /// Checks the ranges of the keys.
    pub(super) fn check(&self) -> Result<(), Fault> {
        for (key, value) in [("train.epochs", self.epochs), ("train.accumulate", self.accumulate)] {
            let expected = format!("1 to {MOST}");
            require((1..=MOST).contains(&value), key, &value, &expected)?;
        }
        let images = self.batch_size.images();
        require(
            images.is_none_or(|images| images > 1),
            "train.batch_size",
            &self.batch_size,
            "at least 2",
        )?;
        require(self.memory_mb != Some(0), "train.memory_mb", &0, "at least 1")?;
        if self.batch_size == BatchSize::Auto && self.memory_mb.is_none() {
            let text = "auto needs train.memory_mb, the MiB of memory that the run may take";
            return Err(Fault { key: "train.batch_size".into(), text: text.into() });
        }
        let smoothing = self.label_smoothing;
        require(
            (0.0..1.0).contains(&smoothing),
            "train.label_smoothing",
            &smoothing,
            FROM_0_BELOW_1,
        )?;
        require(self.patience != Some(0), "train.patience", &0, "at least 1")?;
        let delta = self.min_delta;
        let inside = (0.0..100.0).contains(&delta);
        require(inside, "train.min_delta", &delta, "at least 0 and below 100, percentage points")?;
        require(self.keep_last > 0, "train.keep_last", &0, "at least 1")?;
        require(self.checkpoint_steps != Some(0), "train.checkpoint_steps", &0, "at least 1")?;
        if let Some(norm) = self.clip_norm {
            require_positive("train.clip_norm", norm)?;
        }
        if let Some(decay) = self.ema {
            let inside = decay > 0.0 && decay < 1.0;
            require(inside, "train.ema", &decay, ABOVE_0_BELOW_1)?;
        }
        for (key, minutes) in [
            ("train.checkpoint_minutes", self.checkpoint_minutes),
            ("train.max_minutes", self.max_minutes),
        ] {
            let Some(minutes) = minutes else { continue };
            let inside = minutes > 0.0 && minutes <= MINUTES_OF_A_YEAR;
            let expected = format!("above 0 and up to {MINUTES_OF_A_YEAR}, a year");
            require(inside, key, &minutes, &expected)?;
        }
        let factor = self.rollback_lr;
        require(factor > 0.0 && factor < 1.0, "train.rollback_lr", &factor, ABOVE_0_BELOW_1)
    }

    /// The key that may end a run before its last epoch, if one is set.
    pub fn early_end(&self) -> Option<&'static str> {
        let patience = self.patience.map(|_| "train.patience");
        patience.or(self.max_minutes.map(|_| "train.max_minutes"))
    }
}
