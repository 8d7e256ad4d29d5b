//! What the report of a run shows.

use std::time::Instant;

use super::Trainer;
use crate::error::Result;
use crate::inference::labels;
use crate::inference::pictures;
use crate::report::{self, Findings, State};

/// Images of a training batch that are shown.
const SHOWN: usize = 32;

impl Trainer {
    /// The run as far as it has come, for a report.
    pub fn report(&self) -> report::Run {
        let progress = &self.state.progress;
        let findings = progress.validation.as_ref().map(|validation| Findings {
            classification: validation.clone(),
            labels: self.labels(),
            pictures: self.mistakes.clone(),
        });
        report::Run {
            config: self.config.clone(),
            summary: self.summary.clone(),
            env: self.env.clone(),
            records: progress.records.clone(),
            steps: progress.steps.clone(),
            step: [progress.step, self.config.train.epochs * self.info().steps_per_epoch],
            findings,
            batch: self.batch.clone(),
        }
    }

    pub(super) fn write_report(&mut self, state: &State) -> Result<()> {
        self.reported = Instant::now();
        if !self.ranks.is_first() {
            return Ok(());
        }
        Ok(self.run.write(&self.run.report(), &report::train_page(&self.report(), state))?)
    }

    /// Makes pictures of the first training batch; of several ranks the first, which writes the report, of its
    /// part: the first images of the batch. A batch depends on the seed and its place alone,
    /// so that it can be built again without an effect on the run, and a resumed run shows the same.
    pub(super) fn picture_batch(&mut self) {
        if !self.ranks.is_first() {
            return;
        }
        let preprocess = self.train.pipeline().preprocess();
        // An image that cannot be read is reported where the batch is trained on.
        if let Ok(batch) = self.train.batch(0, 0) {
            self.batch = pictures::of_batch(&batch, preprocess, &self.labels(), SHOWN);
        }
    }

    /// Makes pictures of the worst mistakes of the last validation, on the rank that writes the report.
    pub(super) fn picture_mistakes(&mut self) {
        if !self.ranks.is_first() {
            return;
        }
        let Some(validation) = &self.state.progress.validation else { return };
        let indices = validation.mistakes.worst().iter().map(|mistake| mistake.index);
        let preprocess = self.val.pipeline().preprocess();
        self.mistakes = pictures::of_images(self.val.dataset(), preprocess, indices);
    }

    /// Readable names of the classes.
    fn labels(&self) -> Vec<String> {
        let classes = self.metadata.classes.iter();
        classes.map(|class| labels::label(class).to_string()).collect()
    }
}
