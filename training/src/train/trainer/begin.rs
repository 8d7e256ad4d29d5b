//! How a run begins: from its configuration, or from its newest checkpoint.

use std::time::Instant;

use burn::tensor::Device;
use dbb_models::{Form, ModelConfig, WholeBatch};

use super::Trainer;
use super::facts::{RankFacts, digest};
use super::plan::Plan;
use crate::cancel::CancelToken;
use crate::config::Config;
use crate::device;
use crate::error::{Error, Result};
use crate::run::directory::RunDir;
use crate::run::identity::{Identity, is_free};
use crate::run::progress::Progress;
use crate::train::average::Ema;
use crate::train::checkpoint::RunState;
use crate::train::gradients;
use crate::train::group::Place;
use crate::train::optimizer::Optimizer;
use crate::train::start;

impl Trainer {
    /// A new run in a directory that holds none. Of several ranks, the first names the directory and
    /// writes to it.
    ///
    /// # Errors
    /// If the directory holds a run or is in use, the data cannot be read, data and configuration
    /// disagree, or the ranks do.
    pub fn new(config: Config, run: RunDir, place: impl Into<Place>) -> Result<Self> {
        let place = place.into();
        let ranks = place.ranks.clone();
        let root = ranks.gather(run.root().to_path_buf())?.swap_remove(0);
        let trainer = Self::new_alone(config, RunDir::new(root), &place);
        let mut trainer = ranks.agree(trainer)?;
        trainer.check_ranks()?;
        // A start that is refused leaves nothing behind.
        ranks.agree(trainer.write_beginning())?;
        Ok(*trainer)
    }

    fn new_alone(config: Config, run: RunDir, place: &Place) -> Result<Box<Self>> {
        if place.ranks.is_first() && run.exists() {
            return Err(Error::RunExists(run.root().into()));
        }
        let mut trainer = Self::prepare(config, run, place)?;
        trainer.begin()?;
        Ok(trainer)
    }

    /// Writes what a run directory begins with, on the first rank.
    fn write_beginning(&mut self) -> Result<()> {
        if let Some(lock) = &mut self.lock {
            self.run.write(&self.run.config(), &self.config.to_toml())?;
            lock.keep();
            self.run.write(&self.run.env(), &format!("{:#}\n", self.env))?;
        }
        Ok(())
    }

    /// Writes the configuration to the run again, on the first rank.
    fn write_config(&self) -> Result<()> {
        if self.ranks.is_first() {
            self.run.write(&self.run.config(), &self.config.to_toml())?;
        }
        Ok(())
    }

    /// A run that resumes from its newest checkpoint, with its own configuration; from the beginning
    /// if it ended before its first checkpoint.
    ///
    /// A run is refused whose configuration, with the `overrides`, `KEY=VALUE`, or whose data are not
    /// those of its checkpoint. `force` accepts that.
    ///
    /// # Errors
    /// If there is no run, it is in use, its checkpoint is damaged or does not fit; if it has results
    /// and no checkpoint they could come from; within an epoch, if its batches are other ones; if
    /// ranks disagree.
    pub fn resume(
        run: RunDir,
        place: impl Into<Place>,
        force: bool,
        overrides: &[String],
    ) -> Result<Self> {
        let place = place.into();
        let ranks = place.ranks.clone();
        let trainer = Self::resume_alone(run, &place, force, overrides);
        let trainer = ranks.agree(trainer)?;
        trainer.check_ranks()?;
        if !overrides.is_empty() {
            ranks.agree(trainer.write_config())?;
        }
        Ok(*trainer)
    }

    fn resume_alone(
        run: RunDir,
        place: &Place,
        force: bool,
        overrides: &[String],
    ) -> Result<Box<Self>> {
        if !run.exists() {
            return Err(Error::NoRun(run.root().into()));
        }
        let config = Config::load_run(&run.config(), overrides)?;
        Self::resume_as(config, run, place, force)
    }

    /// The same, in this process alone, with a configuration that is given: what does not change
    /// results may differ from the run's own, such as where its data lie, and is then written to the
    /// run.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn resume_with(config: Config, run: RunDir, device: &Device) -> Result<Self> {
        let trainer = Self::resume_as(config, run, &device.into(), false)?;
        trainer.write_config()?;
        Ok(*trainer)
    }

    fn resume_as(config: Config, run: RunDir, place: &Place, force: bool) -> Result<Box<Self>> {
        let mut trainer = Self::prepare(config, run, place)?;
        if let Some(lock) = &mut trainer.lock {
            lock.keep();
        }
        let Some(&mark) = trainer.run.checkpoint_ids()?.last() else {
            let results = trainer.run.results()?;
            if !results.is_empty() {
                return Err(Error::NoCheckpoint { run: trainer.run.root().into(), results });
            }
            trainer.begin()?;
            let text = "the run ended before its first checkpoint and starts from the beginning";
            trainer.notes.insert(0, text.into());
            return Ok(trainer);
        };
        let now = trainer.state.progress.identity.clone();
        trainer.state = trainer.restore(mark)?;
        let identity = &mut trainer.state.progress.identity;
        let changes = identity.changes(&now, is_free);
        if !changes.is_empty() && !force {
            let path = trainer.run.checkpoint(mark);
            return Err(Error::Changed { path, changes });
        }
        if mark.batch > 0 && identity.has_other_batches(&now) {
            let path = trainer.run.checkpoint(mark);
            return Err(Error::Batches { path, changes, batches: mark.batch });
        }
        let accepted = changes.into_iter().map(|change| format!("accepted: {change}"));
        let inexact = identity.notes(&now).into_iter().map(|change| {
            format!("{change}: the last bits may differ from those of an uninterrupted run")
        });
        trainer.notes.extend(accepted.chain(inexact));
        if identity.ranks != now.ranks {
            trainer.notes.push(format!(
                "the number of ranks was {}, is {}: each normalises, and drops features of, another part of \
                 the batch, so that results will differ from those of an uninterrupted run; with \
                 train.sync_batch_norm and without dropout the last bits alone may",
                identity.ranks, now.ranks
            ));
        }
        if identity.val_data != now.val_data {
            // What was found of other images says nothing of these.
            trainer.state.progress.validation = None;
        }
        *identity = now;
        Ok(trainer)
    }

    fn prepare(config: Config, run: RunDir, place: &Place) -> Result<Box<Self>> {
        let plan = Plan::within_memory(config, place)?;
        let Place { device, ranks } = place.clone();
        if ranks.size() > 1 && plan.config.train.sync_batch_norm && !WholeBatch::serves(&device) {
            return Err(Error::Unusable(format!(
                "train.sync_batch_norm needs the device flex, and this is {}; leave the key out to \
                 normalise each rank's part by its own statistics",
                device::name(&device)
            )));
        }
        let lock = ranks.is_first().then(|| run.lock()).transpose()?;
        let autodiff = device.clone().autodiff();
        let state = fresh(&plan.config, &plan.model, &autodiff, &plan.identity)?;
        let outline = plan.outline(&state.network, &device);
        let Plan { config, model, metadata, summary, env, train, val, .. } = plan;
        // A trainer is large: it stays in one place.
        Ok(Box::new(Self {
            config,
            model,
            metadata,
            summary,
            env,
            device: autodiff,
            ranks,
            group: None,
            train,
            val,
            state,
            saved: (None, Instant::now()),
            outline,
            notes: Vec::new(),
            pace: Vec::new(),
            stop: CancelToken::default(),
            asked: None,
            batch: Vec::new(),
            mistakes: Vec::new(),
            reported: Instant::now(),
            run,
            lock,
        }))
    }

    /// Checks that all ranks would train the same run: program, configuration, data, and the weights
    /// they start from.
    fn check_ranks(&self) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let Identity { config, train_data, val_data, .. } = &self.state.progress.identity;
        let own = RankFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            config: config.clone(),
            data: [train_data.clone(), val_data.clone()],
            device: device::kind(&self.device),
            place: self.state.progress.mark,
            weights: digest(&self.state.network),
        };
        let facts = self.ranks.gather(own)?;
        for (rank, other) in facts.iter().enumerate().skip(1) {
            let differences = other.differences(&facts[0]);
            if !differences.is_empty() {
                return Err(Error::RanksDiffer { rank: self.ranks.name(rank), differences });
            }
        }
        Ok(())
    }

    /// Puts the weights of `model.init_from`, if it is set, into a run that has not begun.
    pub(super) fn begin(&mut self) -> Result<()> {
        let RunState { network, ema, .. } = &mut self.state;
        let start =
            start::from_weights(&self.config, &self.metadata, network.clone(), &self.device)?;
        if let Some(start) = start {
            (*network, self.notes) = (start.network, start.notes);
            *ema = self.config.train.ema.map(|decay| Ema::new(network, decay));
        }
        Ok(())
    }

    /// The run before its first step.
    pub(super) fn fresh(&self) -> Result<RunState> {
        fresh(&self.config, &self.model, &self.device, &self.state.progress.identity)
    }
}

/// A run before its first step.
pub(super) fn fresh(
    config: &Config,
    model: &ModelConfig,
    device: &Device,
    identity: &Identity,
) -> Result<RunState> {
    device.seed(config.seed);
    let network = gradients::number(model.init(Form::Train, device)?);
    let network = model.freeze(network, &config.train.freeze)?;
    Ok(RunState {
        ema: config.train.ema.map(|decay| Ema::new(&network, decay)),
        optimizer: Optimizer::new(&config.optim, &network),
        network,
        progress: Progress::new(identity.clone()),
    })
}
