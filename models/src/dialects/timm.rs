//! The names of timm (pytorch-image-models). Its ResNets have torchvision's.

use super::{Dialect, Layers, Models, Names, UnitNames, block_index, official, torchvision};
use crate::blocks::{Activation, BlockKind, MobileOneBlock, OfficialBlock, Port, RepVggBlock};

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

/// `repvgg_a0` and so on.
pub(crate) const REPVGG: Names = one_block(
    BlockKind::RepVgg,
    // Evaluated by the compiler: a block without timm's names would not compile here.
    RepVggBlock::TIMM.expect("timm has the block"),
    |layer| in_stages(layer.into()),
    |_, native| native.replace("linear", "head.fc"),
);

/// `mobileone_s0` and so on, whose layers are numbered as in the paper's code.
pub(crate) const MOBILEONE: Names = one_block(
    BlockKind::MobileOne,
    MobileOneBlock::TIMM.expect("timm has the block"),
    |layer| in_stages(official::mobileone(layer)),
    |_, native| match native.split_once("_squeeze_excite.") {
        Some((layer, tensor)) => {
            format!("{}.attn.{tensor}", in_stages(official::mobileone(layer)))
        }
        None => native.replace("linear", "head.fc"),
    },
);

const fn one_block(
    kind: BlockKind,
    port: Port,
    module: fn(&str) -> String,
    others: fn(&Layers, &str) -> String,
) -> Names {
    Names {
        dialect: Dialect::Timm,
        units: UnitNames::OneBlock { module, kind, port },
        others,
        activation: None,
        models: Some(Models { prefix: None, widths: &[1.0] }),
    }
}

/// `stage1.0` is `stages.0.0`, and a stem that is a stage of its own has its own name.
fn in_stages(layer: String) -> String {
    let stage = layer.strip_prefix("stage").and_then(|rest| {
        let (stage, index) = rest.split_once('.')?;
        Some(format!("stages.{}.{index}", stage.parse::<usize>().ok()?.checked_sub(1)?))
    });
    stage.unwrap_or_else(|| "stem".into())
}

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
