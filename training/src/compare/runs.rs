//! The runs of a comparison, one after the other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use dbb_models::Reparameterize;
use dbb_models::summary::learnable_params;

use super::arm::{Arm, Contrast};
use super::live::{Live, Watch};
use super::page::Compared;
use super::result::{Comparison, Row};
use super::statistics::summarise;
use crate::cancel::CancelToken;
use crate::config::Config;
use crate::deploy::fold::{LogitDifference, multi_branch_blocks};
use crate::device;
use crate::error::{Error, Result, cannot_write};
use crate::inference::evaluate::evaluate;
use crate::report::{self, State};
use crate::run::directory::RunDir;
use crate::train::observer::Observer;
use crate::train::{self, Trainer};

/// Trains every arm with `seeds` seeds, starting from that of its configuration, into folders
/// `<name>-seed<seed>` below `out`; a report in `out` is rewritten before and after every run and
/// after each of its epochs. `stop` ends it, with the run under way saved.
///
/// All configurations and their data are checked first, and `observer` is notified of the
/// differences between arms.
///
/// # Errors
/// As training has them; a folder that holds a run, or a comparison of other arms; seeds beyond
/// [`Config::MAX_SEED`]. Finished runs stay where they are.
pub fn compare(
    arms: &[Arm],
    seeds: u64,
    out: &Path,
    device: &Device,
    stop: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Comparison> {
    let contrasts = check(arms, seeds, out, device, stop)?;
    contrasts.iter().for_each(|contrast| observer.note(&contrast.describe()));
    fs::create_dir_all(out).map_err(|e| cannot_write(out, &e))?;
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

/// Checks that every run could begin, and finds how the arms differ. Nothing is written.
fn check(
    arms: &[Arm],
    seeds: u64,
    out: &Path,
    device: &Device,
    stop: &CancelToken,
) -> Result<Vec<Contrast>> {
    check_folder(arms, out)?;
    let mut identities = Vec::new();
    for arm in arms {
        let last = arm.config.seed.checked_add(seeds.saturating_sub(1));
        if last.is_none_or(|last| last > Config::MAX_SEED) {
            return Err(Error::Unusable(format!(
                "{}: {seeds} seeds from {} on go beyond the largest, {}; lower seed or the number of seeds",
                arm.name,
                arm.config.seed,
                Config::MAX_SEED
            )));
        }
        for seed in 0..seeds {
            if let Some(signal) = stop.requested() {
                return Err(Error::NotBegun { signal });
            }
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

/// Refuses a folder whose report or tables are of something else: a run, or other arms.
fn check_folder(arms: &[Arm], out: &Path) -> Result<()> {
    if RunDir::new(out).exists() {
        return Err(Error::RunExists(out.into()));
    }
    let Some(others) = Comparison::arms_in(out) else { return Ok(()) };
    let own: BTreeSet<_> = arms.iter().map(|arm| arm.name.clone()).collect();
    if own == others {
        return Ok(());
    }
    let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::OtherComparison { folder: out.into(), others: list(others), own: list(own) })
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
    let device = device::of(&network);
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
