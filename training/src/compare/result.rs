//! What a comparison finds: a row for every run, one for every arm over its seeds, and one for every
//! comparison of two arms.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::contrast::{Contrast, Difference, Pairing};
use super::plan::Correction;
use crate::error::{Error, Result};
use crate::run::directory::RunDir;
use crate::statistics::mean;
use crate::text::displayed;

/// One run. Percent for accuracies; all after the last epoch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// Architecture.
    pub arch: String,
    /// Block.
    pub block: String,
    /// Seed.
    pub seed: u64,
    /// Validation top-1 of the folded network.
    pub top1: f64,
    /// The same of the training form.
    pub top1_train: f64,
    /// Learnable parameters in training.
    pub params_train: usize,
    /// Parameters after folding.
    pub params_deploy: usize,
    /// Seconds of training and validation.
    pub seconds: f64,
    /// Seconds of training alone.
    pub train_seconds: f64,
    /// Validation top-5 of the folded network.
    pub top5: f64,
    /// Validation loss of the folded network.
    pub test_loss: f64,
    /// Mean training loss of the last epoch.
    pub train_loss: f64,
    /// Epochs.
    pub epochs: usize,
    /// Validation images.
    pub test_images: usize,
    /// Height and width of the network's input.
    pub image_size: [usize; 2],
    /// Blocks of several branches that were folded.
    pub blocks_folded: usize,
    /// Largest difference of validation logits between both forms, relative to the largest logit.
    pub fold_max_rel_diff: f64,
    /// Most memory that the process of the run held, in MiB; null where the system does not tell. Of a
    /// run that was resumed, since then.
    pub peak_memory_mib: Option<f64>,
    /// Version of the program.
    pub version: String,
    /// Commit that the program was built from; null if it is not known.
    pub commit: Option<String>,
    /// Device.
    pub device: String,
    /// Processor.
    pub machine: String,
    /// Threads of the CPU backends.
    pub threads: usize,
    /// Instruction set of the CPU kernels.
    pub instruction_set: String,
    /// The run directory.
    #[serde(serialize_with = "displayed", skip_deserializing)]
    pub run_dir: PathBuf,
    /// Name of its arm.
    pub name: String,
}

impl Row {
    /// Writes the row into its run directory.
    pub(super) fn save(&self, run: &RunDir) -> Result<()> {
        // Plain data always serialises.
        let text = serde_json::to_string_pretty(self).expect("a row is plain data") + "\n";
        Ok(run.write(&run.result(), &text)?)
    }

    /// The row in a run directory.
    pub(super) fn load(run: &RunDir) -> Result<Self> {
        let path = run.result();
        let fail = |reason: String| {
            Error::Unusable(format!(
                "cannot read the result {}: {reason}; hint: remove it to measure the run again",
                path.display()
            ))
        };
        let text = fs::read_to_string(&path).map_err(|error| fail(error.to_string()))?;
        let row: Self = serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
        Ok(Self { run_dir: run.root().into(), ..row })
    }
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
    /// Name of the arm.
    pub name: String,
}

/// An arm against its baseline, over all seeds. A value is null where nothing can be compared and for one
/// seed, whose difference says nothing; intervals and p-values also where there is no spread.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Name of the arm.
    pub arm: String,
    /// Name of its baseline.
    pub baseline: String,
    /// Whether a study file declares it as the primary comparison.
    pub primary: bool,
    /// Whether the interval is that of pairs of runs of equal seeds, or of independent runs (Welch's);
    /// null where nothing is compared.
    pub paired: Option<Pairing>,
    /// Pairs; of independent runs, the runs of the arm with fewer.
    pub n: usize,
    /// Mean difference of top-1, in points.
    pub delta: Option<f64>,
    /// Half the width of its 95 % confidence interval (Student's t).
    pub delta_ci95: Option<f64>,
    /// The p-value of the two-sided t test that there is no difference.
    pub p: Option<f64>,
    /// The same, corrected for the number of comparisons.
    pub p_corrected: Option<f64>,
    /// The difference of the means of all runs, whether or not they have pairs.
    pub unpaired_delta: Option<f64>,
    /// Half the width of its 95 % confidence interval (Welch).
    pub unpaired_ci95: Option<f64>,
    /// Seeds that resolve the difference that is wanted (`resolve`): with a power of 80 % at a
    /// two-sided level of 5 %, by the spread that was found.
    pub seeds_needed: Option<usize>,
    /// How the arm differs from its baseline besides the block.
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
    pub comparisons: Vec<Outcome>,
    /// How the p-values are corrected for the number of comparisons.
    pub correction: Correction,
    /// The difference, in points of top-1, that `seeds_needed` is for.
    pub resolve: f64,
    /// The command that made the comparison; empty if it was no command.
    pub command: String,
    /// The comparisons before they were made.
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

    /// The first comparison that an arm is in with a baseline.
    pub(super) fn outcome_of(&self, arm: &str) -> Option<&Outcome> {
        self.comparisons.iter().find(|outcome| outcome.arm == arm)
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
            top1,
            top1_train: top1,
            params_train: 2,
            params_deploy: 1,
            seconds: 1.0,
            train_seconds: 0.75,
            top5: 99.5,
            test_loss: 0.5,
            train_loss: 0.25,
            epochs: 2,
            test_images: 2000,
            image_size: [14, 14],
            blocks_folded: 0,
            fold_max_rel_diff: 0.0,
            peak_memory_mib: None,
            version: "0.1.0".into(),
            commit: None,
            device: "flex".into(),
            machine: "a processor, fast".into(),
            threads: 1,
            instruction_set: "avx2".into(),
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
            is_primary: false,
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::new(folder.path());
        let own = Row { top1: 100.0 / 3.0, ..row("dbb", 3, 0.0) };
        own.save(&run).unwrap();
        let read = Row::load(&run).unwrap();
        assert_eq!(
            (read.top1.to_bits(), read.run_dir.as_path()),
            (own.top1.to_bits(), folder.path())
        );
        assert_eq!(read.machine, own.machine);
        fs::write(run.result(), "{}").unwrap();
        let error = Row::load(&run).unwrap_err().to_string();
        assert!(
            error.contains("cannot read the result") && error.contains("missing field"),
            "{error}"
        );
    }
}
