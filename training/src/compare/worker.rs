//! One run of a comparison, in a process of its own: its training, and what is measured of it.

use std::io::{self, BufRead, Write};
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use dbb_models::Reparameterize;
use dbb_models::summary::learnable_params;
use serde::{Deserialize, Serialize};

use super::result::Row;
use crate::cancel::CancelToken;
use crate::config::Config;
use crate::deploy::fold::{LogitDifference, multi_branch_blocks};
use crate::device;
use crate::error::{Error, Result};
use crate::inference::evaluate::evaluate_until;
use crate::inference::predictions::Predictions;
use crate::memory;
use crate::run::directory::RunDir;
use crate::run::metrics::EpochRecord;
use crate::train::Trainer;
use crate::train::observer::{Observer, RunInfo, Step};

/// What a worker is to do: the first line that it reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The configuration of the run, with everything that the data decide.
    pub config: Config,
    /// Whether to write the prediction of every validation image.
    pub predictions: bool,
}

/// What a worker reports, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// Training begins or resumes.
    Started(RunInfo),
    /// A step is done; not of every step.
    Step(Step),
    /// An image was left out.
    Skipped(String),
    /// Something a user should know.
    Note(String),
    /// An epoch is done.
    Epoch(EpochRecord),
    /// All is done, and the run's result is written.
    Done,
    /// The run has ended with an error.
    Failed {
        /// The error.
        text: String,
        /// Whether its result is wrong, rather than something in the user's hands.
        is_failed_check: bool,
        /// Whether it was asked to stop and is saved.
        is_interrupted: bool,
    },
}

/// How often steps are reported at most.
const STEP_INTERVAL: Duration = Duration::from_millis(200);

/// How long a worker waits for one before it to leave the run directory: after its parent was killed,
/// that one still finishes a step and saves.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of SIGTERM.
pub(super) const TERMINATE: usize = 15;

/// Trains or resumes the run in a directory as the first line of `orders` says, measures it, and
/// reports events to `reports`, line by line. The end of `orders` asks it to stop: its parent has
/// ended, or wants it to. `commit` is that of the program, if it is known.
///
/// # Errors
/// An order that cannot be understood. Errors of the run are reported.
pub fn serve(
    run: &RunDir,
    device: &Device,
    stop: &CancelToken,
    commit: Option<&str>,
    mut orders: impl BufRead + Send + 'static,
    reports: impl Write,
) -> Result<()> {
    let mut line = String::new();
    orders.read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)
        .map_err(|error| Error::Unusable(format!("no order of a comparison: {error}")))?;
    let stopping = stop.clone();
    thread::spawn(move || {
        io::copy(&mut orders, &mut io::sink()).ok();
        stopping.request(TERMINATE);
    });
    let mut reporter = Reporter { reports, last_step: None };
    let event = match work(order, run, device, stop, commit, &mut reporter) {
        Ok(()) => Event::Done,
        Err(error) => Event::Failed {
            text: error.to_string(),
            is_failed_check: error.is_failed_check(),
            is_interrupted: matches!(error, Error::Interrupted { .. }),
        },
    };
    reporter.report(&event);
    Ok(())
}

/// Trains or resumes a run, and writes its result.
fn work(
    order: Order,
    run: &RunDir,
    device: &Device,
    stop: &CancelToken,
    commit: Option<&str>,
    observer: &mut dyn Observer,
) -> Result<()> {
    let mut trainer = begin(&order.config, run, device, stop, observer)?;
    trainer.stop_on(stop.clone());
    let result = trainer.fit(observer)?;
    let network = trainer.network();
    let deploy = network.reparameterize();
    let validation = trainer.validation();
    let device = device::of(&network);
    let mut fold = LogitDifference::default();
    let mut predictions = Predictions::new(validation.dataset());
    let train_form = evaluate_until(&network, validation, stop, |batch, logits| {
        let folded = deploy.forward(batch.to_tensors(&device).0);
        if order.predictions {
            predictions.add(batch, &folded);
        }
        fold.add(logits.clone(), folded);
    })?;
    let Some(train_form) = train_form else {
        let signal = stop.requested().unwrap_or(TERMINATE);
        let checkpoint = run.checkpoint_ids()?.last().map(|&mark| run.checkpoint(mark));
        let checkpoint = checkpoint.unwrap_or_else(|| run.root().into());
        return Err(Error::Interrupted { signal, run: run.root().into(), checkpoint });
    };
    if order.predictions {
        run.write(&run.predictions(), &predictions.into_csv())?;
    }
    if run.result().is_file() {
        // It only lacked predictions. The row tells of the program and the machine that trained it.
        return Ok(());
    }
    let report = trainer.report();
    // `fit` has run at least one epoch, now or before it was resumed.
    let last = report.records.last().expect("a finished run has an epoch");
    let training =
        report.records.iter().map(|record| record.images as f64 / record.images_per_second);
    let fact = |key: &str| report.env[key].as_str().unwrap_or_default().to_string();
    let row = Row {
        arch: order.config.model.arch.to_string(),
        block: order.config.model.block.to_string(),
        seed: order.config.seed,
        top1: last.top1,
        top1_train: train_form.totals.top1(),
        params_train: learnable_params(&network),
        params_deploy: learnable_params(&deploy),
        seconds: result.seconds,
        train_seconds: training.sum(),
        top5: last.top5,
        test_loss: last.val_loss,
        train_loss: last.train_loss,
        epochs: last.epoch,
        test_images: train_form.totals.images(),
        image_size: report.summary.resolution,
        blocks_folded: multi_branch_blocks(&network),
        fold_max_rel_diff: fold.max_rel_diff(),
        peak_memory_mib: memory::peak().map(|bytes| bytes as f64 / f64::from(1 << 20)),
        version: fact("dbb"),
        commit: commit.map(String::from),
        device: fact("device"),
        machine: fact("cpu"),
        threads: rayon::current_num_threads(),
        instruction_set: fact("instruction_set"),
        run_dir: run.root().into(),
        name: order.config.name.unwrap_or_default(),
    };
    row.save(run)
}

/// The run, new or as it was left. Waits for a worker that is about to leave it.
fn begin(
    config: &Config,
    run: &RunDir,
    device: &Device,
    stop: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Trainer> {
    let started = Instant::now();
    let mut is_told = false;
    loop {
        let begun = match run.exists() {
            true => Trainer::resume_with(config.clone(), run.clone(), device),
            false => Trainer::new(config.clone(), run.clone(), device),
        };
        match begun {
            Err(error @ Error::Locked { .. })
                if started.elapsed() < PATIENCE && stop.requested().is_none() =>
            {
                if !std::mem::replace(&mut is_told, true) {
                    observer.note(&format!("{error}; waiting for it"));
                }
                thread::sleep(STEP_INTERVAL);
            }
            begun => return begun,
        }
    }
}

/// Writes events as lines of JSON.
struct Reporter<W> {
    reports: W,
    last_step: Option<Instant>,
}

impl<W: Write> Reporter<W> {
    fn report(&mut self, event: &Event) {
        // Plain data always serialises.
        let line = serde_json::to_string(event).expect("an event is plain data");
        // A parent that has ended reads nothing; the end of the orders tells.
        writeln!(self.reports, "{line}").and_then(|()| self.reports.flush()).ok();
    }
}

impl<W: Write> Observer for Reporter<W> {
    fn started(&mut self, info: &RunInfo) {
        self.report(&Event::Started(info.clone()));
    }

    fn step(&mut self, step: &Step) {
        if self.last_step.is_none_or(|last| last.elapsed() >= STEP_INTERVAL) {
            self.last_step = Some(Instant::now());
            self.report(&Event::Step(step.clone()));
        }
    }

    fn skipped(&mut self, reason: &str) {
        self.report(&Event::Skipped(reason.into()));
    }

    fn note(&mut self, text: &str) {
        self.report(&Event::Note(text.into()));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.report(&Event::Epoch(record.clone()));
    }
}
