//! Reading and writing weights.
//!
//! A [`WeightsFile`] is a state dict, tensors by key, and, in files of this project, the
//! [`Metadata`] to rebuild the network. [`Dialect`] translates keys between the paths of our
//! modules and the names of other code bases.
//!
//! | file | read | written |
//! |---|---|---|
//! | safetensors | all dialects | all dialects |
//! | burnpack | native | native |
//! | PyTorch `.pth` (zip and legacy pickle; no code is run) | all dialects | - |
//!
//! Files of this project carry a SHA-256 of their tensors, so that damage is noticed. A network takes
//! no weights that are NaN or infinite unless [`LoadOptions`] allow it.

mod akamaster;
mod atomic;
mod block_fold;
mod dialect;
mod digest;
mod dtype;
mod error;
mod finite;
mod format;
mod metadata;
mod official;
mod plain;
mod pytorch;
mod state_dict;
mod timm;
mod torchvision;

pub use atomic::write_atomically;
pub use block_fold::{BlockFold, FoldedBlock, has_folded_blocks, random_values};
pub use dialect::{Dialect, KeyMap};
pub use dtype::with_dtype;
pub use error::WeightsError;
pub use finite::LoadOptions;
pub use format::{WeightsFile, write_burnpack, write_foreign, write_safetensors};
pub use metadata::Metadata;
pub use plain::as_conv_bn;
pub use state_dict::StateDict;

use burn::tensor::Device;

use crate::zoo::{Classifier, Form, ModelConfig};

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
    let network = metadata.model.undrawn(metadata.form, device);
    let network = network.map_err(|error| refused(error.to_string()))?;
    let keys = KeyMap::new(metadata.keys, &metadata.model, &network);
    let keys = keys.map_err(|error| refused(error.to_string()))?;
    let network = keys.load(network, &file.tensors).map_err(|error| error.in_file(&file.path))?;
    options.check(&file.path, &file.tensors)?;
    Ok(network)
}

/// The network that the tensors of a foreign file fit and what it is: its dialect and its form are
/// found by which keys occur in it.
///
/// # Errors
/// If the configuration does not match the tensors; every key at fault is named.
/// [`WeightsError::NonFinite`].
pub fn adopt(
    file: &WeightsFile,
    model: &ModelConfig,
    options: LoadOptions,
    device: &Device,
) -> Result<(Classifier, Metadata), WeightsError> {
    let mut candidates = Vec::new();
    for keys in Dialect::ALL {
        let model = keys.trained(model);
        for form in [Form::Train, Form::Deploy] {
            let network = model.undrawn(form, device)?;
            // A dialect without names for this network is no candidate.
            let Ok(map) = KeyMap::new(keys, &model, &network) else { continue };
            let metadata = Metadata {
                model: model.clone(),
                form,
                keys,
                preprocess: serde_json::Value::Null,
                classes: Vec::new(),
            };
            candidates.push((map.matches(&file.tensors), network, map, metadata));
        }
    }
    // Every architecture has at least its native names.
    let (_, network, keys, metadata) =
        candidates.into_iter().max_by_key(|candidate| candidate.0).expect("there is a dialect");
    let network = keys.load(network, &file.tensors).map_err(|error| error.in_file(&file.path))?;
    options.check(&file.path, &file.tensors)?;
    Ok((network, metadata))
}
