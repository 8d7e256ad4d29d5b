//! What a run will take: steps, time, memory, disk.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use dbb_models::{Classifier, Reparameterize};
use serde::Serialize;

use super::Trainer;
use super::begin::fresh;
use super::plan::Plan;
use super::step::gradients_of;
use crate::cancel::CancelToken;
use crate::config::{Config, OptimKind, OptimSection};
use crate::device::on_pool;
use crate::error::{Error, Result};
use crate::memory::{self, mib};
use crate::run::metrics::host;
use crate::text::{duration, plural};
use crate::train::checkpoint::RunState;
use crate::train::gradients::Accumulator;
use crate::train::optimizer::Optimizer;

/// Steps before the measured ones, which fill caches and use up what the loader has read ahead.
const WARM_UP: usize = 2;
/// Steps that are measured at most, and the time after which no further one begins.
const MEASURED: usize = 10;
const LONGEST: Duration = Duration::from_secs(10);
/// Validation batches that are measured, after one of warm-up.
const VALIDATED: usize = 3;
/// Steps of a run, after the first, from which it tells how long it will take.
const PACE: usize = 5;
/// A batch by which learning rates are compared (Goyal et al., 2017, section 2.1).
const REFERENCE: f64 = 256.0;
/// Bytes of a value.
const VALUE: u64 = 4;
/// Report, metrics and event files.
const PAGES: u64 = 2 << 20;

/// What a run will take, from its estimates and from a few steps that were thrown away.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// Images in a batch.
    pub batch_size: usize,
    /// Epochs.
    pub epochs: usize,
    /// Steps of the optimizer in an epoch.
    pub steps_per_epoch: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// Images to train on.
    pub train_images: usize,
    /// Images to validate with.
    pub val_images: usize,
    /// `optim.lr`.
    pub lr: f64,
    /// The same for steps of 256 images by the linear scaling rule (Goyal et al., 2017,
    /// [arXiv:1706.02677](https://arxiv.org/abs/1706.02677)).
    pub lr_per_256: f64,
    /// Memory in MiB.
    pub memory_mib: MemoryForecast,
    /// Disk in MiB.
    pub disk_mib: DiskForecast,
    /// Time in seconds.
    pub seconds: TimeForecast,
}

/// Memory in MiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryForecast {
    /// Estimated for training.
    pub training: f64,
    /// Estimated for validation.
    pub validation: f64,
    /// What batches of images take of both.
    pub batches: f64,
    /// What the cache of images takes of both.
    pub cache: f64,
    /// `train.memory_mb`.
    pub allowed: Option<usize>,
    /// The most that the process has held in the measured steps, where the system reports it.
    pub measured: Option<f64>,
}

/// Disk in MiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DiskForecast {
    /// A checkpoint.
    pub checkpoint: f64,
    /// Checkpoints that are kept.
    pub checkpoints: usize,
    /// The folded weights.
    pub export: f64,
    /// The most that the run directory takes, while a checkpoint is written beside the others.
    pub total: f64,
}

/// Time in seconds, of the whole run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TimeForecast {
    /// All of it.
    pub total: f64,
    /// Training.
    pub training: f64,
    /// What training waits for the loader.
    pub loader: f64,
    /// Validation.
    pub validation: f64,
    /// Steps that were measured.
    pub measured_steps: usize,
    /// Mean of a step.
    pub step: f64,
}

impl Forecast {
    /// Trains a few steps of a run of this configuration and validates a few batches, and throws them
    /// away; nothing is written.
    ///
    /// # Errors
    /// As [`Trainer::new`], except for those of the run directory; an image that cannot be read;
    /// [`Error::NotBegun`] if a stop was requested.
    pub fn of(config: Config, device: &Device, stop: &CancelToken) -> Result<Self> {
        let plan = Plan::within_memory(config, &device.into())?;
        let autodiff = device.clone().autodiff();
        let RunState { network, optimizer, .. } =
            fresh(&plan.config, &plan.model, &autodiff, &plan.identity)?;
        let disk_mib = disk(&plan, &network);
        let trial = Trial { plan: &plan, device: autodiff, stop };
        let (network, steps) = trial.train(network, optimizer)?;
        let validation = trial.validate(&network)?;
        let measured = memory::peak().map(in_mib);

        let Config { train, optim, .. } = &plan.config;
        let per_epoch = plan.steps_per_epoch();
        let all = train.epochs * per_epoch;
        let sum = |part: fn(&[f64; 2]) -> f64| steps.iter().map(part).sum::<f64>();
        let of_run = all as f64 / steps.len() as f64;
        let training = of_run * sum(|[whole, _]| *whole);
        let val_images = plan.val.dataset().len();
        let validation = validation * (val_images * train.epochs) as f64;
        let batch_size = plan.train.batch_size();
        let need = plan.need.training(&plan.config, batch_size, device);
        let validating = plan.need.validation(&plan.config, batch_size, device);
        Ok(Self {
            batch_size,
            epochs: train.epochs,
            steps_per_epoch: per_epoch,
            steps: all,
            train_images: plan.train.dataset().len(),
            val_images,
            lr: optim.lr,
            lr_per_256: optim.lr * REFERENCE / (batch_size * train.accumulate) as f64,
            memory_mib: MemoryForecast {
                training: in_mib(need.bytes()),
                validation: in_mib(validating.bytes()),
                batches: in_mib(need.batches),
                cache: in_mib(need.cache),
                allowed: train.memory_mb,
                measured,
            },
            disk_mib,
            seconds: TimeForecast {
                total: training + validation,
                training,
                loader: of_run * sum(|[_, waited]| *waited),
                validation,
                measured_steps: steps.len(),
                step: training / all as f64,
            },
        })
    }
}

/// The steps that are thrown away.
struct Trial<'a> {
    plan: &'a Plan,
    device: Device,
    stop: &'a CancelToken,
}

impl Trial<'_> {
    /// Trains a few steps with a learning rate of 0. Returns the network, and the seconds of each
    /// measured step and those of them in which it waited for the loader.
    fn train(
        &self,
        mut network: Classifier,
        mut optimizer: Optimizer,
    ) -> Result<(Classifier, Vec<[f64; 2]>)> {
        let Plan { config, train, .. } = self.plan;
        let section = &config.train;
        let (mut epoch, mut batches) = (0, train.epoch(0));
        let (mut times, mut done, mut images) = (Vec::new(), 0, 0);
        let began = Instant::now();
        while times.len() < MEASURED && (times.is_empty() || began.elapsed() < LONGEST) {
            if batches.len() == 0 {
                if images == 0 && done > 0 {
                    let data = train.dataset().describe();
                    return Err(Error::Unusable(format!("no image of {data} can be read")));
                }
                epoch += 1;
                batches = train.epoch(epoch);
            }
            let (started, mut waited) = (Instant::now(), Duration::ZERO);
            let group = section.accumulate.min(batches.len());
            let mut gradient = Accumulator::new(group, train.batch_size());
            for _ in 0..group {
                if let Some(signal) = self.stop.requested() {
                    return Err(Error::NotBegun { signal });
                }
                let waiting = Instant::now();
                let Some(batch) = batches.next() else { break };
                waited += waiting.elapsed();
                let batch = batch?;
                if batch.len() < 2 {
                    continue;
                }
                let (grads, _, _) =
                    gradients_of(&network, &batch, &self.device, section.label_smoothing);
                gradient.add(&network, grads, batch.len());
                images += batch.len();
            }
            if let Some(grads) = gradient.finish(&network) {
                network = on_pool(&self.device, || optimizer.step(&network, grads, 0.0));
            }
            done += 1;
            // A step that is long by itself needs no warm-up.
            if done > WARM_UP || began.elapsed() > LONGEST {
                times.push([started.elapsed(), waited].map(|time| time.as_secs_f64()));
            }
        }
        Ok((network, times))
    }

    /// Seconds of validation per image.
    fn validate(&self, network: &Classifier) -> Result<f64> {
        let deploy = network.valid().reparameterize();
        let device = self.device.clone().inner();
        let (mut images, mut seconds) = (0, 0.0);
        let mut batches = self.plan.val.epoch(0);
        let is_single = batches.len() == 1;
        for number in 0..=VALIDATED {
            if let Some(signal) = self.stop.requested() {
                return Err(Error::NotBegun { signal });
            }
            let started = Instant::now();
            let Some(batch) = batches.next() else { break };
            let batch = batch?;
            if batch.is_empty() {
                continue;
            }
            host(deploy.forward(batch.to_tensors(&device).0).into_data());
            if number > 0 || is_single {
                images += batch.len();
                seconds += started.elapsed().as_secs_f64();
            }
        }
        Ok(seconds / images.max(1) as f64)
    }
}

impl Plan {
    /// Steps of the optimizer in an epoch.
    fn steps_per_epoch(&self) -> usize {
        self.train.batches_per_epoch().div_ceil(self.config.train.accumulate)
    }

    /// Steps, memory and disk in a sentence.
    pub(super) fn outline(&self, network: &Classifier, device: &Device) -> String {
        let (steps, epochs) = (self.steps_per_epoch(), self.config.train.epochs);
        let batch_size = self.train.batch_size();
        let training = self.need.training(&self.config, batch_size, device);
        let validation = self.need.validation(&self.config, batch_size, device);
        let each = match self.need.ranks {
            1 => String::new(),
            ranks => format!(" on each of {ranks} ranks"),
        };
        format!(
            "{}, {epochs} times {steps}, with batches of {batch_size}; about {} MiB of memory in training \
             and {} in validation{each}, images {} of it; at most {:.1} MiB on disk",
            plural(epochs * steps, "step"),
            mib(training.bytes()),
            mib(validation.bytes()),
            mib(training.batches + training.cache),
            disk(self, network).total
        )
    }
}

impl Trainer {
    /// Notes the seconds of a step; after a few of them says how long the rest of the run will take.
    pub(super) fn pace(&mut self, seconds: f64) -> Option<String> {
        if self.pace.len() > PACE {
            return None;
        }
        self.pace.push(seconds);
        if self.pace.len() <= PACE {
            return None;
        }
        let step = self.pace[1..].iter().sum::<f64>() / PACE as f64;
        let progress = &self.state.progress;
        let (epochs, per_epoch) = (self.config.train.epochs, self.info().steps_per_epoch);
        let steps = (epochs * per_epoch).saturating_sub(progress.step) as f64;
        let validation = match progress.records.last() {
            Some(record) => record.validation_seconds,
            // A backward pass costs two forward passes, of which validation has one.
            None => {
                let of_step = self.train.batch_size() * self.config.train.accumulate;
                self.val.dataset().len() as f64 / of_step as f64 * step / 3.0
            }
        };
        let left = steps * step + epochs.saturating_sub(progress.mark.epoch) as f64 * validation;
        Some(format!("about {} left, from the first steps", duration(left)))
    }
}

/// What a run directory takes.
fn disk(plan: &Plan, network: &Classifier) -> DiskForecast {
    let Config { train, optim, .. } = &plan.config;
    let weights = network.num_params() as u64;
    let states = match optim {
        OptimSection { kind: OptimKind::AdamW, .. } => 2,
        OptimSection { momentum, .. } => u64::from(*momentum > 0.0),
    };
    let averages = u64::from(train.ema.is_some());
    let learnable = plan.summary.params_train as u64;
    let checkpoint = VALUE * (weights * (1 + averages) + states * learnable);
    let export = VALUE * plan.summary.params_deploy as u64;
    // The best may be another one than the last.
    let saved = train.epochs + usize::from(train.checkpoint_steps.is_some());
    let checkpoints = (train.keep_last + 1).min(saved);
    DiskForecast {
        checkpoint: in_mib(checkpoint),
        checkpoints,
        export: in_mib(export),
        total: in_mib(checkpoint * (checkpoints as u64 + 1) + export + PAGES),
    }
}

fn in_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
