//! MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications (Howard
//! et al., 2017, <https://arxiv.org/abs/1704.04861>).

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Tensor;

use super::{DenseLayer, NetworkBuilder, PlacedUnit};
use crate::blocks::{Activation, ConvSpec, ConvUnit};
use crate::error::ConfigError;
use crate::onnx::{Graph, Value};
use crate::reparam::Reparameterize;

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
    #[module(skip)]
    #[reparam(keep)]
    activation: Activation,
}

impl MobileNetV1 {
    /// A network with fresh weights for images of `in_channels` channels. The paper's
    /// nonlinearity is ReLU; its authors' code has ReLU6.
    ///
    /// # Errors
    /// If a layer cannot have its block, or the width leaves no channel.
    pub fn new(
        width: f64,
        in_channels: usize,
        num_classes: usize,
        activation: Activation,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let scaled = |channels: usize| (channels as f64 * width) as usize;
        let mut channels = scaled(32);
        let stem = builder.unit("stem", &ConvSpec::square([in_channels, channels], 3, 2))?;
        let mut blocks = Vec::new();
        for (index, (outputs, stride)) in LAYOUT.into_iter().enumerate() {
            let depthwise = ConvSpec::square([channels; 2], 3, stride).with_groups(channels);
            let pointwise = ConvSpec::square([channels, scaled(outputs)], 1, 1);
            blocks.push(SeparableConv {
                depthwise: builder.unit(&format!("blocks.{index}.depthwise"), &depthwise)?,
                pointwise: builder.unit(&format!("blocks.{index}.pointwise"), &pointwise)?,
                activation,
            });
            channels = scaled(outputs);
        }
        Ok(Self {
            stem,
            blocks,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            linear: LinearConfig::new(channels, num_classes).init(builder.device),
            activation,
        })
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let map = self.stem.forward_then(images, self.activation);
        let map = self.blocks.iter().fold(map, |map, block| block.forward(map));
        self.linear.forward(self.pool.forward(map).flatten(1, 3))
    }

    /// [`Self::forward`] in inference, as nodes of an ONNX graph.
    pub(crate) fn trace(&self, graph: &mut Graph, images: Value) -> Value {
        let activation = Some(self.activation);
        let mut map = graph.unit("stem", &self.stem, &images, None, activation);
        for (index, block) in self.blocks.iter().enumerate() {
            let units = [("depthwise", &block.depthwise), ("pointwise", &block.pointwise)];
            for (part, unit) in units {
                map = graph.unit(&format!("blocks.{index}.{part}"), unit, &map, None, activation);
            }
        }
        let features = graph.features("pool", &map);
        graph.linear("linear", &self.linear, &features)
    }

    /// The last map of each resolution, 1/2 to 1/32 of the image; for detection and
    /// segmentation heads.
    pub fn forward_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut map = self.stem.forward_then(images, self.activation);
        let mut maps = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            map = block.forward(map);
            if LAYOUT.get(index + 1).is_none_or(|&(_, stride)| stride == 2) {
                maps.push(map.clone());
            }
        }
        maps
    }

    /// The layers that see one value per channel.
    pub fn dense_layers(&self) -> Vec<DenseLayer> {
        vec![DenseLayer::of("linear", &self.linear)]
    }

    /// Every unit in order of computation, for an image of the given height and width.
    pub fn units(&self, image: [usize; 2]) -> Vec<PlacedUnit<'_>> {
        let parts = self.blocks.iter().enumerate().flat_map(|(index, block)| {
            [
                (format!("blocks.{index}.depthwise"), &block.depthwise),
                (format!("blocks.{index}.pointwise"), &block.pointwise),
            ]
        });
        PlacedUnit::chain(image, std::iter::once(("stem".to_string(), &self.stem)).chain(parts))
    }

    /// Every unit, to be changed.
    pub fn units_mut(&mut self) -> impl Iterator<Item = &mut ConvUnit> {
        let parts =
            self.blocks.iter_mut().flat_map(|block| [&mut block.depthwise, &mut block.pointwise]);
        std::iter::once(&mut self.stem).chain(parts)
    }
}

impl SeparableConv {
    /// `[batch, in, height, width]` to `[batch, out, height / stride, width / stride]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let map = self.depthwise.forward_then(input, self.activation);
        self.pointwise.forward_then(map, self.activation)
    }
}
