//! Deep Residual Learning for Image Recognition (He et al., CVPR 2016,
//! <https://arxiv.org/abs/1512.03385>).
//!
//! Bottlenecks stride on the 3x3 convolution, as torchvision and the DBB paper's code do
//! ("v1.5"), not on the first 1x1 as the paper's text does.

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Tensor, s};

use super::{DenseLayer, NetworkBuilder, PlacedUnit};
use crate::blocks::{Activation, ConvSpec, ConvUnit, Epilogue};
use crate::error::ConfigError;
use crate::fused;
use crate::onnx::{Graph, Value};
use crate::reparam::Reparameterize;

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

impl ResNet {
    /// A network with fresh weights for images of `in_channels` channels.
    ///
    /// # Errors
    /// If a layer cannot have its block, or the width leaves no channel.
    pub fn new(
        config: &ResNetConfig,
        width: f64,
        in_channels: usize,
        num_classes: usize,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let scaled = |stage: usize| ((config.channels << stage) as f64 * width) as usize;
        let stem = if config.imagenet_stem {
            ConvSpec::square([in_channels, scaled(0)], 7, 2)
        } else {
            ConvSpec::square([in_channels, scaled(0)], 3, 1)
        };
        let mut channels = scaled(0);
        let mut stages = config.depths.iter().enumerate().map(|(stage, &depth)| {
            (0..depth)
                .map(|index| {
                    let name = format!("stage{}.{index}", stage + 1);
                    let stride = if index == 0 && stage > 0 { 2 } else { 1 };
                    let (inputs, planes) = (channels, scaled(stage));
                    channels = if config.bottleneck { 4 * planes } else { planes };
                    ResidualBlock::new(config, &name, [inputs, planes], stride, builder)
                })
                .collect::<Result<Vec<_>, _>>()
        });
        let mut next_stage = || stages.next().unwrap_or_else(|| Ok(Vec::new()));
        let (stage1, stage2) = (next_stage()?, next_stage()?);
        let (stage3, stage4) = (next_stage()?, next_stage()?);
        Ok(Self {
            stem: builder.unit("stem", &stem)?,
            max_pool: config.imagenet_stem.then(|| {
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
            linear: LinearConfig::new(channels, num_classes).init(builder.device),
        })
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let map =
            self.stages().iter().fold(self.forward_stem(images), |map, stage| run(stage, map));
        self.linear.forward(self.pool.forward(map).flatten(1, 3))
    }

    /// [`Self::forward`] in inference, as nodes of an ONNX graph.
    pub(crate) fn trace(&self, graph: &mut Graph, images: Value) -> Value {
        let mut map = graph.unit("stem", &self.stem, &images, None, Some(Activation::Relu));
        if let Some(pool) = &self.max_pool {
            map = graph.max_pool("max_pool", pool, &map);
        }
        for (stage, blocks) in self.stages().into_iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                map = block.trace(&format!("stage{}.{index}", stage + 1), graph, &map);
            }
        }
        let features = graph.features("pool", &map);
        graph.linear("linear", &self.linear, &features)
    }

    /// The map after each stage, in order; for detection and segmentation heads.
    pub fn forward_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut map = self.forward_stem(images);
        let mut maps = Vec::new();
        for stage in self.stages().into_iter().filter(|stage| !stage.is_empty()) {
            map = run(stage, map);
            maps.push(map.clone());
        }
        maps
    }

    fn forward_stem(&self, images: Tensor<4>) -> Tensor<4> {
        let map = self.stem.forward_then(images, Activation::Relu);
        match &self.max_pool {
            Some(pool) => fused::max_pool(pool, map),
            None => map,
        }
    }

    fn stages(&self) -> [&Vec<ResidualBlock>; 4] {
        [&self.stage1, &self.stage2, &self.stage3, &self.stage4]
    }

    /// The layers that see one value per channel.
    pub fn dense_layers(&self) -> Vec<DenseLayer> {
        vec![DenseLayer::of("linear", &self.linear)]
    }

    /// Every unit in order of computation, for an image of the given height and width.
    pub fn units(&self, image: [usize; 2]) -> Vec<PlacedUnit<'_>> {
        let stem = PlacedUnit { name: "stem".into(), unit: &self.stem, input_size: image };
        let mut size = stem.output_size();
        if self.max_pool.is_some() {
            size = ConvSpec::square([1, 1], 3, 2).output_size(size);
        }
        let mut units = vec![stem];
        for (stage, blocks) in self.stages().into_iter().enumerate() {
            for (index, block) in blocks.iter().enumerate() {
                size = block.place(&format!("stage{}.{index}", stage + 1), size, &mut units);
            }
        }
        units
    }

    /// Every unit, to be changed.
    pub fn units_mut(&mut self) -> impl Iterator<Item = &mut ConvUnit> {
        let stages = [&mut self.stage1, &mut self.stage2, &mut self.stage3, &mut self.stage4];
        let blocks = stages.into_iter().flatten().flat_map(|block| {
            let shorter = [&mut block.conv1, &mut block.conv2];
            shorter.into_iter().chain(&mut block.conv3).chain(&mut block.shortcut)
        });
        std::iter::once(&mut self.stem).chain(blocks)
    }
}

fn run(stage: &[ResidualBlock], map: Tensor<4>) -> Tensor<4> {
    stage.iter().fold(map, |map, block| block.forward(map))
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
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let map = self.conv1.forward_then(input.clone(), Activation::Relu);
        let (last, map) = match &self.conv3 {
            Some(conv3) => (conv3, self.conv2.forward_then(map, Activation::Relu)),
            None => (&self.conv2, map),
        };
        let shortcut = match (&self.shortcut, self.zero_channels) {
            (Some(projection), _) => projection.forward(input),
            (None, Some(channels)) => subsample(input, channels),
            (None, None) => input,
        };
        last.forward_then(map, Epilogue::new(shortcut, Activation::Relu))
    }

    /// [`Self::forward`] in inference, as nodes of an ONNX graph; `name` is the block's path.
    fn trace(&self, name: &str, graph: &mut Graph, input: &Value) -> Value {
        let path = |part: &str| format!("{name}.{part}");
        let relu = Some(Activation::Relu);
        let map = graph.unit(&path("conv1"), &self.conv1, input, None, relu);
        let (last_name, last, map) = match &self.conv3 {
            Some(conv3) => {
                let map = graph.unit(&path("conv2"), &self.conv2, &map, None, relu);
                ("conv3", conv3, map)
            }
            None => ("conv2", &self.conv2, map),
        };
        let shortcut = match (&self.shortcut, self.zero_channels) {
            (Some(projection), _) => graph.unit(&path("shortcut"), projection, input, None, None),
            (None, Some(channels)) => graph.subsample(&path("shortcut"), input, channels),
            (None, None) => input.clone(),
        };
        graph.unit(&path(last_name), last, &map, Some(&shortcut), relu)
    }

    /// Appends the block's units; returns the size of its output.
    fn place<'a>(
        &'a self,
        name: &str,
        input_size: [usize; 2],
        units: &mut Vec<PlacedUnit<'a>>,
    ) -> [usize; 2] {
        let mut size = input_size;
        let convs = [
            ("conv1", Some(&self.conv1)),
            ("conv2", Some(&self.conv2)),
            ("conv3", self.conv3.as_ref()),
        ];
        for (part, unit) in convs {
            if let Some(unit) = unit {
                let placed = PlacedUnit { name: format!("{name}.{part}"), unit, input_size: size };
                size = placed.output_size();
                units.push(placed);
            }
        }
        if let Some(unit) = &self.shortcut {
            units.push(PlacedUnit { name: format!("{name}.shortcut"), unit, input_size });
        }
        size
    }
}

/// Every second position, between channels of zeros.
fn subsample(input: Tensor<4>, [before, after]: [usize; 2]) -> Tensor<4> {
    let map = input.slice(s![.., .., ..;2, ..;2]);
    let [batch, _, height, width] = map.dims();
    let zeros = |channels| Tensor::zeros([batch, channels, height, width], &map.device());
    let parts =
        [(before > 0).then(|| zeros(before)), Some(map.clone()), (after > 0).then(|| zeros(after))];
    Tensor::cat(parts.into_iter().flatten().collect(), 1)
}
