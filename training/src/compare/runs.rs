//! Checks a plan, and has every run of it trained that is not finished.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use dbb_models::summary::Summary;

use super::contrast::Contrast;
use super::live::Live;
use super::page::Compared;
use super::plan::Plan;
use super::record::Record;
use super::result::{Comparison, Row};
use super::timing::EqualTime;
use super::worker::{Event, Order};
use super::workers::{Message, Workers};
use crate::cancel::CancelToken;
use crate::config::{Config, shown};
use crate::error::{Error, Result, cannot_write};
use crate::report::{self, State, Steps};
use crate::run::directory::RunDir;
use crate::run::identity::{Identity, is_free};
use crate::run::metrics;
use crate::text::plural;
use crate::train;
use crate::train::observer::Observer;

/// How often the report is rewritten at most for an epoch.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Where and how the runs of a comparison are trained.
pub struct Setup<'a> {
    /// The folder of the runs, tables and report.
    pub out: &'a Path,
    /// Runs side by side.
    pub jobs: usize,
    /// Whether to write the prediction of every validation image.
    pub predictions: bool,
    /// The device, with as many threads as each run is to have.
    pub device: &'a Device,
    /// A process that [`serve`](super::serve)s a run directory, with that device and those threads.
    pub command: &'a dyn Fn(&Path) -> Command,
    /// The observer of a run, by the name of its arm and its seed.
    pub observe: &'a dyn Fn(&str, u64) -> Box<dyn Observer>,
    /// Ends the comparison, with the runs under way saved.
    pub stop: &'a CancelToken,
}

/// Trains every arm of a plan with all of its seeds, into folders `<name>-seed<seed>`; tables and a
/// report are rewritten with every run, the report also with its epochs.
///
/// A comparison that is started again in the same folder reads the runs that are finished and resumes
/// those under way. All configurations and their data are checked first, and `observer` is notified of
/// the differences between arms.
///
/// # Errors
/// As training has them; a folder that holds a run, a comparison of other arms, or one that was begun
/// with another configuration, other data or another study; seeds beyond [`Config::MAX_SEED`].
/// Finished runs stay where they are.
pub fn compare(mut plan: Plan, setup: &Setup, observer: &mut dyn Observer) -> Result<Comparison> {
    let identities = check(&mut plan, setup, observer)?;
    let contrasts = Contrast::of(&plan, &identities);
    contrasts.iter().for_each(|contrast| observer.note(&contrast.describe()));
    let runs = plan.runs().into_iter().map(|(arm, seed)| {
        let config = Config { seed, ..identities[arm].config.clone() };
        let run = RunDir::new(run_dir(setup.out, &plan.arms[arm].name, seed));
        Planned { name: plan.arms[arm].name.clone(), config, run, done: None }
    });
    let runs = runs.collect();
    let mut session = Session { plan: &plan, setup, contrasts, runs, live: Vec::new() };
    session.read_finished(observer)?;
    session.train(observer)?;
    let comparison = session.comparison();
    comparison.write(setup.out)?;
    session.write_report(&State::Finished)?;
    Ok(comparison)
}

fn run_dir(out: &Path, name: &str, seed: u64) -> PathBuf {
    out.join(format!("{name}-seed{seed}"))
}

/// Checks that every run could begin or resume, measures the epochs of arms of equal time, and
/// records the plan. Nothing is written before the checks have passed. Returns the circumstances of
/// every arm's run with the first seed.
fn check(plan: &mut Plan, setup: &Setup, observer: &mut dyn Observer) -> Result<Vec<Identity>> {
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
        let last = arm.config.seed.checked_add(plan.seeds.saturating_sub(1));
        if last.is_none_or(|last| last > Config::MAX_SEED) {
            return Err(Error::Unusable(format!(
                "{}: {} seeds from {} on go beyond the largest, {}; lower seed or the number of seeds",
                arm.name,
                plan.seeds,
                arm.config.seed,
                Config::MAX_SEED
            )));
        }
        if let Some(signal) = stop.requested() {
            return Err(Error::NotBegun { signal });
        }
        let named = |error| Error::Arm { name: arm.name.clone(), error: Box::new(error) };
        identities.push(train::check(arm.config.clone(), device).map_err(named)?);
    }
    let mut times = begun.as_ref().map_or_else(BTreeMap::new, |begun| begun.equal_times.clone());
    adopt_times(plan, &mut identities, &times);
    if let Some(begun) = &begun {
        let now = Record::new(plan, &identities, times.clone());
        let changes = begun.changes(&now);
        if !changes.is_empty() {
            return Err(Error::OtherPlan { folder: out.into(), changes });
        }
    }
    for (arm, seed) in plan.runs() {
        check_run(&plan.arms[arm].name, &identities[arm], seed, out)?;
    }
    fs::create_dir_all(out).map_err(|e| cannot_write(out, &e))?;
    measure_times(plan, &mut times, setup, observer)?;
    adopt_times(plan, &mut identities, &times);
    for (arm, identity) in plan.arms.iter().zip(&identities) {
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
    Record::new(plan, &identities, times).write(out)?;
    Ok(identities)
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
fn check_run(name: &str, identity: &Identity, seed: u64, out: &Path) -> Result<()> {
    let run = RunDir::new(run_dir(out, name, seed));
    if !run.exists() {
        return Ok(());
    }
    let own = Config::load_run(&run.config(), &[])?;
    let planned = Config { seed, ..identity.config.clone() };
    let differences = own.differences(&planned).into_iter().filter(|(key, ..)| !is_free(key));
    let changes: Vec<String> = differences
        .map(|(key, was, is)| format!("{key} was {}, is {}", shown(&was), shown(&is)))
        .collect();
    match changes.is_empty() {
        true => Ok(()),
        false => Err(Error::OtherPlan { folder: run.root().into(), changes }),
    }
}

/// A run of the plan.
struct Planned {
    name: String,
    config: Config,
    run: RunDir,
    /// Its result, once it is finished.
    done: Option<(Row, report::Run)>,
}

impl Planned {
    fn load(&mut self) -> Result<()> {
        // The name is that of the arm today: it may change freely.
        let row = Row { name: self.name.clone(), ..Row::load(&self.run)? };
        let run = &self.run;
        let config = Config::load_run(&run.config(), &[])?;
        let (classes, channels) = (config.model.num_classes, config.model.in_channels);
        // A run writes both out.
        let model = config.model.resolve(classes.unwrap_or(0), channels.unwrap_or(0));
        let env =
            fs::read_to_string(run.env()).ok().and_then(|text| serde_json::from_str(&text).ok());
        let records = metrics::read(&run.metrics())?;
        let steps = records.last().map_or(0, |record| record.step);
        let report = report::Run {
            summary: Summary::new(&model, row.image_size)?,
            config,
            env: env.unwrap_or_default(),
            records,
            steps: Steps::new(steps, steps),
        };
        self.done = Some((row, report));
        Ok(())
    }
}

/// A comparison that is being trained.
struct Session<'a> {
    plan: &'a Plan,
    setup: &'a Setup<'a>,
    contrasts: Vec<Contrast>,
    /// Seed by seed.
    runs: Vec<Planned>,
    /// The runs under way, with their indices.
    live: Vec<(usize, Live)>,
}

impl Session<'_> {
    /// Reads the runs that are finished.
    fn read_finished(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let predictions = self.setup.predictions;
        let is_finished = |planned: &Planned| {
            let run = &planned.run;
            run.result().is_file() && (!predictions || run.predictions().is_file())
        };
        for planned in self.runs.iter_mut().filter(|planned| is_finished(planned)) {
            planned.load()?;
        }
        let (finished, all) = (self.finished(), self.runs.len());
        if finished > 0 {
            observer.note(&format!("{finished} of {} finished already", plural(all, "run")));
        }
        Ok(())
    }

    fn finished(&self) -> usize {
        self.runs.iter().filter(|planned| planned.done.is_some()).count()
    }

    /// Trains what is not finished.
    fn train(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let mut workers = Workers::new();
        let mut observers: BTreeMap<usize, Box<dyn Observer>> = BTreeMap::new();
        let mut waiting: Vec<usize> =
            (0..self.runs.len()).rev().filter(|&at| self.runs[at].done.is_none()).collect();
        let mut failure: Option<Error> = None;
        let mut written = Instant::now();
        loop {
            let is_ending = failure.is_some() || self.setup.stop.requested().is_some();
            match waiting.last() {
                _ if is_ending => workers.stop(),
                Some(&at) if workers.len() < self.setup.jobs => {
                    waiting.pop();
                    self.start(at, &mut workers, observer)?;
                    let planned = &self.runs[at];
                    let own = (self.setup.observe)(&planned.name, planned.config.seed);
                    observers.insert(at, own);
                    self.report_running(observer);
                    continue;
                }
                _ => {}
            }
            if workers.len() == 0 {
                break;
            }
            let Some((at, message)) = workers.next() else { continue };
            let Some(own) = observers.get_mut(&at) else { continue };
            match message {
                Message::Event(Event::Started(info)) => own.started(&info),
                Message::Event(Event::Step(step)) => own.step(&step),
                Message::Event(Event::Skipped(reason)) => own.skipped(&reason),
                Message::Event(Event::Note(text)) => own.note(&text),
                Message::Event(Event::Epoch(record)) => {
                    own.epoch(&record);
                    let live = self.live.iter_mut().find(|(run, _)| *run == at);
                    if let Some((_, live)) = live {
                        live.last = Some(record);
                    }
                    if written.elapsed() >= REPORT_INTERVAL {
                        written = Instant::now();
                        self.report_running(observer);
                    }
                }
                Message::Event(Event::Done) => {
                    self.runs[at].load()?;
                    self.live.retain(|(run, _)| *run != at);
                    self.comparison().write(self.setup.out)?;
                    self.report_running(observer);
                }
                Message::Event(Event::Failed { text, is_failed_check, is_interrupted }) => {
                    // Of several errors the first counts; those that were asked to stop have none.
                    self.live.retain(|(run, _)| *run != at);
                    let Planned { name, config, .. } = &self.runs[at];
                    if !is_interrupted && failure.is_none() {
                        let (name, seed) = (name.clone(), config.seed);
                        failure = Some(Error::Run { name, seed, text, is_failed_check });
                    } else if is_interrupted && !is_ending {
                        failure = Some(self.stopped(TERMINATED));
                    }
                }
                Message::Ended(status) => {
                    observers.remove(&at);
                    let is_told = self.live.iter().all(|(run, _)| *run != at);
                    if !is_told {
                        self.live.retain(|(run, _)| *run != at);
                        failure.get_or_insert(self.crashed(at, &status?));
                    }
                }
            }
        }
        let signal = self.setup.stop.requested();
        // A run that ended with the last step needs no stop.
        let stopped = signal.filter(|_| self.finished() < self.runs.len());
        let error = match (failure, stopped) {
            (Some(error), _) => error,
            (None, Some(signal)) => self.stopped(signal),
            (None, None) => return Ok(()),
        };
        self.write_report(&State::Stopped(error.to_string())).ok();
        Err(error)
    }

    fn start(
        &mut self,
        at: usize,
        workers: &mut Workers,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (number, all) = (at + 1, self.runs.len());
        let Planned { name, config, run, .. } = &self.runs[at];
        observer.note(&format!("run {number} of {all}: {name}, seed {}", config.seed));
        let order = Order { config: config.clone(), predictions: self.setup.predictions };
        let command = (self.setup.command)(run.root());
        workers.start(at, command, &order).map_err(|error| {
            Error::Unusable(format!("cannot start a process for {name}: {error}"))
        })?;
        self.live.push((at, Live::new(name, config, run.root().into())));
        Ok(())
    }

    fn stopped(&self, signal: usize) -> Error {
        let (finished, planned) = (self.finished(), self.runs.len());
        Error::Stopped { signal, folder: self.setup.out.into(), finished, planned }
    }

    /// The error of a process that has ended without a word.
    fn crashed(&self, at: usize, status: &ExitStatus) -> Error {
        let Planned { name, config, .. } = &self.runs[at];
        let text = format!(
            "its process has ended unexpectedly ({status}); if the system killed it, it may have been \
             short of memory"
        );
        Error::Run { name: name.clone(), seed: config.seed, text, is_failed_check: false }
    }

    /// The comparison of the runs that are finished.
    fn comparison(&self) -> Comparison {
        let rows = self.runs.iter().filter_map(|planned| Some(planned.done.as_ref()?.0.clone()));
        let Plan { correction, resolve, .. } = *self.plan;
        Comparison::new(rows.collect(), self.contrasts.clone(), correction, resolve)
    }

    fn report_running(&self, observer: &mut dyn Observer) {
        // A page that cannot be written once must not end a run.
        if let Err(error) = self.write_report(&State::Running) {
            observer.note(&error.to_string());
        }
    }

    fn write_report(&self, state: &State) -> Result<()> {
        let Setup { out, .. } = *self.setup;
        let folder = RunDir::new(out);
        let compared = Compared { arms: &self.plan.arms, folder: out, planned: self.runs.len() };
        let done = self.runs.iter().filter_map(|planned| planned.done.as_ref());
        let runs: Vec<&report::Run> = done.map(|(_, run)| run).collect();
        let live: Vec<Live> = self.live.iter().map(|(_, live)| live.clone()).collect();
        let page = compared.page(&self.comparison(), &runs, &live, state);
        Ok(folder.write(&folder.report(), &page)?)
    }
}

/// The number of SIGTERM: a run that was stopped by itself.
const TERMINATED: usize = 15;
