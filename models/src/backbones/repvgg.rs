//! RepVGG: Making VGG-style ConvNets Great Again (Ding et al., CVPR 2021,
//! <https://arxiv.org/abs/2101.03697>).

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Linear, LinearConfig};

use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// The depth and the widths of a RepVGG (the paper's tables 2 and 3).
#[derive(Clone, Debug, PartialEq)]
pub struct RepVggConfig {
    /// Layers in each of the four stages after the stem.
    pub depths: [usize; 4],
    /// Multiplies the 64, 128, 256 and 512 channels of the stages. The stem has the channels of
    /// the first stage, but at most 64.
    pub widths: [f64; 4],
}

impl RepVggConfig {
    /// The lighter networks, with the multiplier of the first three stages and of the last.
    pub fn a(first: f64, last: f64) -> Self {
        Self { depths: [2, 4, 14, 1], widths: [first, first, first, last] }
    }

    /// The middleweight networks, which have more layers.
    pub fn b(first: f64, last: f64) -> Self {
        Self { depths: [4, 6, 16, 1], ..Self::a(first, last) }
    }
}

/// A RepVGG with a linear classifier: one 3x3 convolution with ReLU after the other.
#[derive(Module, Debug, Reparameterize)]
pub struct RepVgg {
    /// The first convolution, half the resolution of the image.
    pub stem: ConvUnit,
    /// First stage; every stage halves the resolution in its first layer.
    pub stage1: Vec<ConvUnit>,
    /// Second stage.
    pub stage2: Vec<ConvUnit>,
    /// Third stage.
    pub stage3: Vec<ConvUnit>,
    /// Fourth stage.
    pub stage4: Vec<ConvUnit>,
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// The classifier.
    pub linear: Linear,
}

impl Backbone for RepVggConfig {
    type Network = RepVgg;

    fn build(&self, builder: &NetworkBuilder) -> Result<RepVgg, ConfigError> {
        let scaled = |channels: f64| (channels * builder.width) as usize;
        let mut channels = scaled((64.0 * self.widths[0]).min(64.0));
        let stem = ConvSpec::square([builder.in_channels, channels], 3, 2);
        let stem = builder.unit("stem", &stem)?;
        let mut stage = |index: usize| {
            let outputs = scaled((64 << index) as f64 * self.widths[index]);
            let layers = (0..self.depths[index]).map(|layer| {
                let stride = if layer == 0 { 2 } else { 1 };
                let spec = ConvSpec::square([channels, outputs], 3, stride);
                channels = outputs;
                builder.unit(&format!("stage{}.{layer}", index + 1), &spec)
            });
            layers.collect::<Result<Vec<_>, _>>()
        };
        Ok(RepVgg {
            stem,
            stage1: stage(0)?,
            stage2: stage(1)?,
            stage3: stage(2)?,
            stage4: stage(3)?,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            linear: LinearConfig::new(channels, builder.num_classes).init(builder.device),
        })
    }
}

impl Walk for RepVgg {
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let mut map = walk.unit(&"stem", &self.stem, images, Activation::Relu.into());
        let stages = [&self.stage1, &self.stage2, &self.stage3, &self.stage4];
        for (index, stage) in stages.into_iter().enumerate() {
            for (layer, unit) in stage.iter().enumerate() {
                let name = format_args!("stage{}.{layer}", index + 1);
                map = walk.unit(&name, unit, map, Activation::Relu.into());
            }
            walk.stage(index, &map);
        }
        map
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let features = walk.means(&"pool", &self.pool, map);
        walk.linear(&"linear", &self.linear, features, None)
    }
}
