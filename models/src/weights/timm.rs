//! The names of timm (pytorch-image-models) where they differ from torchvision's:
//! `mobilenetv1_100` and `mobilenetv2_100`. Its ResNets have torchvision's.

use crate::zoo::{Arch, Classifier};

/// Blocks in each stage of MobileNetV1, which begin where the resolution halves.
const V1_STAGES: [usize; 5] = [1, 2, 2, 6, 2];
/// Blocks in each stage of MobileNetV2, the lines of its paper's table 2.
const V2_STAGES: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];

/// Whether timm has names of its own for an architecture.
pub(super) fn knows(arch: Arch) -> bool {
    matches!(arch, Arch::MobileNetV1 | Arch::MobileNetV2)
}

/// The modules of a layer's convolution and batch norm.
pub(super) fn layer(network: &Classifier, layer: &str) -> [String; 2] {
    let Some((block, part)) = layer.rsplit_once('.') else {
        return match layer {
            "stem" => ["conv_stem".into(), "bn1".into()],
            _ => ["conv_head".into(), "bn2".into()],
        };
    };
    let index = super::torchvision::block_index(block);
    let (stages, expanded) = match network {
        Classifier::MobileNetV2(network) => {
            (&V2_STAGES[..], network.blocks[index].expand.is_some())
        }
        _ => (&V1_STAGES[..], false),
    };
    // Modules are numbered in order of computation; an expansion comes first.
    let (conv, norm) = match (part, expanded) {
        ("expand", _) => ("conv_pw", 1),
        ("depthwise", expanded) => ("conv_dw", 1 + usize::from(expanded)),
        (_, true) => ("conv_pwl", 3),
        (_, false) => ("conv_pw", 2),
    };
    let block = in_stage(stages, index);
    [format!("{block}.{conv}"), format!("{block}.bn{norm}")]
}

/// The name of a tensor of the classifier.
pub(super) fn dense_tensor(native: &str) -> String {
    native.replace("linear", "classifier")
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
