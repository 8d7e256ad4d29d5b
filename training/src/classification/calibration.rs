//! Probabilities against accuracy.

use serde::{Deserialize, Serialize};

/// Bins of a reliability diagram, of equal width: as many as in the paper.
pub const BINS: usize = 15;

/// How far the probability of a prediction is the share of predictions that are right: the expected
/// calibration error over [`BINS`] bins of equal width (Guo et al., "On Calibration of Modern Neural
/// Networks", ICML 2017, sections 2 and 4.1; [arXiv:1706.04599](https://arxiv.org/abs/1706.04599)).
///
/// Bin `m` of `M` holds the predictions whose probability is above `(m - 1) / M` and at most `m / M`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    bins: [Bin; BINS],
}

/// The predictions whose probability is in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub images: usize,
    /// How many are right.
    pub correct: usize,
    /// Sum of their probabilities.
    sum: f64,
}

impl Calibration {
    /// Adds a prediction with its probability; one that is no number is left out.
    pub(super) fn add(&mut self, probability: f64, is_correct: bool) {
        if probability.is_nan() {
            return;
        }
        let place = (probability * BINS as f64).ceil() as usize;
        let bin = &mut self.bins[place.clamp(1, BINS) - 1];
        bin.images += 1;
        bin.correct += usize::from(is_correct);
        bin.sum += probability;
    }

    pub(super) fn join(&mut self, other: &Self) {
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.images += other.images;
            bin.correct += other.correct;
            bin.sum += other.sum;
        }
    }

    /// The bins, from improbable to certain.
    pub fn bins(&self) -> &[Bin; BINS] {
        &self.bins
    }

    /// Predictions counted.
    pub fn images(&self) -> usize {
        self.bins.iter().map(|bin| bin.images).sum()
    }

    /// The expected calibration error, percentage points: the mean over the predictions of the
    /// difference of accuracy and mean probability in their bin. `None` without any.
    pub fn ece(&self) -> Option<f64> {
        let images = self.images();
        let gap = |bin: &Bin| (bin.correct as f64 - bin.sum).abs();
        (images > 0).then(|| 100.0 * self.bins.iter().map(gap).sum::<f64>() / images as f64)
    }
}

impl Bin {
    /// Percent of them that are right.
    pub fn accuracy(&self) -> Option<f64> {
        (self.images > 0).then(|| 100.0 * self.correct as f64 / self.images as f64)
    }

    /// Their mean probability, percent.
    pub fn confidence(&self) -> Option<f64> {
        (self.images > 0).then(|| 100.0 * self.sum / self.images as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: eight predictions of 0.95 of which six are right (75 %), two of 0.5 of which both are
    /// (100 %): 0.8 * 20 + 0.2 * 50 = 26.
    #[test]
    fn the_error_is_that_of_the_paper() {
        let mut calibration = Calibration::default();
        (0..8).for_each(|i| calibration.add(0.95, i < 6));
        (0..2).for_each(|_| calibration.add(0.5, true));
        assert!((calibration.ece().unwrap() - 26.0).abs() < 1e-9);
        let filled: Vec<usize> = (0..BINS).filter(|&i| calibration.bins()[i].images > 0).collect();
        // 0.5 * 15 = 7.5 is in the eighth bin, 0.95 * 15 = 14.25 in the last.
        assert_eq!(filled, [7, 14]);
        let last = calibration.bins()[14];
        assert_eq!(last.accuracy(), Some(75.0));
        assert!((last.confidence().unwrap() - 95.0).abs() < 1e-9);
    }

    #[test]
    fn bins_end_with_their_upper_bound() {
        let mut calibration = Calibration::default();
        for probability in [0.0, 1.0 / 15.0, 0.2, 1.0, f64::NAN] {
            calibration.add(probability, true);
        }
        let counts: Vec<usize> = calibration.bins().iter().map(|bin| bin.images).collect();
        assert_eq!((counts[0], counts[2], counts[14], calibration.images()), (2, 1, 1, 4));
        assert_eq!(Calibration::default().ece(), None);
    }
}
