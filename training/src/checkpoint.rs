//! What a run is saved as and resumed from.

use std::fs;
use std::path::Path;

use burn::store::{BurnpackStore, ModuleSnapshot};
use dbb_models::Classifier;
use dbb_models::weights::{Metadata, write_atomically, write_burnpack};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::metrics::EpochRecord;
use crate::optim::Optimizer;
use crate::run_dir::RunDir;

/// How far a run has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done.
    pub epoch: usize,
    /// Optimizer steps done.
    pub step: usize,
    /// Epoch with the highest validation top-1, from 1; 0 before the first.
    pub best_epoch: usize,
    /// Its top-1 in percent.
    pub best_top1: f64,
    /// Every epoch so far.
    pub records: Vec<EpochRecord>,
    /// Parameters that the optimizer holds a state for.
    pub optimizer_states: usize,
}

/// Saves network, optimizer and progress, whole or not at all; keeps the best checkpoint beside
/// the newest.
///
/// # Errors
/// What the file system reports; earlier checkpoints are left as they were.
pub fn save(
    run: &RunDir,
    network: &Classifier,
    metadata: &Metadata,
    optimizer: &Optimizer,
    progress: &mut Progress,
) -> Result<()> {
    let record = optimizer.inner.to_record();
    progress.optimizer_states = record.len();
    run.save_checkpoint(progress.epoch, &[progress.best_epoch], |folder| {
        write_burnpack(&RunDir::network(folder), network, metadata)?;
        let bytes = record.into_bytes().map_err(|e| Error::Unusable(e.to_string()))?;
        write_atomically(&RunDir::optimizer(folder), &bytes)?;
        // Plain data always serialises.
        let json = serde_json::to_string_pretty(progress).expect("progress is plain data");
        write_atomically(&RunDir::state(folder), json.as_bytes())?;
        Ok(())
    })
}

/// Restores what [`save`] saved: weights with the identities of their parameters, so that every
/// momentum finds its parameter again. `optimizer` makes a fresh one for the restored network: its
/// rules go by these identities, too.
///
/// # Errors
/// A checkpoint that is incomplete, damaged, or of another network.
pub fn restore(
    checkpoint: &Path,
    mut network: Classifier,
    optimizer: impl FnOnce(&Classifier) -> Optimizer,
) -> Result<(Classifier, Optimizer, Progress)> {
    let fail = |reason: String| Error::Resume { path: checkpoint.into(), reason };
    let progress = read_progress(checkpoint)?;
    let epoch = checkpoint.file_name().and_then(|name| name.to_str()?.parse().ok());
    if epoch != Some(progress.epoch) || progress.records.len() != progress.epoch {
        let reason = "its progress is that of another checkpoint".to_string();
        return Err(Error::Resume { path: RunDir::state(checkpoint), reason });
    }
    let mut store = BurnpackStore::from_file(RunDir::network(checkpoint));
    let loaded = network.load_from(&mut store).map_err(|e| fail(e.to_string()))?;
    if loaded.applied.is_empty() || !loaded.missing.is_empty() {
        return Err(fail("its network is another one than the configuration's".into()));
    }
    let mut optimizer = optimizer(&network);
    let inner = optimizer.inner.load(RunDir::optimizer(checkpoint));
    optimizer.inner = inner.map_err(|e| fail(e.to_string()))?;
    // Burn passes over states it cannot read.
    if optimizer.inner.to_record().len() != progress.optimizer_states {
        return Err(fail("its optimizer state is incomplete or of another optimizer".into()));
    }
    Ok((network, optimizer, progress))
}

/// The progress a checkpoint was saved with.
///
/// # Errors
/// If it cannot be read or understood.
pub fn read_progress(checkpoint: &Path) -> Result<Progress> {
    let path = RunDir::state(checkpoint);
    let fail = |reason: String| Error::Resume { path: path.clone(), reason };
    let text = fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| fail(e.to_string()))
}
