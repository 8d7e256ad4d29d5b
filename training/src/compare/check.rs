//! The checks before the first run, and what is recorded of the plan.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::plan::{Arm, Plan};
use super::record::Record;
use super::runs::Setup;
use super::timing::EqualTime;
use crate::config::{Config, shown};
use crate::error::{Error, Result, cannot_write};
use crate::run::directory::RunDir;
use crate::run::identity::{Identity, is_without_effect};
use crate::run::manifest;
use crate::text::plural;
use crate::train;
use crate::train::observer::Observer;

/// The run directory of an arm and a seed.
pub(super) fn run_dir(out: &Path, arm: &Arm, seed: u64) -> PathBuf {
    out.join(format!("{}-seed{seed}", arm.name))
}

/// Checks that every run could begin or resume, measures the epochs of arms of equal time, and
/// records the plan. Nothing is written before the checks have passed. Returns the circumstances of
/// every arm's run with the first seed.
pub(super) fn check(
    plan: &Plan,
    setup: &Setup,
    observer: &mut dyn Observer,
) -> Result<Vec<Identity>> {
    let Setup { out, device, stop, .. } = *setup;
    if RunDir::new(out).exists() {
        return Err(Error::RunExists(out.into()));
    }
    let begun = Record::read(out)?;
    if let Some(begun) = &begun {
        begun.check_names(plan, out)?;
    }
    let mut identities = Vec::new();
    for arm in &plan.arms {
        check_seeds(arm, plan.seeds)?;
        if let Some(signal) = stop.requested() {
            return Err(Error::NotBegun { signal });
        }
        let named = |error| Error::Arm { name: arm.name.clone(), error: Box::new(error) };
        identities.push(train::check(arm.config.clone(), setup.jobs, device).map_err(named)?);
    }
    let weights = weights_files(plan)?;
    let mut times = begun.as_ref().map_or_else(BTreeMap::new, |begun| begun.equal_times.clone());
    adopt_times(plan, &mut identities, &times);
    if let Some(begun) = &begun {
        let now = Record::new(plan, &identities, weights.clone(), times.clone());
        let changes = begun.changes(&now);
        if !changes.is_empty() {
            return Err(Error::OtherPlan { folder: out.into(), changes });
        }
    }
    for (arm, seed) in plan.runs() {
        check_run(&plan.arms[arm], &identities[arm], seed, out)?;
    }
    fs::create_dir_all(out).map_err(|e| cannot_write(out, &e))?;
    measure_times(plan, &mut times, setup, observer)?;
    adopt_times(plan, &mut identities, &times);
    check_warmups(plan, &identities)?;
    Record::new(plan, &identities, weights, times).write(out)?;
    Ok(identities)
}

/// SHA-256 of the weights files that arms start from, by the names of the arms.
fn weights_files(plan: &Plan) -> Result<BTreeMap<String, String>> {
    let of_arm = |arm: &Arm| {
        let path = arm.config.model.init_from.as_ref()?;
        let hash = manifest::sha256(path).map_err(|error| {
            Error::Unusable(format!("{}: cannot read {}: {error}", arm.name, path.display()))
        });
        Some(hash.map(|hash| (arm.name.clone(), hash)))
    };
    plan.arms.iter().filter_map(of_arm).collect()
}

fn check_seeds(arm: &Arm, seeds: u64) -> Result<()> {
    let last = arm.config.seed.checked_add(seeds.saturating_sub(1));
    if last.is_some_and(|last| last <= Config::MAX_SEED) {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "{}: {seeds} seeds from {} on go beyond the largest, {}; lower seed or the number of seeds",
        arm.name,
        arm.config.seed,
        Config::MAX_SEED
    )))
}

/// Refuses arms of equal time that would end within their warm-up.
fn check_warmups(plan: &Plan, identities: &[Identity]) -> Result<()> {
    for (arm, identity) in plan.arms.iter().zip(identities) {
        let (warmup, epochs) =
            (identity.config.schedule.warmup_epochs, identity.config.train.epochs);
        if warmup > epochs as f64 {
            return Err(Error::Unusable(format!(
                "{}: {} fit into the time, fewer than the {warmup} of schedule.warmup_epochs; lower that",
                arm.name,
                plural(epochs, "epoch")
            )));
        }
    }
    Ok(())
}

/// Gives the arms of equal time the epochs that have been found.
fn adopt_times(plan: &Plan, identities: &mut [Identity], times: &BTreeMap<String, EqualTime>) {
    for (arm, identity) in plan.arms.iter().zip(identities) {
        if let Some(time) = times.get(&arm.name) {
            identity.config.train.epochs = time.epochs;
        }
    }
}

/// Measures the arms of equal time that have not been.
fn measure_times(
    plan: &Plan,
    times: &mut BTreeMap<String, EqualTime>,
    setup: &Setup,
    observer: &mut dyn Observer,
) -> Result<()> {
    for arm in &plan.arms {
        let Some(reference) = arm.same_time_as.filter(|_| !times.contains_key(&arm.name)) else {
            continue;
        };
        let reference = &plan.arms[reference];
        observer.note(&format!("measuring an epoch of {} and of {}", reference.name, arm.name));
        let reference = (reference.name.as_str(), &reference.config);
        let named = |error| match error {
            Error::NotBegun { .. } => error,
            _ => Error::Arm { name: arm.name.clone(), error: Box::new(error) },
        };
        let time = EqualTime::measure(&arm.config, reference, setup.out, setup.device, setup.stop);
        let time = time.map_err(named)?;
        observer.note(&format!(
            "{}: {} in the training time of {} of {} ({:.3} s and {:.3} s an epoch)",
            arm.name,
            plural(time.epochs, "epoch"),
            plural(time.reference_epochs, "epoch"),
            time.same_time_as,
            time.own_seconds,
            time.reference_seconds
        ));
        times.insert(arm.name.clone(), time);
    }
    Ok(())
}

/// Refuses a run directory of another configuration.
fn check_run(arm: &Arm, identity: &Identity, seed: u64, out: &Path) -> Result<()> {
    let run = RunDir::new(run_dir(out, arm, seed));
    if !run.exists() {
        return Ok(());
    }
    let own = Config::load_run(&run.config(), &[])?;
    let planned = Config { seed, ..identity.config.clone() };
    let differences =
        own.differences(&planned).into_iter().filter(|(key, ..)| !is_without_effect(key));
    let changes: Vec<String> = differences
        .map(|(key, was, is)| format!("{key} was {}, is {}", shown(&was), shown(&is)))
        .collect();
    match changes.is_empty() {
        true => Ok(()),
        false => Err(Error::OtherPlan { folder: run.root().into(), changes }),
    }
}
