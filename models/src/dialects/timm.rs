//! The names of timm (pytorch-image-models). Its ResNets have torchvision's.

use super::{Dialect, Layers, Models, Names, UnitNames, block_index, torchvision};
use crate::blocks::Activation;

pub(crate) const RESNET: Names = Names {
    dialect: Dialect::Timm,
    models: Some(Models { prefix: None, widths: &[1.0] }),
    ..torchvision::RESNET
};

/// `mobilenetv1_100` and so on, which have ReLU6.
pub(crate) const MOBILENET_V1: Names = Names {
    activation: Some(Activation::Relu6),
    models: Some(Models { prefix: Some("mobilenetv1"), widths: &[1.0, 1.25] }),
    ..mobilenet(|_, layer| modules(&V1, false, layer))
};

/// `mobilenetv2_100` and so on.
pub(crate) const MOBILENET_V2: Names = Names {
    models: Some(Models { prefix: Some("mobilenetv2"), widths: &[0.35, 0.5, 0.75, 1.0, 1.4] }),
    ..mobilenet(|layers, layer| {
        let expanded = layer.rsplit_once('.').is_some_and(|(block, _)| layers.has(block, "expand"));
        modules(&V2, expanded, layer)
    })
};

/// Blocks in each stage of MobileNetV1, which begin where the resolution halves.
const V1: [usize; 5] = [1, 2, 2, 6, 2];
/// Blocks in each stage of MobileNetV2, the lines of its paper's table 2.
const V2: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];

const fn mobilenet(units: fn(&Layers, &str) -> [String; 2]) -> Names {
    Names {
        dialect: Dialect::Timm,
        units: UnitNames::ConvBn { modules: units, bias: false },
        others: |_, native| native.replace("linear", "classifier"),
        activation: None,
        models: None,
    }
}

/// Modules are numbered in order of computation; an expansion comes first.
fn modules(stages: &[usize], expanded: bool, layer: &str) -> [String; 2] {
    let Some((block, part)) = layer.rsplit_once('.') else {
        return match layer {
            "stem" => ["conv_stem".into(), "bn1".into()],
            _ => ["conv_head".into(), "bn2".into()],
        };
    };
    let (conv, norm) = match (part, expanded) {
        ("expand", _) => ("conv_pw", 1),
        ("depthwise", expanded) => ("conv_dw", 1 + usize::from(expanded)),
        (_, true) => ("conv_pwl", 3),
        (_, false) => ("conv_pw", 2),
    };
    let block = in_stage(stages, block_index(block));
    [format!("{block}.{conv}"), format!("{block}.bn{norm}")]
}

/// `blocks.STAGE.INDEX` of the block with a running index.
fn in_stage(stages: &[usize], mut index: usize) -> String {
    let mut stage = 0;
    while stage + 1 < stages.len() && index >= stages[stage] {
        index -= stages[stage];
        stage += 1;
    }
    format!("blocks.{stage}.{index}")
}
