//! The block of MobileNetV2 (Sandler et al., CVPR 2018), with the squeeze-and-excitation of
//! MobileNetV3 (Howard et al., ICCV 2019) where it is asked for.

use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::tensor::activation::{hard_sigmoid, relu};
use burn::tensor::{Device, Tensor};

use super::{NetworkBuilder, PlacedUnit};
use crate::blocks::{Activation, ConvSpec, ConvUnit, Epilogue};
use crate::error::ConfigError;
use crate::onnx::{Graph, Value};
use crate::reparam::Reparameterize;

/// The nearest multiple of 8, but not less than nine tenths of `channels` (the rule of the
/// authors' code), at least 8.
pub(super) fn multiple_of_8(channels: f64) -> usize {
    let rounded = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}

/// The shape of an inverted residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvertedResidualConfig {
    /// Channels of the input, between, and of the output.
    pub channels: [usize; 3],
    /// Size of the depthwise kernel.
    pub kernel: usize,
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// Whether the channels are weighted before the projection.
    pub squeeze_excite: bool,
    /// After every convolution but the projection.
    pub activation: Activation,
}

/// A 1x1 convolution to more channels, a depthwise convolution, and a linear 1x1 back to few;
/// with the input added where the shape stays the same.
#[derive(Module, Debug, Reparameterize)]
pub struct InvertedResidual {
    /// 1x1 to more channels; absent where there are as many between as in the input.
    pub expand: Option<ConvUnit>,
    /// Every channel for itself, with the stride.
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

impl InvertedResidual {
    /// A block with fresh weights; `name` is its path in the network.
    ///
    /// # Errors
    /// If a layer cannot have its block.
    pub fn new(
        name: &str,
        config: &InvertedResidualConfig,
        builder: &NetworkBuilder,
    ) -> Result<Self, ConfigError> {
        let InvertedResidualConfig { channels, kernel, stride, squeeze_excite, activation } =
            *config;
        let [inputs, hidden, outputs] = channels;
        let unit = |part: &str, spec: ConvSpec| builder.unit(&format!("{name}.{part}"), &spec);
        let depthwise = ConvSpec::square([hidden; 2], kernel, stride).with_groups(hidden);
        Ok(Self {
            expand: (hidden != inputs)
                .then(|| unit("expand", ConvSpec::square([inputs, hidden], 1, 1)))
                .transpose()?,
            depthwise: unit("depthwise", depthwise)?,
            squeeze_excite: squeeze_excite.then(|| SqueezeExcite::new(hidden, builder.device)),
            project: unit("project", ConvSpec::square([hidden, outputs], 1, 1))?,
            residual: stride == 1 && inputs == outputs,
            activation,
        })
    }

    /// `[batch, in, height, width]` to `[batch, out, height / stride, width / stride]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let map = match &self.expand {
            Some(expand) => expand.forward_then(input.clone(), self.activation),
            None => input.clone(),
        };
        let map = self.depthwise.forward_then(map, self.activation);
        let map = match &self.squeeze_excite {
            Some(squeeze_excite) => squeeze_excite.forward(map),
            None => map,
        };
        let residual = self.residual.then_some(input);
        self.project.forward_then(map, Epilogue { residual, activation: None })
    }

    /// [`Self::forward`] in inference, as nodes of an ONNX graph; `name` is the block's path.
    fn trace(&self, name: &str, graph: &mut Graph, input: &Value) -> Value {
        let path = |part: &str| format!("{name}.{part}");
        let activation = Some(self.activation);
        let map = match &self.expand {
            Some(expand) => graph.unit(&path("expand"), expand, input, None, activation),
            None => input.clone(),
        };
        let map = graph.unit(&path("depthwise"), &self.depthwise, &map, None, activation);
        let map = match &self.squeeze_excite {
            Some(squeeze_excite) => squeeze_excite.trace(&path("squeeze_excite"), graph, &map),
            None => map,
        };
        let residual = self.residual.then_some(input);
        graph.unit(&path("project"), &self.project, &map, residual, None)
    }
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

impl SqueezeExcite {
    /// A block over `channels` channels with fresh weights.
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

    /// [`Self::forward`] in inference, as nodes of an ONNX graph; `name` is the block's path.
    fn trace(&self, name: &str, graph: &mut Graph, input: &Value) -> Value {
        let [pool, fc1, fc2] = ["pool", "fc1", "fc2"].map(|part| format!("{name}.{part}"));
        let map = graph.mean(&pool, input);
        let map = graph.conv(&fc1, &self.fc1, &map);
        let map = graph.activation(&fc1, Activation::Relu, &map);
        let map = graph.conv(&fc2, &self.fc2, &map);
        let weights = graph.hard_sigmoid(&fc2, &map);
        graph.multiply(name, input, &weights)
    }
}

/// The blocks one after the other, as nodes of an ONNX graph.
pub(super) fn trace(blocks: &[InvertedResidual], graph: &mut Graph, map: Value) -> Value {
    let blocks = blocks.iter().enumerate();
    blocks.fold(map, |map, (index, block)| block.trace(&format!("blocks.{index}"), graph, &map))
}

/// The last map of each resolution, from that of `map` on.
pub(super) fn forward_features(blocks: &[InvertedResidual], mut map: Tensor<4>) -> Vec<Tensor<4>> {
    let mut maps = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        map = block.forward(map);
        let next = blocks.get(index + 1);
        if next.is_none_or(|next| next.depthwise.spec().stride != [1, 1]) {
            maps.push(map.clone());
        }
    }
    maps
}

/// The units of a network of such blocks between its stem and its last convolution.
pub(super) fn units<'a>(
    image: [usize; 2],
    stem: &'a ConvUnit,
    blocks: &'a [InvertedResidual],
    last: &'a ConvUnit,
) -> Vec<PlacedUnit<'a>> {
    let blocks = blocks.iter().enumerate().flat_map(|(index, block)| {
        [
            block.expand.as_ref().map(|unit| ("expand", unit)),
            Some(("depthwise", &block.depthwise)),
            Some(("project", &block.project)),
        ]
        .into_iter()
        .flatten()
        .map(move |(part, unit)| (format!("blocks.{index}.{part}"), unit))
    });
    let before = std::iter::once(("stem".to_string(), stem));
    PlacedUnit::chain(image, before.chain(blocks).chain([("last".to_string(), last)]))
}

/// Every unit of a network, to be changed.
pub(super) fn units_mut<'a>(
    stem: &'a mut ConvUnit,
    blocks: &'a mut [InvertedResidual],
    last: &'a mut ConvUnit,
) -> impl Iterator<Item = &'a mut ConvUnit> {
    let blocks = blocks.iter_mut().flat_map(|block| {
        block.expand.iter_mut().chain([&mut block.depthwise, &mut block.project])
    });
    std::iter::once(stem).chain(blocks).chain([last])
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
