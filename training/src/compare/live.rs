//! The runs under way, for the report of the comparison.

use std::path::PathBuf;

use crate::config::Config;
use crate::run::metrics::EpochRecord;

/// A run under way.
#[derive(Clone, Debug)]
pub struct Live {
    /// Name of its arm.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// Epochs planned.
    pub epochs: usize,
    /// Its last epoch so far.
    pub last: Option<EpochRecord>,
    /// Its run directory.
    pub run_dir: PathBuf,
}

impl Live {
    /// A run that is about to begin.
    pub fn new(name: &str, config: &Config, run_dir: PathBuf) -> Self {
        let (seed, epochs) = (config.seed, config.train.epochs);
        Self { name: name.into(), seed, epochs, last: None, run_dir }
    }
}
