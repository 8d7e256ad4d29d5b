//! The networks: one file per paper.

mod builder;
mod inverted_residual;
mod mobilenet_v1;
mod mobilenet_v2;
mod mobilenet_v3;
mod resnet;

pub use builder::NetworkBuilder;
pub(crate) use builder::matches;
pub use inverted_residual::{InvertedResidual, InvertedResidualConfig};
pub use mobilenet_v1::{MobileNetV1, SeparableConv};
pub use mobilenet_v2::MobileNetV2;
pub(crate) use mobilenet_v3::NORM as MOBILENET_V3_NORM;
pub use mobilenet_v3::{MobileNetV3, Size};
pub use resnet::{ResNet, ResNetConfig, ResidualBlock, Shortcut};
