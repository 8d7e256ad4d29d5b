//! Loss spikes.

use serde::{Deserialize, Serialize};

/// Weight of the newest loss in the mean.
const NEWEST: f64 = 0.05;

/// Steps before the mean is trusted.
const SETTLE: usize = 20;

/// A loss above this many times the mean is a spike.
const FACTOR: f64 = 3.0;

/// A moving mean of the training loss, and whether a new loss is a spike: more than three times
/// the mean, after the first 20 steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpikeWatch {
    mean: f64,
    steps: usize,
}

impl SpikeWatch {
    /// Takes in the loss of a step; the mean before it if the loss is a spike.
    pub fn add(&mut self, loss: f64) -> Option<f64> {
        let spike = self.steps >= SETTLE && loss > FACTOR * self.mean;
        let before = self.mean;
        // A spike counts as the least that would be one: the mean follows a lasting change, slowly.
        let loss = if spike { FACTOR * self.mean } else { loss };
        let newest = NEWEST.max(1.0 / (self.steps + 1) as f64);
        self.mean += newest * (loss - self.mean);
        self.steps += 1;
        spike.then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_more_than_three_times_the_mean_is_a_spike() {
        let mut watch = SpikeWatch::default();
        assert_eq!(watch.add(100.0), None);
        watch = SpikeWatch::default();
        for _ in 0..SETTLE {
            assert_eq!(watch.add(2.0), None);
        }
        assert_eq!(watch.add(5.9), None);
        let mean = watch.mean;
        assert_eq!(watch.add(1000.0), Some(mean));
        assert!(watch.mean < 1.2 * mean);
    }
}
