//! The worst mistakes.

use serde::{Deserialize, Serialize};

/// Mistakes that are remembered.
pub const MOST: usize = 24;

/// An image that is classified wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// Its index in the data set.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The class that it is taken for.
    pub prediction: usize,
    /// Probability of the prediction, 0 to 1.
    pub probability: f64,
    /// Probability of its own class, 0 to 1.
    pub label_probability: f64,
    /// Its cross-entropy.
    pub loss: f64,
}

/// The [`MOST`] mistakes with the largest loss, that is, those whose own class was thought the least
/// probable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mistakes {
    /// The worst first; never more than [`MOST`].
    worst: Vec<Mistake>,
}

impl Mistakes {
    pub(super) fn add(&mut self, mistake: Mistake) {
        // Of equal ones the earlier of the data set comes first. NaN is above every number.
        let is_worse = |other: &Mistake| {
            let by_loss = other.loss.total_cmp(&mistake.loss);
            by_loss.then(mistake.index.cmp(&other.index)).is_ge()
        };
        let place = self.worst.partition_point(is_worse);
        if place == MOST {
            return;
        }
        self.worst.truncate(MOST - 1);
        self.worst.insert(place, mistake);
    }

    /// They, the worst first.
    pub fn worst(&self) -> &[Mistake] {
        &self.worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(losses: impl IntoIterator<Item = f64>) -> Vec<usize> {
        let mut mistakes = Mistakes::default();
        for (index, loss) in losses.into_iter().enumerate() {
            let (probability, label_probability) = (0.5, (-loss).exp());
            let (label, prediction) = (0, 1);
            mistakes.add(Mistake {
                index,
                label,
                prediction,
                probability,
                label_probability,
                loss,
            });
            assert!(mistakes.worst().len() <= MOST);
        }
        mistakes.worst().iter().map(|mistake| mistake.index).collect()
    }

    #[test]
    fn the_largest_losses_are_kept_in_their_order() {
        assert_eq!(of([1.0, 3.0, 2.0]), [1, 2, 0]);
        assert_eq!(of([2.0, f64::NAN, 2.0, 3.0]), [1, 3, 0, 2]);
        // Against sorting all of them; 37 has no divisor in common with 1000.
        let loss = |i: usize| (i * 37 % 1000 / 2) as f64;
        let mut all: Vec<usize> = (0..1000).collect();
        all.sort_by(|&a, &b| loss(b).total_cmp(&loss(a)));
        assert_eq!(of((0..1000).map(loss)), all[..MOST]);
    }
}
