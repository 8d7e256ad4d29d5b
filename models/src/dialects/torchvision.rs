//! The names of torchvision, for networks of plain convolutions with batch norm.

use super::{Dialect, Layers, Names, UnitNames, block_index};

pub(crate) const RESNET: Names = names(resnet, |_, native| native.replace("linear", "fc"));

pub(crate) const MOBILENET_V2: Names =
    names(mobilenet_v2, |_, native| native.replace("linear", "classifier.1"));

pub(crate) const MOBILENET_V3: Names =
    names(mobilenet_v3, |layers, native| match native.split_once(".squeeze_excite.") {
        Some((block, tensor)) => {
            let module = 1 + usize::from(layers.has(block, "expand"));
            format!("features.{}.block.{module}.{tensor}", block_index(block) + 1)
        }
        None => native.replace("hidden", "classifier.0").replace("linear", "classifier.3"),
    });

/// `vgg16_bn`.
pub(crate) const VGG16: Names = Names {
    units: UnitNames::ConvBn { modules: vgg16, bias: true },
    ..names(vgg16, |_, native| {
        native
            .replace("hidden.0", "classifier.0")
            .replace("hidden.1", "classifier.3")
            .replace("linear", "classifier.6")
    })
};

const fn names(
    units: fn(&Layers, &str) -> [String; 2],
    others: fn(&Layers, &str) -> String,
) -> Names {
    Names {
        dialect: Dialect::Torchvision,
        units: UnitNames::ConvBn { modules: units, bias: false },
        others,
        activation: None,
        models: None,
    }
}

/// Modules are numbered consecutively: three for a convolution with norm and ReLU, one for the max pool after
/// a stage.
fn vgg16(_: &Layers, layer: &str) -> [String; 2] {
    /// The first module of each stage.
    const STAGES: [usize; 5] = [0, 7, 14, 24, 34];
    let index = |part: Option<&str>| part.and_then(|part| part.parse::<usize>().ok());
    let (stage, position) = layer.split_once('.').unwrap_or((layer, ""));
    // The names come from the network's own layers.
    let stage = index(stage.strip_prefix("stage")).expect("a stage has a number");
    let position = index(Some(position)).expect("a layer has an index");
    let conv = STAGES[stage - 1] + 3 * position;
    [conv, conv + 1].map(|module| format!("features.{module}"))
}

/// `stage1.0.conv2` is `layer1.0.conv2` and `layer1.0.bn2`, a shortcut `layer2.0.downsample`.
fn resnet(_: &Layers, layer: &str) -> [String; 2] {
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
fn mobilenet_v2(layers: &Layers, layer: &str) -> [String; 2] {
    let Some((block, part)) = layer.rsplit_once('.') else {
        return outer_layer(layers, layer);
    };
    let conv = format!("features.{}.conv", block_index(block) + 1);
    let expanded = usize::from(layers.has(block, "expand"));
    match part {
        "expand" => pair(&format!("{conv}.0")),
        "depthwise" => pair(&format!("{conv}.{expanded}")),
        _ => [1, 2].map(|after| format!("{conv}.{}", expanded + after)),
    }
}

/// As in [`mobilenet_v2`], but a block's modules are `block.0` and so on, its projection is one
/// module like the others, and squeeze-and-excitation stands before it.
fn mobilenet_v3(layers: &Layers, layer: &str) -> [String; 2] {
    let Some((block, part)) = layer.rsplit_once('.') else {
        return outer_layer(layers, layer);
    };
    let expanded = usize::from(layers.has(block, "expand"));
    let module = match part {
        "expand" => 0,
        "depthwise" => expanded,
        _ => expanded + 1 + usize::from(layers.has(block, "squeeze_excite")),
    };
    pair(&format!("features.{}.block.{module}", block_index(block) + 1))
}

/// The layers before and after the blocks of a MobileNet.
fn outer_layer(layers: &Layers, layer: &str) -> [String; 2] {
    match layer {
        "stem" => pair("features.0"),
        _ => pair(&format!("features.{}", layers.blocks() + 1)),
    }
}

/// A convolution and the batch norm after it, in one sequence.
fn pair(sequence: &str) -> [String; 2] {
    [0, 1].map(|index| format!("{sequence}.{index}"))
}
