//! The training loop: a run from its first epoch to its folded weights. `plan` is what configuration and
//! data decide, `need` the memory of that; `begin` starts or resumes a run, `facts` are what ranks must
//! agree on; `step` is one step of the optimizer, `save` writes checkpoints, metrics and results,
//! `reporting` collects what the report shows. `range_test` trains a few steps with a rising learning
//! rate instead, `forecast` a few that are thrown away.

mod begin;
mod facts;
mod forecast;
mod need;
mod plan;
mod range_test;
mod reporting;
mod save;
mod step;

pub use forecast::{DiskForecast, Forecast, MemoryForecast, TimeForecast};
pub use plan::check;
pub use range_test::RangeTest;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use dbb_datasets::{Batch, Loader, Thumbnail};
use dbb_models::summary::Summary;
use dbb_models::weights::Metadata;
use dbb_models::{Classifier, ModelConfig, Reparameterize};
use serde::Serialize;

use crate::cancel::CancelToken;
use crate::classification::Classification;
use crate::config::Config;
use crate::deploy::fold::LogitDifference;
use crate::error::{Error, Result};
use crate::inference::evaluate::{any_image, evaluate_part};
use crate::inference::pictures::Picture;
use crate::report::{self, State};
use crate::run::directory::{CheckpointId, RunDir};
use crate::run::lock::Lock;
use crate::run::metrics::{EpochRecord, Totals};
use crate::run::progress::PartialEpoch;
use crate::run::tensorboard::TensorBoard;
use crate::text::displayed;
use crate::train::checkpoint::RunState;
use crate::train::ending::{EarlyEnd, Ending};
use crate::train::group::Ranks;
use crate::train::group::devices::Group;
use crate::train::observer::{Observer, RunInfo};
use crate::train::schedule::Schedule;

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct TrainResult {
    /// The run directory.
    #[serde(serialize_with = "displayed")]
    pub run_dir: PathBuf,
    /// Epochs done.
    pub epochs: usize,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// Validation top-1 of the folded network after the last epoch, percent; `top1` in JSON.
    #[serde(rename = "top1")]
    pub top1_deploy: f64,
    /// Validation top-5 of the folded network after the last epoch, percent; `top5` in JSON.
    #[serde(rename = "top5")]
    pub top5_deploy: f64,
    /// Highest validation top-1 of the folded network, percent; `best_top1` in JSON.
    #[serde(rename = "best_top1")]
    pub best_top1_deploy: f64,
    /// Seconds of all epochs.
    pub seconds: f64,
    /// Training images per second, validation not counted.
    pub images_per_second: f64,
    /// Why the run ended before its last epoch; absent if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EarlyEnd>,
}

/// A run: network, data, optimizer and how far it has come.
pub struct Trainer {
    config: Config,
    model: ModelConfig,
    metadata: Metadata,
    summary: Summary,
    env: serde_json::Value,
    device: Device,
    ranks: Ranks,
    /// Further devices that share every batch.
    group: Option<Group>,
    train: Loader,
    val: Loader,
    state: RunState,
    /// The newest checkpoint, and when it was saved.
    saved: (Option<CheckpointId>, Instant),
    /// Steps, memory and disk in a sentence.
    outline: String,
    notes: Vec<String>,
    /// Seconds of the first steps of this process.
    pace: Vec<f64>,
    stop: CancelToken,
    /// The signal that stops the run, once all ranks know it.
    asked: Option<usize>,
    /// For the report: the first training batch, and the worst mistakes of the last validation.
    batch: Vec<(Thumbnail, String)>,
    mistakes: Vec<Picture>,
    /// When the report was written.
    reported: Instant,
    run: RunDir,
    /// Of the rank that writes.
    lock: Option<Lock>,
}

/// The validation of all ranks.
struct Validation {
    totals: Totals,
    /// Confused classes, calibration, worst mistakes.
    classification: Classification,
    /// Why images were left out.
    skipped: Vec<String>,
    /// Largest difference of logits to the training form, on the first batch of the first rank.
    fold_max_rel_diff: f64,
}

impl Trainer {
    /// Trains on several devices; the first must be the one the trainer was created with.
    ///
    /// # Errors
    /// If batch norm is to be synchronised, which ranks alone can.
    pub fn train_on(&mut self, devices: &[Device]) -> Result<()> {
        if devices.len() > 1 && self.config.train.sync_batch_norm {
            let text = "train.sync_batch_norm is for ranks of MPI: devices of one process normalise \
                        each part by its own statistics; leave the key out";
            return Err(Error::Unusable(text.into()));
        }
        let smoothing = self.config.train.label_smoothing;
        let forward = move |network: &Classifier, batch: &Batch, device: &Device| {
            step::forward(network, batch, device, smoothing)
        };
        self.group = (devices.len() > 1).then(|| Group::new(devices, Arc::new(forward)));
        Ok(())
    }

    /// Lets a run be stopped from outside the loop.
    pub fn stop_on(&mut self, stop: CancelToken) {
        self.stop = stop;
    }

    /// Facts about this run.
    pub fn info(&self) -> RunInfo {
        let accumulate = self.config.train.accumulate;
        let mark = self.state.progress.mark;
        RunInfo {
            model: self.model.clone(),
            train_data: self.train.dataset().describe(),
            val_data: self.val.dataset().describe(),
            params_train: self.summary.params_train,
            steps_per_epoch: self.train.batches_per_epoch().div_ceil(accumulate),
            epochs: self.config.train.epochs,
            done: mark.epoch,
            done_steps: mark.batch.div_ceil(accumulate),
        }
    }

    /// Images in a batch, found or given.
    pub fn batch_size(&self) -> usize {
        self.train.batch_size()
    }

    /// The network that is validated and exported, in training form on the inference device: the
    /// moving average if the run keeps one.
    pub fn network(&self) -> Classifier {
        match &self.state.ema {
            Some(ema) => ema.network.clone(),
            None => self.state.network.valid(),
        }
    }

    /// The validation images.
    pub fn validation(&self) -> &Loader {
        &self.val
    }

    /// Trains to the end and writes the folded weights. A checkpoint is saved after every epoch
    /// and as often as the configuration says; the run's report is rewritten then, and every half
    /// minute.
    ///
    /// # Errors
    /// An image or the disk; a non-finite loss or gradient; a request to stop, once the run is
    /// saved.
    pub fn fit(&mut self, observer: &mut dyn Observer) -> Result<TrainResult> {
        let outcome = self.all_epochs(observer);
        if let Err(error) = &outcome {
            // What ended the run is the error to return, whether or not the report can be written.
            self.write_report(&State::Stopped(error.to_string())).ok();
        }
        outcome
    }

    fn all_epochs(&mut self, observer: &mut dyn Observer) -> Result<TrainResult> {
        observer.started(&self.info());
        observer.note(&self.outline);
        self.notes.iter().for_each(|note| observer.note(note));
        // The notes of ranks may differ: the first decides.
        let from_weights = !self.notes.is_empty() && self.state.progress.step == 0;
        if self.ranks.gather(from_weights)?[0]
            && let Some(before) = self.validate()?
        {
            let (top1, loss) = (before.totals.top1(), before.totals.loss());
            observer.note(&format!("before training: top-1 {top1:.2}%, loss {loss:.4}"));
        }
        self.write_metrics()?;
        self.picture_batch();
        self.picture_mistakes();
        self.write_report(&State::Running)?;
        let mut board = self.open_board(self.state.progress.step)?;
        let Config { schedule, optim, train, .. } = &self.config;
        let schedule = Schedule::new(schedule, optim, train.epochs, self.info().steps_per_epoch);
        self.saved.1 = Instant::now();
        while self.ending() == Ending::NotYet {
            match self.epoch(&schedule, &mut board, observer) {
                Err(error @ Error::NonFinite { .. })
                    if self.state.progress.rollbacks < self.config.train.rollbacks =>
                {
                    self.roll_back(&error, observer)?;
                    self.picture_mistakes();
                    board = self.open_board(self.state.progress.step)?;
                }
                outcome => outcome?,
            }
        }
        if let Ending::Early(why) = self.ending() {
            if self.state.progress.partial.totals.images() > 0 {
                self.end_within_epoch(&mut board, observer)?;
            }
            observer.note(&why.describe(&self.config.train, &self.state.progress));
        }
        self.note_doubts(observer);
        self.export()?;
        self.write_report(&State::Finished)?;
        Ok(self.result())
    }

    /// Tells of running statistics that may not fit.
    fn note_doubts(&self, observer: &mut dyn Observer) {
        let Some(last) = self.state.progress.records.last() else { return };
        if last.doubts_running_statistics(self.metadata.classes.len()) {
            observer.note(&format!(
                "validation is far behind training (top-1 {:.2}% and {:.2}%, loss {:.4} and {:.4}): the running \
                 statistics of the batch norms may not fit the weights; hint: `dbb recalibrate` replaces them, and tells \
                 what that changes",
                last.top1,
                last.train_top1,
                last.val_loss,
                last.train_loss
            ));
        }
    }

    /// Whether the run has ended, as far as it has come.
    fn ending(&self) -> Ending {
        Ending::of(&self.config.train, &self.state.progress)
    }

    /// Trains the rest of an epoch, and ends it.
    fn epoch(
        &mut self,
        schedule: &Schedule,
        board: &mut Option<TensorBoard>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let CheckpointId { epoch, batch } = self.state.progress.mark;
        let mut batches = self.train.epoch_from(epoch as u64, batch);
        while batches.len() > 0 {
            self.step(&mut batches, schedule, board, observer)?;
            let seconds = self.state.progress.partial.seconds;
            let said = self.ranks.gather((self.stop.requested(), self.is_save_due(), seconds))?;
            self.asked = said.iter().find_map(|(signal, ..)| *signal);
            // The clocks of ranks differ: that of the first counts.
            let (_, is_save_due, seconds) = said[0];
            self.state.progress.partial.seconds = seconds;
            if self.asked.is_some() || is_save_due {
                self.save()?;
            }
            self.leave_if_asked()?;
            // The last step of an epoch is followed by its end.
            if batches.len() > 0 && self.ending() != Ending::NotYet {
                return Ok(());
            }
            if self.reported.elapsed() > report::INTERVAL {
                self.write_report(&State::Running)?;
            }
        }
        self.end_epoch(board, observer)
    }

    /// Saves a run that ends within an epoch, so that it can be resumed there, and validates it. The
    /// record of the part of the epoch is in the metrics and not in the checkpoint: a resumed run
    /// replaces it by that of the whole epoch.
    fn end_within_epoch(
        &mut self,
        board: &mut Option<TensorBoard>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        self.save()?;
        let Some((record, validation)) = self.validated_epoch(observer)? else {
            return self.leave_if_asked();
        };
        self.state.progress.add(record.clone(), validation);
        self.picture_mistakes();
        if let Some(board) = board {
            board.epoch(&record)?;
        }
        self.write_metrics()?;
        observer.epoch(&record);
        Ok(())
    }

    /// Validates, saves and reports an epoch whose batches are done.
    fn end_epoch(
        &mut self,
        board: &mut Option<TensorBoard>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Some((record, validation)) = self.validated_epoch(observer)? else {
            self.save()?;
            return self.leave_if_asked();
        };
        let progress = &mut self.state.progress;
        progress.add(record.clone(), validation);
        progress.partial = PartialEpoch::default();
        progress.mark = CheckpointId { epoch: record.epoch, batch: 0 };
        // Before the checkpoint: a resumed run voids what came after its own.
        if let Some(board) = board {
            board.epoch(&record)?;
        }
        self.save()?;
        self.write_metrics()?;
        self.picture_mistakes();
        self.write_report(&State::Running)?;
        observer.epoch(&record);
        match self.ending() {
            Ending::NotYet => {
                let asked = self.ranks.gather(self.stop.requested())?;
                self.asked = asked.into_iter().flatten().next();
                self.leave_if_asked()
            }
            _ => Ok(()),
        }
    }

    /// The record of the epoch under way, as far as it is trained, and what its validation finds;
    /// `None` if the run was asked to stop.
    fn validated_epoch(
        &mut self,
        observer: &mut dyn Observer,
    ) -> Result<Option<(EpochRecord, Classification)>> {
        let PartialEpoch { totals, seconds, loader_seconds, skipped, spikes, lr } =
            self.state.progress.partial;
        if totals.images() == 0 {
            let data = self.train.dataset().describe();
            return Err(Error::Unusable(format!("no image of {data} can be read")));
        }
        let started = Instant::now();
        let Some(validation) = self.validate()? else { return Ok(None) };
        self.left_out(&validation.skipped, observer)?;
        // No loss follows the last step of an epoch that would reveal it.
        if !validation.totals.loss().is_finite() {
            return Err(self.non_finite("validation loss", validation.totals.loss(), None));
        }
        // Of the first rank, as all times are.
        let validation_seconds = self.ranks.gather(started.elapsed().as_secs_f64())?[0];
        let progress = &self.state.progress;
        let record = EpochRecord {
            epoch: progress.mark.epoch + 1,
            step: progress.step,
            images: totals.images(),
            lr,
            train_loss: totals.loss(),
            train_top1: totals.top1(),
            val_loss: validation.totals.loss(),
            top1: validation.totals.top1(),
            top5: validation.totals.top5(),
            fold_max_rel_diff: validation.fold_max_rel_diff,
            images_per_second: totals.images() as f64 / seconds,
            seconds: seconds + validation_seconds,
            loader_seconds,
            validation_seconds,
            skipped: skipped + validation.skipped.len(),
            spikes,
        };
        Ok(Some((record, validation.classification)))
    }

    /// Evaluates a folded copy, every rank on its part, and compares it with the training form on the
    /// first batch. `None` if a rank was asked to stop.
    fn validate(&mut self) -> Result<Option<Validation>> {
        let train_form = self.network();
        let deploy = train_form.reparameterize();
        let device = self.device.clone().inner();
        let mut comparison = LogitDifference::default();
        let mut first = true;
        let evaluation = evaluate_part(&deploy, &self.val, &self.stop, |batch, logits| {
            if std::mem::take(&mut first) {
                let images: Tensor<4> = batch.to_tensors(&device).0;
                comparison.add(train_form.forward(images), logits.clone());
            }
        });
        let fold = comparison.max_rel_diff().to_bits();
        let (_, said) = self.ranks.agree_and_say(evaluation, |evaluation| match evaluation {
            None => Err(self.stop.requested()),
            Some(part) => {
                let skipped: Vec<_> = part.skipped.iter().map(ToString::to_string).collect();
                // Text holds no NaN: the run ends or rolls back where a loss is one.
                let is_finite = part.totals.loss().is_finite();
                let classification = is_finite.then(|| part.classification.clone());
                Ok((part.totals.exact(), classification.unwrap_or_default(), skipped, fold))
            }
        })?;
        let mut all = Validation {
            totals: Totals::default(),
            classification: Classification::default(),
            skipped: Vec::new(),
            fold_max_rel_diff: f64::NAN,
        };
        for (rank, part) in said.into_iter().enumerate() {
            match part {
                Err(signal) => {
                    self.asked = signal;
                    return Ok(None);
                }
                Ok((totals, classification, mut skipped, fold)) => {
                    all.totals.join(&Totals::from_exact(totals));
                    all.classification.join(&classification);
                    all.skipped.append(&mut skipped);
                    if rank == 0 {
                        all.fold_max_rel_diff = f64::from_bits(fold);
                    }
                }
            }
        }
        any_image(&all.totals, &self.val)?;
        Ok(Some(all))
    }

    fn result(&self) -> TrainResult {
        let records = &self.state.progress.records;
        // `fit` has run at least one epoch, now or before it was resumed.
        let last = records.last().expect("a finished run has an epoch");
        let images = |record: &EpochRecord| record.images as f64;
        let training: f64 = records.iter().map(|r| images(r) / r.images_per_second).sum();
        TrainResult {
            run_dir: self.run.root().into(),
            epochs: last.epoch,
            train_loss: last.train_loss,
            top1_deploy: last.top1,
            top5_deploy: last.top5,
            best_top1_deploy: self.state.progress.best_top1,
            seconds: records.iter().map(|record| record.seconds).sum(),
            images_per_second: records.iter().map(images).sum::<f64>() / training,
            ended_by: match self.ending() {
                Ending::Early(why) => Some(why),
                Ending::NotYet | Ending::Planned => None,
            },
        }
    }
}
