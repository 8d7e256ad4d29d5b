//! Counts for top-1 and top-5, and the record of an epoch.

use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Sums over the images seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    images: usize,
    loss: f64,
    top1: usize,
    top5: usize,
}

impl Totals {
    /// Adds a batch: logits `[batch, classes]`, labels, and the mean loss.
    pub fn add(&mut self, logits: Tensor<2>, labels: &[usize], mean_loss: f64) {
        let [_, classes] = logits.dims();
        self.add_values(&host(logits.into_data()), classes, labels, mean_loss);
    }

    /// The same with the logits on the host.
    pub(crate) fn add_values(
        &mut self,
        values: &[f32],
        classes: usize,
        labels: &[usize],
        mean_loss: f64,
    ) {
        for (row, &label) in values.chunks(classes).zip(labels) {
            let rank = rank_of(row, label);
            self.top1 += usize::from(rank < 1);
            self.top5 += usize::from(rank < 5);
        }
        self.loss += mean_loss * labels.len() as f64;
        self.images += labels.len();
    }

    /// Sums over `images`: their mean loss, and how many labels have the highest logit and one of the
    /// five highest.
    pub fn of(images: usize, mean_loss: f64, top1: usize, top5: usize) -> Self {
        Self { images, loss: mean_loss * images as f64, top1, top5 }
    }

    /// The sums of both.
    pub fn join(&mut self, other: &Self) {
        self.images += other.images;
        self.loss += other.loss;
        self.top1 += other.top1;
        self.top5 += other.top5;
    }

    /// The sums as numbers that any text holds exactly, NaN among them.
    pub(crate) fn exact(&self) -> [u64; 4] {
        [self.images as u64, self.loss.to_bits(), self.top1 as u64, self.top5 as u64]
    }

    /// What [`exact`](Self::exact) was made of.
    pub(crate) fn from_exact([images, loss, top1, top5]: [u64; 4]) -> Self {
        let [images, top1, top5] = [images, top1, top5].map(|count| count as usize);
        Self { images, loss: f64::from_bits(loss), top1, top5 }
    }

    /// How many labels have the highest logit and one of the five highest.
    pub fn hits(&self) -> (usize, usize) {
        (self.top1, self.top5)
    }

    /// Images counted.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Mean loss.
    pub fn loss(&self) -> f64 {
        self.loss / self.images.max(1) as f64
    }

    /// Percent of images whose label has the highest logit.
    pub fn top1(&self) -> f64 {
        100.0 * self.top1 as f64 / self.images.max(1) as f64
    }

    /// Percent of images whose label is among the five highest logits.
    pub fn top5(&self) -> f64 {
        100.0 * self.top5 as f64 / self.images.max(1) as f64
    }
}

/// How many classes are preferred to the label. Ties go to the earlier class; if the logit of the
/// label is NaN, all are.
fn rank_of(logits: &[f32], label: usize) -> usize {
    let own = logits[label];
    if own.is_nan() {
        return logits.len();
    }
    logits.iter().enumerate().filter(|&(i, &v)| v > own || (v == own && i < label)).count()
}

/// The values of a tensor on the host.
pub(crate) fn host(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

/// The epochs in `metrics.jsonl`.
///
/// # Errors
/// If the file cannot be read or a line is no record of an epoch.
pub fn read(path: &Path) -> Result<Vec<EpochRecord>> {
    let fail =
        |reason: String| Error::Unusable(format!("cannot read {}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let record = |line| serde_json::from_str(line).map_err(|error| fail(error.to_string()));
    text.lines().map(record).collect()
}

/// One line of `metrics.jsonl`. Percent for accuracies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epochs done, from 1.
    pub epoch: usize,
    /// Optimizer steps done.
    pub step: usize,
    /// Training images seen.
    pub images: usize,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Training top-1, on augmented images while the weights were changing.
    pub train_top1: f64,
    /// Validation loss of the folded copy.
    pub val_loss: f64,
    /// Validation top-1 of the folded copy.
    pub top1: f64,
    /// Validation top-5 of the folded copy.
    pub top5: f64,
    /// Largest difference of logits, training form against folded, relative to the largest
    /// logit, on the first validation batch.
    pub fold_max_rel_diff: f64,
    /// Training images per second, validation not counted.
    pub images_per_second: f64,
    /// Seconds of training and validation.
    pub seconds: f64,
    /// Those of them in which training waited for the loader.
    #[serde(default)]
    pub loader_seconds: f64,
    /// Those of them that validation took.
    #[serde(default)]
    pub validation_seconds: f64,
    /// Images that could not be read and were left out, in training and validation.
    pub skipped: usize,
    /// Steps whose loss was more than three times the mean of those before.
    pub spikes: usize,
}

impl EpochRecord {
    /// Seconds of the steps alone, without loader and validation.
    pub fn step_seconds(&self) -> f64 {
        self.seconds - self.loader_seconds - self.validation_seconds
    }

    /// Whether validation falls so far behind training that the running statistics of the batch norms are in
    /// doubt, not only the weights: less than half of the top-1 of training, and more than twice the loss of a guess.
    pub fn doubts_running_statistics(&self, classes: usize) -> bool {
        self.top1 < self.train_top1 / 2.0 && self.val_loss > 2.0 * (classes as f64).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Two last epochs of MobileNetV1 with DBB on 1,000 images of Fashion-MNIST, of two seeds. With averages
    /// over those images as running statistics the first has 75.50 %, the second 75.49 %.
    #[test]
    fn statistics_that_do_not_fit_are_in_doubt() {
        let record = |train_top1, top1, val_loss| EpochRecord {
            train_top1,
            top1,
            val_loss,
            ..EpochRecord::default()
        };
        assert!(record(90.1, 7.26, 5.6919).doubts_running_statistics(10));
        assert!(!record(92.2, 75.66, 0.8131).doubts_running_statistics(10));
        // Before anything is learnt, both are guesses.
        assert!(!record(10.0, 10.0, 2.31).doubts_running_statistics(10));
    }

    #[test]
    fn counts_by_rank() {
        let logits = Tensor::from_floats(
            [
                [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
                [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
                [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
                [7.0, 7.0, 2.0, 3.0, 4.0, 5.0],
                [f32::NAN, 1.0, 2.0, 3.0, 4.0, 5.0],
            ],
            &Device::default(),
        );
        let mut totals = Totals::default();
        totals.add(logits, &[5, 1, 0, 1, 0], 2.0);
        assert_eq!((totals.images(), totals.top1(), totals.top5()), (5, 20.0, 60.0));
        assert_eq!(totals.loss(), 2.0);
    }
}
