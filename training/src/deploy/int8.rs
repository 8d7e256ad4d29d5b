//! A network in 8 bits: the ranges of its values from images, and what rounding changes, as a whole and
//! layer by layer.

use burn::tensor::{Device, Tensor};
use dbb_datasets::Loader;
use dbb_models::Classifier;
use dbb_models::quantize::{Calibration, Int8Network, RangeError, RangeMethod, WeightRange};
use dbb_models::weights::relative;
use serde::Serialize;

use crate::deploy::fold::LogitDifference;
use crate::device;
use crate::error::{Error, Result};
use crate::inference::probe::{Probe, ProbeBatch};
use crate::run::metrics::{Totals, host};

/// A folded network in 8 bits.
pub type Int8Classifier<'n> = Int8Network<'n, Classifier>;

/// How a network is brought to 8 bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Int8Options {
    /// How the range of a value follows from what was seen of it.
    pub method: RangeMethod,
    /// The integers of weights.
    pub weights: WeightRange,
    /// Layers that stay in `f32`, as patterns.
    pub float_layers: Vec<String>,
}

/// Finds the ranges of a folded network on the images of a loader and returns it in 8 bits, with the
/// number of images; `seen` is called with those of each batch.
///
/// # Errors
/// If an image cannot be read, there is none, a value is not finite, or a pattern fits no layer.
pub fn calibrate<'n>(
    network: &'n Classifier,
    loader: &Loader,
    options: &Int8Options,
    mut seen: impl FnMut(usize),
) -> Result<(Int8Classifier<'n>, usize)> {
    let device = device::of(network);
    let mut calibration = Calibration::new(options.method);
    let mut images = observe(&mut calibration, network, loader, &device, &mut seen)?;
    if options.method.needs_distribution() {
        calibration = calibration.distribution().map_err(|error| unusable(&error, loader))?;
        images = observe(&mut calibration, network, loader, &device, &mut seen)?;
    }
    let ranges = calibration.ranges().map_err(|error| unusable(&error, loader))?;
    let int8 = Int8Network::new(network, ranges, options.weights)?;
    Ok((int8.with_float_layers(&options.float_layers)?, images))
}

fn observe(
    calibration: &mut Calibration,
    network: &Classifier,
    loader: &Loader,
    device: &Device,
    seen: &mut impl FnMut(usize),
) -> Result<usize> {
    let mut images = 0;
    for batch in loader.epoch(0) {
        let batch = batch?;
        if batch.is_empty() {
            continue;
        }
        calibration.observe(network, batch.to_tensors(device).0);
        images += batch.len();
        seen(batch.len());
    }
    Ok(images)
}

fn unusable(error: &RangeError, loader: &Loader) -> Error {
    let text = format!("{error}: {}", loader.dataset().describe());
    match error {
        RangeError::NoImages => Error::Unusable(text),
        RangeError::NonFinite { .. } => Error::NonFiniteOutput(text),
    }
}

/// A network in 8 bits compared with the same network in `f32`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Int8Accuracy {
    /// Images compared on.
    pub images: usize,
    /// Top-1 in `f32`, percent, where the classes of the images are known.
    pub top1: Option<f64>,
    /// Top-1 in 8 bits.
    pub top1_int8: Option<f64>,
    /// Percent of images with the same label.
    pub top1_agreement: f64,
    /// Root of the mean squared difference of logits, relative to that of the logits.
    pub error: f64,
}

/// What is left of the error where a layer alone stays in `f32`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSensitivity {
    /// The layer.
    pub layer: String,
    /// The other layers in 8 bits.
    #[serde(flatten)]
    pub accuracy: Int8Accuracy,
}

/// Compares a network in 8 bits with itself in `f32` on all images of a probe; `seen` is called with those
/// of each batch.
///
/// # Errors
/// If an image cannot be read, or a logit is not finite.
pub fn accuracy(
    int8: &Int8Classifier<'_>,
    network: &Classifier,
    probe: &Probe,
    mut seen: impl FnMut(usize),
) -> Result<Int8Accuracy> {
    let mut comparison = Comparison::default();
    for batch in probe.batches() {
        let (batch, images, logits) = forward(network, batch?);
        let before = comparison.images;
        comparison.add(logits, int8.forward(images), &batch);
        seen(comparison.images - before);
    }
    comparison.finish()
}

/// Leaves every layer of a network in 8 bits alone in `f32`, one after the other, and compares on the
/// `images` images of a probe; returns what all in 8 bits give there, and each layer.
///
/// # Errors
/// As [`accuracy`].
pub fn sensitivity(
    int8: &Int8Classifier<'_>,
    network: &Classifier,
    probe: &Probe,
    images: usize,
) -> Result<(Int8Accuracy, Vec<LayerSensitivity>)> {
    let layers = int8.int8_layers();
    let mut comparisons = vec![Comparison::default(); layers.len() + 1];
    for batch in probe.limit(images).batches() {
        let (batch, images, logits) = forward(network, batch?);
        let rounded = int8.forward_sparing(images, &layers);
        for (comparison, rounded) in comparisons.iter_mut().zip(rounded) {
            comparison.add(logits.clone(), rounded, &batch);
        }
    }
    let mut accuracies = comparisons.into_iter().map(Comparison::finish);
    // There is one more than layers.
    let all = accuracies.next().unwrap_or_else(|| Comparison::default().finish())?;
    let layers = layers
        .into_iter()
        .zip(accuracies)
        .map(|(layer, accuracy)| accuracy.map(|accuracy| LayerSensitivity { layer, accuracy }));
    Ok((all, layers.collect::<Result<_>>()?))
}

/// A batch, its images and their logits in `f32`.
fn forward(network: &Classifier, batch: ProbeBatch) -> (Vec<usize>, Tensor<4>, Tensor<2>) {
    let ProbeBatch { images, labels } = batch;
    let images: Tensor<4> = Tensor::from_data(images, &device::of(network));
    let logits = network.forward(images.clone());
    (labels, images, logits)
}

/// Logits in `f32` and in 8 bits, image by image.
#[derive(Clone, Debug, Default)]
struct Comparison {
    images: usize,
    labels: LogitDifference,
    totals: [Totals; 2],
    /// Sums of squares of the differences and of the logits.
    squares: [f64; 2],
}

impl Comparison {
    fn add(&mut self, exact: Tensor<2>, rounded: Tensor<2>, labels: &[usize]) {
        self.images += exact.dims()[0];
        for (totals, logits) in self.totals.iter_mut().zip([&exact, &rounded]) {
            totals.add(logits.clone(), labels, 0.0);
        }
        let [a, b] = [&exact, &rounded].map(|logits| host(logits.clone().into_data()));
        for (a, b) in a.into_iter().map(f64::from).zip(b.into_iter().map(f64::from)) {
            self.squares[0] += (a - b).powi(2);
            self.squares[1] += a.powi(2);
        }
        self.labels.add(exact, rounded);
    }

    fn finish(self) -> Result<Int8Accuracy> {
        if self.images == 0 {
            return Err(Error::Unusable("there is no image to compare 8 bits on".into()));
        }
        let [difference, logits] = self.squares;
        let error = relative(difference, logits).sqrt();
        if !error.is_finite() {
            let text = "logits in 8 bits, or in f32, are not finite";
            return Err(Error::NonFiniteOutput(text.into()));
        }
        let percent = |totals: Totals| (totals.images() > 0).then(|| totals.top1());
        let [top1, top1_int8] = self.totals.map(percent);
        let top1_agreement = self.labels.top1_agreement();
        Ok(Int8Accuracy { images: self.images, top1, top1_int8, top1_agreement, error })
    }
}
