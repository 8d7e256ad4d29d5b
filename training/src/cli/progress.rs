//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::metrics::EpochRecord;
use crate::observer::{Observer, RunInfo, Step};

/// How often a long epoch says where it is, off the terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Draws a bar or prints lines.
pub struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    info: Option<RunInfo>,
    last_line: Instant,
}

impl Progress {
    pub fn new() -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, bar: None, info: None, last_line: now }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| super::say(text)),
            None => super::say(text),
        }
    }
}

impl Observer for Progress {
    fn started(&mut self, info: &RunInfo) {
        let model = &info.model;
        self.line(&format!(
            "{} with {} blocks, width {}, {} learnable parameters; {} to train on, {} to validate with",
            model.arch, model.block, model.width, info.params_train, info.train_data, info.val_data
        ));
        if info.done > 0 {
            self.line(&format!("going on after epoch {} of {}", info.done, info.epochs));
        }
        if info.done_steps > 0 {
            let (done, all) = (info.done_steps, info.steps_per_epoch);
            self.line(&format!("going on after step {done} of {all} of epoch {}", info.done + 1));
        }
        if self.terminal {
            let steps = info.epochs.saturating_sub(info.done) * info.steps_per_epoch;
            let steps = steps.saturating_sub(info.done_steps);
            let bar = ProgressBar::with_draw_target(
                Some(steps as u64),
                ProgressDrawTarget::stderr_with_hz(5),
            );
            // The template is a constant that the tests draw.
            if let Ok(style) =
                ProgressStyle::with_template("{bar:24} {percent:>3}% {msg}, {eta} left")
            {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
        self.info = Some(info.clone());
        self.last_line = Instant::now();
    }

    fn step(&mut self, step: &Step) {
        let Some(info) = &self.info else { return };
        let text = format!(
            "epoch {}/{} step {}/{} loss {:.4} top-1 {:.2}% {:.0} images/s",
            step.epoch,
            info.epochs,
            step.step,
            info.steps_per_epoch,
            step.loss,
            step.top1,
            step.images_per_second
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.inc(1);
            }
            None if self.last_line.elapsed() > LINE_INTERVAL => {
                self.last_line = Instant::now();
                super::say(&text);
            }
            None => {}
        }
    }

    fn skipped(&mut self, reason: &str) {
        self.line(&format!("left out: {reason}"));
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let epochs = self.info.as_ref().map_or(record.epoch, |info| info.epochs);
        self.line(&format!(
            "epoch {}/{epochs}: loss {:.4}, top-1 {:.2}% (train {:.2}%), top-5 {:.2}%, {:.0} images/s, \
             fold differs by {:.0e}",
            record.epoch,
            record.train_loss,
            record.top1,
            record.train_top1,
            record.top5,
            record.images_per_second,
            record.fold_max_rel_diff
        ));
        self.last_line = Instant::now();
        if record.epoch == epochs
            && let Some(bar) = self.bar.take()
        {
            bar.finish_and_clear();
        }
    }
}
