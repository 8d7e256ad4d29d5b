//! The names of torchvision, for networks of plain convolutions with batch norm.

use crate::backbones::{MobileNetV2, MobileNetV3};
use crate::zoo::{Arch, Classifier};

/// Whether torchvision has a network of this architecture.
pub(super) fn knows(arch: Arch) -> bool {
    match arch {
        Arch::ResNet18 | Arch::ResNet34 | Arch::ResNet50 | Arch::ResNet101 | Arch::ResNet152 => {
            true
        }
        Arch::MobileNetV2 | Arch::MobileNetV3Large | Arch::MobileNetV3Small => true,
        Arch::ResNet18Cifar | Arch::MobileNetV1 => false,
        Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet44 | Arch::ResNet56 | Arch::ResNet110 => {
            false
        }
    }
}

/// The modules of a layer's convolution and batch norm.
pub(super) fn layer(network: &Classifier, layer: &str) -> [String; 2] {
    match network {
        Classifier::MobileNetV2(network) => mobilenet_v2_layer(network, layer),
        Classifier::MobileNetV3(network) => mobilenet_v3_layer(network, layer),
        _ => resnet_layer(layer),
    }
}

/// The name of a tensor that belongs to no convolution with batch norm.
pub(super) fn dense_tensor(network: &Classifier, native: &str) -> String {
    match network {
        Classifier::MobileNetV2(_) => native.replace("linear", "classifier.1"),
        Classifier::MobileNetV3(network) => match native.split_once(".squeeze_excite.") {
            Some((block, tensor)) => {
                let index = block_index(block);
                let module = 1 + usize::from(network.blocks[index].expand.is_some());
                format!("features.{}.block.{module}.{tensor}", index + 1)
            }
            None => native.replace("hidden", "classifier.0").replace("linear", "classifier.3"),
        },
        _ => native.replace("linear", "fc"),
    }
}

/// `stage1.0.conv2` is `layer1.0.conv2` and `layer1.0.bn2`, a shortcut `layer2.0.downsample`.
fn resnet_layer(layer: &str) -> [String; 2] {
    if layer == "stem" {
        return ["conv1".into(), "bn1".into()];
    }
    let layer = layer.replace("stage", "layer");
    match layer.strip_suffix(".shortcut") {
        Some(block) => pair(&format!("{block}.downsample")),
        None => [layer.clone(), layer.replace(".conv", ".bn")],
    }
}

/// The stem is `features.0`, block `i` is `features.{i + 1}.conv`, the last layer follows. Within
/// a block every convolution with its norm and ReLU6 is one module, the last, without ReLU6, two.
fn mobilenet_v2_layer(network: &MobileNetV2, layer: &str) -> [String; 2] {
    let Some((block, part)) = layer.rsplit_once('.') else {
        return outer_layer(network.blocks.len(), layer);
    };
    let index = block_index(block);
    let conv = format!("features.{}.conv", index + 1);
    let expanded = usize::from(network.blocks[index].expand.is_some());
    match part {
        "expand" => pair(&format!("{conv}.0")),
        "depthwise" => pair(&format!("{conv}.{expanded}")),
        _ => [1, 2].map(|after| format!("{conv}.{}", expanded + after)),
    }
}

/// As in [`mobilenet_v2_layer`], but a block's modules are `block.0` and so on, its projection is
/// one module like the others, and squeeze-and-excitation stands before it.
fn mobilenet_v3_layer(network: &MobileNetV3, layer: &str) -> [String; 2] {
    let Some((name, part)) = layer.rsplit_once('.') else {
        return outer_layer(network.blocks.len(), layer);
    };
    let index = block_index(name);
    let block = &network.blocks[index];
    let expanded = usize::from(block.expand.is_some());
    let module = match part {
        "expand" => 0,
        "depthwise" => expanded,
        _ => expanded + 1 + usize::from(block.squeeze_excite.is_some()),
    };
    pair(&format!("features.{}.block.{module}", index + 1))
}

/// The layers before and after the blocks of a MobileNet.
fn outer_layer(blocks: usize, layer: &str) -> [String; 2] {
    match layer {
        "stem" => pair("features.0"),
        _ => pair(&format!("features.{}", blocks + 1)),
    }
}

/// A convolution and the batch norm after it, in one sequence.
fn pair(sequence: &str) -> [String; 2] {
    [0, 1].map(|index| format!("{sequence}.{index}"))
}

/// The index in `blocks.3`.
pub(super) fn block_index(block: &str) -> usize {
    // The names come from the network's own units.
    block.rsplit('.').next().and_then(|index| index.parse().ok()).expect("a block has an index")
}
