//! Searching for MobileNetV3 (Howard et al., ICCV 2019, <https://arxiv.org/abs/1905.02244>).

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::Tensor;

use super::inverted_residual::{self, InvertedResidual, InvertedResidualConfig, multiple_of_8};
use super::mobilenet_v2::DROPOUT;
use super::{DenseLayer, NetworkBuilder, PlacedUnit};
use crate::blocks::{Activation, ConvSpec, ConvUnit, NormConfig};
use crate::error::ConfigError;
use crate::onnx::{Graph, Value};
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
        let map = self.stem.forward_then(images, HS);
        let map = self.blocks.iter().fold(map, |map, block| block.forward(map));
        let map = self.last.forward_then(map, HS);
        let features = self.pool.forward(map).flatten(1, 3);
        let hidden = HS.forward(self.hidden.forward(features));
        self.linear.forward(self.dropout.forward(hidden))
    }

    /// [`Self::forward`] in inference, as nodes of an ONNX graph.
    pub(crate) fn trace(&self, graph: &mut Graph, images: Value) -> Value {
        let map = graph.unit("stem", &self.stem, &images, None, Some(HS));
        let map = inverted_residual::trace(&self.blocks, graph, map);
        let map = graph.unit("last", &self.last, &map, None, Some(HS));
        let features = graph.features("pool", &map);
        let hidden = graph.linear("hidden", &self.hidden, &features);
        let hidden = graph.activation("hidden", HS, &hidden);
        graph.linear("linear", &self.linear, &hidden)
    }

    /// The last map of each resolution, 1/2 (1/4 in the small network) to 1/32 of the image; for
    /// detection and segmentation heads.
    pub fn forward_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let map = self.stem.forward_then(images, HS);
        inverted_residual::forward_features(&self.blocks, map)
    }

    /// Every unit in order of computation, for an image of the given height and width.
    pub fn units(&self, image: [usize; 2]) -> Vec<PlacedUnit<'_>> {
        inverted_residual::units(image, &self.stem, &self.blocks, &self.last)
    }

    /// Every unit, to be changed.
    pub fn units_mut(&mut self) -> impl Iterator<Item = &mut ConvUnit> {
        inverted_residual::units_mut(&mut self.stem, &mut self.blocks, &mut self.last)
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
