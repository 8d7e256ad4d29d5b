//! What a configuration and its data decide before anything is computed.

use std::sync::Arc;

use dbb_datasets::{ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess};
use dbb_models::summary::Summary;
use dbb_models::weights::{Dialect, Metadata};
use dbb_models::{Form, ModelConfig};

use super::begin::fresh;
use super::need::Need;
use crate::config::{BatchSize, Config, OnBadSample};
use crate::data::open_pair;
use crate::device;
use crate::error::{Error, Result};
use crate::run::identity::Identity;
use crate::train::group::{Place, Ranks};
use crate::train::start;

/// A run as planned by its configuration and its data.
pub(super) struct Plan {
    pub config: Config,
    pub model: ModelConfig,
    pub metadata: Metadata,
    pub summary: Summary,
    pub env: serde_json::Value,
    pub identity: Identity,
    pub train: Loader,
    pub val: Loader,
    pub need: Need,
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
        let need = Need {
            layers: summary.layers.clone(),
            shape: preprocess.shape(),
            images: [train.len(), val.len()],
            ranks: ranks.size(),
            on_machine: ranks.local().1,
        };
        let batch_size = match config.train.batch_size {
            BatchSize::Images(images) => images,
            BatchSize::Auto => need.largest_batch(&config, device)?,
        };
        let metadata = Metadata {
            model: model.clone(),
            form: Form::Train,
            keys: Dialect::Native,
            preprocess: preprocess_json(&preprocess),
            classes,
        };
        let (train, val) = loaders(&config, batch_size, train, val, preprocess, ranks)?;

        // Written out, so that the run can be repeated whatever the defaults become.
        config.model.num_classes = Some(model.num_classes);
        config.model.in_channels = Some(model.in_channels);
        config.train.batch_size = BatchSize::Images(batch_size);
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
        Ok(Self { config, model, metadata, summary, env, identity, train, val, need })
    }

    /// The same, but a run that cannot fit into memory is refused.
    pub(super) fn within_memory(config: Config, place: &Place) -> Result<Self> {
        let plan = Self::new(config, place)?;
        plan.check_memory(place)?;
        Ok(plan)
    }

    fn check_memory(&self, place: &Place) -> Result<()> {
        self.need.check(&self.config, self.train.batch_size(), &place.device)
    }
}

/// Checks that `runs` runs of a configuration could begin side by side, as far as possible without writing
/// anything: their data are opened, their network is built, the weights that they start from are read.
///
/// # Errors
/// As [`Trainer::new`](super::Trainer::new), except for those of the run directory.
pub fn check(config: Config, runs: usize, place: impl Into<Place>) -> Result<Identity> {
    let place = place.into();
    let mut plan = Plan::within_memory(config, &place)?;
    if runs > 1 {
        plan.need.on_machine *= runs;
        plan.check_memory(&place).map_err(|error| match error {
            Error::Memory { what, needed, limit, lower } => {
                Error::Memory { what, needed, limit, lower: format!("--jobs ({runs}), {lower}") }
            }
            error => error,
        })?;
    }
    let Plan { config, model, metadata, identity, .. } = plan;
    let device = place.device.autodiff();
    let state = fresh(&config, &model, &device, &identity)?;
    start::from_weights(&config, &metadata, state.network, &device)?;
    Ok(identity)
}

/// The augmented training images in random order, and the validation images.
fn loaders(
    config: &Config,
    batch_size: usize,
    train: ImageDataset,
    val: ImageDataset,
    preprocess: Preprocess,
    ranks: &Ranks,
) -> Result<(Loader, Loader)> {
    let cache = config.data.cache();
    let settings = |shuffle| LoaderConfig {
        batch_size,
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
