//! What a run writes to disk, and how it returns to a checkpoint.

use std::time::{Duration, Instant};

use dbb_models::weights::{Metadata, write_safetensors};
use dbb_models::{Form, Reparameterize};

use super::Trainer;
use crate::error::{Error, Result};
use crate::inference::loaded_model::key_map;
use crate::run::directory::CheckpointId;
use crate::run::tensorboard::TensorBoard;
use crate::train::checkpoint::{self, RunState};
use crate::train::observer::Observer;
use crate::train::optimizer::Optimizer;

impl Trainer {
    /// Whether a checkpoint within the epoch is due. Not at its last step: the end of the epoch is
    /// saved anyway.
    pub(super) fn is_save_due(&self) -> bool {
        let (train, progress) = (&self.config.train, &self.state.progress);
        let by_steps = train.checkpoint_steps.is_some_and(|n| progress.step.is_multiple_of(n));
        let by_time = train.checkpoint_minutes.is_some_and(|minutes| {
            self.saved.1.elapsed() >= Duration::from_secs_f64(minutes * 60.0)
        });
        (by_steps || by_time) && progress.mark.batch < self.train.batches_per_epoch()
    }

    pub(super) fn save(&mut self) -> Result<()> {
        if self.saved.0 != Some(self.state.progress.mark) {
            let keep_last = self.config.train.keep_last;
            let saved = match self.ranks.is_first() {
                true => checkpoint::save(&self.run, &mut self.state, &self.metadata, keep_last),
                false => Ok(()),
            };
            self.ranks.agree(saved)?;
        }
        self.saved = (Some(self.state.progress.mark), Instant::now());
        Ok(())
    }

    /// Ends a saved run that was asked to stop.
    pub(super) fn leave_if_asked(&self) -> Result<()> {
        let Some(signal) = self.asked else { return Ok(()) };
        let checkpoint = self.run.checkpoint(self.state.progress.mark);
        Err(Error::Interrupted { signal, run: self.run.root().into(), checkpoint })
    }

    /// Returns to the newest checkpoint, or to the beginning, to continue with a lower learning
    /// rate.
    pub(super) fn roll_back(&mut self, error: &Error, observer: &mut dyn Observer) -> Result<()> {
        let rollbacks = self.state.progress.rollbacks + 1;
        // Another machine may not see yet what the first rank has written.
        let newest = self.run.checkpoint_ids()?.last().copied();
        let newest = self.ranks.gather(newest)?.swap_remove(0);
        let place = match newest {
            Some(mark) => {
                let restored = self.restore(mark).map(Box::new);
                self.state = *self.ranks.agree(restored)?;
                self.run.checkpoint(mark).display().to_string()
            }
            None => {
                self.state = self.fresh()?;
                self.begin()?;
                "the beginning".to_string()
            }
        };
        self.state.progress.rollbacks = rollbacks;
        observer.note(&format!(
            "{error}; rollback {rollbacks} of {}: resuming from {place} with {} times the learning rate",
            self.config.train.rollbacks,
            self.config.train.rollback_lr.powi(rollbacks as i32)
        ));
        Ok(())
    }

    /// The event file of a rank that writes.
    pub(super) fn open_board(&self, done: usize) -> Result<Option<TensorBoard>> {
        let open = || TensorBoard::open(&self.run.tensorboard(), done);
        Ok(self.ranks.is_first().then(open).transpose()?)
    }

    pub(super) fn write_metrics(&self) -> Result<()> {
        if !self.ranks.is_first() {
            return Ok(());
        }
        let records = &self.state.progress.records;
        // Plain data always serialises.
        let line = |record| serde_json::to_string(record).expect("a record is plain data") + "\n";
        let lines: String = records.iter().map(line).collect();
        Ok(self.run.write(&self.run.metrics(), &lines)?)
    }

    /// Writes the folded weights, in native names, with the metadata to rebuild the network.
    pub(super) fn export(&self) -> Result<()> {
        if !self.ranks.is_first() {
            return Ok(());
        }
        let deploy = self.network().reparameterize();
        let metadata = Metadata { form: Form::Deploy, ..self.metadata.clone() };
        let tensors = key_map(&metadata, &deploy)?.save(&deploy);
        Ok(write_safetensors(&self.run.deploy_weights(), &tensors, &metadata)?)
    }

    /// The state of a checkpoint.
    pub(super) fn restore(&mut self, mark: CheckpointId) -> Result<RunState> {
        let fresh = self.fresh()?;
        let optimizer = |network: &_| Optimizer::new(&self.config.optim, network);
        let checkpoint = self.run.checkpoint(mark);
        let restored = checkpoint::restore(&checkpoint, fresh, optimizer);
        self.saved.0 = Some(mark);
        restored.map_err(|error| match (error, self.run.checkpoint_ids()) {
            (Error::Checkpoint { path, reason }, Ok(marks)) if marks.len() > 1 => {
                let other = self.run.checkpoint(marks[marks.len() - 2]);
                let hint = format!("{reason}; hint: remove it to resume from {}", other.display());
                Error::Checkpoint { path, reason: hint }
            }
            (error, _) => error,
        })
    }
}
