//! The one type a backbone holds where a convolution or a block may stand.

use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::acb::AsymmetricConvBlock;
use super::batch_norm::{BatchNorm, NormConfig};
use super::conv_bn::ConvBn;
use super::conv_spec::{ConvSpec, host_conv};
use super::dbb::{DbbConfig, DiverseBranchBlock};
use super::epilogue::Epilogue;
use crate::algebra::ConvParams;
use crate::error::ConfigError;
use crate::fused;
use crate::implementation::LayerCount;

/// Name of a training-form block, as configurations and tables write it.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    /// Plain convolution and batch norm.
    Base,
    /// Diverse Branch Block.
    Dbb,
    /// Asymmetric Convolution Block.
    Acb,
}

impl BlockKind {
    /// Every kind there is.
    pub const ALL: [Self; 3] = [Self::Base, Self::Dbb, Self::Acb];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Dbb => "dbb",
            Self::Acb => "acb",
        }
    }
}

impl std::fmt::Display for BlockKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for BlockKind {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(ConfigError::Option {
            option: "block",
            value: format!("\"{name}\""),
            expected: "one of base, dbb, acb",
        })
    }
}

/// What stands in the place of a convolution.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Plain convolution and batch norm.
    Base,
    /// Diverse Branch Block.
    Dbb(DbbConfig),
    /// Asymmetric Convolution Block.
    Acb,
    /// A plain convolution with bias: what each of the others folds into.
    Fused,
}

/// A convolution in training or in deploy form.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use dbb_models::{Reparameterize, blocks::{Block, ConvSpec, ConvUnit}};
///
/// # fn main() -> Result<(), dbb_models::ConfigError> {
/// let device = Device::default();
/// let spec = ConvSpec::square([16, 32], 3, 2);
/// let unit = ConvUnit::new(&spec, &Block::Dbb(Default::default()), &device)?;
/// let image = Tensor::ones([1, 16, 8, 8], &device);
/// let deploy = unit.reparameterize();
/// assert_eq!(deploy.forward(image.clone()).dims(), [1, 32, 4, 4]);
/// let difference = (deploy.forward(image.clone()) - unit.forward(image)).abs().max();
/// assert!(difference.into_scalar::<f32>() < 1e-4);
/// # Ok(())
/// # }
/// ```
// The variants differ in size by a few hundred bytes of handles; a network holds some dozen
// units, and Burn has no `Module` for `Box`.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum ConvUnit {
    /// Plain convolution and batch norm.
    Base(ConvBn),
    /// Diverse Branch Block.
    Dbb(DiverseBranchBlock),
    /// Asymmetric Convolution Block.
    Acb(AsymmetricConvBlock),
    /// The folded convolution, with bias.
    Fused(Conv2d),
}

impl ConvUnit {
    /// A unit with fresh weights.
    ///
    /// # Errors
    /// A geometry that is impossible, or that the block cannot fold exactly.
    pub fn new(spec: &ConvSpec, block: &Block, device: &Device) -> Result<Self, ConfigError> {
        spec.check()?;
        Ok(match block {
            Block::Base => Self::Base(ConvBn::new(spec, device)),
            Block::Dbb(config) => Self::Dbb(DiverseBranchBlock::new(spec, config, device)?),
            Block::Acb => Self::Acb(AsymmetricConvBlock::new(spec, device)?),
            Block::Fused => {
                let bias = Initializer::Zeros.init([spec.channels[1]], device);
                Self::Fused(Conv2d { bias: Some(bias), ..spec.init_conv(device) })
            }
        })
    }

    /// The unit with other constants in all its batch norms.
    pub fn with_norm(mut self, config: NormConfig) -> Self {
        for norm in self.norms_mut() {
            norm.epsilon = config.epsilon;
            norm.momentum = config.momentum;
        }
        self
    }

    /// Every batch norm; none in a folded unit.
    pub fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        match self {
            Self::Base(block) => vec![&mut block.bn],
            Self::Dbb(block) => block.norms_mut(),
            Self::Acb(block) => block.norms_mut().into(),
            Self::Fused(_) => Vec::new(),
        }
    }

    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// The same, and what the network makes of the output.
    pub fn forward_then(&self, input: Tensor<4>, epilogue: impl Into<Epilogue>) -> Tensor<4> {
        let epilogue = epilogue.into();
        LayerCount::unit(|| match self {
            Self::Base(block) => block.forward_then(input, epilogue),
            Self::Dbb(block) => block.forward_then(input, epilogue),
            Self::Acb(block) => block.forward_then(input, epilogue),
            Self::Fused(conv) if fused::serves_conv(&input) => fused::conv(conv, input, epilogue),
            Self::Fused(conv) => LayerCount::plain(|| epilogue.forward(conv.forward(input))),
        })
    }

    /// The geometry of the convolution this unit is or folds into.
    pub fn spec(&self) -> ConvSpec {
        match self {
            Self::Base(block) => ConvSpec::of(&block.conv),
            Self::Dbb(block) => block.spec().clone(),
            Self::Acb(block) => block.spec().clone(),
            Self::Fused(conv) => ConvSpec::of(conv),
        }
    }

    /// The equivalent kernel and bias, in `f64` on the host.
    pub fn equivalent(&self) -> ConvParams {
        match self {
            Self::Base(block) => block.equivalent(),
            Self::Dbb(block) => block.equivalent(),
            Self::Acb(block) => block.equivalent(),
            Self::Fused(conv) => host_conv(conv),
        }
    }

    /// The plain convolution with bias this unit is equal to in inference, on the inference
    /// device and with parameter ids of its own.
    pub fn fuse(&self) -> Conv2d {
        self.spec().fused_conv(&self.equivalent(), &self.device())
    }

    /// The device of the parameters, without autodiff.
    fn device(&self) -> Device {
        let devices = self.devices();
        // Every variant holds a parameter.
        devices.into_iter().next().expect("a unit has parameters").inner()
    }

    /// Whether the unit is a block of several branches.
    pub fn is_multi_branch(&self) -> bool {
        matches!(self, Self::Dbb(_) | Self::Acb(_))
    }
}
