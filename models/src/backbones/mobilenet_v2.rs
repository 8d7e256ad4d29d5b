//! MobileNetV2: Inverted Residuals and Linear Bottlenecks (Sandler et al., CVPR 2018,
//! <https://arxiv.org/abs/1801.04381>).

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::Tensor;

use super::{Activation, DenseLayer, NetworkBuilder, PlacedUnit};
use crate::blocks::{ConvSpec, ConvUnit};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;

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
pub(crate) const DROPOUT: f64 = 0.2;

/// The nearest multiple of 8, but not less than nine tenths of `channels` (the rule of the
/// authors' code), at least 8.
pub(crate) fn multiple_of_8(channels: f64) -> usize {
    let rounded = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}

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

/// A 1x1 convolution to more channels, a depthwise convolution, and a linear 1x1 back to few;
/// with the input added where the shape stays the same.
#[derive(Module, Debug, Reparameterize)]
pub struct InvertedResidual {
    /// 1x1 to `expansion` times the channels; absent where the expansion is 1.
    pub expand: Option<ConvUnit>,
    /// 3x3, every channel for itself, with the stride.
    pub depthwise: ConvUnit,
    /// 1x1 without nonlinearity.
    pub project: ConvUnit,
    /// Whether the input is added.
    #[reparam(keep)]
    residual: bool,
    #[module(skip)]
    #[reparam(keep)]
    activation: Activation,
}

impl MobileNetV2 {
    /// A network with fresh weights for images of `in_channels` channels.
    ///
    /// # Errors
    /// If a layer cannot have its block.
    pub fn new(
        width: f64,
        in_channels: usize,
        num_classes: usize,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let scaled = |channels: usize| multiple_of_8(channels as f64 * width);
        let mut channels = scaled(32);
        let stem = builder.unit("stem", &ConvSpec::square([in_channels, channels], 3, 2))?;
        let mut blocks = Vec::new();
        for (expansion, outputs, repetitions, stride) in LAYOUT {
            for index in 0..repetitions {
                let name = format!("blocks.{}", blocks.len());
                let stride = if index == 0 { stride } else { 1 };
                let shape = [channels, scaled(outputs)];
                blocks.push(InvertedResidual::new(
                    &name,
                    shape,
                    expansion,
                    stride,
                    Activation::Relu6,
                    builder,
                )?);
                channels = scaled(outputs);
            }
        }
        // The last layer is not made narrower than in the network of full width.
        let features = multiple_of_8(1280.0 * width.max(1.0));
        Ok(Self {
            stem,
            blocks,
            last: builder.unit("last", &ConvSpec::square([channels, features], 1, 1))?,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            dropout: DropoutConfig::new(DROPOUT).init(),
            linear: LinearConfig::new(features, num_classes).init(builder.device),
        })
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let map = Activation::Relu6.forward(self.stem.forward(images));
        let map = self.blocks.iter().fold(map, |map, block| block.forward(map));
        let map = Activation::Relu6.forward(self.last.forward(map));
        self.linear.forward(self.dropout.forward(self.pool.forward(map).flatten(1, 3)))
    }

    /// The last map of each resolution, 1/2 to 1/32 of the image; for detection and
    /// segmentation heads.
    pub fn forward_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut map = Activation::Relu6.forward(self.stem.forward(images));
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

    /// The layers that see one value per channel.
    pub fn dense_layers(&self) -> Vec<DenseLayer> {
        vec![DenseLayer::of("linear", &self.linear)]
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
}

impl InvertedResidual {
    /// A block from `inputs` to `outputs` channels with `expansion` times as many between. `name`
    /// is its path in the network.
    ///
    /// # Errors
    /// If a layer cannot have its block.
    pub fn new(
        name: &str,
        [inputs, outputs]: [usize; 2],
        expansion: usize,
        stride: usize,
        activation: Activation,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let hidden = inputs * expansion;
        let unit = |part: &str, spec: ConvSpec| builder.unit(&format!("{name}.{part}"), &spec);
        let depthwise = ConvSpec::square([hidden; 2], 3, stride).with_groups(hidden);
        Ok(Self {
            expand: (expansion > 1)
                .then(|| unit("expand", ConvSpec::square([inputs, hidden], 1, 1)))
                .transpose()?,
            depthwise: unit("depthwise", depthwise)?,
            project: unit("project", ConvSpec::square([hidden, outputs], 1, 1))?,
            residual: stride == 1 && inputs == outputs,
            activation,
        })
    }

    /// `[batch, in, height, width]` to `[batch, out, height / stride, width / stride]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let map = match &self.expand {
            Some(expand) => self.activation.forward(expand.forward(input.clone())),
            None => input.clone(),
        };
        let map = self.activation.forward(self.depthwise.forward(map));
        let map = self.project.forward(map);
        if self.residual { map + input } else { map }
    }
}

#[cfg(test)]
mod tests {
    use super::multiple_of_8;

    /// Against values of the authors' rule worked out by hand.
    #[test]
    fn channels_round_to_eight_without_losing_a_tenth() {
        for (channels, expected) in [
            (32.0, 32),
            (24.0, 24),
            (3.2, 8),
            (12.0, 16),
            (11.0, 16),
            (18.0, 24),
            (67.2, 64),
            (1280.0, 1280),
        ] {
            assert_eq!(multiple_of_8(channels), expected, "{channels}");
        }
    }
}
