//! A network as a weights file holds it: its form, the names and the number type of its tensors.

use dbb_models::weights::{Metadata, StateDict, as_block, with_dtype};
use dbb_models::{Classifier, Form};

use crate::deploy::rounding::{Precision, Rounding};
use crate::device;
use crate::error::Result;
use crate::inference::loaded_model::key_map;
use crate::inference::probe::Probe;

/// What is written, and what describes it.
pub struct ExportedWeights {
    network: Classifier,
    /// The tensors by the names of the dialect.
    pub tensors: StateDict,
    /// The metadata of the file.
    pub metadata: Metadata,
}

impl ExportedWeights {
    /// A network in the form, and under the names, that its metadata say. Where a dialect has names
    /// for one block only, such as plain convolutions with batch norms, a folded network is written
    /// as such.
    ///
    /// # Errors
    /// If the dialect has no names for the network.
    pub fn new(network: &Classifier, metadata: Metadata) -> Result<Self> {
        let only = metadata.model.arch.only_block(metadata.keys);
        let (network, metadata) = match (metadata.form, only) {
            (Form::Deploy, Some(kind)) => {
                let device = device::of(network);
                let (written, model) = as_block(network, &metadata.model, kind, &device)?;
                (written, Metadata { model, form: Form::Train, ..metadata })
            }
            _ => (network.clone(), metadata),
        };
        let tensors = key_map(&metadata, &network)?.save(&network);
        Ok(Self { network, tensors, metadata })
    }

    /// Rounds the tensors and measures what that changes.
    ///
    /// # Errors
    /// A value beyond the range of the type; an image that cannot be read; logits that are not
    /// finite.
    pub fn round(&mut self, dtype: Precision, probe: &Probe) -> Result<Rounding> {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = with_dtype(tensors, dtype.into())?;
        let keys = key_map(&self.metadata, &self.network)?;
        let rounded = keys.load(self.network.clone(), &self.tensors)?;
        Rounding::measure(&self.network, &rounded, dtype, probe)
    }
}
