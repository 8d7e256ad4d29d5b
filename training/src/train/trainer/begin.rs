//! How a run begins: from its configuration, or from its newest checkpoint.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use dbb_datasets::{ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess};
use dbb_models::summary::Summary;
use dbb_models::weights::{Dialect, Metadata};
use dbb_models::{Form, ModelConfig, WholeBatch};

use super::Trainer;
use super::facts::{RankFacts, digest};
use crate::cancel::CancelToken;
use crate::config::{Config, OnBadSample, OptimKind};
use crate::data::open_pair;
use crate::device;
use crate::error::{Error, Result};
use crate::memory::{Batches, Copies, Estimate};
use crate::report::Steps;
use crate::run::directory::RunDir;
use crate::run::identity::Identity;
use crate::run::progress::Progress;
use crate::train::average::Ema;
use crate::train::checkpoint::RunState;
use crate::train::gradients;
use crate::train::group::{Place, Ranks};
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
        let trainer = ranks.agree(trainer)?;
        trainer.check_ranks()?;
        Ok(*trainer)
    }

    fn new_alone(config: Config, run: RunDir, place: &Place) -> Result<Box<Self>> {
        if place.ranks.is_first() && run.exists() {
            return Err(Error::RunExists(run.root().into()));
        }
        let mut trainer = Self::prepare(config, run, place)?;
        trainer.begin()?;
        if let Some(lock) = &mut trainer.lock {
            trainer.run.write(&trainer.run.config(), &trainer.config.to_toml())?;
            lock.keep();
            trainer.run.write(&trainer.run.env(), &format!("{:#}\n", trainer.env))?;
        }
        Ok(trainer)
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
        Self::resume_as(config, run, place, force, !overrides.is_empty())
    }

    /// The same, in this process alone, with a configuration that is given: what does not change
    /// results may differ from the run's own, such as where its data lie, and is then written to the
    /// run.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn resume_with(config: Config, run: RunDir, device: &Device) -> Result<Self> {
        Ok(*Self::resume_as(config, run, &device.into(), false, true)?)
    }

    fn resume_as(
        config: Config,
        run: RunDir,
        place: &Place,
        force: bool,
        rewrite: bool,
    ) -> Result<Box<Self>> {
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
        let changes = identity.changes(&now);
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
        if identity.ranks != now.ranks && !trainer.config.train.sync_batch_norm {
            trainer.notes.push(
                "batch statistics are those of each rank's part, which is another one now: results will \
                 differ from those of an uninterrupted run; train.sync_batch_norm takes those of the \
                 whole batch"
                    .into(),
            );
        }
        *identity = now;
        if rewrite && trainer.ranks.is_first() {
            trainer.run.write(&trainer.run.config(), &trainer.config.to_toml())?;
        }
        Ok(trainer)
    }

    fn prepare(config: Config, run: RunDir, place: &Place) -> Result<Box<Self>> {
        let Plan { config, model, metadata, summary, env, identity, train, val, .. } =
            Plan::within_memory(config, place)?;
        let Place { device, ranks } = place.clone();
        if ranks.size() > 1 && config.train.sync_batch_norm && !WholeBatch::serves(&device) {
            return Err(Error::Unusable(format!(
                "train.sync_batch_norm needs the device flex, and this is {}; leave the key out to \
                 normalise each rank's part by its own statistics",
                device::name(&device)
            )));
        }
        let lock = ranks.is_first().then(|| run.lock()).transpose()?;
        let device = device.autodiff();
        let state = fresh(&config, &model, &device, &identity)?;
        // A trainer is large: it stays in one place.
        Ok(Box::new(Self {
            config,
            model,
            metadata,
            summary,
            env,
            device,
            ranks,
            group: None,
            train,
            val,
            state,
            saved: (None, Instant::now()),
            notes: Vec::new(),
            stop: CancelToken::default(),
            asked: None,
            steps: Steps::new(0, 0),
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
            config: config.to_toml(),
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

/// A run as planned by its configuration and its data.
pub(super) struct Plan {
    pub config: Config,
    pub model: ModelConfig,
    pub metadata: Metadata,
    summary: Summary,
    env: serde_json::Value,
    pub identity: Identity,
    pub train: Loader,
    val: Loader,
    memory: Estimate,
}

impl Plan {
    /// Opens the data and derives everything else; writes nothing.
    fn new(mut config: Config, place: &Place) -> Result<Self> {
        let Place { device, ranks } = place;
        let data = &config.data;
        let (train, val) = open_pair(data, config.seed)?;
        if train.len() < 2 || val.is_empty() {
            let text = format!("{} has too few images to train on and validate with", data.source);
            return Err(Error::Unusable(text));
        }
        let classes = train.classes().to_vec();
        let preprocess = data.preprocess(&train, config.model.in_channels);
        check_resize(&preprocess)?;
        let model = config.model.resolve(classes.len(), preprocess.channels);
        check_classes(&model, &classes, &data.source)?;
        let summary = Summary::new(&model, [preprocess.size.0, preprocess.size.1])?;
        let images = config.train.batch_size.min(train.len().max(val.len()));
        let part = images.div_ceil(ranks.size());
        let memory = memory_of(&config, &summary, &preprocess, part, device);
        let metadata = Metadata {
            model: model.clone(),
            form: Form::Train,
            keys: Dialect::Native,
            preprocess: preprocess_json(&preprocess),
            classes,
        };
        let (train, val) = loaders(&config, train, val, preprocess, ranks)?;

        // Written out, so that the run can be repeated whatever the defaults become.
        config.model.num_classes = Some(model.num_classes);
        config.model.in_channels = Some(model.in_channels);
        let identity = Identity {
            config: config.clone(),
            train_data: train.dataset().fingerprint(),
            val_data: val.dataset().fingerprint(),
            device: device::name(device),
            threads: rayon::current_num_threads(),
            instruction_set: device::instruction_set(),
            ranks: ranks.size(),
        };
        let env = serde_json::json!({
            "dbb": env!("CARGO_PKG_VERSION"),
            "device": &identity.device,
            "threads": identity.threads,
            "ranks": identity.ranks,
            "instruction_set": &identity.instruction_set,
            "os": std::env::consts::OS,
            "cpu": device::cpu_model(),
            "arch": std::env::consts::ARCH,
            "train_data": train.dataset().describe(),
            "train_fingerprint": &identity.train_data,
            "val_data": val.dataset().describe(),
            "val_fingerprint": &identity.val_data,
        });
        Ok(Self { config, model, metadata, summary, env, identity, train, val, memory })
    }

    /// The same, but a run that cannot fit into memory is refused.
    pub(super) fn within_memory(config: Config, place: &Place) -> Result<Self> {
        let plan = Self::new(config, place)?;
        let lower = match plan.memory.is_mostly_cache() {
            true => "data.cache_mb".to_string(),
            false => format!("train.batch_size ({}) or data.size", plan.config.train.batch_size),
        };
        plan.memory.check(&place.device, "training", &lower)?;
        Ok(plan)
    }
}

/// Checks that a run of a configuration could begin, as far as possible without writing anything:
/// its data are opened, its network is built, the weights that it starts from are read.
///
/// # Errors
/// As [`Trainer::new`], except for those of the run directory.
pub fn check(config: Config, place: impl Into<Place>) -> Result<Identity> {
    let place = place.into();
    let Plan { config, model, metadata, identity, .. } = Plan::within_memory(config, &place)?;
    let device = place.device.autodiff();
    let state = fresh(&config, &model, &device, &identity)?;
    start::from_weights(&config, &metadata, state.network, &device)?;
    Ok(identity)
}

/// The memory of a run with batches of `images`.
fn memory_of(
    config: &Config,
    summary: &Summary,
    preprocess: &Preprocess,
    images: usize,
    device: &Device,
) -> Estimate {
    let batches =
        Batches { images, shape: preprocess.shape(), held: Batches::held(config.data.workers) };
    let copies = Copies {
        optimizer: match config.optim.kind {
            OptimKind::Sgd => 1,
            OptimKind::AdamW => 2,
        },
        average: config.train.ema.is_some(),
        accumulated: config.train.accumulate > 1,
    };
    Estimate::training(&summary.layers, &batches, &copies, device).with_cache(config.data.cache_mb)
}

/// The augmented training images in random order, and the validation images.
fn loaders(
    config: &Config,
    train: ImageDataset,
    val: ImageDataset,
    preprocess: Preprocess,
    ranks: &Ranks,
) -> Result<(Loader, Loader)> {
    let cache = config.data.cache();
    let settings = |shuffle| LoaderConfig {
        batch_size: config.train.batch_size,
        workers: config.data.workers,
        seed: config.seed,
        shuffle,
        skip_unreadable: config.data.on_bad_sample == OnBadSample::Skip,
        cache: cache.clone(),
        share: ranks.share(),
        ..LoaderConfig::default()
    };
    let augmented = Pipeline::new(preprocess.clone(), config.augment.clone())?;
    let train = Loader::new(Arc::new(train), settings(true), augmented)?;
    let val = Loader::new(Arc::new(val), settings(false), Pipeline::eval(preprocess)?)?;
    Ok((train, val))
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

fn check_classes(model: &ModelConfig, classes: &[String], source: &str) -> Result<()> {
    if model.num_classes == classes.len() {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "model.num_classes is {}, but {source} has {} classes; leave the key out to take the data's",
        model.num_classes,
        classes.len()
    )))
}

/// Repeats the check of the configuration with the size that the data decides.
fn check_resize(preprocess: &Preprocess) -> Result<()> {
    let side = preprocess.size.0.min(preprocess.size.1);
    match preprocess.resize {
        Some(resize) if resize > Preprocess::MAX_SIDE => Err(Error::Unusable(format!(
            "data.size is {side}: validation images would be resized to {resize} before the crop, and at \
             most {} is possible; set data.resize to at least {side}, or lower data.size",
            Preprocess::MAX_SIDE
        ))),
        Some(resize) if resize < side => Err(Error::Unusable(format!(
            "data.resize is {resize}, below the network's input of {side}: the crop would be padded \
             with black; raise it, or set data.size"
        ))),
        _ => Ok(()),
    }
}

fn preprocess_json(preprocess: &Preprocess) -> serde_json::Value {
    // Plain data always serialises.
    serde_json::to_value(preprocess).expect("preprocessing is plain data")
}
