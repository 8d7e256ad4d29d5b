//! The training loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use dbb_datasets::{
    Batch, DataError, Epoch, ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess,
};
use dbb_models::summary::Summary;
use dbb_models::weights::{Dialect, Metadata, write_safetensors};
use dbb_models::{Classifier, Form, ModelConfig, Reparameterize};
use serde::Serialize;

use crate::checkpoint::{self, PartialEpoch, Progress, RunState};
use crate::config::{Config, OnBadSample};
use crate::distributed::Group;
use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, cross_entropy, evaluate_until};
use crate::fold::Comparison;
use crate::gradients::{self, Accumulator};
use crate::identity::Identity;
use crate::metrics::{EpochRecord, host};
use crate::observer::{Observer, RunInfo, Step};
use crate::optim::Optimizer;
use crate::report::{self, State, Steps};
use crate::run_dir::{Lock, Mark, RunDir};
use crate::schedule::Schedule;
use crate::start;
use crate::stop::Stop;
use crate::target::key_map;
use crate::tensorboard::TensorBoard;

/// What `train` reports.
#[derive(Clone, Debug, Serialize)]
pub struct TrainResult {
    /// The run directory.
    pub run_dir: PathBuf,
    /// Epochs done.
    pub epochs: usize,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// Folded validation top-1 of the last epoch, percent.
    pub top1: f64,
    /// Folded validation top-5 of the last epoch, percent.
    pub top5: f64,
    /// Highest folded validation top-1, percent.
    pub best_top1: f64,
    /// Seconds of all epochs.
    pub seconds: f64,
    /// Training images per second, validation not counted.
    pub images_per_second: f64,
}

/// A run: network, data, optimizer and how far it has come.
pub struct Trainer {
    config: Config,
    model: ModelConfig,
    metadata: Metadata,
    summary: Summary,
    env: serde_json::Value,
    device: Device,
    /// Further devices that share every batch.
    group: Option<Group>,
    train: Loader,
    val: Loader,
    state: RunState,
    /// The newest checkpoint, and when it was saved.
    saved: (Option<Mark>, Instant),
    notes: Vec<String>,
    stop: Stop,
    steps: Steps,
    /// When the report was written.
    reported: Instant,
    run: RunDir,
    _lock: Lock,
}

impl Trainer {
    /// A new run in a directory that holds none, on an inference device.
    ///
    /// # Errors
    /// If the directory holds a run or is in use, the data cannot be read, or data and
    /// configuration disagree.
    pub fn new(config: Config, run: RunDir, device: &Device) -> Result<Self> {
        if run.exists() {
            return Err(Error::RunExists(run.root().into()));
        }
        let mut trainer = Self::prepare(config, run, device)?;
        trainer.begin()?;
        trainer.run.write(&trainer.run.config(), &trainer.config.to_toml())?;
        trainer.run.write(&trainer.run.env(), &format!("{:#}\n", trainer.env))?;
        Ok(trainer)
    }

    /// A run that goes on from its newest checkpoint, with its own configuration.
    ///
    /// A run is refused whose configuration or data are not those of its checkpoint. `force`
    /// accepts that, and `overrides`, `KEY=VALUE`, which need it.
    ///
    /// # Errors
    /// If there is no run, it is in use, its checkpoint is damaged or does not fit.
    pub fn resume(run: RunDir, device: &Device, force: bool, overrides: &[String]) -> Result<Self> {
        if !run.exists() {
            let text = format!("{} holds no run to resume (no config.toml)", run.root().display());
            return Err(Error::Unusable(text));
        }
        let config = Config::load(&run.config(), overrides)?;
        let mut trainer = Self::prepare(config, run, device)?;
        // A run that ended before its first checkpoint starts anew.
        let Some(&mark) = trainer.run.marks()?.last() else {
            trainer.begin()?;
            return Ok(trainer);
        };
        let now = trainer.state.progress.identity.clone();
        trainer.state = trainer.restore(mark)?;
        let identity = &mut trainer.state.progress.identity;
        let changes = identity.changes(&now);
        if !changes.is_empty() && !force {
            let path = trainer.run.checkpoint(mark);
            return Err(Error::Changed { path, changes });
        }
        let accepted = changes.into_iter().map(|change| format!("accepted: {change}"));
        let inexact = identity.notes(&now).into_iter().map(|change| {
            format!("{change}: the last bits may differ from those of a run that was not stopped")
        });
        trainer.notes.extend(accepted.chain(inexact));
        *identity = now;
        if !overrides.is_empty() {
            trainer.run.write(&trainer.run.config(), &trainer.config.to_toml())?;
        }
        Ok(trainer)
    }

    /// The run before its beginning.
    fn fresh(&self) -> Result<RunState> {
        fresh(&self.config, &self.model, &self.device, &self.state.progress.identity)
    }

    /// The state of a checkpoint.
    fn restore(&mut self, mark: Mark) -> Result<RunState> {
        let fresh = self.fresh()?;
        let optimizer = |network: &_| Optimizer::new(&self.config.optim, network, &self.model);
        let checkpoint = self.run.checkpoint(mark);
        let restored = checkpoint::restore(&checkpoint, fresh, optimizer);
        self.saved.0 = Some(mark);
        restored.map_err(|error| match (error, self.run.marks()) {
            (Error::Checkpoint { path, reason }, Ok(marks)) if marks.len() > 1 => {
                let other = self.run.checkpoint(marks[marks.len() - 2]);
                let hint = format!("{reason}; hint: remove it to go on from {}", other.display());
                Error::Checkpoint { path, reason: hint }
            }
            (error, _) => error,
        })
    }

    /// Trains on several devices; the first must be the one the trainer was made with.
    pub fn train_on(&mut self, devices: &[Device]) {
        let smoothing = self.config.train.label_smoothing;
        let forward = move |network: &Classifier, batch: &Batch, device: &Device| {
            forward(network, batch, device, smoothing)
        };
        self.group = (devices.len() > 1).then(|| Group::new(devices, Arc::new(forward)));
    }

    /// Lets a run be stopped from outside.
    pub fn stop_on(&mut self, stop: Stop) {
        self.stop = stop;
    }

    fn prepare(mut config: Config, run: RunDir, device: &Device) -> Result<Self> {
        let data = &config.data;
        let (train, val) = data.open_pair(config.seed)?;
        if train.len() < 2 || val.is_empty() {
            let text = format!("{} has too few images to train on and validate with", data.source);
            return Err(Error::Unusable(text));
        }
        let classes = train.classes().to_vec();
        let preprocess = data.preprocess(&train, config.model.in_channels);
        let model = config.model.resolve(classes.len(), preprocess.channels);
        check_classes(&model, &classes, &data.source)?;
        let summary = Summary::new(&model, [preprocess.size.0, preprocess.size.1])?;
        let metadata = Metadata {
            model: model.clone(),
            form: Form::Train,
            keys: Dialect::Native,
            preprocess: preprocess_json(&preprocess),
            classes,
        };
        let cache = data.cache();
        let loader_config = |shuffle| LoaderConfig {
            batch_size: config.train.batch_size,
            workers: data.workers,
            seed: config.seed,
            shuffle,
            skip_unreadable: data.on_bad_sample == OnBadSample::Skip,
            cache: cache.clone(),
            ..LoaderConfig::default()
        };
        let loader = |dataset: ImageDataset, shuffle, pipeline| {
            Loader::new(Arc::new(dataset), loader_config(shuffle), pipeline)
        };
        let augmented = Pipeline::new(preprocess.clone(), config.augment.clone())?;
        let train = loader(train, true, augmented)?;
        let val = loader(val, false, Pipeline::eval(preprocess)?)?;

        // Written out, so that the run can be repeated whatever the defaults become.
        config.model.num_classes = Some(model.num_classes);
        config.model.in_channels = Some(model.in_channels);
        let identity = Identity {
            config: config.clone(),
            train_data: train.dataset().fingerprint(),
            val_data: val.dataset().fingerprint(),
            device: format!("{device:?}"),
            threads: rayon::current_num_threads(),
        };
        let env = serde_json::json!({
            "dbb": env!("CARGO_PKG_VERSION"),
            "device": &identity.device,
            "threads": identity.threads,
            "os": std::env::consts::OS,
            "cpu": std::env::consts::ARCH,
            "train_data": train.dataset().describe(),
            "train_fingerprint": &identity.train_data,
            "val_data": val.dataset().describe(),
            "val_fingerprint": &identity.val_data,
        });
        let lock = run.lock()?;
        let device = device.clone().autodiff();
        let state = fresh(&config, &model, &device, &identity)?;
        Ok(Self {
            config,
            model,
            metadata,
            summary,
            env,
            device,
            group: None,
            train,
            val,
            state,
            saved: (None, Instant::now()),
            notes: Vec::new(),
            stop: Stop::default(),
            steps: Steps::new(0, 0),
            reported: Instant::now(),
            run,
            _lock: lock,
        })
    }

    /// Puts the weights of `model.init_from`, where there are any, into a run that has not begun.
    fn begin(&mut self) -> Result<()> {
        let RunState { network, ema, .. } = &mut self.state;
        let start =
            start::from_weights(&self.config, &self.metadata, network.clone(), &self.device)?;
        if let Some(start) = start {
            (*network, self.notes) = (start.network, start.notes);
            *ema = self.config.train.ema.map(|decay| Ema::new(network, decay));
        }
        Ok(())
    }

    /// What this run is about.
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

    /// The run as far as it has come, for a report.
    pub fn report(&self) -> report::Run {
        report::Run {
            config: self.config.clone(),
            summary: self.summary.clone(),
            env: self.env.clone(),
            records: self.state.progress.records.clone(),
            steps: self.steps.clone(),
        }
    }

    /// Trains to the end and writes the folded weights. A checkpoint is saved after every epoch
    /// and as often as the configuration says; the run's report is written anew then, and every half
    /// minute.
    ///
    /// # Errors
    /// An image or the disk; a loss or gradient that is no number; a wish to stop, once the run is
    /// saved.
    pub fn fit(&mut self, observer: &mut dyn Observer) -> Result<TrainResult> {
        let outcome = self.all_epochs(observer);
        if let Err(error) = &outcome {
            // What ended the run is the error to tell, whether it can be reported or not.
            self.write_report(&State::Stopped(error.to_string())).ok();
        }
        outcome
    }

    fn all_epochs(&mut self, observer: &mut dyn Observer) -> Result<TrainResult> {
        observer.started(&self.info());
        self.notes.iter().for_each(|note| observer.note(note));
        if !self.notes.is_empty()
            && self.state.progress.step == 0
            && let Some((before, _)) = self.validate()?
        {
            let (top1, loss) = (before.totals.top1(), before.totals.loss());
            observer.note(&format!("before training: top-1 {top1:.2}%, loss {loss:.4}"));
        }
        self.write_metrics()?;
        let steps_per_epoch = self.info().steps_per_epoch;
        let done = self.state.progress.step;
        self.steps = Steps::new(done, self.config.train.epochs * steps_per_epoch);
        self.write_report(&State::Running)?;
        let mut board = TensorBoard::open(&self.run.tensorboard(), done)?;
        let Config { schedule, optim, train, .. } = &self.config;
        let schedule = Schedule::new(schedule, optim, train.epochs, steps_per_epoch);
        self.saved.1 = Instant::now();
        while self.state.progress.mark.epoch < self.config.train.epochs {
            match self.epoch(&schedule, &mut board, observer) {
                Err(error @ Error::NonFinite { .. })
                    if self.state.progress.rollbacks < self.config.train.rollbacks =>
                {
                    self.roll_back(&error, observer)?;
                    board = TensorBoard::open(&self.run.tensorboard(), self.state.progress.step)?;
                }
                outcome => outcome?,
            }
        }
        self.export()?;
        self.write_report(&State::Finished)?;
        Ok(self.result())
    }

    /// Trains what is left of an epoch, validates, and saves.
    fn epoch(
        &mut self,
        schedule: &Schedule,
        board: &mut TensorBoard,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let Mark { epoch, batch } = self.state.progress.mark;
        let mut batches = self.train.epoch_from(epoch as u64, batch);
        while batches.len() > 0 {
            self.step(&mut batches, schedule, board, observer)?;
            if self.stop.requested().is_some() || self.is_save_due() {
                self.save()?;
            }
            self.leave_if_asked()?;
            if self.reported.elapsed() > report::INTERVAL {
                self.write_report(&State::Running)?;
            }
        }
        let (totals, seconds) =
            (self.state.progress.partial.totals, self.state.progress.partial.seconds);
        if totals.images() == 0 {
            let data = self.train.dataset().describe();
            return Err(Error::Unusable(format!("no image of {data} can be read")));
        }
        let started = Instant::now();
        let Some((validation, comparison)) = self.validate()? else {
            self.save()?;
            return self.leave_if_asked();
        };
        self.left_out(&validation.skipped, observer)?;
        // The last step of an epoch has no loss after it that would tell.
        if !validation.totals.loss().is_finite() {
            return Err(self.non_finite("validation loss", validation.totals.loss(), None));
        }
        let progress = &mut self.state.progress;
        let PartialEpoch { skipped, spikes, lr, .. } = std::mem::take(&mut progress.partial);
        let record = EpochRecord {
            epoch: epoch + 1,
            step: progress.step,
            images: totals.images(),
            lr,
            train_loss: totals.loss(),
            train_top1: totals.top1(),
            val_loss: validation.totals.loss(),
            top1: validation.totals.top1(),
            top5: validation.totals.top5(),
            fold_max_rel_diff: comparison.max_rel_diff(),
            images_per_second: totals.images() as f64 / seconds,
            seconds: seconds + started.elapsed().as_secs_f64(),
            skipped: skipped + validation.skipped.len(),
            spikes,
        };
        if progress.best_epoch == 0 || record.top1 > progress.best_top1 {
            progress.best_epoch = record.epoch;
            progress.best_top1 = record.top1;
        }
        progress.mark = Mark { epoch: record.epoch, batch: 0 };
        progress.records.push(record.clone());
        // Before the checkpoint: a resumed run voids what came after its own.
        board.epoch(&record)?;
        self.save()?;
        self.write_metrics()?;
        self.write_report(&State::Running)?;
        observer.epoch(&record);
        match record.epoch < self.config.train.epochs {
            true => self.leave_if_asked(),
            false => Ok(()),
        }
    }

    /// One step of the optimizer, on `train.accumulate` batches or what is left of the epoch.
    fn step(
        &mut self,
        batches: &mut Epoch,
        schedule: &Schedule,
        board: &mut TensorBoard,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let started = Instant::now();
        let group = self.config.train.accumulate.min(batches.len());
        let mut gradient = Accumulator::new(group, self.config.train.batch_size);
        let (mut losses, mut images) = (0.0, 0);
        for batch in batches.take(group) {
            let batch = batch?;
            self.left_out(&batch.skipped, observer)?;
            self.state.progress.partial.skipped += batch.skipped.len();
            self.seed_forward();
            self.state.progress.mark.batch += 1;
            // A single image has no variance where the map is a single position.
            if batch.len() < 2 {
                self.state.progress.partial.skipped += batch.len();
                continue;
            }
            let (grads, logits, mean) = self.gradients(&batch)?;
            if !mean.is_finite() {
                return Err(self.non_finite("loss", mean, Some(&grads)));
            }
            let labels = batch.main_labels();
            self.state.progress.partial.totals.add(logits, labels, mean);
            gradient.add(&self.state.network, grads, batch.len());
            losses += mean * batch.len() as f64;
            images += batch.len();
        }
        let RunState { network, ema, optimizer, progress } = &mut self.state;
        let Some(mut grads) = gradient.finish(network) else { return Ok(()) };
        let grad_norm = gradients::global_norm(&grads, network);
        if !grad_norm.is_finite() {
            return Err(self.non_finite("gradient", grad_norm, Some(&grads)));
        }
        if let Some(most) = self.config.train.clip_norm {
            gradients::clip(&mut grads, network, grad_norm, most);
        }
        let rollbacks = i32::try_from(progress.rollbacks).unwrap_or(i32::MAX);
        let lr = schedule.lr(progress.step) * self.config.train.rollback_lr.powi(rollbacks);
        *network = optimizer.step(network, grads, lr);
        progress.step += 1;
        if let Some(ema) = ema {
            ema.update(network, progress.step);
        }
        let step_loss = losses / images as f64;
        let partial = &mut progress.partial;
        if let Some(mean) = progress.spikes.add(step_loss) {
            partial.spikes += 1;
            observer.note(&format!(
                "the loss jumped to {step_loss:.4} at step {}, from a mean of {mean:.4}",
                progress.step
            ));
        }
        board.step(progress.step, step_loss, lr)?;
        self.steps.add(progress.step, step_loss);
        partial.lr = lr;
        partial.seconds += started.elapsed().as_secs_f64();
        observer.step(&Step {
            epoch: progress.mark.epoch + 1,
            step: progress.mark.batch.div_ceil(self.config.train.accumulate),
            run_step: progress.step,
            lr,
            step_loss,
            grad_norm,
            loss: partial.totals.loss(),
            top1: partial.totals.top1(),
            images: partial.totals.images(),
            images_per_second: partial.totals.images() as f64 / partial.seconds,
        });
        Ok(())
    }

    /// Gradients, logits and mean loss of a batch, on one device or several.
    fn gradients(&self, batch: &Batch) -> Result<(GradientsParams, Tensor<2>, f64)> {
        let network = &self.state.network;
        if let Some(group) = &self.group {
            let together = group.gradients(network, batch)?;
            return Ok((together.gradients, together.logits, together.loss));
        }
        let smoothing = self.config.train.label_smoothing;
        let (logits, loss) = forward(network, batch, &self.device, smoothing);
        let mean = f64::from(host(loss.clone().into_data())[0]);
        Ok((GradientsParams::from_grads(loss.backward(), network), logits.detach(), mean))
    }

    /// Dropout draws from the device's own stream: a new one for every batch, so that a resumed
    /// run draws as the uninterrupted one would have.
    fn seed_forward(&self) {
        let Mark { epoch, batch } = self.state.progress.mark;
        let place = (epoch as u64) << 32 | batch as u64;
        // The odd constant of Fibonacci hashing keeps neighbouring seeds and places apart.
        self.device.seed(self.config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ place);
    }

    /// Names each image that could not be read once, up to `data.max_bad_samples` of them.
    fn left_out(&mut self, skipped: &[DataError], observer: &mut dyn Observer) -> Result<()> {
        let most = self.config.data.max_bad_samples;
        for reason in skipped {
            let reason = reason.to_string();
            let bad = &mut self.state.progress.bad_samples;
            if bad.insert(reason.clone()) {
                observer.skipped(&reason);
                if bad.len() > most {
                    return Err(Error::BadSamples { count: bad.len(), most, last: reason });
                }
            }
        }
        Ok(())
    }

    /// Evaluates a folded copy, and compares it with the training form on the first batch. `None`
    /// if it was asked to stop.
    fn validate(&self) -> Result<Option<(Evaluation, Comparison)>> {
        let train_form = self.network();
        let deploy = train_form.reparameterize();
        let device = self.device.clone().inner();
        let mut comparison = Comparison::default();
        let mut first = true;
        let evaluation = evaluate_until(&deploy, &self.val, &self.stop, |batch, logits| {
            if std::mem::take(&mut first) {
                let images: Tensor<4> = batch.to_tensors(&device).0;
                comparison.add(train_form.forward(images), logits.clone());
            }
        })?;
        Ok(evaluation.map(|evaluation| (evaluation, comparison)))
    }

    /// Whether a checkpoint within the epoch is due. Not at its last step: the end of the epoch is
    /// saved anyway.
    fn is_save_due(&self) -> bool {
        let (train, progress) = (&self.config.train, &self.state.progress);
        let by_steps = train.checkpoint_steps.is_some_and(|n| progress.step.is_multiple_of(n));
        let by_time = train.checkpoint_minutes.is_some_and(|minutes| {
            self.saved.1.elapsed() >= Duration::from_secs_f64(minutes * 60.0)
        });
        (by_steps || by_time) && progress.mark.batch < self.train.batches_per_epoch()
    }

    fn save(&mut self) -> Result<()> {
        if self.saved.0 != Some(self.state.progress.mark) {
            checkpoint::save(
                &self.run,
                &mut self.state,
                &self.metadata,
                self.config.train.keep_last,
            )?;
        }
        self.saved = (Some(self.state.progress.mark), Instant::now());
        Ok(())
    }

    /// Ends a saved run that was asked to stop.
    fn leave_if_asked(&self) -> Result<()> {
        let Some(signal) = self.stop.requested() else { return Ok(()) };
        let (run, mark) = (self.run.root().display(), self.state.progress.mark);
        let place = self.run.checkpoint(mark);
        let saved =
            format!("the run is saved in {}; `dbb train {run} --resume` goes on", place.display());
        Err(Error::Interrupted { signal, saved })
    }

    /// Goes back to the newest checkpoint, or to the beginning, and on with a lower learning rate.
    fn roll_back(&mut self, error: &Error, observer: &mut dyn Observer) -> Result<()> {
        let rollbacks = self.state.progress.rollbacks + 1;
        let place = match self.run.marks()?.last() {
            Some(&mark) => {
                self.state = self.restore(mark)?;
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
            "{error}; return {rollbacks} of {}: going on from {place} with {} times the learning rate",
            self.config.train.rollbacks,
            self.config.train.rollback_lr.powi(rollbacks as i32)
        ));
        Ok(())
    }

    fn write_metrics(&self) -> Result<()> {
        let records = &self.state.progress.records;
        // Plain data always serialises.
        let line = |record| serde_json::to_string(record).expect("a record is plain data") + "\n";
        let lines: String = records.iter().map(line).collect();
        Ok(self.run.write(&self.run.metrics(), &lines)?)
    }

    fn write_report(&mut self, state: &State) -> Result<()> {
        self.reported = Instant::now();
        Ok(self.run.write(&self.run.report(), &report::train_page(&self.report(), state))?)
    }

    /// Writes the folded weights, in native names, with the metadata to rebuild the network.
    fn export(&self) -> Result<()> {
        let deploy = self.network().reparameterize();
        let metadata = Metadata { form: Form::Deploy, ..self.metadata.clone() };
        let tensors = key_map(&metadata, &deploy)?.save(&deploy);
        Ok(write_safetensors(&self.run.deploy_weights(), &tensors, &metadata)?)
    }

    fn non_finite(&self, what: &'static str, value: f64, grads: Option<&GradientsParams>) -> Error {
        let kept = match self.saved.0 {
            None => "no checkpoint was saved, so that nothing is kept".to_string(),
            Some(mark) => {
                format!("the checkpoint {} is kept", self.run.checkpoint(mark).display())
            }
        };
        let progress = &self.state.progress;
        let layer = gradients::first_non_finite(&self.state.network, grads);
        Error::NonFinite {
            what,
            value,
            epoch: progress.mark.epoch + 1,
            step: progress.step + 1,
            batch: progress.mark.batch,
            layer: layer.map_or_else(String::new, |layer| format!("; first at {layer}")),
            kept,
        }
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
            top1: last.top1,
            top5: last.top5,
            best_top1: self.state.progress.best_top1,
            seconds: records.iter().map(|record| record.seconds).sum(),
            images_per_second: records.iter().map(images).sum::<f64>() / training,
        }
    }
}

/// Logits `[batch, classes]` of a training batch and its mean loss, `[1]`. The loss of a mixed image
/// is that of both labels by their shares (Zhang et al., ICLR 2018; Yun et al., ICCV 2019).
fn forward(
    network: &Classifier,
    batch: &Batch,
    device: &Device,
    smoothing: f64,
) -> (Tensor<2>, Tensor<1>) {
    let (images, labels) = batch.to_tensors(device);
    let logits = network.forward(images);
    let own = cross_entropy(logits.clone(), labels, smoothing);
    let Some(mixed) = &batch.mixed else { return (logits, own) };
    let other = cross_entropy(logits.clone(), labels_on(&mixed.partners, device), smoothing);
    let share = f64::from(mixed.share);
    (logits, own.mul_scalar(share) + other.mul_scalar(1.0 - share))
}

/// Classes `[batch]`.
fn labels_on(labels: &[usize], device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
    let shape = [labels.len()];
    Tensor::from_data(TensorData::new(labels, shape), device)
}

/// A run that has not begun.
fn fresh(
    config: &Config,
    model: &ModelConfig,
    device: &Device,
    identity: &Identity,
) -> Result<RunState> {
    device.seed(config.seed);
    let network = gradients::number(model.init(Form::Train, device)?);
    let network = model.freeze(network, &config.train.freeze)?;
    Ok(RunState {
        ema: config.train.ema.map(|decay| Ema::new(&network, decay)),
        optimizer: Optimizer::new(&config.optim, &network, model),
        network,
        progress: Progress::new(identity.clone()),
    })
}

fn check_classes(model: &ModelConfig, classes: &[String], source: &str) -> Result<()> {
    if model.num_classes == classes.len() {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "model.num_classes is {}, but {source} has {} classes; leave the key out to take the data's",
        model.num_classes,
        classes.len()
    )))
}

fn preprocess_json(preprocess: &Preprocess) -> serde_json::Value {
    // Plain data always serialises.
    serde_json::to_value(preprocess).expect("preprocessing is plain data")
}
