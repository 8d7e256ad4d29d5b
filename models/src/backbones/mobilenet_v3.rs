//! Searching for MobileNetV3 (Howard et al., ICCV 2019, <https://arxiv.org/abs/1905.02244>).

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Initializer, Linear, LinearConfig};
use burn::tensor::activation::{hard_sigmoid, relu};
use burn::tensor::{Device, Tensor};

use super::mobilenet_v2::{DROPOUT, multiple_of_8};
use super::{Activation, DenseLayer, NetworkBuilder, PlacedUnit};
use crate::blocks::{ConvSpec, ConvUnit, NormConfig};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;

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
pub(crate) const NORM: NormConfig = NormConfig { epsilon: 1e-3, momentum: 0.01 };

/// Which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// MobileNetV3-Large.
    Large,
    /// MobileNetV3-Small.
    Small,
}

impl Size {
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
    pub blocks: Vec<SqueezeExciteResidual>,
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

/// An inverted residual whose depthwise output may be weighted channel by channel.
#[derive(Module, Debug, Reparameterize)]
pub struct SqueezeExciteResidual {
    /// 1x1 to more channels; absent where the block expands nothing.
    pub expand: Option<ConvUnit>,
    /// 3x3 or 5x5, every channel for itself, with the stride.
    pub depthwise: ConvUnit,
    /// Weights the channels.
    pub squeeze_excite: Option<SqueezeExcite>,
    /// 1x1 without nonlinearity.
    pub project: ConvUnit,
    /// Whether the input is added.
    #[reparam(keep)]
    residual: bool,
    #[module(skip)]
    #[reparam(keep)]
    activation: Activation,
}

/// Squeeze-and-excitation (Hu et al., CVPR 2018): every channel times a weight from 0 to 1 that
/// two layers compute from the means of all channels.
#[derive(Module, Debug, Reparameterize)]
pub struct SqueezeExcite {
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// 1x1 to a quarter of the channels, with ReLU.
    pub fc1: Conv2d,
    /// 1x1 back, with hard-sigmoid.
    pub fc2: Conv2d,
}

impl MobileNetV3 {
    /// A network with fresh weights for images of `in_channels` channels.
    ///
    /// # Errors
    /// If a layer cannot have its block.
    pub fn new(
        size: Size,
        width: f64,
        in_channels: usize,
        num_classes: usize,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let scaled = |channels: usize| multiple_of_8(channels as f64 * width);
        let mut channels = scaled(16);
        let stem = builder.unit("stem", &ConvSpec::square([in_channels, channels], 3, 2))?;
        let mut blocks = Vec::new();
        for (index, line) in size.layout().iter().enumerate() {
            let name = format!("blocks.{index}");
            let shape = [channels, scaled(line.expanded), scaled(line.outputs)];
            blocks.push(SqueezeExciteResidual::new(&name, shape, line, builder)?);
            channels = scaled(line.outputs);
        }
        let features = 6 * channels;
        let hidden = scaled(match size {
            Size::Large => 1280,
            Size::Small => 1024,
        });
        Ok(Self {
            stem,
            blocks,
            last: builder.unit("last", &ConvSpec::square([channels, features], 1, 1))?,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            hidden: LinearConfig::new(features, hidden).init(builder.device),
            dropout: DropoutConfig::new(DROPOUT).init(),
            linear: LinearConfig::new(hidden, num_classes).init(builder.device),
        })
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let map = HS.forward(self.stem.forward(images));
        let map = self.blocks.iter().fold(map, |map, block| block.forward(map));
        let map = HS.forward(self.last.forward(map));
        let features = self.pool.forward(map).flatten(1, 3);
        let hidden = HS.forward(self.hidden.forward(features));
        self.linear.forward(self.dropout.forward(hidden))
    }

    /// The last map of each resolution, 1/2 (1/4 in the small network) to 1/32 of the image; for
    /// detection and segmentation heads.
    pub fn forward_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut map = HS.forward(self.stem.forward(images));
        let mut maps = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            map = block.forward(map);
            let next = self.blocks.get(index + 1);
            if next.is_none_or(|next| next.depthwise.spec().stride != [1, 1]) {
                maps.push(map.clone());
            }
        }
        maps
    }

    /// Every unit in order of computation, for an image of the given height and width.
    pub fn units(&self, image: [usize; 2]) -> Vec<PlacedUnit<'_>> {
        let blocks = self.blocks.iter().enumerate().flat_map(|(index, block)| {
            [
                block.expand.as_ref().map(|unit| ("expand", unit)),
                Some(("depthwise", &block.depthwise)),
                Some(("project", &block.project)),
            ]
            .into_iter()
            .flatten()
            .map(move |(part, unit)| (format!("blocks.{index}.{part}"), unit))
        });
        PlacedUnit::chain(
            image,
            std::iter::once(("stem".to_string(), &self.stem))
                .chain(blocks)
                .chain([("last".to_string(), &self.last)]),
        )
    }

    /// The layers that see one value per channel.
    pub fn dense_layers(&self) -> Vec<DenseLayer> {
        let squeezes = self.blocks.iter().enumerate().filter_map(|(index, block)| {
            let block = block.squeeze_excite.as_ref()?;
            let name = |part: &str| format!("blocks.{index}.squeeze_excite.{part}");
            Some([("fc1", &block.fc1), ("fc2", &block.fc2)].map(|(part, conv)| {
                let [outputs, inputs, ..] = conv.weight.lazy_shape().dims::<4>();
                DenseLayer { name: name(part), channels: [inputs, outputs] }
            }))
        });
        let classifier = [("hidden", &self.hidden), ("linear", &self.linear)]
            .map(|(name, linear)| DenseLayer::of(name, linear));
        squeezes.flatten().chain(classifier).collect()
    }
}

impl SqueezeExciteResidual {
    fn new(
        name: &str,
        [inputs, expanded, outputs]: [usize; 3],
        line: &Line,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let unit = |part: &str, spec: ConvSpec| builder.unit(&format!("{name}.{part}"), &spec);
        let depthwise =
            ConvSpec::square([expanded; 2], line.kernel, line.stride).with_groups(expanded);
        Ok(Self {
            expand: (expanded != inputs)
                .then(|| unit("expand", ConvSpec::square([inputs, expanded], 1, 1)))
                .transpose()?,
            depthwise: unit("depthwise", depthwise)?,
            squeeze_excite: line
                .squeeze_excite
                .then(|| SqueezeExcite::new(expanded, builder.device)),
            project: unit("project", ConvSpec::square([expanded, outputs], 1, 1))?,
            residual: line.stride == 1 && inputs == outputs,
            activation: line.activation,
        })
    }

    /// `[batch, in, height, width]` to `[batch, out, height / stride, width / stride]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let map = match &self.expand {
            Some(expand) => self.activation.forward(expand.forward(input.clone())),
            None => input.clone(),
        };
        let map = self.activation.forward(self.depthwise.forward(map));
        let map = match &self.squeeze_excite {
            Some(squeeze_excite) => squeeze_excite.forward(map),
            None => map,
        };
        let map = self.project.forward(map);
        if self.residual { map + input } else { map }
    }
}

impl SqueezeExcite {
    /// A block over `channels` channels.
    pub fn new(channels: usize, device: &Device) -> Self {
        let squeezed = multiple_of_8((channels / 4) as f64);
        let pointwise = |channels: [usize; 2]| {
            let mut conv = Conv2dConfig::new(channels, [1, 1]).init(device);
            conv.bias = Some(Initializer::Zeros.init([channels[1]], device));
            conv
        };
        Self {
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc1: pointwise([channels, squeezed]),
            fc2: pointwise([squeezed, channels]),
        }
    }

    /// `[batch, channels, height, width]` to the same shape.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let means = self.pool.forward(input.clone());
        let weights = self.fc2.forward(relu(self.fc1.forward(means)));
        // min(max(x + 3, 0), 6) / 6
        input * hard_sigmoid(weights, 1.0 / 6.0, 0.5)
    }
}
