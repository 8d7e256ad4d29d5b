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
    /// Whether 1x1 convolutions become blocks, too, if the block has a form for them.
    pub pointwise_blocks: bool,
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
        self.make(name, spec, None)
    }

    /// The unit of a layer whose MobileOne block has `copies` copies of the convolution, unless the
    /// options say otherwise.
    ///
    /// # Errors
    /// As [`Self::unit`].
    pub fn unit_of_copies(
        &self,
        name: &str,
        spec: &ConvSpec,
        copies: usize,
    ) -> Result<ConvUnit, ConfigError> {
        self.make(name, spec, Some(copies))
    }

    fn make(
        &self,
        name: &str,
        spec: &ConvSpec,
        copies: Option<usize>,
    ) -> Result<ConvUnit, ConfigError> {
        let block = match self.form {
            Form::Deploy => Block::Folded,
            Form::Train => {
                let mobileone = self.options.mobileone.of_layer(name, copies);
                let options = BlockOptions { mobileone, ..self.options.clone() };
                self.kind(name, spec).with_options(&options)
            }
        };
        Ok(ConvUnit::new(spec, &block, self.device)?.with_norm(self.norm))
    }

    /// Which block a layer is in training form. As in the papers' code, kernels above
    /// `dbb.max_kernel` (the 7x7 stem) stay plain, and so do 1x1 convolutions, but for those of
    /// MobileOne, in blocks whose authors have a form for them.
    pub fn kind(&self, name: &str, spec: &ConvSpec) -> BlockKind {
        let kind = self.patterns.get(name).copied().unwrap_or(self.block);
        let is_plain = match spec.kernel_size[0].max(spec.kernel_size[1]) {
            1 => !(self.pointwise_blocks && kind.official().pointwise),
            largest => largest > self.options.dbb.max_kernel,
        };
        if is_plain { BlockKind::Base } else { kind }
    }
}
