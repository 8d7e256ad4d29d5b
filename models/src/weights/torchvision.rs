//! The names of torchvision, for networks of plain convolutions with batch norm.

use crate::blocks::ConvUnit;
use crate::zoo::{Arch, Classifier};

/// The modules of a layer's convolution and batch norm, or `None` where torchvision has no such
/// network.
pub(super) fn layer(arch: Arch, layer: &str) -> Option<[String; 2]> {
    match arch {
        Arch::ResNet18 | Arch::ResNet34 | Arch::ResNet50 | Arch::ResNet101 | Arch::ResNet152 => {
            Some(resnet_layer(layer))
        }
        Arch::MobileNetV2 => Some(mobilenet_v2_layer(layer)),
        _ => None,
    }
}

/// The module of the classifier.
pub(super) fn head(arch: Arch) -> &'static str {
    match arch {
        Arch::MobileNetV2 => "classifier.1",
        _ => "fc",
    }
}

/// `stage1.0.conv2` is `layer1.0.conv2` and `layer1.0.bn2`, a shortcut `layer2.0.downsample`.
fn resnet_layer(layer: &str) -> [String; 2] {
    if layer == "stem" {
        return ["conv1".into(), "bn1".into()];
    }
    let layer = layer.replace("stage", "layer");
    match layer.strip_suffix(".shortcut") {
        Some(block) => [0, 1].map(|index| format!("{block}.downsample.{index}")),
        None => [layer.clone(), layer.replace(".conv", ".bn")],
    }
}

/// The stem is `features.0`, block `i` is `features.{i + 1}.conv`, the last layer
/// `features.18`. Within a block every convolution with its norm and ReLU6 is one module, the
/// last, without ReLU6, two; the first block has no expansion.
fn mobilenet_v2_layer(layer: &str) -> [String; 2] {
    let pair = |module: &str| [0, 1].map(|index| format!("{module}.{index}"));
    let mut parts = layer.split('.');
    match (parts.next(), parts.next().and_then(|index| index.parse().ok()), parts.next()) {
        (Some("blocks"), Some(index), Some(part)) => {
            let index: usize = index;
            let conv = format!("features.{}.conv", index + 1);
            let expanded = usize::from(index > 0);
            match part {
                "expand" => pair(&format!("{conv}.0")),
                "depthwise" => pair(&format!("{conv}.{expanded}")),
                _ => [1, 2].map(|after| format!("{conv}.{}", expanded + after)),
            }
        }
        (Some("stem"), ..) => pair("features.0"),
        _ => pair("features.18"),
    }
}

/// Whether every unit is a plain convolution with batch norm; nothing else has a name here.
pub(super) fn holds(network: &Classifier) -> bool {
    network.units([32, 32]).iter().all(|placed| matches!(placed.unit, ConvUnit::Base(_)))
}
