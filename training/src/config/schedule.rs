//! `[schedule]`: the learning rate over time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Fault, require, require_positive};
use super::{OptimSection, TrainSection};

/// The learning rate over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSection {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Epochs of linear warm-up from 0.
    pub warmup_epochs: f64,
    /// Learning rate at the end of the cosine.
    pub min_lr: f64,
    /// Epochs after which a step schedule multiplies the rate by `gamma`.
    pub milestones: Vec<usize>,
    /// Factor of a step schedule.
    pub gamma: f64,
}

impl Default for ScheduleSection {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Cosine,
            warmup_epochs: 0.0,
            min_lr: 0.0,
            milestones: Vec::new(),
            gamma: 0.1,
        }
    }
}

/// Shape of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from `optim.lr` to `min_lr`, updated every step.
    Cosine,
    /// The rate is multiplied by `gamma` at every milestone.
    Step,
}

impl ScheduleSection {
    /// Checks the ranges of the keys, some of which depend on other sections.
    pub(super) fn check(&self, train: &TrainSection, optim: &OptimSection) -> Result<(), Fault> {
        let warmup = self.warmup_epochs;
        let inside = (0.0..=train.epochs as f64).contains(&warmup);
        require(inside, "schedule.warmup_epochs", &warmup, "0 to train.epochs")?;
        let min = self.min_lr;
        require((0.0..=optim.lr).contains(&min), "schedule.min_lr", &min, "0 to optim.lr")?;
        require_positive("schedule.gamma", self.gamma)
    }
}
