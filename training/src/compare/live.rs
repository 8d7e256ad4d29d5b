//! The run under way, for the report of the comparison.

use std::io;
use std::path::PathBuf;

use crate::config::Config;
use crate::report::State;
use crate::run::metrics::EpochRecord;
use crate::train::observer::{Observer, RunInfo, Step};

/// The run under way.
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

/// Writes the report of the comparison.
type Page<'a> = &'a dyn Fn(&Live, &State) -> io::Result<()>;

/// Writes the report at the beginning of a run and after each epoch, and forwards everything.
pub(super) struct Watch<'a> {
    live: Live,
    observer: &'a mut dyn Observer,
    page: Page<'a>,
}

impl<'a> Watch<'a> {
    pub fn new(live: Live, observer: &'a mut dyn Observer, page: Page<'a>) -> Self {
        Self { live, observer, page }
    }

    pub fn live(&self) -> &Live {
        &self.live
    }

    fn write(&mut self) {
        // A page that cannot be written once must not end a run.
        if let Err(error) = (self.page)(&self.live, &State::Running) {
            self.observer.note(&error.to_string());
        }
    }
}

impl Observer for Watch<'_> {
    fn started(&mut self, info: &RunInfo) {
        self.observer.started(info);
        self.write();
    }

    fn step(&mut self, step: &Step) {
        self.observer.step(step);
    }

    fn skipped(&mut self, reason: &str) {
        self.observer.skipped(reason);
    }

    fn note(&mut self, text: &str) {
        self.observer.note(text);
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.observer.epoch(record);
        self.live.last = Some(record.clone());
        self.write();
    }
}
