//! The block of MobileNetV2 (Sandler et al., CVPR 2018), with the squeeze-and-excitation of
//! MobileNetV3 (Howard et al., ICCV 2019) where it is asked for.

use std::fmt::Display;

use burn::module::Module;

use super::NetworkBuilder;
use crate::blocks::{Activation, ConvSpec, ConvUnit, Epilogue, SqueezeExcite};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::Interpreter;

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
            squeeze_excite: squeeze_excite.then(|| {
                let squeezed = multiple_of_8((hidden / 4) as f64);
                SqueezeExcite::new(hidden, squeezed, builder.device)
            }),
            project: unit("project", ConvSpec::square([hidden, outputs], 1, 1))?,
            residual: stride == 1 && inputs == outputs,
            activation,
        })
    }

    /// `[batch, in, height, width]` to `[batch, out, height / stride, width / stride]`.
    fn walk<'n, I: Interpreter<'n>>(
        &'n self,
        walk: &mut I,
        name: &dyn Display,
        input: I::Map,
    ) -> I::Map {
        let activation = self.activation;
        let mut map = input.clone();
        if let Some(expand) = &self.expand {
            map = walk.unit(&format_args!("{name}.expand"), expand, map, activation.into());
        }
        let depthwise = format_args!("{name}.depthwise");
        let project = format_args!("{name}.project");
        let residual = self.residual.then_some(input);
        let epilogue = Epilogue { residual, activation: None };
        let Some(layer) = &self.squeeze_excite else {
            let units = [&self.depthwise, &self.project];
            return walk.separable([&depthwise, &project], units, map, activation, epilogue);
        };
        map = walk.unit(&depthwise, &self.depthwise, map, activation.into());
        map = walk.squeeze_excite(&format_args!("{name}.squeeze_excite"), layer, map);
        walk.unit(&project, &self.project, map, epilogue)
    }
}

/// The blocks one after the other; a stage ends where the resolution halves.
pub(super) fn walk<'n, I: Interpreter<'n>>(
    blocks: &'n [InvertedResidual],
    walk: &mut I,
    mut map: I::Map,
) -> I::Map {
    let mut stage = 0;
    for (index, block) in blocks.iter().enumerate() {
        map = block.walk(walk, &format_args!("blocks.{index}"), map);
        let next = blocks.get(index + 1);
        if next.is_none_or(|next| next.depthwise.spec().stride != [1, 1]) {
            walk.stage(stage, &map);
            stage += 1;
        }
    }
    map
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
