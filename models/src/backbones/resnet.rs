//! Deep Residual Learning for Image Recognition (He et al., CVPR 2016,
//! <https://arxiv.org/abs/1512.03385>).
//!
//! Bottlenecks stride on the 3x3 convolution, as torchvision and the DBB paper's code do
//! ("v1.5"), not on the first 1x1 as the paper's text does.

use std::fmt::Display;

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};

use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit, Epilogue};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// The shape of a residual network.
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetConfig {
    /// Residual blocks in each stage, three or four stages.
    pub depths: Vec<usize>,
    /// Whether a block is 1x1, 3x3, 1x1 with four times the channels, or two 3x3.
    pub bottleneck: bool,
    /// Channels of the first stage before the width multiplier; they double at every stage.
    pub channels: usize,
    /// A 7x7 stem of stride 2 and a max pool, or a 3x3 stem of stride 1.
    pub imagenet_stem: bool,
    /// What a block adds where it changes the shape.
    pub shortcut: Shortcut,
}

impl ResNetConfig {
    /// Four stages of blocks of two 3x3 convolutions, for images of 224x224 (the paper's table 1).
    pub fn basic(depths: [usize; 4]) -> Self {
        Self {
            depths: depths.to_vec(),
            bottleneck: false,
            channels: 64,
            imagenet_stem: true,
            shortcut: Shortcut::Projection,
        }
    }

    /// Four stages of bottlenecks, for images of 224x224 (the paper's table 1).
    pub fn bottleneck(depths: [usize; 4]) -> Self {
        Self { bottleneck: true, ..Self::basic(depths) }
    }

    /// The paper's section 4.2: `6n + 2` layers in three stages of `n` blocks and 16, 32 and 64
    /// channels, for images of 32x32.
    pub fn cifar(n: usize) -> Self {
        Self {
            depths: vec![n; 3],
            bottleneck: false,
            channels: 16,
            imagenet_stem: false,
            shortcut: Shortcut::ZeroPadding,
        }
    }

    /// The same network with the stem for images of 32x32.
    pub fn with_small_stem(self) -> Self {
        Self { imagenet_stem: false, ..self }
    }
}

/// What a residual block adds to its output where it changes the shape of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// A 1x1 convolution with batch norm (the paper's option B).
    Projection,
    /// Every second position, with channels of zeros on both sides (option A, no parameters).
    ZeroPadding,
}

/// A residual network with a linear classifier.
#[derive(Module, Debug, Reparameterize)]
pub struct ResNet {
    /// The first convolution.
    pub stem: ConvUnit,
    /// Follows an ImageNet stem.
    pub max_pool: Option<MaxPool2d>,
    /// First stage, full resolution of the stem.
    pub stage1: Vec<ResidualBlock>,
    /// Second stage, half of it.
    pub stage2: Vec<ResidualBlock>,
    /// Third stage, a quarter.
    pub stage3: Vec<ResidualBlock>,
    /// Fourth stage, an eighth; empty in the CIFAR networks of three stages.
    pub stage4: Vec<ResidualBlock>,
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// The classifier.
    pub linear: Linear,
}

/// Two or three convolutions and the shortcut around them.
#[derive(Module, Debug, Reparameterize)]
pub struct ResidualBlock {
    /// 3x3 (with the stride), or 1x1 in a bottleneck.
    pub conv1: ConvUnit,
    /// 3x3, with the stride in a bottleneck.
    pub conv2: ConvUnit,
    /// 1x1, in a bottleneck.
    pub conv3: Option<ConvUnit>,
    /// 1x1 projection of the shortcut.
    pub shortcut: Option<ConvUnit>,
    /// Channels that a parameter-free shortcut adds before and after the input's.
    #[reparam(keep)]
    zero_channels: Option<[usize; 2]>,
}

impl Backbone for ResNetConfig {
    type Network = ResNet;

    fn build(&self, builder: &NetworkBuilder) -> Result<ResNet, ConfigError> {
        let scaled = |stage: usize| ((self.channels << stage) as f64 * builder.width) as usize;
        let stem = if self.imagenet_stem {
            ConvSpec::square([builder.in_channels, scaled(0)], 7, 2)
        } else {
            ConvSpec::square([builder.in_channels, scaled(0)], 3, 1)
        };
        let mut channels = scaled(0);
        let mut stages = self.depths.iter().enumerate().map(|(stage, &depth)| {
            (0..depth)
                .map(|index| {
                    let name = format!("stage{}.{index}", stage + 1);
                    let stride = if index == 0 && stage > 0 { 2 } else { 1 };
                    let (inputs, planes) = (channels, scaled(stage));
                    channels = if self.bottleneck { 4 * planes } else { planes };
                    ResidualBlock::new(self, &name, [inputs, planes], stride, builder)
                })
                .collect::<Result<Vec<_>, _>>()
        });
        let mut next_stage = || stages.next().unwrap_or_else(|| Ok(Vec::new()));
        let (stage1, stage2) = (next_stage()?, next_stage()?);
        let (stage3, stage4) = (next_stage()?, next_stage()?);
        Ok(ResNet {
            stem: builder.unit("stem", &stem)?,
            max_pool: self.imagenet_stem.then(|| {
                MaxPool2dConfig::new([3, 3])
                    .with_strides([2, 2])
                    .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                    .init()
            }),
            stage1,
            stage2,
            stage3,
            stage4,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            linear: LinearConfig::new(channels, builder.num_classes).init(builder.device),
        })
    }
}

impl ResNet {
    fn stages(&self) -> [&Vec<ResidualBlock>; 4] {
        [&self.stage1, &self.stage2, &self.stage3, &self.stage4]
    }
}

impl Walk for ResNet {
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let mut map = walk.unit(&"stem", &self.stem, images, Activation::Relu.into());
        if let Some(pool) = &self.max_pool {
            map = walk.max_pool(&"max_pool", pool, map);
        }
        let stages = self.stages().into_iter().filter(|stage| !stage.is_empty());
        for (stage, blocks) in stages.enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                map = block.walk(walk, &format_args!("stage{}.{index}", stage + 1), map);
            }
            walk.stage(stage, &map);
        }
        map
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let features = walk.means(&"pool", &self.pool, map);
        walk.linear(&"linear", &self.linear, features, None)
    }
}

impl ResidualBlock {
    /// A block from `inputs` channels through `planes`; a bottleneck ends with four times those.
    fn new(
        config: &ResNetConfig,
        name: &str,
        [inputs, planes]: [usize; 2],
        stride: usize,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let unit = |part: &str, channels, size, stride| {
            builder.unit(&format!("{name}.{part}"), &ConvSpec::square(channels, size, stride))
        };
        let outputs = if config.bottleneck { 4 * planes } else { planes };
        let (conv1, conv2, conv3) = if config.bottleneck {
            (
                unit("conv1", [inputs, planes], 1, 1)?,
                unit("conv2", [planes, planes], 3, stride)?,
                Some(unit("conv3", [planes, outputs], 1, 1)?),
            )
        } else {
            (
                unit("conv1", [inputs, planes], 3, stride)?,
                unit("conv2", [planes, outputs], 3, 1)?,
                None,
            )
        };
        let reshapes = stride != 1 || inputs != outputs;
        let (shortcut, zero_channels) = match config.shortcut {
            _ if !reshapes => (None, None),
            Shortcut::Projection => (Some(unit("shortcut", [inputs, outputs], 1, stride)?), None),
            Shortcut::ZeroPadding => {
                let added = outputs.saturating_sub(inputs);
                (None, Some([added / 2, added - added / 2]))
            }
        };
        Ok(Self { conv1, conv2, conv3, shortcut, zero_channels })
    }

    /// `[batch, in, height, width]` to `[batch, out, height / stride, width / stride]`.
    fn walk<'n, I: Interpreter<'n>>(
        &'n self,
        walk: &mut I,
        name: &dyn Display,
        input: I::Map,
    ) -> I::Map {
        let relu = || Activation::Relu.into();
        let map = walk.unit(&format_args!("{name}.conv1"), &self.conv1, input.clone(), relu());
        let (last, part, map) = match &self.conv3 {
            Some(conv3) => {
                let map = walk.unit(&format_args!("{name}.conv2"), &self.conv2, map, relu());
                (conv3, "conv3", map)
            }
            None => (&self.conv2, "conv2", map),
        };
        let shortcut = format_args!("{name}.shortcut");
        let residual = match (&self.shortcut, self.zero_channels) {
            (Some(projection), _) => walk.unit(&shortcut, projection, input, Epilogue::default()),
            (None, Some(channels)) => walk.subsample(&shortcut, channels, input),
            (None, None) => input,
        };
        let epilogue = Epilogue::new(residual, Activation::Relu);
        walk.unit(&format_args!("{name}.{part}"), last, map, epilogue)
    }
}
