//! Configuration: a TOML file and overrides, checked before anything runs.

mod batch_size;
mod check;
mod data;
mod difference;
mod document;
mod model;
mod optim;
mod schedule;
mod sections;
mod show;
mod train;
mod unused;

pub use batch_size::BatchSize;
pub use data::{DataSection, OnBadSample};
pub use difference::shown;
pub(crate) use document::line_of;
pub use document::{ConfigFileError, Document, Place};
pub use model::ModelSection;
pub use optim::{DecayRule, OptimKind, OptimSection};
pub use schedule::{ScheduleKind, ScheduleSection};
pub(crate) use sections::is_name;
pub use sections::{AugmentSection, Config};
pub use train::TrainSection;

use std::path::Path;

use check::Fault;

/// The default of factors.
fn one() -> f64 {
    1.0
}

impl Config {
    /// Reads a file, applies `KEY=VALUE` overrides in order, and checks the result.
    ///
    /// # Errors
    /// As [`load_run`](Self::load_run); a value that has no effect with the others.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigFileError> {
        Self::read(path, overrides, |config| {
            config.check()?;
            config.check_unused()
        })
    }

    /// The same for the configuration of a run, which may hold values without effect.
    ///
    /// # Errors
    /// A file that cannot be read or parsed; a key that does not exist (with the nearest that
    /// does); a value of the wrong kind or out of range. Each names file, line and key.
    pub fn load_run(path: &Path, overrides: &[String]) -> Result<Self, ConfigFileError> {
        Self::read(path, overrides, Self::check)
    }

    fn read(
        path: &Path,
        overrides: &[String],
        check: impl FnOnce(&Self) -> Result<(), Fault>,
    ) -> Result<Self, ConfigFileError> {
        let document = Document::read(path)?.with_overrides(overrides)?;
        if document.is_empty() {
            let text = "the file holds no key; a configuration has at least model.arch, \
                        train.epochs, train.batch_size and optim.lr";
            let place = Place::File(path.display().to_string());
            return Err(ConfigFileError::Fault { place, text: text.into() });
        }
        let config: Self = document.parse()?;
        check(&config).map_err(|fault| document.fault(&fault.key, fault.text))?;
        Ok(config)
    }

    /// The JSON schema of configuration files, for editors that complete and check TOML.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// The configuration as TOML, every default written out.
    pub fn to_toml(&self) -> String {
        // Plain tables with string keys always serialise.
        toml::to_string(self).expect("a configuration is plain data")
    }
}
