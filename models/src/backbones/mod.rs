//! The networks: one file per paper.

mod activation;
mod builder;
mod mobilenet_v1;
mod mobilenet_v2;
mod resnet;

pub use activation::Activation;
pub use builder::NetworkBuilder;
pub(crate) use builder::matches;
pub use mobilenet_v1::{MobileNetV1, SeparableConv};
pub use mobilenet_v2::{InvertedResidual, MobileNetV2};
pub use resnet::{ResNet, ResNetConfig, ResidualBlock, Shortcut};

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
