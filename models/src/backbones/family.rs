//! The families of networks, of one paper each.

use crate::blocks::NormConfig;
use crate::error::ConfigError;
use crate::walk::Walk;

use super::NetworkBuilder;

/// What the networks of one paper differ in, and how one is made of it.
pub trait Backbone {
    /// The network.
    type Network: Walk;

    /// The constants of the batch norms: PyTorch's, unless the authors' code has others.
    const NORM: NormConfig = NormConfig { epsilon: 1e-5, momentum: 0.1 };

    /// Whether [`NetworkBuilder::activation`] chooses the nonlinearity.
    const LEAVES_ACTIVATION_OPEN: bool = false;

    /// Whether 1x1 convolutions become blocks, too, if the block has a form for them.
    const POINTWISE_BLOCKS: bool = false;

    /// A network with fresh weights.
    ///
    /// # Errors
    /// If a layer cannot have its block, or the width leaves it no channel.
    fn build(&self, builder: &NetworkBuilder) -> Result<Self::Network, ConfigError>;
}

/// Makes the enums of the families from their list, `Network from Configuration`. A network has a
/// field `linear`, its classifier.
macro_rules! families {
    ($($(#[$doc:meta])* $Network:ident from $Config:ty;)*) => {
        /// A network of the zoo.
        // The variants differ in size by a few hundred bytes of handles; Burn has no `Module` for
        // `Box`.
        #[allow(clippy::large_enum_variant)]
        #[derive(burn::module::Module, Debug, crate::reparam::Reparameterize)]
        pub enum Classifier {
            $($(#[$doc])* $Network($Network),)*
        }

        impl crate::walk::Walk for Classifier {
            fn features<'n, I: crate::walk::Interpreter<'n>>(
                &'n self,
                walk: &mut I,
                images: I::Map,
            ) -> I::Map {
                match self {
                    $(Self::$Network(network) => network.features(walk, images),)*
                }
            }

            fn head<'n, I: crate::walk::Interpreter<'n>>(
                &'n self,
                walk: &mut I,
                map: I::Map,
            ) -> I::Features {
                match self {
                    $(Self::$Network(network) => network.head(walk, map),)*
                }
            }
        }

        impl Classifier {
            /// The last layer, which gives the logits.
            pub(crate) fn classifier_mut(&mut self) -> &mut burn::nn::Linear {
                match self {
                    $(Self::$Network(network) => &mut network.linear,)*
                }
            }
        }

        /// What an architecture is made of.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) enum Definition {
            $($Network($Config),)*
        }

        $(impl From<$Config> for Definition {
            fn from(config: $Config) -> Self {
                Self::$Network(config)
            }
        })*

        impl Definition {
            /// [`Backbone::build`].
            pub fn build(
                &self,
                builder: &NetworkBuilder,
            ) -> Result<Classifier, crate::error::ConfigError> {
                Ok(match self {
                    $(Self::$Network(config) => Classifier::$Network(config.build(builder)?),)*
                })
            }

            /// [`Backbone::NORM`].
            pub fn norm(&self) -> crate::blocks::NormConfig {
                match self {
                    $(Self::$Network(_) => <$Config>::NORM,)*
                }
            }

            /// [`Backbone::POINTWISE_BLOCKS`].
            pub fn has_pointwise_blocks(&self) -> bool {
                match self {
                    $(Self::$Network(_) => <$Config>::POINTWISE_BLOCKS,)*
                }
            }

            /// [`Backbone::LEAVES_ACTIVATION_OPEN`].
            pub fn leaves_activation_open(&self) -> bool {
                match self {
                    $(Self::$Network(_) => <$Config>::LEAVES_ACTIVATION_OPEN,)*
                }
            }
        }
    };
}
pub(super) use families;

impl super::Classifier {
    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    pub fn forward(&self, images: burn::tensor::Tensor<4>) -> burn::tensor::Tensor<2> {
        Walk::forward(self, images)
    }

    /// The map after each stage, in order; for detection and segmentation heads.
    pub fn forward_features(
        &self,
        images: burn::tensor::Tensor<4>,
    ) -> Vec<burn::tensor::Tensor<4>> {
        Walk::forward_features(self, images)
    }
}
