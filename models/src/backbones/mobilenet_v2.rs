//! MobileNetV2: Inverted Residuals and Linear Bottlenecks (Sandler et al., CVPR 2018,
//! <https://arxiv.org/abs/1801.04381>).

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};

use super::inverted_residual::{self, InvertedResidual, InvertedResidualConfig, multiple_of_8};
use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// Expansion, output channels, repetitions and stride of the stages (the paper's table 2).
const LAYOUT: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Probability that training zeroes a feature of the classifier; torchvision's, the paper says
/// nothing.
pub(super) const DROPOUT: f64 = 0.2;

/// The network of the paper's table 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MobileNetV2Config;

/// MobileNet version 2 with ReLU6, dropout and a linear classifier.
#[derive(Module, Debug, Reparameterize)]
pub struct MobileNetV2 {
    /// The first, dense convolution, 3x3 with stride 2.
    pub stem: ConvUnit,
    /// The inverted residuals.
    pub blocks: Vec<InvertedResidual>,
    /// The last 1x1 convolution.
    pub last: ConvUnit,
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// Acts in training only.
    pub dropout: Dropout,
    /// The classifier.
    pub linear: Linear,
}

impl Backbone for MobileNetV2Config {
    type Network = MobileNetV2;

    fn build(&self, builder: &NetworkBuilder) -> Result<MobileNetV2, ConfigError> {
        let scaled = |channels: usize| multiple_of_8(channels as f64 * builder.width);
        let mut channels = scaled(32);
        let stem = ConvSpec::square([builder.in_channels, channels], 3, 2);
        let stem = builder.unit("stem", &stem)?;
        let mut blocks = Vec::new();
        for (expansion, outputs, repetitions, stride) in LAYOUT {
            for index in 0..repetitions {
                let name = format!("blocks.{}", blocks.len());
                let stride = if index == 0 { stride } else { 1 };
                let config = InvertedResidualConfig {
                    channels: [channels, channels * expansion, scaled(outputs)],
                    kernel: 3,
                    stride,
                    squeeze_excite: false,
                    activation: Activation::Relu6,
                };
                blocks.push(InvertedResidual::new(&name, &config, builder)?);
                channels = scaled(outputs);
            }
        }
        // The last layer is not made narrower than in the network of full width.
        let features = multiple_of_8(1280.0 * builder.width.max(1.0));
        Ok(MobileNetV2 {
            stem,
            blocks,
            last: builder.unit("last", &ConvSpec::square([channels, features], 1, 1))?,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            dropout: DropoutConfig::new(DROPOUT).init(),
            linear: LinearConfig::new(features, builder.num_classes).init(builder.device),
        })
    }
}

impl Walk for MobileNetV2 {
    /// The stages are the resolutions, 1/2 to 1/32 of the image.
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let map = walk.unit(&"stem", &self.stem, images, Activation::Relu6.into());
        inverted_residual::walk(&self.blocks, walk, map)
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let map = walk.unit(&"last", &self.last, map, Activation::Relu6.into());
        let features = walk.means(&"pool", &self.pool, map);
        let features = walk.dropout(&self.dropout, features);
        walk.linear(&"linear", &self.linear, features, None)
    }
}
