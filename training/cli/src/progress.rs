//! Progress on standard error: of training, a bar on a terminal and plain lines elsewhere; of other
//! work, a bar on a terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use dbb_training::run::metrics::EpochRecord;
use dbb_training::train::observer::{Observer, RunInfo, Step};

/// How often a long epoch reports its progress where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Draws a bar or prints lines.
pub struct Progress {
    /// Before every line, where several runs write theirs.
    label: Option<String>,
    terminal: bool,
    bar: Option<ProgressBar>,
    info: Option<RunInfo>,
    last_line: Instant,
}

impl Progress {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { label: None, terminal, bar: None, info: None, last_line: Instant::now() }
    }

    /// The progress of one of several runs side by side: lines that name it, and no bar.
    pub fn labelled(label: String) -> Self {
        let mut progress = Self::new();
        progress.label = Some(label);
        progress.terminal = false;
        progress
    }

    /// Takes the bar away.
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match (&self.bar, &self.label) {
            (Some(bar), _) => bar.suspend(|| crate::say(text)),
            (None, Some(label)) => crate::say(&format!("{label}: {text}")),
            (None, None) => crate::say(text),
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
        let RunInfo { done, done_steps, epochs, steps_per_epoch, .. } = *info;
        match (done, done_steps) {
            (0, 0) => {}
            (_, 0) => self.line(&format!("resuming after epoch {done} of {epochs}")),
            _ => self.line(&format!(
                "resuming after step {done_steps} of {steps_per_epoch} of epoch {} of {epochs}",
                done + 1
            )),
        }
        if self.terminal {
            let steps = info.epochs.saturating_sub(info.done) * info.steps_per_epoch;
            self.bar = Some(bar(steps.saturating_sub(info.done_steps)));
        }
        self.info = Some(info.clone());
        self.last_line = Instant::now();
    }

    fn step(&mut self, step: &Step) {
        let Some(info) = &self.info else { return };
        match &self.bar {
            Some(bar) => {
                // Not every step is reported.
                let before = info.done * info.steps_per_epoch + info.done_steps;
                bar.set_position(step.run_step.saturating_sub(before) as u64);
                let columns = Term::stderr().size().1.into();
                let done = bar.position() as f64 / bar.length().unwrap_or(1).max(1) as f64;
                bar.set_message(line(step, info, Some((done, bar.eta())), columns));
            }
            None if self.last_line.elapsed() > LINE_INTERVAL => {
                self.last_line = Instant::now();
                self.line(&line(step, info, None, usize::MAX));
            }
            None => {}
        }
    }

    fn skipped(&mut self, reason: &str) {
        self.line(&format!("skipped: {reason}"));
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
        if record.epoch == epochs {
            self.clear();
        }
    }
}

impl Drop for Progress {
    /// A run may end before its last epoch.
    fn drop(&mut self) {
        self.clear();
    }
}

/// A bar of so many steps on the terminal, which shows its message.
fn bar(steps: usize) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr_with_hz(5));
    // The message is the whole line, made to fit the width of the terminal.
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}

/// The batches of an evaluation or of predictions: a bar on a terminal, otherwise nothing. The bar
/// is removed on drop.
pub struct Batches {
    bar: Option<ProgressBar>,
    images: usize,
    started: Instant,
}

impl Batches {
    pub fn new(batches: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(batches));
        Self { bar, images: 0, started: Instant::now() }
    }

    /// A batch is done.
    pub fn add(&mut self, images: usize) {
        self.images += images;
        let Some(bar) = &self.bar else { return };
        bar.inc(1);
        let batches = bar.length().unwrap_or(0);
        let done = bar.position() as f64 / batches.max(1) as f64;
        let speed = self.images as f64 / self.started.elapsed().as_secs_f64();
        let parts = [
            (2, Some(percent(done))),
            (0, Some(format!("batch {}/{batches}", bar.position()))),
            (3, Some(format!("{speed:.0} images/s"))),
            (1, Some(time_left(bar.eta()))),
        ];
        bar.set_message(fitted(parts, Some(done), Term::stderr().size().1.into()));
    }

    /// Hides the bar while `write` writes to the terminal.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn percent(done: f64) -> String {
    format!("{:>3.0}%", (100.0 * done).floor())
}

fn time_left(eta: Duration) -> String {
    format!("{:#} left", HumanDuration(eta))
}

/// Columns of the bar.
const BAR: std::ops::RangeInclusive<usize> = 8..=40;

/// The progress of a run in fewer than `columns` columns; parts that do not fit are left out.
/// `left`, the share of the run that is done and the time that is left, adds a percentage and,
/// where it fits, a bar.
fn line(step: &Step, info: &RunInfo, left: Option<(f64, Duration)>, columns: usize) -> String {
    // In the order they are shown, with the rank in which they are added; rank 0 is always shown.
    let parts = [
        (3, left.map(|(done, _)| percent(done))),
        (0, Some(format!("epoch {}/{}", step.epoch, info.epochs))),
        (4, Some(format!("step {}/{}", step.step, info.steps_per_epoch))),
        (1, Some(format!("loss {:.4}", step.loss))),
        (5, Some(format!("top-1 {:.2}%", step.top1))),
        (6, Some(format!("{:.0} images/s", step.images_per_second))),
        (2, left.map(|(_, eta)| time_left(eta))),
    ];
    fitted(parts, left.map(|(done, _)| done), columns)
}

/// The parts of a line that fit, by rank, and before them a bar for the share that is done, where
/// there is room for one.
fn fitted<const N: usize>(
    parts: [(usize, Option<String>); N],
    done: Option<f64>,
    columns: usize,
) -> String {
    // The last column is left free: some terminals wrap there.
    let room = columns.saturating_sub(1);
    let mut shown = [false; N];
    let joined = |shown: &[bool; N]| {
        let parts = parts.iter().zip(shown).filter(|(_, shown)| **shown);
        parts.filter_map(|((_, text), _)| text.as_deref()).collect::<Vec<_>>().join(" ")
    };
    for rank in 0..parts.len() {
        let mut more = shown;
        parts.iter().zip(&mut more).for_each(|((at, _), shown)| *shown |= *at == rank);
        if rank > 0 && joined(&more).len() > room {
            break;
        }
        shown = more;
    }
    let text = joined(&shown);
    let bar = room.saturating_sub(text.len() + 1).min(*BAR.end());
    match done {
        Some(done) if BAR.contains(&bar) => {
            let full = (done.clamp(0.0, 1.0) * bar as f64) as usize;
            format!("{}{} {text}", "█".repeat(full), "░".repeat(bar - full))
        }
        // Only parts of rank 0 can be too long.
        _ => text.chars().take(room).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dbb_models::{Arch, BlockKind, ModelConfig};

    fn info() -> RunInfo {
        RunInfo {
            model: ModelConfig::new(Arch::ResNet18, BlockKind::Dbb, 1000),
            train_data: String::new(),
            val_data: String::new(),
            params_train: 0,
            steps_per_epoch: 5005,
            epochs: 120,
            done: 0,
            done_steps: 0,
        }
    }

    const EARLY: Step = Step {
        epoch: 1,
        step: 2,
        run_step: 2,
        lr: 0.1,
        step_loss: 7.0,
        grad_norm: 1.0,
        loss: 7.0123,
        top1: 0.125,
        images: 512,
        images_per_second: 987.6,
    };

    const LATE: Step = Step {
        epoch: 120,
        step: 5000,
        loss: 1234.56789,
        top1: 100.0,
        images_per_second: 12345.6,
        ..EARLY
    };

    #[test]
    fn the_line_fits_the_terminal() {
        let hours = Duration::from_secs(59 * 3600);
        for columns in 1..=300 {
            for (step, done) in [(&EARLY, 0.0), (&LATE, 0.999), (&LATE, 1.0)] {
                let line = line(step, &info(), Some((done, hours)), columns);
                assert!(line.chars().count() < columns, "{columns}: {line}");
            }
        }
        let bar = format!("{}{}", "█".repeat(20), "░".repeat(20));
        for (columns, expected) in [
            (20, "epoch 1/120"),
            (50, " 50% epoch 1/120 step 2/5005 loss 7.0123 2d left"),
            (80, " 50% epoch 1/120 step 2/5005 loss 7.0123 top-1 0.12% 988 images/s 2d left"),
            (
                200,
                &format!(
                    "{bar}  50% epoch 1/120 step 2/5005 loss 7.0123 top-1 0.12% 988 images/s 2d left"
                ),
            ),
        ] {
            assert_eq!(line(&EARLY, &info(), Some((0.5, hours)), columns), expected);
        }
    }

    /// Off the terminal there is neither bar nor percentage, and nothing is left out.
    #[test]
    fn a_plain_line_says_everything() {
        let text = "epoch 1/120 step 2/5005 loss 7.0123 top-1 0.12% 988 images/s";
        assert_eq!(line(&EARLY, &info(), None, usize::MAX), text);
    }
}
