//! The networks: one file per paper.

mod builder;
mod inverted_residual;
mod mobilenet_v1;
mod mobilenet_v2;
mod mobilenet_v3;
mod resnet;

pub use builder::NetworkBuilder;
pub(crate) use builder::matches;
pub use inverted_residual::{InvertedResidual, InvertedResidualConfig, SqueezeExcite};
pub use mobilenet_v1::{MobileNetV1, SeparableConv};
pub use mobilenet_v2::MobileNetV2;
pub(crate) use mobilenet_v3::NORM as MOBILENET_V3_NORM;
pub use mobilenet_v3::{MobileNetV3, Size};
pub use resnet::{ResNet, ResNetConfig, ResidualBlock, Shortcut};

use burn::nn::Linear;

use crate::blocks::ConvUnit;

/// A unit of a network with its place in it.
#[derive(Debug)]
pub struct PlacedUnit<'a> {
    /// Path of the unit in the network, such as `stage1.0.conv2`.
    pub name: String,
    /// The unit.
    pub unit: &'a ConvUnit,
    /// Height and width of the unit's input.
    pub input_size: [usize; 2],
}

impl<'a> PlacedUnit<'a> {
    /// Units that read each other's outputs one after the other, for an image of the given size.
    fn chain(image: [usize; 2], units: impl Iterator<Item = (String, &'a ConvUnit)>) -> Vec<Self> {
        let mut size = image;
        units
            .map(|(name, unit)| {
                let placed = Self { name, unit, input_size: size };
                size = placed.output_size();
                placed
            })
            .collect()
    }

    /// Height and width of the unit's output.
    pub fn output_size(&self) -> [usize; 2] {
        self.unit.spec().output_size(self.input_size)
    }
}

/// A layer that sees one value per channel: of a classifier, or of squeeze-and-excitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenseLayer {
    /// Path of the layer in the network.
    pub name: String,
    /// Inputs and outputs; it has a bias.
    pub channels: [usize; 2],
}

impl DenseLayer {
    /// A linear layer of a network.
    fn of(name: &str, linear: &Linear) -> Self {
        Self { name: name.to_string(), channels: linear.weight.lazy_shape().dims() }
    }
}
