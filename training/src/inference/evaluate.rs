//! Loss, top-1 and top-5 of a network on a data set.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Int, Tensor};
use dbb_datasets::{Batch, DataError, Loader};
use dbb_models::Classifier;

use crate::cancel::CancelToken;
use crate::classification::Classification;
use crate::device;
use crate::error::{Error, Result};
use crate::run::metrics::{Totals, host};

/// The result of an evaluation.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// Loss, top-1 and top-5.
    pub totals: Totals,
    /// Confused classes, calibration, worst mistakes.
    pub classification: Classification,
    /// Why images that could not be read were left out.
    pub skipped: Vec<DataError>,
    /// Images whose logits are not all finite, and the index of the first of them.
    pub non_finite: NonFinite,
}

/// Images for which a network computes NaN or infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// How many.
    pub images: usize,
    /// Index of the first of them in its data set.
    pub first: usize,
}

impl Evaluation {
    /// The evaluation, if every logit and the loss are finite.
    ///
    /// # Errors
    /// [`Error::NonFiniteOutput`].
    pub fn finite(self) -> Result<Self> {
        let NonFinite { images, first } = self.non_finite;
        match (images, self.totals.loss()) {
            (0, loss) if loss.is_finite() => Ok(self),
            (0, loss) => Err(Error::NonFiniteOutput(format!("the loss is {loss}"))),
            _ => Err(Error::NonFiniteOutput(format!(
                "the network computes NaN or infinity for {images} of {} images, the first of them \
                 image {first}",
                self.totals.images()
            ))),
        }
    }

    /// Adds a batch with its logits `[batch, classes]` and mean loss.
    fn add(&mut self, batch: &Batch, logits: Tensor<2>, loss: f64) {
        let [_, classes] = logits.dims();
        let values = host(logits.into_data());
        self.totals.add_values(&values, classes, &batch.labels, loss);
        let images = batch.indices.iter().zip(&batch.labels);
        for (row, (&index, &label)) in values.chunks(classes).zip(images) {
            self.classification.add(index, label, row);
            if row.iter().all(|logit| logit.is_finite()) {
                continue;
            }
            if self.non_finite.images == 0 {
                self.non_finite.first = index;
            }
            self.non_finite.images += 1;
        }
    }
}

/// Mean cross-entropy of logits `[batch, classes]`, shape `[1]`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>, smoothing: f64) -> Tensor<1> {
    let device = logits.device();
    let smoothing = (smoothing > 0.0).then_some(smoothing as f32);
    CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&device).forward(logits, targets)
}

/// Runs every image of a loader through a network on the inference device and hands each batch
/// with its logits to `each`.
///
/// # Errors
/// If an image cannot be read.
pub fn evaluate(
    network: &Classifier,
    loader: &Loader,
    each: impl FnMut(&Batch, &Tensor<2>),
) -> Result<Evaluation> {
    // Nobody else holds this token: it is never set.
    Ok(evaluate_until(network, loader, &CancelToken::default(), each)?.unwrap_or_default())
}

/// As [`evaluate`]; `None` if it was asked to stop before the end.
///
/// # Errors
/// If an image cannot be read.
pub fn evaluate_until(
    network: &Classifier,
    loader: &Loader,
    stop: &CancelToken,
    mut each: impl FnMut(&Batch, &Tensor<2>),
) -> Result<Option<Evaluation>> {
    let evaluation = evaluate_part(network, loader, stop, &mut each)?;
    if let Some(Evaluation { totals, .. }) = &evaluation {
        any_image(totals, loader)?;
    }
    Ok(evaluation)
}

/// As [`evaluate_until`] for a loader that delivers a part, which may be empty.
pub(crate) fn evaluate_part(
    network: &Classifier,
    loader: &Loader,
    stop: &CancelToken,
    mut each: impl FnMut(&Batch, &Tensor<2>),
) -> Result<Option<Evaluation>> {
    let device = device::of(network);
    let mut evaluation = Evaluation::default();
    for batch in loader.epoch(0) {
        if stop.requested().is_some() {
            return Ok(None);
        }
        let mut batch = batch?;
        evaluation.skipped.append(&mut batch.skipped);
        if batch.is_empty() {
            continue;
        }
        let (images, targets) = batch.to_tensors(&device);
        let logits = network.forward(images);
        let loss = cross_entropy(logits.clone(), targets, 0.0);
        each(&batch, &logits);
        let loss = f64::from(host(loss.into_data())[0]);
        evaluation.add(&batch, logits, loss);
    }
    Ok(Some(evaluation))
}

/// Refuses an evaluation of no image.
pub(crate) fn any_image(totals: &Totals, loader: &Loader) -> Result<()> {
    if totals.images() > 0 {
        return Ok(());
    }
    let data = loader.dataset().describe();
    Err(Error::Unusable(format!("no image of {data} can be read")))
}
