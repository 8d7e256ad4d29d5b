//! What a comparison finds: a row for every run, and one for every arm over its seeds.

use std::path::PathBuf;

use serde::Serialize;

use super::arm::{Contrast, Difference, Pairing};
use crate::statistics::mean;
use crate::text::displayed;

/// One run. Percent for accuracies.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Architecture.
    pub arch: String,
    /// Block.
    pub block: String,
    /// Seed.
    pub seed: u64,
    /// Validation top-1 of the training form after the last epoch; `top1` in JSON.
    #[serde(rename = "top1")]
    pub top1_train: f64,
    /// The same of the folded network.
    pub top1_deploy: f64,
    /// Learnable parameters in training.
    pub params_train: usize,
    /// Parameters after folding.
    pub params_deploy: usize,
    /// Seconds of training and validation.
    pub seconds: f64,
    /// Blocks of several branches that were folded.
    pub blocks_folded: usize,
    /// Largest difference of validation logits between both forms, relative to the largest logit.
    pub fold_max_rel_diff: f64,
    /// The run directory.
    #[serde(serialize_with = "displayed")]
    pub run_dir: PathBuf,
    /// Name of its arm.
    pub name: String,
}

/// One arm over all seeds.
#[derive(Clone, Debug, Serialize)]
pub struct SummaryRow {
    /// Architecture.
    pub arch: String,
    /// Block.
    pub block: String,
    /// Seeds.
    pub n: usize,
    /// Mean top-1.
    pub top1_mean: f64,
    /// Standard deviation of top-1 over the seeds; null for one seed.
    pub top1_sd: Option<f64>,
    /// Mean difference of top-1 to the baseline; null where there is none, and for one seed, whose
    /// difference says nothing.
    pub delta: Option<f64>,
    /// Half the width of the 95 % confidence interval of `delta` (Student's t).
    pub delta_ci95: Option<f64>,
    /// Name of the arm.
    pub name: String,
    /// The arm that it is compared with; null for the first.
    pub baseline: Option<String>,
    /// Whether `delta` is that of pairs of runs of equal seeds, or of independent runs (Welch's
    /// interval); null where nothing is compared.
    pub paired: Option<Pairing>,
    /// How it differs from its baseline besides the block.
    pub differences: Vec<Difference>,
}

/// The whole comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Every run.
    pub rows: Vec<Row>,
    /// Every arm.
    pub summary: Vec<SummaryRow>,
    /// What is compared with what.
    #[serde(skip)]
    pub contrasts: Vec<Contrast>,
}

/// What the runs of an arm cost.
pub(super) struct Cost {
    /// Learnable parameters in training.
    pub params_train: usize,
    /// Parameters after folding.
    pub params_deploy: usize,
    /// Mean seconds of a run.
    pub seconds: f64,
    /// Largest fold difference of a run.
    pub fold: f64,
}

impl Comparison {
    /// The runs of an arm.
    pub(super) fn rows_of(&self, arm: &str) -> impl Iterator<Item = &Row> + Clone {
        self.rows.iter().filter(move |row| row.name == arm)
    }

    /// What the runs of an arm cost.
    pub(super) fn cost(&self, arm: &str) -> Cost {
        let rows = self.rows_of(arm);
        let seconds: Vec<f64> = rows.clone().map(|row| row.seconds).collect();
        let first = rows.clone().next();
        Cost {
            params_train: first.map_or(0, |row| row.params_train),
            params_deploy: first.map_or(0, |row| row.params_deploy),
            seconds: mean(&seconds),
            fold: rows.fold(0.0, |worst, row| worst.max(row.fold_max_rel_diff)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use dbb_models::BlockKind;

    use super::*;

    /// A run of an arm that has the name of its block.
    pub fn row(name: &str, seed: u64, top1: f64) -> Row {
        Row {
            arch: "resnet20".into(),
            block: name.into(),
            seed,
            top1_train: top1,
            top1_deploy: top1,
            params_train: 2,
            params_deploy: 1,
            seconds: 1.0,
            blocks_folded: 0,
            fold_max_rel_diff: 0.0,
            run_dir: PathBuf::new(),
            name: name.into(),
        }
    }

    pub fn contrast(arm: &str, baseline: &str, pairing: Pairing) -> Contrast {
        Contrast {
            arm: arm.into(),
            baseline: baseline.into(),
            blocks: [BlockKind::Dbb, BlockKind::Base],
            differences: Vec::new(),
            pairing,
        }
    }
}
