//! MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications (Howard
//! et al., 2017, <https://arxiv.org/abs/1704.04861>).

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Linear, LinearConfig};

use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// Output channels and stride of the thirteen separable convolutions (the paper's table 1).
const LAYOUT: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// The network of the paper's table 1. Its nonlinearity is ReLU, of which its authors' code makes
/// ReLU6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MobileNetV1Config;

/// MobileNet version 1 with a linear classifier.
#[derive(Module, Debug, Reparameterize)]
pub struct MobileNetV1 {
    /// The first, dense convolution, 3x3 with stride 2.
    pub stem: ConvUnit,
    /// The separable convolutions.
    pub blocks: Vec<SeparableConv>,
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// The classifier.
    pub linear: Linear,
    #[module(skip)]
    #[reparam(keep)]
    activation: Activation,
}

/// A depthwise 3x3 convolution followed by a 1x1.
#[derive(Module, Debug, Reparameterize)]
pub struct SeparableConv {
    /// 3x3, every channel for itself.
    pub depthwise: ConvUnit,
    /// 1x1.
    pub pointwise: ConvUnit,
}

impl Backbone for MobileNetV1Config {
    type Network = MobileNetV1;

    const LEAVES_ACTIVATION_OPEN: bool = true;

    fn build(&self, builder: &NetworkBuilder) -> Result<MobileNetV1, ConfigError> {
        let scaled = |channels: usize| (channels as f64 * builder.width) as usize;
        let mut channels = scaled(32);
        let stem = ConvSpec::square([builder.in_channels, channels], 3, 2);
        let stem = builder.unit("stem", &stem)?;
        let mut blocks = Vec::new();
        for (index, (outputs, stride)) in LAYOUT.into_iter().enumerate() {
            let depthwise = ConvSpec::square([channels; 2], 3, stride).with_groups(channels);
            let pointwise = ConvSpec::square([channels, scaled(outputs)], 1, 1);
            blocks.push(SeparableConv {
                depthwise: builder.unit(&format!("blocks.{index}.depthwise"), &depthwise)?,
                pointwise: builder.unit(&format!("blocks.{index}.pointwise"), &pointwise)?,
            });
            channels = scaled(outputs);
        }
        Ok(MobileNetV1 {
            stem,
            blocks,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            linear: LinearConfig::new(channels, builder.num_classes).init(builder.device),
            activation: builder.activation.unwrap_or(Activation::Relu),
        })
    }
}

impl Walk for MobileNetV1 {
    /// The stages are the resolutions, 1/2 to 1/32 of the image.
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let mut map = walk.unit(&"stem", &self.stem, images, self.activation.into());
        let mut stage = 0;
        for (index, block) in self.blocks.iter().enumerate() {
            let name = format_args!("blocks.{index}");
            map = walk.separable(
                [&format_args!("{name}.depthwise"), &format_args!("{name}.pointwise")],
                [&block.depthwise, &block.pointwise],
                map,
                self.activation,
                self.activation.into(),
            );
            if LAYOUT.get(index + 1).is_none_or(|&(_, stride)| stride == 2) {
                walk.stage(stage, &map);
                stage += 1;
            }
        }
        map
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let features = walk.means(&"pool", &self.pool, map);
        walk.linear(&"linear", &self.linear, features, None)
    }
}
