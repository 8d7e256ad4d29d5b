//! The list of blocks, and the one type a backbone holds where any of them may stand.

use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::acb::AsymmetricConvBlock;
use super::block::{ConvBlock, OfficialForm};
use super::conv_bn::ConvBn;
use super::dbb::DiverseBranchBlock;
use super::dbb_config::DbbConfig;
use super::mobileone::{MobileOneBlock, MobileOneConfig};
use super::orepa::{OrepaBlock, OrepaConfig};
use super::qarepvgg::QaRepVggBlock;
use super::repvgg::RepVggBlock;
use crate::algebra::ConvParams;
use crate::cpu_ops;
use crate::error::ConfigError;
use crate::implementation::LayerCount;
use crate::layers::batch_norm::{BatchNorm, NormConfig};
use crate::layers::branch_part::BranchPart;
use crate::layers::branch_sum::Positions;
use crate::layers::conv_spec::{ConvSpec, host_conv, weights};
use crate::layers::epilogue::Epilogue;
use crate::names::named;

/// Makes the enums of the blocks from their list:
/// `Variant(Module) = "name"`, and, for a block with options, the name of their table in a
/// configuration and their type.
macro_rules! blocks {
    ($(
        $(#[$doc:meta])*
        $Variant:ident($Module:ty) = $name:literal
        $(, $options:ident: $Options:ty)?;
    )*) => {
        named! {
            /// Name of a training-form block, as configurations and tables write it.
            pub enum BlockKind: "block" {
                $($(#[$doc])* $Variant = $name,)*
            }
        }

        impl BlockKind {
            /// How the authors' code of the block stores it.
            pub(crate) fn official(self) -> OfficialForm {
                match self {
                    $(Self::$Variant => OfficialForm::of::<$Module>(),)*
                }
            }

            /// The block with its options.
            pub fn with_options(self, options: &BlockOptions) -> Block {
                match self {
                    $(Self::$Variant => Block::$Variant $((options.$options.clone()))?,)*
                }
            }
        }

        /// What stands in the place of a convolution.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Block {
            $($(#[$doc])* $Variant $(($Options))?,)*
            /// A plain convolution with bias: what each of the others folds into.
            Folded,
        }

        impl Block {
            /// Which block it is; `None` for the folded convolution.
            pub fn kind(&self) -> Option<BlockKind> {
                match self {
                    $(Self::$Variant { .. } => Some(BlockKind::$Variant),)*
                    Self::Folded => None,
                }
            }
        }

        /// The options of the blocks that have any.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct BlockOptions {
            $($(#[doc = concat!("Of `", $name, "`.")] pub $options: $Options,)?)*
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
        // The variants differ in size by a few hundred bytes of handles; a network holds some
        // dozen units, and Burn has no `Module` for `Box`.
        #[allow(clippy::large_enum_variant)]
        #[derive(Module, Debug)]
        pub enum ConvUnit {
            $($(#[$doc])* $Variant($Module),)*
            /// The folded convolution, with bias.
            Folded(Conv2d),
        }

        impl ConvUnit {
            /// A unit with fresh weights.
            ///
            /// # Errors
            /// A geometry that is impossible, or that the block cannot fold exactly.
            pub fn new(
                spec: &ConvSpec,
                block: &Block,
                device: &Device,
            ) -> Result<Self, ConfigError> {
                spec.check()?;
                Ok(match block {
                    $(Block::$Variant $(($options))? => {
                        Self::$Variant(<$Module>::new(spec, $($options,)? device)?)
                    })*
                    Block::Folded => {
                        let bias = Initializer::Zeros.init([spec.channels[1]], device);
                        Self::Folded(Conv2d { bias: Some(bias), ..spec.init_conv(device) })
                    }
                })
            }

            /// Which block the unit is; `None` of a folded one.
            pub fn kind(&self) -> Option<BlockKind> {
                match self {
                    $(Self::$Variant(_) => Some(BlockKind::$Variant),)*
                    Self::Folded(_) => None,
                }
            }

            pub(crate) fn contents(&self) -> Contents<'_> {
                match self {
                    $(Self::$Variant(block) => Contents::Block(block),)*
                    Self::Folded(conv) => Contents::Folded(conv),
                }
            }

            /// Every batch norm; none in a folded unit.
            pub fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
                match self {
                    $(Self::$Variant(block) => ConvBlock::norms_mut(block),)*
                    Self::Folded(_) => Vec::new(),
                }
            }
        }
    };
}

blocks! {
    /// Plain convolution and batch norm.
    Base(ConvBn) = "base";
    /// Diverse Branch Block.
    Dbb(DiverseBranchBlock) = "dbb", dbb: DbbConfig;
    /// Asymmetric Convolution Block.
    Acb(AsymmetricConvBlock) = "acb";
    /// The block of RepVGG.
    RepVgg(RepVggBlock) = "repvgg";
    /// The block of MobileOne.
    MobileOne(MobileOneBlock) = "mobileone", mobileone: MobileOneConfig;
    /// Online convolutional re-parameterisation.
    Orepa(OrepaBlock) = "orepa", orepa: OrepaConfig;
    /// The block of QARepVGG.
    QaRepVgg(QaRepVggBlock) = "qarepvgg";
}

impl BlockKind {
    /// Whether the block has several branches.
    pub fn is_multi_branch(self) -> bool {
        self != Self::Base
    }
}

/// What a unit holds.
pub(crate) enum Contents<'a> {
    Block(&'a dyn ConvBlock),
    Folded(&'a Conv2d),
}

impl ConvUnit {
    /// The unit with other constants in all its batch norms.
    pub fn with_norm(mut self, config: NormConfig) -> Self {
        for norm in self.norms_mut() {
            norm.epsilon = config.epsilon;
            norm.momentum = config.momentum;
        }
        self
    }

    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`Self::forward`], then the epilogue: residual and activation.
    pub fn forward_then(&self, input: Tensor<4>, epilogue: impl Into<Epilogue>) -> Tensor<4> {
        let epilogue = epilogue.into();
        LayerCount::unit(|| match self.contents() {
            Contents::Block(block) => block.forward_then(input, epilogue),
            Contents::Folded(conv) if cpu_ops::serves_conv(conv, &input) => {
                cpu_ops::conv(conv, input, epilogue)
            }
            Contents::Folded(conv) => LayerCount::plain(|| epilogue.forward(conv.forward(input))),
        })
    }

    /// [`Self::spec`], unless the unit is a convolution with a geometry that is not held there.
    pub(crate) fn find_spec(&self) -> Option<ConvSpec> {
        match self {
            Self::Base(block) => ConvSpec::find(&block.conv),
            Self::Folded(conv) => ConvSpec::find(conv),
            _ => Some(self.spec()),
        }
    }

    /// The geometry of the convolution this unit is or folds into.
    pub fn spec(&self) -> ConvSpec {
        match self.contents() {
            Contents::Block(block) => block.spec(),
            Contents::Folded(conv) => ConvSpec::of(conv),
        }
    }

    /// The equivalent kernel and bias, in `f64` on the host.
    pub fn equivalent(&self) -> ConvParams {
        match self.contents() {
            Contents::Block(block) => block.equivalent(),
            Contents::Folded(conv) => host_conv(conv),
        }
    }

    /// What each branch adds to the kernel of [`Self::equivalent`], in `f64` on the host; of a
    /// folded unit one part, its kernel.
    pub fn parts(&self) -> Vec<BranchPart> {
        match self.contents() {
            Contents::Block(block) => block.parts(),
            Contents::Folded(conv) => vec![BranchPart {
                name: "folded".into(),
                kernel: host_conv(conv).kernel,
                scales: None,
            }],
        }
    }

    /// Multiply-accumulate operations of one forward for one image, in the form the unit is in:
    /// every convolution of every branch; norms, pools and sums are not counted.
    pub fn macs(&self, positions: Positions) -> usize {
        match self.contents() {
            Contents::Block(block) => block.macs(positions),
            Contents::Folded(conv) => weights(&conv.weight) * positions.output,
        }
    }

    /// The plain convolution with bias this unit is equal to in inference, on the inference
    /// device and with parameter ids of its own.
    pub fn fold(&self) -> Conv2d {
        self.spec().folded_conv(&self.equivalent(), &self.device())
    }

    /// The device of the parameters, without autodiff.
    fn device(&self) -> Device {
        let devices = self.devices();
        // Every variant holds a parameter.
        devices.into_iter().next().expect("a unit has parameters").inner()
    }

    /// Whether the unit is a block of several branches.
    pub fn is_multi_branch(&self) -> bool {
        self.kind().is_some_and(BlockKind::is_multi_branch)
    }
}
