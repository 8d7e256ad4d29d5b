//! Searching for MobileNetV3 (Howard et al., ICCV 2019, <https://arxiv.org/abs/1905.02244>).

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};

use super::inverted_residual::{self, InvertedResidual, InvertedResidualConfig, multiple_of_8};
use super::mobilenet_v2::DROPOUT;
use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit, NormConfig};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// One line of the paper's tables 1 and 2: kernel, expanded and output channels,
/// squeeze-and-excite, nonlinearity, stride.
struct Line {
    kernel: usize,
    expanded: usize,
    outputs: usize,
    squeeze_excite: bool,
    activation: Activation,
    stride: usize,
}

const fn line(
    kernel: usize,
    expanded: usize,
    outputs: usize,
    squeeze_excite: bool,
    activation: Activation,
    stride: usize,
) -> Line {
    Line { kernel, expanded, outputs, squeeze_excite, activation, stride }
}

const RE: Activation = Activation::Relu;
const HS: Activation = Activation::HardSwish;

/// Table 1, MobileNetV3-Large.
const LARGE: [Line; 15] = [
    line(3, 16, 16, false, RE, 1),
    line(3, 64, 24, false, RE, 2),
    line(3, 72, 24, false, RE, 1),
    line(5, 72, 40, true, RE, 2),
    line(5, 120, 40, true, RE, 1),
    line(5, 120, 40, true, RE, 1),
    line(3, 240, 80, false, HS, 2),
    line(3, 200, 80, false, HS, 1),
    line(3, 184, 80, false, HS, 1),
    line(3, 184, 80, false, HS, 1),
    line(3, 480, 112, true, HS, 1),
    line(3, 672, 112, true, HS, 1),
    line(5, 672, 160, true, HS, 2),
    line(5, 960, 160, true, HS, 1),
    line(5, 960, 160, true, HS, 1),
];

/// Table 2, MobileNetV3-Small.
const SMALL: [Line; 11] = [
    line(3, 16, 16, true, RE, 2),
    line(3, 72, 24, false, RE, 2),
    line(3, 88, 24, false, RE, 1),
    line(5, 96, 40, true, HS, 2),
    line(5, 240, 40, true, HS, 1),
    line(5, 240, 40, true, HS, 1),
    line(5, 120, 48, true, HS, 1),
    line(5, 144, 48, true, HS, 1),
    line(5, 288, 96, true, HS, 2),
    line(5, 576, 96, true, HS, 1),
    line(5, 576, 96, true, HS, 1),
];

/// The batch norms of the authors' code, in PyTorch's terms: epsilon 1e-3, momentum 0.01.
const NORM: NormConfig = NormConfig { epsilon: 1e-3, momentum: 0.01 };

/// Which of the paper's two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MobileNetV3Config {
    /// MobileNetV3-Large.
    Large,
    /// MobileNetV3-Small.
    Small,
}

impl MobileNetV3Config {
    fn layout(self) -> &'static [Line] {
        match self {
            Self::Large => &LARGE,
            Self::Small => &SMALL,
        }
    }
}

/// MobileNet version 3 with a classifier of two layers.
#[derive(Module, Debug, Reparameterize)]
pub struct MobileNetV3 {
    /// The first, dense convolution, 3x3 with stride 2 and hard-swish.
    pub stem: ConvUnit,
    /// The inverted residuals.
    pub blocks: Vec<InvertedResidual>,
    /// The last 1x1 convolution, with hard-swish.
    pub last: ConvUnit,
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// First layer of the classifier, with hard-swish.
    pub hidden: Linear,
    /// Acts in training only.
    pub dropout: Dropout,
    /// The classifier.
    pub linear: Linear,
}

impl Backbone for MobileNetV3Config {
    type Network = MobileNetV3;

    const NORM: NormConfig = NORM;

    fn build(&self, builder: &NetworkBuilder) -> Result<MobileNetV3, ConfigError> {
        let scaled = |channels: usize| multiple_of_8(channels as f64 * builder.width);
        let mut channels = scaled(16);
        let stem = ConvSpec::square([builder.in_channels, channels], 3, 2);
        let stem = builder.unit("stem", &stem)?;
        let mut blocks = Vec::new();
        for (index, line) in self.layout().iter().enumerate() {
            let name = format!("blocks.{index}");
            let config = InvertedResidualConfig {
                channels: [channels, scaled(line.expanded), scaled(line.outputs)],
                kernel: line.kernel,
                stride: line.stride,
                squeeze_excite: line.squeeze_excite,
                activation: line.activation,
            };
            blocks.push(InvertedResidual::new(&name, &config, builder)?);
            channels = scaled(line.outputs);
        }
        let features = 6 * channels;
        let hidden = scaled(match self {
            Self::Large => 1280,
            Self::Small => 1024,
        });
        Ok(MobileNetV3 {
            stem,
            blocks,
            last: builder.unit("last", &ConvSpec::square([channels, features], 1, 1))?,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            hidden: LinearConfig::new(features, hidden).init(builder.device),
            dropout: DropoutConfig::new(DROPOUT).init(),
            linear: LinearConfig::new(hidden, builder.num_classes).init(builder.device),
        })
    }
}

impl Walk for MobileNetV3 {
    /// The stages are the resolutions, 1/2 (1/4 in the small network) to 1/32 of the image.
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let map = walk.unit(&"stem", &self.stem, images, HS.into());
        inverted_residual::walk(&self.blocks, walk, map)
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let map = walk.unit(&"last", &self.last, map, HS.into());
        let features = walk.means(&"pool", &self.pool, map);
        let hidden = walk.linear(&"hidden", &self.hidden, features, Some(HS));
        let hidden = walk.dropout(&self.dropout, hidden);
        walk.linear(&"linear", &self.linear, hidden, None)
    }
}
