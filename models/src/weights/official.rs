//! The names of the paper's repository.

use crate::blocks::{BlockKind, Contents, ConvUnit};
use crate::zoo::Arch;

/// The official name of a layer, or `None` where the paper's repository has no such network.
pub(super) fn layer(arch: Arch, layer: &str) -> Option<String> {
    match arch {
        Arch::ResNet18
        | Arch::ResNet34
        | Arch::ResNet50
        | Arch::ResNet101
        | Arch::ResNet152
        | Arch::ResNet18Cifar => {
            Some(if layer == "stem" { "stage0.conv1".into() } else { layer.into() })
        }
        Arch::MobileNetV1 => Some(match layer.strip_prefix("blocks.") {
            Some(block) => format!("stem.{block}"),
            None => layer.replace("stem", "conv1"),
        }),
        Arch::ResNet20
        | Arch::ResNet32
        | Arch::ResNet44
        | Arch::ResNet56
        | Arch::ResNet110
        | Arch::MobileNetV2
        | Arch::MobileNetV3Large
        | Arch::MobileNetV3Small => None,
    }
}

/// The official name of a tensor within a unit, such as `dbb_origin.conv.weight`. `kind` is the
/// block the unit is, or was before it was folded.
pub(super) fn tensor(unit: &ConvUnit, kind: BlockKind, path: &str) -> String {
    let names = match unit.contents() {
        Contents::Block(block) => block.official_names(),
        Contents::Folded(_) => return format!("{}.{path}", kind.folded_module()),
    };
    let renamed = names
        .into_iter()
        .find_map(|(native, official)| Some(format!("{official}{}", path.strip_prefix(native)?)))
        .unwrap_or_else(|| path.to_string());
    pytorch_norm(&renamed)
}

/// PyTorch calls the scale and shift of a batch norm `weight` and `bias`.
pub(super) fn pytorch_norm(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((module, "gamma")) => format!("{module}.weight"),
        Some((module, "beta")) => format!("{module}.bias"),
        _ => path.to_string(),
    }
}
