//! Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan and Zisserman,
//! 2014, <https://arxiv.org/abs/1409.1556>), with a batch norm after every convolution.

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};

use super::hidden_layers::{self, DROPOUT};
use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// Channels of the five stages.
const CHANNELS: [usize; 5] = [64, 128, 256, 512, 512];
/// Convolutions in each stage of the 16-layer network (the paper's table 1, configuration D).
const DEPTHS: [usize; 5] = [2, 2, 3, 3, 3];

/// The 16-layer network, with the classifier of one of two data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VggConfig {
    /// The paper's: 7x7 means and two hidden layers of 4096 with dropout.
    ImageNet,
    /// That of ACNet's code (Ding et al., ICCV 2019) for images of 32x32: one hidden layer of 512,
    /// no dropout.
    Cifar,
}

/// VGG-16 with batch norm.
#[derive(Module, Debug, Reparameterize)]
pub struct Vgg {
    /// First stage, full resolution of the image.
    pub stage1: Vec<ConvUnit>,
    /// Second stage, half of it.
    pub stage2: Vec<ConvUnit>,
    /// Third stage, a quarter.
    pub stage3: Vec<ConvUnit>,
    /// Fourth stage, an eighth.
    pub stage4: Vec<ConvUnit>,
    /// Fifth stage, a sixteenth.
    pub stage5: Vec<ConvUnit>,
    /// Follows every stage.
    pub max_pool: MaxPool2d,
    /// Means over a grid: 7x7, or 1x1 in the network for CIFAR.
    pub pool: AdaptiveAvgPool2d,
    /// Hidden layers of the classifier, with ReLU.
    pub hidden: Vec<Linear>,
    /// Follows every hidden layer, in training only.
    pub dropout: Option<Dropout>,
    /// The classifier.
    pub linear: Linear,
}

impl Backbone for VggConfig {
    type Network = Vgg;

    fn build(&self, builder: &NetworkBuilder) -> Result<Vgg, ConfigError> {
        let scaled = |channels: usize| (channels as f64 * builder.width) as usize;
        let mut channels = builder.in_channels;
        let mut stage = |index: usize| {
            let outputs = scaled(CHANNELS[index]);
            let layers = (0..DEPTHS[index]).map(|layer| {
                let spec = ConvSpec::square([channels, outputs], 3, 1);
                channels = outputs;
                builder.unit(&format!("stage{}.{layer}", index + 1), &spec)
            });
            layers.collect::<Result<Vec<_>, _>>()
        };
        let (stage1, stage2, stage3) = (stage(0)?, stage(1)?, stage(2)?);
        let (stage4, stage5) = (stage(3)?, stage(4)?);
        let (grid, hidden, dropout) = match self {
            Self::ImageNet => (7, vec![scaled(4096); 2], Some(DROPOUT)),
            Self::Cifar => (1, vec![scaled(512)], None),
        };
        let features = hidden.last().copied().unwrap_or(channels);
        Ok(Vgg {
            stage1,
            stage2,
            stage3,
            stage4,
            stage5,
            max_pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            pool: AdaptiveAvgPool2dConfig::new([grid; 2]).init(),
            hidden: hidden_layers::layers(channels * grid * grid, &hidden, builder.device),
            dropout: dropout.map(|probability| DropoutConfig::new(probability).init()),
            linear: LinearConfig::new(features, builder.num_classes).init(builder.device),
        })
    }
}

impl Walk for Vgg {
    /// A stage ends before its max pool, so that the last pool belongs to the head.
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let stages = [&self.stage1, &self.stage2, &self.stage3, &self.stage4, &self.stage5];
        let mut map = images;
        for (index, stage) in stages.into_iter().enumerate() {
            if index > 0 {
                map = walk.max_pool(&format_args!("max_pool{index}"), &self.max_pool, map);
            }
            for (layer, unit) in stage.iter().enumerate() {
                let name = format_args!("stage{}.{layer}", index + 1);
                map = walk.unit(&name, unit, map, Activation::Relu.into());
            }
            walk.stage(index, &map);
        }
        map
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let map = walk.max_pool(&"max_pool5", &self.max_pool, map);
        let features = walk.means(&"pool", &self.pool, map);
        let features = hidden_layers::walk(&self.hidden, self.dropout.as_ref(), walk, features);
        walk.linear(&"linear", &self.linear, features, None)
    }
}
