//! The training loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use dbb_datasets::{Batch, ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess};
use dbb_models::summary::Summary;
use dbb_models::weights::{Dialect, Metadata, write_safetensors};
use dbb_models::{Classifier, Form, ModelConfig, Reparameterize};
use serde::Serialize;

use crate::checkpoint::{self, Progress};
use crate::config::{Config, OnBadSample};
use crate::distributed::Group;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, cross_entropy, evaluate};
use crate::fold::Comparison;
use crate::metrics::{EpochRecord, Totals, host};
use crate::optim::Optimizer;
use crate::report::{self, State, Steps};
use crate::run_dir::RunDir;
use crate::schedule::Schedule;
use crate::target::key_map;
use crate::tensorboard::TensorBoard;

/// Told of what happens in a run; draws progress bars, prints lines, or does nothing.
pub trait Observer {
    /// Training begins or goes on.
    fn started(&mut self, _info: &RunInfo) {}
    /// A step is done.
    fn step(&mut self, _step: &Step) {}
    /// An image could not be read and was left out.
    fn skipped(&mut self, _reason: &str) {}
    /// An epoch is done and validated.
    fn epoch(&mut self, _record: &EpochRecord) {}
}

/// An observer that looks away.
pub struct Silent;

impl Observer for Silent {}

/// What a run is about.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// The network.
    pub model: ModelConfig,
    /// Training data in a line.
    pub train_data: String,
    /// Validation data in a line.
    pub val_data: String,
    /// Learnable parameters.
    pub params_train: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Epochs done before, when resumed.
    pub done: usize,
}

/// A step as it has just been done.
#[derive(Clone, Debug)]
pub struct Step {
    /// Epoch, from 1.
    pub epoch: usize,
    /// Step within the epoch, from 1.
    pub step: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Top-1 of the epoch so far, percent.
    pub top1: f64,
    /// Images of the epoch so far.
    pub images: usize,
}

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
    group: Option<Group>,
    network: Classifier,
    optimizer: Optimizer,
    train: Loader,
    val: Loader,
    progress: Progress,
    steps: Steps,
    reported: Instant,
    run: RunDir,
}

impl Trainer {
    /// A new run in a directory that holds none, on an inference device.
    ///
    /// # Errors
    /// If the directory holds a run, the data cannot be read, or data and configuration disagree.
    pub fn new(config: Config, run: RunDir, device: &Device) -> Result<Self> {
        if run.exists() {
            return Err(Error::RunExists(run.root().into()));
        }
        let mut trainer = Self::prepare(config, run, device)?;
        // Written out, so that the run can be repeated whatever the defaults become.
        let (config, model) = (&mut trainer.config, &trainer.model);
        config.model.num_classes = Some(model.num_classes);
        config.model.in_channels = Some(model.in_channels);
        trainer.run.write(&trainer.run.config(), &config.to_toml())?;
        trainer.run.write(&trainer.run.env(), &format!("{:#}\n", trainer.env))?;
        Ok(trainer)
    }

    /// A run that goes on from its last checkpoint, with its own configuration.
    ///
    /// # Errors
    /// If there is no run or no checkpoint, or one that does not fit.
    pub fn resume(run: RunDir, device: &Device) -> Result<Self> {
        if !run.exists() {
            let text = format!("{} holds no run to resume (no config.toml)", run.root().display());
            return Err(Error::Unusable(text));
        }
        let config = Config::load(&run.config(), &[])?;
        let mut trainer = Self::prepare(config, run, device)?;
        // A run that ended before its first checkpoint starts anew.
        if let Some(&epoch) = trainer.run.checkpoint_epochs()?.last() {
            let checkpoint = trainer.run.checkpoint(epoch);
            let fresh =
                |network: &_| Optimizer::new(&trainer.config.optim, network, &trainer.model);
            let (network, optimizer, progress) =
                checkpoint::restore(&checkpoint, trainer.network, fresh)?;
            let (_, planned) = trainer.steps.done();
            let steps = Steps::new(progress.step, planned);
            trainer = Self { network, optimizer, progress, steps, ..trainer };
        }
        Ok(trainer)
    }

    fn prepare(config: Config, run: RunDir, device: &Device) -> Result<Self> {
        let data = &config.data;
        let (train, val) = data.open_pair()?;
        if train.len() < 2 || val.is_empty() {
            let text = format!("{} has too few images to train on and validate with", data.source);
            return Err(Error::Unusable(text));
        }
        let classes = train.classes().to_vec();
        let preprocess = data.preprocess(&train, config.model.in_channels);
        let model = config.model.resolve(classes.len(), preprocess.channels);
        check_classes(&model, &classes, &data.source)?;
        let summary = Summary::new(&model, [preprocess.size.0, preprocess.size.1])?;
        let env = serde_json::json!({
            "dbb": env!("CARGO_PKG_VERSION"),
            "device": format!("{device:?}"),
            "threads": rayon::current_num_threads(),
            "os": std::env::consts::OS,
            "cpu": std::env::consts::ARCH,
            "train_data": train.describe(),
            "train_fingerprint": train.fingerprint(),
            "val_data": val.describe(),
            "val_fingerprint": val.fingerprint(),
        });

        let metadata = Metadata {
            model: model.clone(),
            form: Form::Train,
            keys: Dialect::Native,
            preprocess: preprocess_json(&preprocess),
            classes,
        };
        let loader_config = |shuffle| LoaderConfig {
            batch_size: config.train.batch_size,
            workers: data.workers,
            seed: config.seed,
            shuffle,
            skip_unreadable: data.on_bad_sample == OnBadSample::Skip,
            ..LoaderConfig::default()
        };
        let loader = |dataset: ImageDataset, shuffle, pipeline| {
            Loader::new(Arc::new(dataset), loader_config(shuffle), pipeline)
        };
        let augmented = Pipeline::new(preprocess.clone(), config.augment.clone())?;
        let train = loader(train, true, augmented)?;
        let val = loader(val, false, Pipeline::eval(preprocess)?)?;

        let device = device.clone().autodiff();
        device.seed(config.seed);
        let network = model.init(Form::Train, &device)?;
        let optimizer = Optimizer::new(&config.optim, &network, &model);
        let progress = Progress::default();
        let steps = Steps::new(0, config.train.epochs * train.batches_per_epoch());
        Ok(Self {
            config,
            model,
            metadata,
            summary,
            env,
            device,
            group: None,
            network,
            optimizer,
            train,
            val,
            progress,
            steps,
            reported: Instant::now(),
            run,
        })
    }

    /// Trains on several devices; the first must be the one the trainer was made with.
    pub fn with_devices(mut self, devices: &[Device]) -> Self {
        let smoothing = self.config.train.label_smoothing;
        let forward = move |network: &Classifier, batch: &Batch, device: &Device| {
            let (images, targets) = batch.to_tensors(device);
            let logits = network.forward(images);
            (logits.clone(), cross_entropy(logits, targets, smoothing))
        };
        self.group = (devices.len() > 1).then(|| Group::new(devices, Arc::new(forward)));
        self
    }

    /// What this run is about.
    pub fn info(&self) -> RunInfo {
        RunInfo {
            model: self.model.clone(),
            train_data: self.train.dataset().describe(),
            val_data: self.val.dataset().describe(),
            params_train: self.summary.params_train,
            steps_per_epoch: self.train.batches_per_epoch(),
            epochs: self.config.train.epochs,
            done: self.progress.epoch,
        }
    }

    /// The network as it is now, in training form on the inference device.
    pub fn network(&self) -> Classifier {
        self.network.valid()
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
            records: self.progress.records.clone(),
            steps: self.steps.clone(),
        }
    }

    /// Trains to the end, one checkpoint per epoch, and writes the folded weights. The run's
    /// report is written anew after every epoch and every half minute.
    ///
    /// # Errors
    /// An image or the disk; a loss that is no number, which leaves the last checkpoint.
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
        self.write_report(&State::Running)?;
        let mut board = TensorBoard::open(&self.run.tensorboard(), self.progress.step)?;
        let schedule = Schedule::new(
            &self.config.schedule,
            &self.config.optim,
            self.config.train.epochs,
            self.train.batches_per_epoch(),
        );
        while self.progress.epoch < self.config.train.epochs {
            let record = self.epoch(&schedule, &mut board, observer)?;
            if self.progress.best_epoch == 0 || record.top1 > self.progress.best_top1 {
                self.progress.best_epoch = record.epoch;
                self.progress.best_top1 = record.top1;
            }
            self.progress.epoch = record.epoch;
            self.progress.step = record.step;
            self.progress.records.push(record.clone());
            // Before the checkpoint: a resumed run voids what came after its own.
            board.epoch(&record)?;
            self.save()?;
            self.write_report(&State::Running)?;
            observer.epoch(&record);
        }
        self.export()?;
        self.write_report(&State::Finished)?;
        Ok(self.result())
    }

    fn epoch(
        &mut self,
        schedule: &Schedule,
        board: &mut TensorBoard,
        observer: &mut dyn Observer,
    ) -> Result<EpochRecord> {
        let epoch = self.progress.epoch + 1;
        let mut step = self.progress.step;
        let (mut totals, mut skipped, mut lr) = (Totals::default(), 0, 0.0);
        let started = Instant::now();
        for (index, batch) in self.train.epoch(self.progress.epoch as u64).enumerate() {
            let batch = batch?;
            for reason in &batch.skipped {
                observer.skipped(&reason.to_string());
            }
            skipped += batch.skipped.len();
            // A single image has no variance where the map is a single position.
            if batch.len() < 2 {
                continue;
            }
            lr = schedule.lr(step);
            let (gradients, logits, mean_loss) = self.gradients(&batch)?;
            step += 1;
            if !mean_loss.is_finite() {
                return Err(self.non_finite(mean_loss, epoch, step));
            }
            board.step(step, mean_loss, lr)?;
            self.steps.add(step, mean_loss);
            if self.reported.elapsed() > report::INTERVAL {
                self.write_report(&State::Running)?;
            }
            totals.add(logits, &batch.labels, mean_loss);
            self.network = self.optimizer.apply(&self.network, gradients, lr);
            observer.step(&Step {
                epoch,
                step: index + 1,
                loss: totals.loss(),
                top1: totals.top1(),
                images: totals.images(),
            });
        }
        let training_seconds = started.elapsed().as_secs_f64();
        if totals.images() == 0 {
            let data = self.train.dataset().describe();
            return Err(Error::Unusable(format!("no image of {data} can be read")));
        }
        let (validation, comparison) = self.validate()?;
        for reason in &validation.skipped {
            observer.skipped(&reason.to_string());
        }
        // The last step of an epoch has no loss after it that would tell.
        if !validation.totals.loss().is_finite() {
            return Err(self.non_finite(validation.totals.loss(), epoch, step));
        }
        Ok(EpochRecord {
            epoch,
            step,
            images: totals.images(),
            lr,
            train_loss: totals.loss(),
            train_top1: totals.top1(),
            val_loss: validation.totals.loss(),
            top1: validation.totals.top1(),
            top5: validation.totals.top5(),
            fold_max_rel_diff: comparison.max_rel_diff(),
            images_per_second: totals.images() as f64 / training_seconds,
            seconds: started.elapsed().as_secs_f64(),
            skipped: skipped + validation.skipped.len(),
        })
    }

    /// Gradients, logits and mean loss of a batch, on one device or several.
    fn gradients(&self, batch: &Batch) -> Result<(GradientsParams, Tensor<2>, f64)> {
        if let Some(group) = &self.group {
            let together = group.gradients(&self.network, batch)?;
            return Ok((together.gradients, together.logits, together.loss));
        }
        let (images, targets) = batch.to_tensors(&self.device);
        let logits = self.network.forward(images);
        let loss = cross_entropy(logits.clone(), targets, self.config.train.label_smoothing);
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        Ok((gradients, logits.detach(), f64::from(host(loss.into_data())[0])))
    }

    /// Evaluates a folded copy, and compares it with the training form on the first batch.
    fn validate(&self) -> Result<(Evaluation, Comparison)> {
        let train_form = self.network.valid();
        let deploy = train_form.reparameterize();
        let device = self.device.clone().inner();
        let mut comparison = Comparison::default();
        let mut first = true;
        let evaluation = evaluate(&deploy, &self.val, |batch, logits| {
            if std::mem::take(&mut first) {
                let images: Tensor<4> = batch.to_tensors(&device).0;
                comparison.add(train_form.forward(images), logits.clone());
            }
        })?;
        Ok((evaluation, comparison))
    }

    fn save(&mut self) -> Result<()> {
        let network = self.network.valid();
        checkpoint::save(&self.run, &network, &self.metadata, &self.optimizer, &mut self.progress)?;
        let lines: Vec<_> = self
            .progress
            .records
            .iter()
            // Plain data always serialises.
            .map(|record| serde_json::to_string(record).expect("a record is plain data") + "\n")
            .collect();
        Ok(self.run.write(&self.run.metrics(), &lines.concat())?)
    }

    fn write_report(&mut self, state: &State) -> Result<()> {
        self.reported = Instant::now();
        Ok(self.run.write(&self.run.report(), &report::train_page(&self.report(), state))?)
    }

    /// Writes the folded weights, in native names, with the metadata to rebuild the network.
    fn export(&self) -> Result<()> {
        let deploy = self.network.valid().reparameterize();
        let metadata = Metadata { form: Form::Deploy, ..self.metadata.clone() };
        let tensors = key_map(&metadata, &deploy)?.save(&deploy);
        Ok(write_safetensors(&self.run.deploy_weights(), &tensors, &metadata)?)
    }

    fn non_finite(&self, loss: f64, epoch: usize, step: usize) -> Error {
        let kept = match self.progress.epoch {
            0 => "no epoch was finished, so that nothing is kept".to_string(),
            done => {
                let place = self.run.checkpoint(done);
                format!("the checkpoint after epoch {done} is kept in {}", place.display())
            }
        };
        Error::NonFiniteLoss { loss, epoch, step, kept }
    }

    fn result(&self) -> TrainResult {
        let records = &self.progress.records;
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
            best_top1: self.progress.best_top1,
            seconds: records.iter().map(|record| record.seconds).sum(),
            images_per_second: records.iter().map(images).sum::<f64>() / training,
        }
    }
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
