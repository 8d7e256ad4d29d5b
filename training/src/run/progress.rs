//! How far a run has come, and everything it remembers besides its tensors.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::classification::Classification;
use crate::error::{Error, Result};
use crate::run::directory::{CheckpointId, RunDir};
use crate::run::identity::Identity;
use crate::run::manifest;
use crate::run::metrics::{EpochRecord, Totals};
use crate::run::spikes::SpikeWatch;
use crate::run::steps::Steps;

/// How far a run has come, and everything it remembers besides its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done, and batches of the next one.
    pub mark: CheckpointId,
    /// Optimizer steps done.
    pub step: usize,
    /// Epoch with the highest validation top-1, from 1; 0 before the first.
    pub best_epoch: usize,
    /// Its top-1 in percent.
    pub best_top1: f64,
    /// Every epoch so far.
    pub records: Vec<EpochRecord>,
    /// What the last validation found.
    #[serde(default)]
    pub validation: Option<Classification>,
    /// Loss, learning rate and gradient norm by step.
    #[serde(default)]
    pub steps: Steps,
    /// The epoch under way.
    pub partial: PartialEpoch,
    /// Images that could not be read, each once.
    pub bad_samples: BTreeSet<String>,
    /// Recent losses.
    pub spikes: SpikeWatch,
    /// Rollbacks after a non-finite loss or gradient.
    pub rollbacks: usize,
    /// What must not change when the run is resumed.
    pub identity: Identity,
    /// Parameters that the optimizer holds a state for.
    pub optimizer_states: usize,
}

/// Counts of an unfinished epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartialEpoch {
    /// Training loss and top-1.
    pub totals: Totals,
    /// Images left out because they could not be read.
    pub skipped: usize,
    /// Loss spikes.
    pub spikes: usize,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Seconds of training.
    pub seconds: f64,
    /// Those of them in which it waited for the loader.
    #[serde(default)]
    pub loader_seconds: f64,
}

impl Progress {
    /// A run that has not begun.
    pub fn new(identity: Identity) -> Self {
        Self {
            mark: CheckpointId::default(),
            step: 0,
            best_epoch: 0,
            best_top1: 0.0,
            records: Vec::new(),
            validation: None,
            steps: Steps::default(),
            partial: PartialEpoch::default(),
            bad_samples: BTreeSet::new(),
            spikes: SpikeWatch::default(),
            rollbacks: 0,
            identity,
            optimizer_states: 0,
        }
    }

    /// Adds the record of an epoch, and what its validation found.
    pub fn add(&mut self, record: EpochRecord, validation: Classification) {
        if self.best_epoch == 0 || record.top1 > self.best_top1 {
            self.best_epoch = record.epoch;
            self.best_top1 = record.top1;
        }
        self.records.push(record);
        self.validation = Some(validation);
    }
}

/// The progress a checkpoint was saved with, after every byte of the checkpoint has been checked.
///
/// # Errors
/// If it is damaged, or cannot be read or understood.
pub fn read_progress(checkpoint: &Path) -> Result<Progress> {
    let fail = |reason: String| Error::Checkpoint { path: checkpoint.into(), reason };
    manifest::verify(checkpoint).map_err(fail)?;
    let text = fs::read_to_string(RunDir::state(checkpoint)).map_err(|e| fail(e.to_string()))?;
    let progress: Progress =
        serde_json::from_str(&text).map_err(|e| fail(format!("its state.json: {e}")))?;
    let name = checkpoint.file_name().and_then(|name| name.to_str()?.parse().ok());
    if name != Some(progress.mark) || progress.records.len() != progress.mark.epoch {
        return Err(fail("its state.json is that of another checkpoint".into()));
    }
    Ok(progress)
}
