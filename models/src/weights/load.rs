//! From a weights file to a network.

use burn::tensor::Device;

use super::error::{Lookalike, WeightsError};
use super::format::WeightsFile;
use super::key_map::KeyMap;
use super::metadata::Metadata;
use crate::backbones::{Arch, Classifier};
use crate::blocks::BlockKind;
use crate::by_layer::LayerBlocks;
use crate::error::ConfigError;
use crate::form::Form;
use crate::model_config::ModelConfig;
use crate::state_dict::{StateDict, shapes};
use crate::walk::Walk;

/// How a network takes its weights from a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Accepts weights and running statistics that are NaN or infinite, to look at a network that
    /// has diverged.
    pub allow_nonfinite: bool,
}

/// The network a file of this project holds, rebuilt from its metadata.
///
/// # Errors
/// If the metadata and the tensors do not fit; [`WeightsError::NonFinite`].
pub fn rebuild(
    file: &WeightsFile,
    metadata: &Metadata,
    options: LoadOptions,
    device: &Device,
) -> Result<Classifier, WeightsError> {
    let refused = |detail| WeightsError::Metadata { path: file.path.clone(), detail };
    let (named, outputs) = (metadata.classes.len(), metadata.model.num_classes);
    if named != 0 && named != outputs {
        return Err(WeightsError::Classes { path: file.path.clone(), named, outputs });
    }
    let network = metadata.model.undrawn(metadata.form, device);
    let network = network.map_err(|error| refused(error.to_string()))?;
    let keys = KeyMap::new(metadata.keys, &metadata.model, &network);
    let keys = keys.map_err(|error| refused(error.to_string()))?;
    load(file, &keys, network, options)
}

/// The network that the tensors of a foreign file fit and what it is: its dialect and its form are
/// found by which keys occur in it.
///
/// # Errors
/// [`WeightsError::Keys`] if the configuration does not match the tensors, with the network of the
/// zoo that does; [`WeightsError::NonFinite`].
pub fn adopt(
    file: &WeightsFile,
    model: &ModelConfig,
    options: LoadOptions,
    device: &Device,
) -> Result<(Classifier, Metadata), WeightsError> {
    let mut best: Option<(usize, Reading)> = None;
    for form in Form::ALL {
        for reading in readings(model, form, device)? {
            let matches = reading.keys.matches(&file.tensors);
            // Where two dialects have the same names, the first one stands for both.
            if best.as_ref().is_none_or(|(most, _)| matches > *most) {
                best = Some((matches, reading));
            }
        }
    }
    // Every architecture has at least its native names.
    let (_, Reading { network, keys, metadata }) = best.expect("there is a dialect");
    let network = load(file, &keys, network, options);
    network.map(|network| (network, metadata)).map_err(|mut error| {
        if let WeightsError::Keys { missing, unexpected, lookalike, .. } = &mut error
            && !(missing.is_empty() && unexpected.is_empty())
        {
            *lookalike = find_lookalike(&file.tensors, model, device).map(Box::new);
        }
        error
    })
}

fn load(
    file: &WeightsFile,
    keys: &KeyMap,
    network: Classifier,
    options: LoadOptions,
) -> Result<Classifier, WeightsError> {
    let network = keys.load(network, &file.tensors).map_err(|error| error.in_file(&file.path))?;
    if !options.allow_nonfinite {
        file.check_finite()?;
    }
    Ok(network)
}

/// A network in some form and the names of one dialect for it.
struct Reading {
    network: Classifier,
    keys: KeyMap,
    metadata: Metadata,
}

/// The ways to read a state dict as a network of some form: one for each dialect that has names
/// for it.
fn readings(model: &ModelConfig, form: Form, device: &Device) -> Result<Vec<Reading>, ConfigError> {
    let mut readings = Vec::new();
    for dialect in model.arch.dialects() {
        let model = as_trained(model, dialect);
        let network = model.undrawn(form, device)?;
        // A dialect without names for these blocks is no way to read them.
        let Ok(keys) = KeyMap::new(dialect, &model, &network) else { continue };
        let (preprocess, classes) = (serde_json::Value::Null, Vec::new());
        let metadata = Metadata { model, form, keys: dialect, preprocess, classes };
        readings.push(Reading { network, keys, metadata });
    }
    Ok(readings)
}

/// The configuration as the code base of a dialect trains it.
fn as_trained(model: &ModelConfig, dialect: super::Dialect) -> ModelConfig {
    let names = model.arch.names(dialect);
    let activation = model.activation.or(names.and_then(|names| names.activation));
    ModelConfig { activation, ..model.clone() }
}

/// The network of the zoo, of the configuration's width and image channels, whose tensors have the
/// names of a state dict; of several, the one with most of their shapes.
fn find_lookalike(tensors: &StateDict, model: &ModelConfig, device: &Device) -> Option<Lookalike> {
    let count = tensors.keys().filter(|key| !KeyMap::is_counter(key)).count();
    let mut best: Option<(usize, Lookalike)> = None;
    for (arch, block) in Arch::ALL.into_iter().flat_map(|a| BlockKind::ALL.map(|b| (a, b))) {
        let (activation, blocks) = (None, LayerBlocks::default());
        let model = ModelConfig { arch, block, activation, blocks, ..model.clone() };
        for form in Form::ALL {
            let Ok(network) = model.undrawn(form, device) else { continue };
            // Names cost more than a count, which rules out most networks. A dialect may have a bias
            // for every convolution.
            let own = shapes(&network).len();
            if count != own && count != own + network.units().len() {
                continue;
            }
            for Reading { keys, .. } in readings(&model, form, device).unwrap_or_default() {
                let Some(misshapen) = keys.misshapen(tensors) else { continue };
                let classifier = keys.find("linear.bias", tensors);
                let num_classes = classifier.and_then(|bias| bias.shape().first().copied());
                let num_classes = num_classes.unwrap_or(model.num_classes);
                if best.as_ref().is_none_or(|(least, _)| misshapen < *least) {
                    best = Some((misshapen, Lookalike { arch, block, form, num_classes }));
                }
            }
        }
    }
    best.map(|(_, lookalike)| lookalike)
}
