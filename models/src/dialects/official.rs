//! The names of the papers' own repositories: that of the Diverse Branch Block, unless an
//! architecture has its own.

use super::{Dialect, Names, UnitNames, block_index, pytorch_norm};
use crate::blocks::{BlockKind, Contents, ConvUnit};

/// ResNets of four stages.
pub(crate) const RESNET: Names = names(|layer| match layer {
    "stem" => "stage0.conv1".into(),
    _ => layer.into(),
});

pub(crate) const MOBILENET_V1: Names = names(|layer| match layer.strip_prefix("blocks.") {
    Some(block) => format!("stem.{block}"),
    None => layer.replace("stem", "conv1"),
});

/// The repository of the RepVGG paper, whose stem is a stage.
pub(crate) const REPVGG: Names = names(|layer| layer.replace("stem", "stage0"));

/// Apple's repository, which numbers both convolutions of a layer.
pub(crate) const MOBILEONE: Names = Names {
    others: |_, native| match native.split_once("_squeeze_excite.") {
        Some((layer, tensor)) => {
            let tensor = tensor.replace("fc1", "reduce").replace("fc2", "expand");
            format!("{}.se.{tensor}", mobileone(layer))
        }
        None => native.into(),
    },
    ..names(mobileone)
};

pub(super) fn mobileone(layer: &str) -> String {
    let Some((block, part)) = layer.rsplit_once('.') else {
        return layer.replace("stem", "stage0");
    };
    let stage = block.split('.').next().unwrap_or(block);
    format!("{stage}.{}", 2 * block_index(block) + usize::from(part == "pointwise"))
}

pub(crate) const ALEXNET: Names = Names {
    others: |_, native| {
        native
            .replace("hidden.0", "linear1")
            .replace("hidden.1", "linear2")
            .replace("linear.", "linear3.")
    },
    ..names(|layer| format!("stem.{layer}"))
};

const fn names(layer: fn(&str) -> String) -> Names {
    Names {
        dialect: Dialect::Official,
        units: UnitNames::Blocks(layer),
        others: |_, native| native.into(),
        activation: None,
        models: None,
    }
}

/// The name of a tensor within a unit, such as `dbb_origin.conv.weight`. `kind` is the block the
/// unit is, or was before it was folded.
pub(crate) fn tensor(unit: &ConvUnit, kind: BlockKind, path: &str) -> String {
    let names = match unit.contents() {
        Contents::Block(block) => block.official_names(),
        Contents::Folded(conv) => {
            return format!("{}.{path}", (kind.official().folded_module)(conv.kernel_size));
        }
    };
    let renamed = names
        .into_iter()
        .find_map(|(native, official)| Some(format!("{official}{}", path.strip_prefix(native)?)))
        .unwrap_or_else(|| path.to_string());
    pytorch_norm(&renamed)
}
