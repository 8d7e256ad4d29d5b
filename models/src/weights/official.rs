//! The names of the paper's repository.

use crate::blocks::{BlockKind, ConvUnit};
use crate::zoo::Arch;

/// Native and official beginnings of a tensor's path within a block; the first match counts.
const BLOCKS: [(BlockKind, &[(&str, &str)]); 3] = [
    (BlockKind::Base, &[]),
    (
        BlockKind::Dbb,
        &[
            ("origin.", "dbb_origin."),
            ("pointwise.", "dbb_1x1."),
            ("pointwise_kxk.", "dbb_1x1_kxk."),
            ("average.avg_bn.", "dbb_avg.avgbn."),
            ("average.", "dbb_avg."),
        ],
    ),
    (
        BlockKind::Acb,
        &[
            ("square.conv.", "square_conv."),
            ("square.bn.", "square_bn."),
            ("vertical.conv.", "ver_conv."),
            ("vertical.bn.", "ver_bn."),
            ("horizontal.conv.", "hor_conv."),
            ("horizontal.bn.", "hor_bn."),
        ],
    ),
];

/// The module that holds the folded convolution of a block in the paper's code.
pub(super) fn fused_module(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Base => "conv",
        BlockKind::Dbb => "dbb_reparam",
        BlockKind::Acb => "fused_conv",
    }
}

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

/// The official name of a tensor within a unit, such as `dbb_origin.conv.weight`.
pub(super) fn tensor(unit: &ConvUnit, kind: BlockKind, path: &str) -> String {
    if matches!(unit, ConvUnit::Fused(_)) {
        return format!("{}.{path}", fused_module(kind));
    }
    let table = BLOCKS.iter().find(|(block, _)| *block == kind).map_or(&[][..], |t| t.1);
    let renamed = table
        .iter()
        .find_map(|(native, official)| Some(format!("{official}{}", path.strip_prefix(native)?)))
        .unwrap_or_else(|| path.to_string());
    let identity_based = match unit {
        ConvUnit::Dbb(block) => {
            block.pointwise_kxk.as_ref().is_some_and(|branch| branch.conv1.is_identity_based())
        }
        _ => false,
    };
    let renamed = match renamed.strip_prefix("dbb_1x1_kxk.conv1.") {
        Some(rest) if identity_based => format!("dbb_1x1_kxk.idconv1.{rest}"),
        _ => renamed,
    };
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
