//! The learning rate over time.

use std::f64::consts::PI;

use crate::config::{OptimSection, ScheduleKind, ScheduleSection};

/// The learning rate of every step of a run.
#[derive(Clone, Debug)]
pub struct Schedule {
    section: ScheduleSection,
    peak: f64,
    steps_per_epoch: usize,
    steps: usize,
}

impl Schedule {
    /// The schedule of a run of so many epochs.
    pub fn new(
        section: &ScheduleSection,
        optim: &OptimSection,
        epochs: usize,
        steps_per_epoch: usize,
    ) -> Self {
        Self {
            section: section.clone(),
            peak: optim.lr,
            steps_per_epoch,
            steps: epochs * steps_per_epoch,
        }
    }

    /// The learning rate of a step, counted from 0 over the whole run.
    pub fn lr(&self, step: usize) -> f64 {
        let warmup = self.section.warmup_epochs * self.steps_per_epoch as f64;
        let now = step as f64;
        if now < warmup {
            // The first step already learns, the first after the warm-up has the peak.
            return self.peak * (now + 1.0) / (warmup + 1.0);
        }
        match self.section.kind {
            ScheduleKind::Cosine => {
                let part = (now - warmup) / (self.steps as f64 - warmup).max(1.0);
                let low = self.section.min_lr;
                low + (self.peak - low) * 0.5 * (1.0 + (PI * part.min(1.0)).cos())
            }
            ScheduleKind::Step => {
                let epoch = step / self.steps_per_epoch.max(1);
                let passed = self.section.milestones.iter().filter(|&&m| epoch >= m).count();
                self.peak * self.section.gamma.powi(passed as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(section: ScheduleSection) -> Schedule {
        let optim: OptimSection = toml::from_str("lr = 0.1").unwrap();
        Schedule::new(&section, &optim, 10, 100)
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} against {b}");
    }

    /// Against the closed form that PyTorch's `CosineAnnealingLR` documents.
    #[test]
    fn cosine_runs_from_peak_to_minimum_every_step() {
        let s = schedule(ScheduleSection { min_lr: 0.01, ..Default::default() });
        close(s.lr(0), 0.1);
        close(s.lr(500), 0.055);
        close(s.lr(250), 0.01 + 0.09 * 0.5 * (1.0 + 0.5f64.sqrt()));
        assert!(s.lr(999) > 0.01 && s.lr(999) < 0.01001);
    }

    #[test]
    fn warmup_rises_linearly_and_ends_at_the_peak() {
        let s = schedule(ScheduleSection { warmup_epochs: 0.99, ..Default::default() });
        close(s.lr(0), 0.001);
        close(s.lr(49), 0.05);
        close(s.lr(99), 0.1);
        assert!(s.lr(100) < 0.1);
    }

    #[test]
    fn steps_multiply_at_their_milestones() {
        let s = schedule(ScheduleSection {
            kind: ScheduleKind::Step,
            milestones: vec![3, 6],
            ..Default::default()
        });
        close(s.lr(299), 0.1);
        close(s.lr(300), 0.01);
        close(s.lr(999), 0.001);
    }
}
