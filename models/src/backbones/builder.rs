//! Decides which block stands where, and makes it.

use burn::tensor::Device;

use crate::blocks::{Activation, Block, BlockKind, BlockOptions, ConvSpec, ConvUnit, NormConfig};
use crate::by_layer::LayerBlocks;
use crate::error::ConfigError;
use crate::form::Form;

/// Makes the units of a network, from what is chosen for it whatever its architecture is.
#[derive(Debug)]
pub struct NetworkBuilder<'a> {
    /// Multiplies the channels of every layer.
    pub width: f64,
    /// Channels of the images.
    pub in_channels: usize,
    /// Classes of the linear classifier.
    pub num_classes: usize,
    /// The nonlinearity, of a network that leaves it open.
    pub activation: Option<Activation>,
    /// Block of the layers that no pattern names.
    pub block: BlockKind,
    /// Blocks by layer pattern; the last match wins.
    pub patterns: &'a LayerBlocks,
    /// What the blocks are made of, and the largest kernel that becomes one.
    pub options: BlockOptions,
    /// The constants of the batch norms.
    pub norm: NormConfig,
    /// Whether units are made in training form or folded.
    pub form: Form,
    /// Where the parameters live.
    pub device: &'a Device,
}

impl NetworkBuilder<'_> {
    /// The unit of a layer.
    ///
    /// # Errors
    /// If the chosen block cannot have this geometry.
    pub fn unit(&self, name: &str, spec: &ConvSpec) -> Result<ConvUnit, ConfigError> {
        let block = match self.form {
            Form::Deploy => Block::Folded,
            Form::Train => self.kind(name, spec).with_options(&self.options_of(name)),
        };
        Ok(ConvUnit::new(spec, &block, self.device)?.with_norm(self.norm))
    }

    /// Which block a layer is in training form. As in the paper's code, 1x1 convolutions and
    /// kernels above `dbb.max_kernel` (the 7x7 stem) stay plain.
    pub fn kind(&self, name: &str, spec: &ConvSpec) -> BlockKind {
        let largest = spec.kernel_size[0].max(spec.kernel_size[1]);
        if largest == 1 || largest > self.options.dbb.max_kernel {
            return BlockKind::Base;
        }
        self.patterns.get(name).copied().unwrap_or(self.block)
    }

    fn options_of(&self, name: &str) -> BlockOptions {
        let mobileone = self.options.mobileone.of_layer(name, None);
        BlockOptions { mobileone, ..self.options.clone() }
    }
}
