//! Has every run of a plan trained that is not finished.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use burn::tensor::Device;

use super::check::{check, run_dir};
use super::contrast::Contrast;
use super::live::Live;
use super::page::Compared;
use super::plan::Plan;
use super::planned::Planned;
use super::result::Comparison;
use super::worker::{Event, Order, TERMINATE};
use super::workers::{Message, Workers};
use crate::cancel::CancelToken;
use crate::config::Config;
use crate::device;
use crate::error::{Error, Result};
use crate::report::format::Quantity;
use crate::report::{self, State};
use crate::run::directory::RunDir;
use crate::statistics::mean;
use crate::text::plural;
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
    /// The command that was given, for the tables; empty if there was none.
    pub given: String,
    /// The observer of a run, by the name of its arm and its seed.
    pub observe: &'a dyn Fn(&str, u64) -> Box<dyn Observer>,
    /// The commit that the program was built from, if it is known.
    pub commit: Option<&'a str>,
    /// Ends the comparison, with the runs under way saved.
    pub stop: &'a CancelToken,
}

/// Trains every arm of a plan with all of its seeds, into folders `<name>-seed<seed>`; tables and a
/// report are rewritten with every run, the report also with its epochs.
///
/// A comparison that is started again in the same folder reads the runs that are finished and resumes
/// those under way. A run whose loss is not finite does not end the others; it is the error at the
/// end. All configurations and their data are checked first, and `observer` is notified of the
/// differences between arms.
///
/// # Errors
/// As training has them; a folder that holds a run, a comparison of other arms, or one that was begun
/// with another configuration, other data or another study; seeds beyond [`Config::MAX_SEED`].
/// Finished runs stay where they are.
pub fn compare(plan: &Plan, setup: &Setup, observer: &mut dyn Observer) -> Result<Comparison> {
    let identities = check(plan, setup, observer)?;
    let contrasts = Contrast::of(plan, &identities);
    contrasts.iter().for_each(|contrast| observer.note(&contrast.describe()));
    let runs = plan.runs().into_iter().map(|(arm, seed)| {
        let config = Config { seed, ..identities[arm].config.clone() };
        let run = RunDir::new(run_dir(setup.out, &plan.arms[arm], seed));
        Planned { name: plan.arms[arm].name.clone(), config, run, done: None }
    });
    let runs = runs.collect();
    let mut session =
        Session { plan, setup, contrasts, runs, live: Vec::new(), failures: Vec::new() };
    session.read_finished(observer)?;
    session.train(observer)?;
    let comparison = session.comparison();
    comparison.write(setup.out)?;
    session.write_report(&State::Finished)?;
    Ok(comparison)
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
    /// Runs whose result is wrong, with the reason.
    failures: Vec<String>,
}

impl Session<'_> {
    /// Reads the runs that are finished.
    fn read_finished(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let predictions = self.setup.predictions;
        for planned in self.runs.iter_mut().filter(|planned| planned.is_finished(predictions)) {
            planned.load()?;
        }
        let (finished, all) = (self.finished(), self.runs.len());
        if finished > 0 {
            // Another version may have written the tables.
            self.comparison().write(self.setup.out)?;
            observer.note(&format!("{finished} of {} finished already", plural(all, "run")));
        }
        let set = device::instruction_set();
        let build = |version: &str, commit: Option<&str>, set: &str| {
            format!("version {version}, commit {}, {set}", commit.unwrap_or("unknown"))
        };
        let now = build(env!("CARGO_PKG_VERSION"), self.setup.commit, &set);
        let rows = self.runs.iter().filter_map(|planned| Some(&planned.done.as_ref()?.0));
        let mut builds: BTreeSet<String> = rows
            .map(|row| build(&row.version, row.commit.as_deref(), &row.instruction_set))
            .collect();
        builds.remove(&now);
        if finished < all && !builds.is_empty() {
            let others = builds.into_iter().collect::<Vec<_>>().join("; ");
            observer.note(&format!(
                "some of them are by another build of the program or another processor ({others}; this one \
                 is {now}): the last bits of the others may differ"
            ));
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
        let mut error: Option<Error> = None;
        let mut written = Instant::now();
        loop {
            if error.is_some() || self.setup.stop.requested().is_some() {
                waiting.clear();
                workers.stop();
            }
            if workers.len() < self.setup.jobs
                && let Some(at) = waiting.pop()
            {
                self.start(at, &waiting, &mut workers, observer)?;
                let planned = &self.runs[at];
                observers.insert(at, (self.setup.observe)(&planned.name, planned.config.seed));
                self.report_running(observer);
                continue;
            }
            if workers.len() == 0 {
                break;
            }
            let Some((at, message)) = workers.next() else { continue };
            let Some(own) = observers.get_mut(&at) else { continue };
            let event = match message {
                Message::Event(event) => *event,
                Message::Ended(status) => {
                    observers.remove(&at);
                    // It has not said how it ended.
                    if self.leave(at) {
                        error.get_or_insert(self.crashed(at, &status?));
                    }
                    continue;
                }
            };
            match event {
                Event::Started(info) => own.started(&info),
                Event::Step(step) => own.step(&step),
                Event::Skipped(reason) => own.skipped(&reason),
                Event::Note(text) => own.note(&text),
                Event::Epoch(record) => {
                    own.epoch(&record);
                    if let Some((_, live)) = self.live.iter_mut().find(|(run, _)| *run == at) {
                        live.last = Some(record);
                    }
                    if written.elapsed() >= REPORT_INTERVAL {
                        written = Instant::now();
                        self.report_running(observer);
                    }
                }
                Event::Done => {
                    self.leave(at);
                    self.runs[at].load()?;
                    self.comparison().write(self.setup.out)?;
                    self.report_running(observer);
                }
                Event::Failed { text, is_failed_check, is_interrupted } => {
                    self.leave(at);
                    let failure = format!("{}: {text}", self.runs[at].label());
                    if is_failed_check {
                        observer.note(&failure);
                        self.failures.push(failure);
                    } else if is_interrupted {
                        error.get_or_insert(self.stopped(TERMINATE));
                    } else {
                        let failures = vec![failure];
                        error.get_or_insert(Error::Runs { failures, is_failed_check: false });
                    }
                }
            }
        }
        self.outcome(error)
    }

    /// Whether all is well, once no run is under way.
    fn outcome(&self, error: Option<Error>) -> Result<()> {
        let is_left = self.finished() + self.failures.len() < self.runs.len();
        // The signal tells more than what it made of a run. One in the last moment stops nothing.
        let stopped = self.setup.stop.requested().filter(|_| is_left);
        let error = match (stopped.map(|signal| self.stopped(signal)).or(error), &self.failures) {
            (Some(error), _) => error,
            (None, failures) if failures.is_empty() => return Ok(()),
            (None, failures) => Error::Runs { failures: failures.clone(), is_failed_check: true },
        };
        self.write_report(&State::Stopped(error.to_string())).ok();
        Err(error)
    }

    /// Starts a run; those in `waiting` follow.
    fn start(
        &mut self,
        at: usize,
        waiting: &[usize],
        workers: &mut Workers,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (number, all) = (at + 1, self.runs.len());
        let left = self.seconds_left(at, waiting).map(|seconds| Quantity::Duration.show(seconds));
        let left = left.map_or_else(String::new, |left| format!(" (about {left} left)"));
        let Planned { name, config, run, .. } = &self.runs[at];
        observer.note(&format!("run {number} of {all}: {name}, seed {}{left}", config.seed));
        let order = Order { config: config.clone(), predictions: self.setup.predictions };
        let command = (self.setup.command)(run.root());
        workers.start(at, command, &order).map_err(|error| {
            Error::Unusable(format!("cannot start a process for {name}: {error}"))
        })?;
        self.live.push((at, Live::new(name, config, run.root().into())));
        Ok(())
    }

    /// Seconds that a run, those that wait and those under way take in all, by the finished runs of
    /// the same arms; `None` where an arm has none.
    fn seconds_left(&self, at: usize, waiting: &[usize]) -> Option<f64> {
        let of_arm = |at: usize| {
            let done = self.runs.iter().filter(|other| other.name == self.runs[at].name);
            let seconds: Vec<f64> =
                done.filter_map(|other| Some(other.done.as_ref()?.0.seconds)).collect();
            (!seconds.is_empty()).then(|| mean(&seconds))
        };
        // Those under way are half done on average.
        let live = self.live.iter().map(|(run, _)| Some(of_arm(*run)? / 2.0));
        let all: Option<f64> = waiting.iter().copied().chain([at]).map(of_arm).chain(live).sum();
        Some(all? / self.setup.jobs as f64)
    }

    /// Removes a run from those under way; whether it was.
    fn leave(&mut self, at: usize) -> bool {
        let before = self.live.len();
        self.live.retain(|(run, _)| *run != at);
        self.live.len() < before
    }

    fn stopped(&self, signal: usize) -> Error {
        let (finished, planned) = (self.finished(), self.runs.len());
        Error::Stopped { signal, folder: self.setup.out.into(), finished, planned }
    }

    /// The error of a process that has ended without a word.
    fn crashed(&self, at: usize, status: &ExitStatus) -> Error {
        let failure = format!(
            "{}: its process has ended unexpectedly ({status}); if the system killed it, it may have \
             been short of memory",
            self.runs[at].label()
        );
        Error::Runs { failures: vec![failure], is_failed_check: false }
    }

    /// The comparison of the runs that are finished.
    fn comparison(&self) -> Comparison {
        let rows = self.runs.iter().filter_map(|planned| Some(planned.done.as_ref()?.0.clone()));
        let Plan { correction, resolve, .. } = *self.plan;
        let comparison =
            Comparison::new(rows.collect(), self.contrasts.clone(), correction, resolve);
        Comparison { command: self.setup.given.clone(), ..comparison }
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
