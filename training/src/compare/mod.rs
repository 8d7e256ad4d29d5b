//! Several configurations, several seeds, one honest table.
//!
//! ```text
//! arm.rs         what is compared with what, and what differs
//! statistics.rs  means, spreads, intervals
//! tables.rs      compare.json, compare.csv, compare.md
//! live.rs        the run under way, for the report
//! page.rs        the report
//! ```

mod arm;
mod live;
mod page;
mod statistics;
mod tables;

pub use arm::{Arm, Contrast, Difference, Pairing};
pub use live::Live;
use live::Watch;
use page::Compared;
pub use statistics::summarise;

use serde::Serialize;

use crate::cancel::CancelToken;
use crate::config::Config;
use crate::deploy::fold::{LogitDifference, multi_branch_blocks};
use crate::error::{Error, Result};
use crate::inference::evaluate::evaluate;
use crate::report::{self, State};
use crate::run::directory::RunDir;
use crate::train::observer::Observer;
use crate::train::{self, Trainer};
use burn::tensor::Device;
use dbb_models::Reparameterize;
use dbb_models::summary::learnable_params;
use std::path::{Path, PathBuf};
use std::{fs, io};

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
    /// In what it differs from its baseline besides the block.
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

/// Trains every arm with `seeds` seeds, from its configuration's own on, into folders
/// `<name>-seed<seed>` below `out`; a report in `out` is rewritten before and after every run and
/// after each of its epochs. `stop` ends it, with the run under way saved.
///
/// All configurations and their data are checked first, and `observer` is told what differs between
/// arms.
///
/// # Errors
/// As training has them. Finished runs stay where they are.
pub fn compare(
    arms: &[Arm],
    seeds: u64,
    out: &Path,
    device: &Device,
    stop: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Comparison> {
    let contrasts = check(arms, seeds, out, device)?;
    contrasts.iter().for_each(|contrast| observer.note(&contrast.describe()));
    let fail =
        |e: io::Error| io::Error::new(e.kind(), format!("cannot write {}: {e}", out.display()));
    fs::create_dir_all(out).map_err(fail)?;
    let planned = arms.len() * seeds as usize;
    let folder = RunDir::new(out);
    let compared = Compared { arms, folder: out, planned };
    let write =
        |comparison: &Comparison, runs: &[report::Run], live: Option<&Live>, state: &State| {
            folder.write(&folder.report(), &compared.page(comparison, runs, live, state))
        };
    let mut comparison = Comparison { contrasts, ..Comparison::default() };
    let mut runs = Vec::new();
    // Seed by seed, so that an early stop leaves whole pairs.
    for seed in 0..seeds {
        for arm in arms {
            let config = Config { seed: arm.config.seed + seed, ..arm.config.clone() };
            let number = runs.len() + 1;
            observer
                .note(&format!("run {number} of {planned}: {}, seed {}", arm.name, config.seed));
            let live = Live::new(&arm.name, &config, run_dir(out, arm, config.seed));
            let page = |live: &Live, state: &State| write(&comparison, &runs, Some(live), state);
            let mut watch = Watch::new(live, observer, &page);
            let (row, run) = match run(arm, config, out, device, stop, &mut watch) {
                Ok(done) => done,
                Err(error) => {
                    page(watch.live(), &State::Stopped(error.to_string())).ok();
                    return Err(error);
                }
            };
            comparison.rows.push(row);
            runs.push(run);
            comparison.summary = summarise(&comparison.rows, &comparison.contrasts);
        }
    }
    write(&comparison, &runs, None, &State::Finished)?;
    Ok(comparison)
}

fn run_dir(out: &Path, arm: &Arm, seed: u64) -> PathBuf {
    out.join(format!("{}-seed{seed}", arm.name))
}

/// That every run could begin, and what the arms differ in. Nothing is written.
fn check(arms: &[Arm], seeds: u64, out: &Path, device: &Device) -> Result<Vec<Contrast>> {
    let mut identities = Vec::new();
    for arm in arms {
        for seed in 0..seeds {
            let run = RunDir::new(run_dir(out, arm, arm.config.seed + seed));
            if run.exists() {
                return Err(Error::RunExists(run.root().into()));
            }
        }
        let named = |error| Error::Arm { name: arm.name.clone(), error: Box::new(error) };
        identities.push(train::check(arm.config.clone(), device).map_err(named)?);
    }
    Ok(Contrast::of(arms, &identities))
}

fn run(
    arm: &Arm,
    config: Config,
    out: &Path,
    device: &Device,
    stop: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<(Row, report::Run)> {
    let (arch, block, seed) = (config.model.arch, config.model.block, config.seed);
    let mut trainer = Trainer::new(config, RunDir::new(run_dir(out, arm, seed)), device)?;
    trainer.stop_on(stop.clone());
    let result = trainer.fit(observer)?;
    let network = trainer.network();
    let deploy = network.reparameterize();
    let mut fold = LogitDifference::default();
    let device = crate::network_device(&network);
    let train_form = evaluate(&network, trainer.validation(), |batch, logits| {
        let images = batch.to_tensors(&device).0;
        fold.add(logits.clone(), deploy.forward(images));
    })?;
    let row = Row {
        arch: arch.to_string(),
        block: block.to_string(),
        seed,
        top1_train: train_form.totals.top1(),
        top1_deploy: result.top1_deploy,
        params_train: learnable_params(&network),
        params_deploy: learnable_params(&deploy),
        seconds: result.seconds,
        blocks_folded: multi_branch_blocks(&network),
        fold_max_rel_diff: fold.max_rel_diff(),
        run_dir: result.run_dir,
        name: arm.name.clone(),
    };
    Ok((row, trainer.report()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dbb_models::BlockKind;

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
