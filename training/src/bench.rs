//! How fast a network trains and infers and how fast images are loaded, measured in this process.

mod profile;

use std::sync::Arc;
use std::time::Instant;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use dbb_datasets::{Augment, DataRef, Loader, LoaderConfig, Pipeline, Split, open};
use dbb_models::profile::{self as record, Profile, Work};
use dbb_models::summary::{LayerSummary, Summary, macs};
use dbb_models::{Classifier, Form, LayerCount, ModelConfig, Reparameterize};
use serde::Serialize;

use crate::config::{DataSection, DecayRule, OptimSection};
use crate::device::on_pool;
use crate::error::{Error, Result};
use crate::inference::evaluate::cross_entropy;
use crate::memory::{Batches, Copies, Estimate};
use crate::run::metrics::host;
use crate::train::optimizer::Optimizer;

pub use profile::{LayerTime, StepProfile, WorkTime};

/// Steps before the measured ones, which fill caches and pools.
const WARM_UP: usize = 2;

/// The flags of the size of a step: lowered, it needs less memory.
const SIZE: &str = "--batch or --res";

/// Small, so that many steps on one random batch stay finite.
const LEARNING_RATE: f64 = 0.01;

/// The work to measure: how many images of which size, how many steps.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Images of a step.
    pub batch: usize,
    /// Height and width of the images.
    pub resolution: usize,
    /// Measured steps, at least 1, after two that are not measured.
    pub steps: usize,
    /// Whether to tell what the time of a step was spent on, which takes a little of it.
    pub profile: bool,
}

/// The result of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchResult {
    /// Images of a step over the median time of a step; of the loader, images over seconds.
    pub images_per_second: f64,
    /// Median time of a step, milliseconds.
    pub step_ms_median: f64,
    /// Shortest time of a step, milliseconds.
    pub step_ms_min: f64,
    /// Peak resident memory of the process, start and warm-up included, in MiB; `None` where the
    /// system does not report it.
    pub peak_rss_mib: Option<f64>,
    /// Multiply-accumulate operations of one forward for one image, in the measured form.
    pub macs_per_image: Option<u64>,
    /// Units that ran on this project's kernels.
    pub layers_fast: Option<usize>,
    /// Units that ran on the backend's own operations.
    pub layers_plain: Option<usize>,
    /// What the time was spent on, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<StepProfile>,
}

/// Measures whole training steps as a run takes them: forward of the training form,
/// cross-entropy, backward, SGD with the default momentum and weight decay; on one batch of random
/// images and labels.
///
/// # Errors
/// A network that cannot be built, a non-finite loss.
pub fn train(model: &ModelConfig, work: &Workload, device: &Device) -> Result<BenchResult> {
    let copies = Copies { optimizer: 1, average: false, accumulated: false };
    let layers = Summary::new(model, [work.resolution; 2])?.layers;
    check_batch(work, &layers)?;
    let estimate = Estimate::training(&layers, &batches(model, work), &copies, device);
    estimate.check(device, "a training step", SIZE)?;
    let device = device.clone().autodiff();
    let mut network = model.init(Form::Train, &device)?;
    let section = OptimSection { decay: DecayRule::All, ..OptimSection::sgd(LEARNING_RATE) };
    let mut optimizer = Optimizer::new(&section, &network);
    let images = images(model, work, &device);
    let uniform = Distribution::Uniform(0.0, model.num_classes as f64);
    let labels = Tensor::<1>::random([work.batch], uniform, &device).int();
    let labels: Tensor<1, Int> = labels.clamp(0, model.num_classes as i64 - 1);
    let mut layers = LayerCount::default();
    let measured = measure(work, |step| {
        let images = Tensor::from_data(images.clone(), &device);
        on_pool(&device, || {
            timed(work, || {
                let (logits, counted) = LayerCount::during(|| network.forward(images));
                layers = counted;
                let loss = {
                    let _span = record::work(Work::Loss);
                    cross_entropy(logits, labels.clone(), 0.0)
                };
                let value = f64::from(host(loss.clone().into_data())[0]);
                if !value.is_finite() {
                    return Err(Error::BenchLoss { loss: value, step });
                }
                let grads = {
                    let _span = record::backward();
                    GradientsParams::from_grads(loss.backward(), &network)
                };
                let _span = record::work(Work::Optimizer);
                network = optimizer.step(&network, grads, LEARNING_RATE);
                finish(&device)
            })
        })
    })?;
    BenchResult::of_network(measured, work, &network, layers)
}

/// Refuses batches of one image where a map has one position: batch norm would have one value per
/// channel, which has no variance. Runs have no such batches (`train.batch_size`).
fn check_batch(work: &Workload, layers: &[LayerSummary]) -> Result<()> {
    let normed = |layer: &&LayerSummary| layer.block != "linear";
    let smallest = layers.iter().filter(normed).find(|layer| layer.output == [1, 1]);
    match smallest {
        Some(layer) if work.batch < 2 => Err(Error::Unusable(format!(
            "a training step of one image needs maps of several positions, but that of {} is 1x1 with \
             images of {side}x{side}: batch norm needs more than one value per channel; raise {SIZE}",
            layer.name,
            side = work.resolution,
        ))),
        _ => Ok(()),
    }
}

/// Measures the network in inference: folded, or in training form with its running statistics.
///
/// # Errors
/// A network that cannot be built.
pub fn infer(
    model: &ModelConfig,
    form: Form,
    work: &Workload,
    device: &Device,
) -> Result<BenchResult> {
    let layers = Summary::new(model, [work.resolution; 2])?.layers;
    Estimate::inference(&layers, &batches(model, work)).check(device, "inference", SIZE)?;
    let device = device.clone().inner();
    let network = match form {
        Form::Train => model.init(Form::Train, &device)?,
        // Only the folded network is held while it is measured.
        Form::Deploy => model.init(Form::Train, &device)?.reparameterize(),
    };
    let images = images(model, work, &device);
    let mut layers = LayerCount::default();
    let measured = measure(work, |_| {
        let images = Tensor::from_data(images.clone(), &device);
        timed(work, || {
            let (logits, counted) = LayerCount::during(|| network.forward(images));
            host(logits.into_data());
            layers = counted;
            Ok(())
        })
    })?;
    BenchResult::of_network(measured, work, &network, layers)
}

/// Measures the loader on the training images of a data set, decoded, randomly cropped to the
/// resolution, mirrored and normalised as for ImageNet; without any network. With memory for a
/// cache an epoch fills it first.
///
/// The clock starts before the workers do, with nothing read ahead, so that every image that counts
/// was made within the time; the time of a step is the wait for its batch.
///
/// # Errors
/// A data set or an image that cannot be read.
pub fn loader(
    data: &DataRef,
    workers: usize,
    cache_mb: usize,
    work: &Workload,
) -> Result<BenchResult> {
    let dataset = open(data, Split::Train)?;
    let section = DataSection { size: Some(work.resolution), cache_mb, ..DataSection::default() };
    let preprocess = section.preprocess(&dataset, None);
    let augment = Augment { random_resized_crop: true, hflip: true, ..Augment::default() };
    let config = LoaderConfig {
        batch_size: work.batch,
        workers,
        shuffle: true,
        cache: section.cache(),
        ..LoaderConfig::default()
    };
    let batches = Batches {
        images: work.batch.min(dataset.len()),
        shape: preprocess.shape(),
        held: Batches::held(workers),
    };
    let estimate = Estimate::loading(&batches).with_cache(cache_mb);
    // Images are made on the processor, whatever the device.
    let lower = if estimate.is_mostly_cache() { "--cache-mb" } else { SIZE };
    estimate.check_host("loading", lower)?;
    let loader = Loader::new(Arc::new(dataset), config, Pipeline::new(preprocess, augment)?)?;
    if cache_mb > 0 {
        loader.epoch(0).try_for_each(|batch| batch.map(drop))?;
    }
    // Batches that are read for the first time; their workers end with the epoch.
    loader.epoch(0).take(WARM_UP).try_for_each(|batch| batch.map(drop))?;
    let mut last = Instant::now();
    let (mut images, mut times) = (0, Vec::new());
    // There is always a next epoch.
    for batch in (1..).flat_map(|epoch| loader.epoch(epoch)).take(work.steps.max(1)) {
        images += batch?.len();
        times.push(milliseconds(last));
        last = Instant::now();
    }
    // Workers deliver batches in bursts: the total time says more than the median.
    let seconds = times.iter().sum::<f64>() / 1000.0;
    Ok(BenchResult { images_per_second: images as f64 / seconds, ..BenchResult::new(times, work) })
}

impl BenchResult {
    fn new(mut times: Vec<f64>, work: &Workload) -> Self {
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median = match times.len() % 2 {
            0 => (times[middle - 1] + times[middle]) / 2.0,
            _ => times[middle],
        };
        Self {
            images_per_second: work.batch as f64 * 1000.0 / median,
            step_ms_median: median,
            step_ms_min: times[0],
            peak_rss_mib: peak_rss_mib(),
            macs_per_image: None,
            layers_fast: None,
            layers_plain: None,
            profile: None,
        }
    }

    fn of_network(
        (times, profile): (Vec<f64>, Profile),
        work: &Workload,
        network: &Classifier,
        layers: LayerCount,
    ) -> Result<Self> {
        Ok(Self {
            profile: work.profile.then(|| StepProfile::new(&profile, times.len())),
            macs_per_image: Some(macs(network, [work.resolution; 2])?),
            layers_fast: Some(layers.fast),
            layers_plain: Some(layers.plain),
            ..Self::new(times, work)
        })
    }
}

/// The times of the measured steps in milliseconds, and what they were spent on; each step is told its
/// number, from 1, and measures itself.
fn measure(
    work: &Workload,
    mut step: impl FnMut(usize) -> Result<(f64, Profile)>,
) -> Result<(Vec<f64>, Profile)> {
    let (mut times, mut profile) = (Vec::new(), Profile::default());
    for number in 1..=WARM_UP + work.steps.max(1) {
        let (time, recorded) = step(number)?;
        if number > WARM_UP {
            times.push(time);
            profile.add(&recorded);
        }
    }
    Ok((times, profile))
}

/// The time of a step in milliseconds, and what it was spent on, if that is asked for.
fn timed(work: &Workload, step: impl FnOnce() -> Result<()>) -> Result<(f64, Profile)> {
    let started = Instant::now();
    let (result, profile) = match work.profile {
        true => Profile::during(step),
        false => (step(), Profile::default()),
    };
    let time = milliseconds(started);
    result.map(|()| (time, profile))
}

/// The batch on the host and the copy of the step.
fn batches(model: &ModelConfig, work: &Workload) -> Batches {
    let shape = [model.in_channels, work.resolution, work.resolution];
    Batches { images: work.batch, shape, held: 2 }
}

/// Random images on the host. Every step makes a tensor of its own from them, as a loader does, so
/// that the memory of the images counts.
fn images(model: &ModelConfig, work: &Workload, device: &Device) -> TensorData {
    let shape = [work.batch, model.in_channels, work.resolution, work.resolution];
    Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), device).into_data()
}

fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}

/// Waits until a device has finished its work.
fn finish(device: &Device) -> Result<()> {
    device.sync().map_err(|error| Error::Unusable(format!("the device failed: {error}")))
}

/// Peak resident memory of the process in MiB, where Linux reports it.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
