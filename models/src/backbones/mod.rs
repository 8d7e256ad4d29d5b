//! The networks: one file per paper.

mod builder;
mod mobilenet_v1;
mod resnet;

pub use builder::NetworkBuilder;
pub(crate) use builder::matches;
pub use mobilenet_v1::{MobileNetV1, SeparableConv};
pub use resnet::{ResNet, ResNetConfig, ResidualBlock, Shortcut};

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

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

impl PlacedUnit<'_> {
    /// Height and width of the unit's output.
    pub fn output_size(&self) -> [usize; 2] {
        self.unit.spec().output_size(self.input_size)
    }
}

/// A unit followed by ReLU.
fn unit_relu(unit: &ConvUnit, input: Tensor<4>) -> Tensor<4> {
    relu(unit.forward(input))
}
