//! The networks: one file per paper, and two lists that name them all.
//!
//! A new depth of a network is a row in the table of architectures below. A new family is a file
//! with its configuration ([`Backbone`]), its network and its [`Walk`](crate::walk::Walk); a line in
//! the list of families and a row for each network, both below; and a constant in `dialects/` for
//! each code base that has names for it.

mod alexnet;
mod arch;
mod builder;
mod family;
mod hidden_layers;
mod inverted_residual;
mod mobilenet_v1;
mod mobilenet_v2;
mod mobilenet_v3;
mod mobileone;
mod repvgg;
mod resnet;
mod vgg;

pub use alexnet::{AlexNet, AlexNetConfig};
pub use arch::ForeignModel;
pub use builder::NetworkBuilder;
pub use family::Backbone;
pub use inverted_residual::{InvertedResidual, InvertedResidualConfig};
pub use mobilenet_v1::{MobileNetV1, MobileNetV1Config, SeparableConv};
pub use mobilenet_v2::{MobileNetV2, MobileNetV2Config};
pub use mobilenet_v3::{MobileNetV3, MobileNetV3Config};
pub use mobileone::{MobileOne, MobileOneLayer, MobileOneNetConfig};
pub use repvgg::{RepVgg, RepVggConfig};
pub use resnet::{ResNet, ResNetConfig, ResidualBlock, Shortcut};
pub use vgg::{Vgg, VggConfig};

use crate::dialects::{Names, akamaster, official, timm, torchvision};

family::families! {
    /// A residual network.
    ResNet from ResNetConfig;
    /// MobileNet version 1.
    MobileNetV1 from MobileNetV1Config;
    /// MobileNet version 2.
    MobileNetV2 from MobileNetV2Config;
    /// MobileNet version 3, large or small.
    MobileNetV3 from MobileNetV3Config;
    /// RepVGG.
    RepVgg from RepVggConfig;
    /// MobileOne.
    MobileOne from MobileOneNetConfig;
    /// VGG-16.
    Vgg from VggConfig;
    /// AlexNet.
    AlexNet from AlexNetConfig;
}

// Variant = name, network, height and width of the images that its paper trains it with, names in
// other code bases.
arch::architectures! {
    ResNet18 = "resnet18", ResNetConfig::basic([2, 2, 2, 2]), 224, IMAGENET_RESNET;
    ResNet34 = "resnet34", ResNetConfig::basic([3, 4, 6, 3]), 224, IMAGENET_RESNET;
    ResNet50 = "resnet50", ResNetConfig::bottleneck([3, 4, 6, 3]), 224, IMAGENET_RESNET;
    ResNet101 = "resnet101", ResNetConfig::bottleneck([3, 4, 23, 3]), 224, IMAGENET_RESNET;
    ResNet152 = "resnet152", ResNetConfig::bottleneck([3, 8, 36, 3]), 224, IMAGENET_RESNET;
    /// ResNet-18 with a 3x3 stem and no max pool.
    ResNet18Cifar =
        "resnet18-cifar", ResNetConfig::basic([2, 2, 2, 2]).with_small_stem(), 32, [official::RESNET];
    ResNet20 = "resnet20", ResNetConfig::cifar(3), 32, [akamaster::RESNET];
    ResNet32 = "resnet32", ResNetConfig::cifar(5), 32, [akamaster::RESNET];
    ResNet44 = "resnet44", ResNetConfig::cifar(7), 32, [akamaster::RESNET];
    ResNet56 = "resnet56", ResNetConfig::cifar(9), 32, [akamaster::RESNET];
    ResNet110 = "resnet110", ResNetConfig::cifar(18), 32, [akamaster::RESNET];
    MobileNetV1 =
        "mobilenet_v1", MobileNetV1Config, 224, [official::MOBILENET_V1, timm::MOBILENET_V1];
    MobileNetV2 =
        "mobilenet_v2", MobileNetV2Config, 224, [torchvision::MOBILENET_V2, timm::MOBILENET_V2];
    MobileNetV3Large =
        "mobilenet_v3_large", MobileNetV3Config::Large, 224, [torchvision::MOBILENET_V3];
    MobileNetV3Small =
        "mobilenet_v3_small", MobileNetV3Config::Small, 224, [torchvision::MOBILENET_V3];
    RepVggA0 = "repvgg_a0", RepVggConfig::a(0.75, 2.5), 224, REPVGG;
    RepVggA1 = "repvgg_a1", RepVggConfig::a(1.0, 2.5), 224, REPVGG;
    RepVggA2 = "repvgg_a2", RepVggConfig::a(1.5, 2.75), 224, REPVGG;
    RepVggB0 = "repvgg_b0", RepVggConfig::b(1.0, 2.5), 224, REPVGG;
    RepVggB1 = "repvgg_b1", RepVggConfig::b(2.0, 4.0), 224, REPVGG;
    MobileOneS0 = "mobileone_s0", MobileOneNetConfig::s0(), 224, MOBILEONE;
    MobileOneS1 =
        "mobileone_s1", MobileOneNetConfig::of_widths([1.5, 1.5, 2.0, 2.5]), 224,
        MOBILEONE;
    MobileOneS2 =
        "mobileone_s2", MobileOneNetConfig::of_widths([1.5, 2.0, 2.5, 4.0]), 224,
        MOBILEONE;
    MobileOneS3 =
        "mobileone_s3", MobileOneNetConfig::of_widths([2.0, 2.5, 3.0, 4.0]), 224,
        MOBILEONE;
    MobileOneS4 = "mobileone_s4", MobileOneNetConfig::s4(), 224, MOBILEONE;
    Vgg16 = "vgg16", VggConfig::ImageNet, 224, [torchvision::VGG16];
    /// VGG-16 with the classifier for images of 32x32.
    Vgg16Cifar = "vgg16-cifar", VggConfig::Cifar, 32, [];
    AlexNet = "alexnet", AlexNetConfig, 224, [official::ALEXNET];
}

const REPVGG: [Names; 2] = [official::REPVGG, timm::REPVGG];
const MOBILEONE: [Names; 2] = [official::MOBILEONE, timm::MOBILEONE];
const IMAGENET_RESNET: [Names; 3] = [official::RESNET, torchvision::RESNET, timm::RESNET];
