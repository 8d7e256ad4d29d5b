//! What a network says of each image of a data set, counted: which classes it confuses, how far its
//! probabilities can be trusted, and its worst mistakes.
//!
//! ```text
//! confusion.rs    label against prediction; precision and recall
//! calibration.rs  probability against accuracy
//! mistakes.rs     the images with the largest loss among those classified wrongly
//! ```

mod calibration;
mod confusion;
mod mistakes;

pub use calibration::{BINS, Bin, Calibration};
pub use confusion::{ClassCounts, Confusion, Pair};
pub use mistakes::{MOST, Mistake, Mistakes};

use serde::{Deserialize, Serialize};

/// What a network says of the images of a data set. Its size does not grow with theirs: images are
/// counted, and only the worst mistakes are remembered, by their index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Labels against predictions.
    pub confusion: Confusion,
    /// Probabilities against accuracy.
    pub calibration: Calibration,
    /// The worst mistakes.
    pub mistakes: Mistakes,
}

impl Classification {
    /// Adds an image: its index in the data set, its label, and its logits, one per class.
    pub fn add(&mut self, index: usize, label: usize, logits: &[f32]) {
        let prediction = best(logits);
        // The softmax in f64, about the largest logit so that nothing overflows.
        let highest = f64::from(logits[prediction]);
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
        let probability = 1.0 / sum;
        self.confusion.add(label, prediction);
        self.calibration.add(probability, prediction == label);
        if prediction != label {
            let log_probability = f64::from(logits[label]) - highest - sum.ln();
            self.mistakes.add(Mistake {
                index,
                label,
                prediction,
                probability,
                label_probability: log_probability.exp(),
                loss: -log_probability,
            });
        }
    }

    /// Adds what was found of other images of the same data set.
    pub(crate) fn join(&mut self, other: &Self) {
        self.confusion.join(&other.confusion);
        self.calibration.join(&other.calibration);
        other.mistakes.worst().iter().for_each(|mistake| self.mistakes.add(*mistake));
    }
}

/// The class with the highest logit or probability; of equal ones the first.
pub fn best(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose softmax is known: ln 1, ln 2, ln 5 have 1/8, 2/8 and 5/8.
    #[test]
    fn probabilities_are_the_softmax() {
        let logits = [0.0, 2f32.ln(), 5f32.ln()];
        let mut found = Classification::default();
        found.add(7, 1, &logits);
        found.add(8, 2, &logits);
        let worst = found.mistakes.worst();
        assert_eq!((worst.len(), worst[0].index, worst[0].prediction), (1, 7, 2));
        assert!((worst[0].probability - 0.625).abs() < 1e-6);
        assert!((worst[0].label_probability - 0.25).abs() < 1e-6);
        assert!((worst[0].loss - 4f64.ln()).abs() < 1e-6);
        assert_eq!((found.confusion.count(1, 2), found.confusion.count(2, 2)), (1, 1));
        // Half of them right, with a confidence of 62.5 %.
        assert!((found.calibration.ece().unwrap() - 12.5).abs() < 1e-5);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut found = Classification::default();
        found.add(0, 0, &[-3e38, 3e38]);
        let worst = &found.mistakes.worst()[0];
        assert_eq!((worst.probability, worst.label_probability), (1.0, 0.0));
        assert!(worst.loss.is_finite() && worst.loss > 1e38);
    }

    #[test]
    fn what_is_no_number_is_counted_and_not_calibrated() {
        let mut found = Classification::default();
        found.add(0, 1, &[f32::NAN, 0.0]);
        assert_eq!(found.confusion.images(), 1);
        assert_eq!(found.calibration.ece(), None);
    }

    /// Every third image each, put together in any order; many have the same loss.
    #[test]
    fn parts_of_a_data_set_are_the_data_set() {
        let of = |indices: &mut dyn Iterator<Item = usize>| {
            let mut found = Classification::default();
            // Probabilities of a half and one, so that their sums do not depend on the order.
            indices.for_each(|i| found.add(i, i % 2, &[[0.0, 0.0], [f32::MAX, 0.0]][i % 7 % 2]));
            found
        };
        let whole = of(&mut (0..200));
        assert_eq!(whole.mistakes.worst().len(), MOST);
        for order in [[0, 1, 2], [2, 0, 1]] {
            let mut joined = Classification::default();
            for first in order {
                joined.join(&of(&mut (first..200).step_by(3)));
            }
            assert_eq!(joined, whole);
        }
    }

    #[test]
    fn it_is_stored_as_text() {
        let mut found = Classification::default();
        for (index, logits) in [[0.1, 0.7], [0.3, 0.2], [5.0, -5.0]].iter().enumerate() {
            found.add(index, index % 2, logits);
        }
        let text = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Classification>(&text).unwrap(), found);
    }
}
