//! MobileOne: An Improved One millisecond Mobile Backbone (Vasu et al., CVPR 2023,
//! <https://arxiv.org/abs/2206.04040>).

use std::fmt::Display;

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{Linear, LinearConfig};

use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit, Epilogue, Gate, SqueezeExcite};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// The squeezed channels of a squeeze-and-excitation, as a share of its input's.
const SQUEEZED: f64 = 1.0 / 16.0;

/// What the networks of the paper differ in.
#[derive(Clone, Debug, PartialEq)]
pub struct MobileOneNetConfig {
    /// Separable convolutions in each of the four stages.
    pub depths: [usize; 4],
    /// Multiplies the 64, 128, 256 and 512 channels of the stages. The stem has the channels of
    /// the first stage, but at most 64.
    pub widths: [f64; 4],
    /// Copies of the convolution in every MobileOne block but the stem, which has one.
    pub copies: usize,
    /// Separable convolutions with squeeze-and-excitation at the end of each stage.
    pub squeeze_excite: [usize; 4],
}

impl MobileOneNetConfig {
    /// The smallest network, the only one with several copies.
    pub fn s0() -> Self {
        Self { copies: 4, ..Self::of_widths([0.75, 1.0, 1.0, 2.0]) }
    }

    /// A network of the paper's depths and one copy, without squeeze-and-excitation.
    pub fn of_widths(widths: [f64; 4]) -> Self {
        Self { depths: [2, 8, 10, 1], widths, copies: 1, squeeze_excite: [0; 4] }
    }

    /// The largest network, the only one with squeeze-and-excitation.
    pub fn s4() -> Self {
        Self { squeeze_excite: [0, 0, 5, 1], ..Self::of_widths([3.0, 3.5, 3.5, 4.0]) }
    }
}

/// A MobileOne with a linear classifier.
#[derive(Module, Debug, Reparameterize)]
pub struct MobileOne {
    /// The first, dense convolution, half the resolution of the image.
    pub stem: ConvUnit,
    /// First stage; every stage halves the resolution in its first layer.
    pub stage1: Vec<MobileOneLayer>,
    /// Second stage.
    pub stage2: Vec<MobileOneLayer>,
    /// Third stage.
    pub stage3: Vec<MobileOneLayer>,
    /// Fourth stage.
    pub stage4: Vec<MobileOneLayer>,
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// The classifier.
    pub linear: Linear,
}

/// A depthwise 3x3 convolution followed by a 1x1, both with ReLU, which the squeeze-and-excitation
/// precedes.
#[derive(Module, Debug, Reparameterize)]
pub struct MobileOneLayer {
    /// 3x3, depthwise, with the stride.
    pub depthwise: ConvUnit,
    /// Weights the channels after the 3x3.
    pub depthwise_squeeze_excite: Option<SqueezeExcite>,
    /// 1x1.
    pub pointwise: ConvUnit,
    /// Weights the channels after the 1x1.
    pub pointwise_squeeze_excite: Option<SqueezeExcite>,
}

impl Backbone for MobileOneNetConfig {
    type Network = MobileOne;

    const POINTWISE_BLOCKS: bool = true;

    fn build(&self, builder: &NetworkBuilder) -> Result<MobileOne, ConfigError> {
        let scaled = |channels: f64| (channels * builder.width) as usize;
        let mut channels = scaled((64.0 * self.widths[0]).min(64.0));
        let stem = ConvSpec::square([builder.in_channels, channels], 3, 2);
        let stem = builder.unit_of_copies("stem", &stem, 1)?;
        let mut stage = |index: usize| {
            let outputs = scaled((64 << index) as f64 * self.widths[index]);
            let layers = (0..self.depths[index]).map(|layer| {
                let name = format!("stage{}.{layer}", index + 1);
                let stride = if layer == 0 { 2 } else { 1 };
                let squeezes = layer + self.squeeze_excite[index] >= self.depths[index];
                let inputs = std::mem::replace(&mut channels, outputs);
                self.layer(&name, [inputs, outputs], stride, squeezes, builder)
            });
            layers.collect::<Result<Vec<_>, _>>()
        };
        Ok(MobileOne {
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

impl MobileOneNetConfig {
    fn layer(
        &self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        stride: usize,
        squeezes: bool,
        builder: &NetworkBuilder,
    ) -> Result<MobileOneLayer, ConfigError> {
        let unit = |part: &str, spec: ConvSpec| {
            builder.unit_of_copies(&format!("{name}.{part}"), &spec, self.copies)
        };
        let squeeze_excite = |channels: usize| {
            squeezes.then(|| {
                let squeezed = ((channels as f64 * SQUEEZED) as usize).max(1);
                SqueezeExcite::new(channels, squeezed, builder.device).with_gate(Gate::Sigmoid)
            })
        };
        let depthwise = ConvSpec::square([inputs; 2], 3, stride).with_groups(inputs);
        Ok(MobileOneLayer {
            depthwise: unit("depthwise", depthwise)?,
            depthwise_squeeze_excite: squeeze_excite(inputs),
            pointwise: unit("pointwise", ConvSpec::square([inputs, outputs], 1, 1))?,
            pointwise_squeeze_excite: squeeze_excite(outputs),
        })
    }
}

impl MobileOneLayer {
    /// `[batch, in, height, width]` to `[batch, out, height / stride, width / stride]`.
    fn walk<'n, I: Interpreter<'n>>(
        &'n self,
        walk: &mut I,
        name: &dyn Display,
        input: I::Map,
    ) -> I::Map {
        let depthwise = format_args!("{name}.depthwise");
        let pointwise = format_args!("{name}.pointwise");
        let squeeze_excites = [&self.depthwise_squeeze_excite, &self.pointwise_squeeze_excite];
        if let [None, None] = squeeze_excites {
            let units = [&self.depthwise, &self.pointwise];
            let relu = Activation::Relu;
            return walk.separable([&depthwise, &pointwise], units, input, relu, relu.into());
        }
        let [first, second] = squeeze_excites.map(Option::as_ref);
        let map = excited_unit(walk, &depthwise, &self.depthwise, first, input);
        excited_unit(walk, &pointwise, &self.pointwise, second, map)
    }
}

/// A unit, the squeeze-and-excitation, and ReLU.
fn excited_unit<'n, I: Interpreter<'n>>(
    walk: &mut I,
    name: &dyn Display,
    unit: &'n ConvUnit,
    squeeze_excite: Option<&'n SqueezeExcite>,
    input: I::Map,
) -> I::Map {
    let Some(layer) = squeeze_excite else {
        return walk.unit(name, unit, input, Activation::Relu.into());
    };
    let map = walk.unit(name, unit, input, Epilogue::default());
    let name = format_args!("{name}_squeeze_excite");
    let map = walk.squeeze_excite(&name, layer, map);
    walk.activation(&name, Activation::Relu, map)
}

impl Walk for MobileOne {
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let mut map = walk.unit(&"stem", &self.stem, images, Activation::Relu.into());
        let stages = [&self.stage1, &self.stage2, &self.stage3, &self.stage4];
        for (index, stage) in stages.into_iter().enumerate() {
            for (layer, block) in stage.iter().enumerate() {
                map = block.walk(walk, &format_args!("stage{}.{layer}", index + 1), map);
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
