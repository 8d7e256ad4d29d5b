//! When a run ends.

use serde::Serialize;

use crate::config::TrainSection;
use crate::run::metrics::EpochRecord;
use crate::run::progress::Progress;
use crate::text::plural;

/// Why a run ended before its last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyEnd {
    /// `train.patience`: top-1 does not rise any more.
    Patience,
    /// `train.max_minutes`: its time is over.
    MaxMinutes,
}

/// Whether a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has not.
    NotYet,
    /// All epochs are done.
    Planned,
    /// It ends earlier.
    Early(EarlyEnd),
}

impl Ending {
    /// Of a run that has come so far, from nothing but its configuration and what it remembers: a
    /// run that is resumed ends where it would have ended without interruption.
    pub fn of(train: &TrainSection, progress: &Progress) -> Self {
        let records = &progress.records;
        if progress.mark.epoch >= train.epochs {
            return Self::Planned;
        }
        let has_stalled = train.patience.is_some_and(|patience| {
            progress.mark.batch == 0 && stalled_epochs(records, train.min_delta) >= patience
        });
        if has_stalled {
            return Self::Early(EarlyEnd::Patience);
        }
        let seconds = records.iter().map(|record| record.seconds).sum::<f64>();
        let is_over = train
            .max_minutes
            .is_some_and(|minutes| seconds + progress.partial.seconds >= minutes * 60.0);
        // Something must have been trained.
        if is_over && progress.step > 0 {
            return Self::Early(EarlyEnd::MaxMinutes);
        }
        Self::NotYet
    }
}

/// Epochs since top-1 has last risen by more than `min_delta` percentage points above its highest so
/// far.
fn stalled_epochs(records: &[EpochRecord], min_delta: f64) -> usize {
    let mut stalled = 0;
    let mut highest = None;
    for record in records {
        match highest {
            Some(highest) if record.top1 <= highest + min_delta => stalled += 1,
            _ => (stalled, highest) = (0, Some(record.top1)),
        }
    }
    stalled
}

impl EarlyEnd {
    /// The reason in a sentence about a run that has come so far.
    pub fn describe(self, train: &TrainSection, progress: &Progress) -> String {
        let done = progress.records.len();
        let at = match progress.mark.batch {
            0 => format!("after epoch {done} of {}", train.epochs),
            batch => format!(
                "after {} of epoch {} of {}",
                plural(batch, "batch"),
                progress.mark.epoch + 1,
                train.epochs
            ),
        };
        match self {
            Self::Patience => format!(
                "the run ends {at}: top-1 has not risen{} for {} (train.patience)",
                match train.min_delta {
                    0.0 => String::new(),
                    delta => format!(" by more than {delta} points"),
                },
                plural(stalled_epochs(&progress.records, train.min_delta), "epoch"),
            ),
            Self::MaxMinutes => format!(
                "the run ends {at}: its {} minutes are over (train.max_minutes); resumed with more of \
                 them it continues",
                train.max_minutes.unwrap_or_default()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::record;

    fn stalled(top1: &[f64], min_delta: f64) -> usize {
        let records: Vec<_> =
            top1.iter().enumerate().map(|(i, &top1)| record(i + 1, top1)).collect();
        stalled_epochs(&records, min_delta)
    }

    #[test]
    fn epochs_count_from_the_last_rise() {
        assert_eq!(stalled(&[], 0.0), 0);
        assert_eq!(stalled(&[50.0], 0.0), 0);
        assert_eq!(stalled(&[50.0, 50.0, 49.0], 0.0), 2, "an equal value has not risen");
        assert_eq!(stalled(&[50.0, 49.0, 50.5], 0.0), 0);
        assert_eq!(stalled(&[50.0, 49.0, 50.5, 50.2], 0.0), 1);
        // Small rises add up until they are above the last that counted.
        assert_eq!(stalled(&[50.0, 50.4, 50.8, 51.2], 1.0), 0);
        assert_eq!(stalled(&[50.0, 50.4, 50.8, 51.0], 1.0), 3);
        assert_eq!(stalled(&[f64::NAN, 50.0], 0.0), 0);
    }
}
