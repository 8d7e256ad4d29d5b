//! A run of a plan, and its result once it is finished.

use std::fs;

use dbb_models::summary::Summary;

use super::result::Row;
use crate::config::Config;
use crate::error::Result;
use crate::report;
use crate::run::directory::RunDir;
use crate::run::metrics;
use crate::run::steps::Steps;

/// A run of the plan.
pub(super) struct Planned {
    /// Name of its arm.
    pub name: String,
    /// Its configuration, with everything that the data decide.
    pub config: Config,
    /// Its directory.
    pub run: RunDir,
    /// Its result, once it is finished.
    pub done: Option<(Row, report::Run)>,
}

impl Planned {
    /// `dbb, seed 3`.
    pub fn label(&self) -> String {
        format!("{}, seed {}", self.name, self.config.seed)
    }

    /// Whether its result is there, and its predictions, if they are wanted.
    pub fn is_finished(&self, predictions: bool) -> bool {
        self.run.result().is_file() && (!predictions || self.run.predictions().is_file())
    }

    /// Reads its result.
    pub fn load(&mut self) -> Result<()> {
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
        let step = records.last().map_or(0, |record| record.step);
        let report = report::Run {
            summary: Summary::new(&model, row.image_size)?,
            config,
            env: env.unwrap_or_default(),
            records,
            steps: Steps::default(),
            step: [step; 2],
            findings: None,
            batch: Vec::new(),
        };
        self.done = Some((row, report));
        Ok(())
    }
}
