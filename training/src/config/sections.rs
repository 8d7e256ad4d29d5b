//! A whole configuration, section by section; each section keeps its keys, their defaults and their
//! ranges in a file of its own.

use dbb_datasets::Augment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Fault, require};
use super::{DataSection, ModelSection, OptimSection, ScheduleSection, TrainSection};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the configuration in comparisons: in the folders of its runs, in tables and in reports.
    /// By default the name of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Seed of the initial weights, the order of the images and the augmentation.
    #[serde(default)]
    pub seed: u64,
    /// The network.
    pub model: ModelSection,
    /// The images.
    #[serde(default)]
    pub data: DataSection,
    /// Augmentation of training images.
    #[serde(default)]
    pub augment: AugmentSection,
    /// Epochs, batches, checkpoints.
    pub train: TrainSection,
    /// The optimizer.
    pub optim: OptimSection,
    /// The schedule of the learning rate.
    #[serde(default)]
    pub schedule: ScheduleSection,
}

/// Augmentation of training images.
pub type AugmentSection = Augment;

impl Config {
    /// Largest seed: TOML has no larger numbers.
    pub const MAX_SEED: u64 = i64::MAX as u64;

    /// The one check of a configuration, as far as it can be checked without its data: that every
    /// value is in its range, that the network can be built, and that images can become its input.
    /// What depends on the data is checked by the same functions when it is opened.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if let Some(name) = &self.name {
            let expected = "letters, digits, \"-\", \"_\", \".\" and \"+\", a letter or digit first, \
                            100 characters at most";
            require(is_name(name), "name", &format!("{name:?}"), expected)?;
        }
        self.train.check()?;
        self.optim.check()?;
        self.schedule.check(&self.train, &self.optim)?;
        self.data.check(self.model.in_channels, &self.augment)?;
        self.model.check(self.data.size, &self.train.freeze)
    }
}

/// Whether a text can name a configuration: names appear in folders and tables.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(char::is_alphanumeric)
        && text.chars().all(|c| c.is_alphanumeric() || "-_.+".contains(c))
        && text.chars().count() <= 100
}
