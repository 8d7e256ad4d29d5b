//! Starting a run from the weights of a file.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use dbb_datasets::Preprocess;
use dbb_models::weights::{
    self, Dialect, KeyMap, LoadOptions, Metadata, WeightsError, WeightsFile,
};
use dbb_models::{
    BlockKind, Classifier, Form, Implementation, LayerBlocks, ModelConfig, WarmStart,
};

use crate::config::Config;
use crate::deploy::fold::LogitDifference;
use crate::error::{Error, Result};
use crate::inference::labels;
use crate::text::plural;

/// Largest difference of logits to the network of the file that is accepted, relative to the
/// largest logit.
pub const TOLERANCE: f64 = 1e-5;

/// Images that both networks are compared on.
const IMAGES: usize = 8;

/// A network as its run starts with it.
pub struct Start {
    /// The network; what was frozen still is.
    pub network: Classifier,
    /// Where its weights come from, in sentences.
    pub notes: Vec<String>,
}

/// Puts the weights of `model.init_from` into the fresh network of a run, which `metadata`
/// describes, and compares it with the network of the file. A new classifier is drawn from the
/// seed alone, so that networks of other blocks start as the same function. `None` where the
/// configuration names no file.
///
/// # Errors
/// A file that cannot be read or holds another network; a difference beyond [`TOLERANCE`].
pub fn from_weights(
    config: &Config,
    metadata: &Metadata,
    network: Classifier,
    device: &Device,
) -> Result<Option<Start>> {
    let Some(path) = &config.model.init_from else { return Ok(None) };
    let model = &metadata.model;
    let (mut source, of_source) = read(path, model, &device.clone().inner())?;
    device.seed(config.seed);
    let new_head = new_head(&of_source, metadata);
    if new_head.is_some() {
        source = source.with_new_head(model.num_classes);
    }
    let start = model.warm_start(network, &source)?;
    let mut notes = vec![origin(path, &start)];
    notes.extend(new_head.or_else(|| assumed_classes(&of_source, metadata)));
    notes.extend(other_images(&of_source, metadata));
    notes.push(compare(config, metadata, &start, source, device)?);
    device.seed(config.seed);
    Ok(Some(Start { network: start.network, notes }))
}

/// The network of a file and its metadata. A file that does not describe itself is tried as the
/// configured network, then with each kind of block throughout.
fn read(path: &Path, model: &ModelConfig, device: &Device) -> Result<(Classifier, Metadata)> {
    if path.is_dir() {
        return Err(Error::Unusable(format!(
            "model.init_from is the folder {}; name a weights file, such as export/deploy.safetensors or \
             the network.bpk of a checkpoint in a run directory",
            path.display()
        )));
    }
    let file = WeightsFile::read(path)?;
    if let Some(metadata) = file.metadata.clone() {
        check_architecture(path, &metadata.model, model)?;
        return Ok((weights::rebuild(&file, &metadata, LoadOptions::default(), device)?, metadata));
    }
    let num_classes = num_classes(&file, model)?.unwrap_or(model.num_classes);
    let own = ModelConfig { num_classes, ..model.clone() };
    let plain = BlockKind::ALL.map(|block| ModelConfig {
        block,
        blocks: LayerBlocks::default(),
        ..own.clone()
    });
    let mut nearest: Option<WeightsError> = None;
    for model in std::iter::once(own).chain(plain) {
        match weights::adopt(&file, &model, LoadOptions::default(), device) {
            Ok((network, metadata)) => {
                check_architecture(path, &metadata.model, &model)?;
                return Ok((network, metadata));
            }
            Err(error @ WeightsError::NonFinite { .. }) => return Err(error.into()),
            Err(error) if nearest.as_ref().is_none_or(|e| misfits(&error) < misfits(e)) => {
                nearest = Some(error);
            }
            Err(_) => {}
        }
    }
    // At least the configured network has been tried.
    Err(nearest.expect("an attempt that failed").into())
}

/// How many keys are at fault.
fn misfits(error: &WeightsError) -> usize {
    match error {
        WeightsError::Keys { missing, unexpected, misshapen, .. } => {
            missing.len() + unexpected.len() + misshapen.len()
        }
        _ => usize::MAX,
    }
}

/// Number of classes of the classifier in a file that does not describe itself; `None` if no
/// dialect finds a classifier.
fn num_classes(file: &WeightsFile, model: &ModelConfig) -> Result<Option<usize>> {
    let plain =
        ModelConfig { block: BlockKind::Base, blocks: LayerBlocks::default(), ..model.clone() };
    let network = plain.init(Form::Train, &Device::default())?;
    Ok(Dialect::ALL.into_iter().find_map(|dialect| {
        let keys = KeyMap::new(dialect, &plain, &network).ok()?;
        keys.find("linear.bias", &file.tensors)?.shape().first().copied()
    }))
}

fn check_architecture(path: &Path, found: &ModelConfig, wanted: &ModelConfig) -> Result<()> {
    let shape = |model: &ModelConfig| {
        let activation = model.activation.map(|a| format!(", {a:?}")).unwrap_or_default();
        let channels = plural(model.in_channels, "channel");
        format!("{}, width {}, {channels}{activation}", model.arch, model.width)
    };
    let (found, wanted) = (shape(found), shape(wanted));
    if found == wanted {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "model.init_from: {} holds another network ({found}) than the configuration ({wanted})",
        path.display()
    )))
}

/// Says why the classifier of the file cannot be the run's, if so.
fn new_head(found: &Metadata, wanted: &Metadata) -> Option<String> {
    let (from, to) = (found.model.num_classes, wanted.model.num_classes);
    if from != to {
        return Some(format!("head replaced: {from} -> {to} classes"));
    }
    let same = found.classes.is_empty() || found.classes == wanted.classes;
    (!same).then(|| format!("head replaced: the {from} classes have other names in the file"))
}

/// Says that the classes of the file are only assumed to be the run's.
fn assumed_classes(found: &Metadata, wanted: &Metadata) -> Option<String> {
    let known = labels::classes(&found.classes, found.model.num_classes);
    (known != wanted.classes).then(|| {
        format!(
            "head reused: the file does not name its {} classes; they are taken to be the data's in \
             their order",
            found.model.num_classes
        )
    })
}

/// Says that the file's network expects images normalised otherwise.
fn other_images(found: &Metadata, wanted: &Metadata) -> Option<String> {
    let constants = |metadata: &Metadata| {
        let preprocess = serde_json::from_value(metadata.preprocess.clone()).ok()?;
        let Preprocess { mean, std, .. } = preprocess;
        Some((mean, std))
    };
    let ((mean, std), (own_mean, own_std)) = (constants(found)?, constants(wanted)?);
    ((&mean, &std) != (&own_mean, &own_std)).then(|| {
        format!(
            "the file's network expects images normalised by mean {mean:?} and deviation {std:?}, this \
             run's are normalised by {own_mean:?} and {own_std:?}; set data.mean and data.std to \
             change that"
        )
    })
}

fn origin(path: &Path, start: &WarmStart) -> String {
    let mut text = format!("starts from {}: {} layers copied", path.display(), start.copied);
    if start.joined > 0 {
        let joined = start.joined;
        text +=
            &format!(", {joined} blocks that start as their first branch, the others scaled by 0");
    }
    if start.unfolded > 0 {
        text += &format!(
            "; {} folded layers, which have no batch statistics: equal in evaluation, and in training \
             only where they are frozen; a training form is a better start, such as \
             checkpoints/*/network.bpk of a run",
            start.unfolded
        );
    }
    text
}

/// Compares the logits of both networks on random images, in evaluation and, where that can be
/// equal, with batch statistics; says by how much they differ.
///
/// Both compute the definition, in which equal functions differ by next to nothing. The kernels
/// round otherwise in a block than in a convolution, and a deep network of batch norms amplifies
/// that beyond any useful tolerance.
fn compare(
    config: &Config,
    metadata: &Metadata,
    start: &WarmStart,
    source: Classifier,
    device: &Device,
) -> Result<String> {
    let model = &metadata.model;
    let side = model.arch.default_resolution();
    let (height, width) = serde_json::from_value(metadata.preprocess.clone())
        .map_or((side, side), |preprocess: Preprocess| preprocess.size);
    let inference = device.clone().inner();
    inference.seed(config.seed);
    // As far from 0 as normalised images are.
    let range = Distribution::Uniform(-2.0, 2.0);
    let images = Tensor::<4>::random([IMAGES, model.in_channels, height, width], range, &inference);
    let difference = |network: &Classifier, source: &Classifier, device: &Device| {
        let logits = |network: &Classifier| {
            // The same features of both are dropped out.
            device.seed(config.seed);
            let images = Tensor::from_data(images.to_data(), device);
            network.forward(images).detach().without_autodiff()
        };
        let mut comparison = LogitDifference::default();
        comparison.add(logits(source), logits(network));
        comparison.max_rel_diff()
    };
    let differences = Implementation::Plain.during(|| -> Result<_> {
        let evaluation = difference(&start.network.valid(), &source, &inference);
        let mut differences = vec![("in evaluation", evaluation)];
        if start.unfolded == 0 {
            // A forward changes the running statistics: of a copy.
            let trained = model.freeze(source.train(), &config.train.freeze)?;
            let training = difference(&start.network.clone(), &trained, device);
            differences.push(("with batch statistics", training));
        }
        Ok(differences)
    })?;
    let text = differences.iter().map(|(mode, value)| format!("{value:.1e} {mode}"));
    let text = text.collect::<Vec<_>>().join(", ");
    // NaN is beyond the tolerance.
    match differences.iter().all(|(_, value)| *value <= TOLERANCE) {
        true => Ok(format!("same function as the file's: logits differ by {text}")),
        false => Err(Error::Start { differences: text, tolerance: TOLERANCE }),
    }
}
