//! How many epochs of an arm take as long as the training of another one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::cancel::CancelToken;
use crate::config::Config;
use crate::error::{Error, Result, cannot_write};
use crate::run::directory::RunDir;
use crate::run::metrics::EpochRecord;
use crate::train::Trainer;
use crate::train::observer::{Observer, Step};

/// Times that both arms are measured, one after the other. The shortest counts: whatever else the
/// machine does only makes an epoch longer.
const ROUNDS: usize = 2;

/// The epochs of an arm that trains as long as another one, and how they were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EqualTime {
    /// The arm whose training time decides.
    pub same_time_as: String,
    /// Its epochs.
    pub reference_epochs: usize,
    /// Seconds that it trains in an epoch, without validation.
    pub reference_seconds: f64,
    /// Seconds of the arm's own.
    pub own_seconds: f64,
    /// Epochs of the arm: as many whole ones as fit into the time, and at least one.
    pub epochs: usize,
}

impl EqualTime {
    fn new(name: &str, reference_epochs: usize, reference_seconds: f64, own_seconds: f64) -> Self {
        let epochs = reference_epochs as f64 * reference_seconds / own_seconds;
        Self {
            same_time_as: name.into(),
            reference_epochs,
            reference_seconds,
            own_seconds,
            epochs: (epochs as usize).max(1),
        }
    }

    /// Measures an epoch of both by training it, in a folder below `out` that is removed again.
    pub fn measure(
        own: &Config,
        (name, reference): (&str, &Config),
        out: &Path,
        device: &Device,
        stop: &CancelToken,
    ) -> Result<Self> {
        let mut shortest = [f64::INFINITY; 2];
        for _ in 0..ROUNDS {
            for (config, shortest) in [reference, own].into_iter().zip(&mut shortest) {
                let folder = Scratch::new(out.join(".timing"))?;
                let seconds = seconds_of_epoch(config, &folder.0, device, stop)?;
                *shortest = shortest.min(seconds);
            }
        }
        let [reference_seconds, own_seconds] = shortest;
        Ok(Self::new(name, reference.train.epochs, reference_seconds, own_seconds))
    }
}

/// A folder that is removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    /// The folder does not exist yet; what one before it left, whose process was killed, is removed.
    fn new(path: PathBuf) -> Result<Self> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(cannot_write(&path, &error).into())
            }
            _ => Ok(Self(path)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next one is told of what cannot be removed.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Seconds of training in an epoch of a run: the first one, or the second one where the first fills a cache.
fn seconds_of_epoch(
    config: &Config,
    folder: &Path,
    device: &Device,
    stop: &CancelToken,
) -> Result<f64> {
    let mut trainer = Trainer::new(config.clone(), RunDir::new(folder), device)?;
    let epoch = if config.data.cache_mb > 0 { config.train.epochs.min(2) } else { 1 };
    let mut timed = TimedEpoch { stop, enough: CancelToken::default(), epoch, seconds: None };
    trainer.stop_on(timed.enough.clone());
    let outcome = trainer.fit(&mut timed);
    match (timed.seconds, stop.requested()) {
        (_, Some(signal)) => Err(Error::NotBegun { signal }),
        (Some(seconds), None) => Ok(seconds),
        // Without an epoch there is an error.
        (None, None) => outcome.map(|result| result.seconds),
    }
}

/// Ends a run after an epoch.
struct TimedEpoch<'a> {
    stop: &'a CancelToken,
    enough: CancelToken,
    epoch: usize,
    /// Of training in that epoch.
    seconds: Option<f64>,
}

impl Observer for TimedEpoch<'_> {
    fn step(&mut self, _step: &Step) {
        if let Some(signal) = self.stop.requested() {
            self.enough.request(signal);
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        if record.epoch == self.epoch {
            self.seconds = Some(record.images as f64 / record.images_per_second);
            self.enough.request(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_whole_epochs_as_fit() {
        for (epochs, reference, own, expected) in
            [(6, 3.0, 1.0, 18), (25, 1.06, 1.0, 26), (6, 1.0, 1.01, 5), (2, 1.0, 9.0, 1)]
        {
            assert_eq!(EqualTime::new("dbb", epochs, reference, own).epochs, expected);
        }
    }
}
