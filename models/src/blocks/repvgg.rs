//! The block of RepVGG (Ding et al., CVPR 2021, <https://arxiv.org/abs/2101.03697>, section 3.2).

use burn::module::Module;
use burn::tensor::Device;

use super::block::{
    BlockTensors, ConvBlock, Description, HasTensor, OfficialBlock, PlainConv, Port, close,
};
use super::conv_bn::ConvBn;
use super::unit::Block;
use crate::error::ConfigError;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_sum::{BranchMap, BranchSum, SumBranch};
use crate::layers::conv_spec::ConvSpec;
use crate::state_dict::StateDict;

/// A KxK convolution, a 1x1 convolution and, where the block keeps the shape of its input, the
/// identity, each with batch norm, whose outputs are added.
#[derive(Module, Debug)]
pub struct RepVggBlock {
    /// KxK convolution and BN.
    pub origin: ConvBn,
    /// 1x1 convolution and BN.
    pub pointwise: ConvBn,
    /// BN of the input.
    pub identity: Option<BatchNorm>,
    #[module(skip)]
    spec: ConvSpec,
}

impl RepVggBlock {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// An even or oblong kernel, or a padding other than half of it.
    pub fn new(spec: &ConvSpec, device: &Device) -> Result<Self, ConfigError> {
        spec.check_centred("a RepVGG block")?;
        Ok(Self {
            origin: ConvBn::new(spec, device)?,
            pointwise: ConvBn::new(&spec.pointwise(), device)?,
            identity: spec.keeps_shape().then(|| BatchNorm::new(spec.channels[1], device)),
            spec: spec.clone(),
        })
    }
}

impl ConvBlock for RepVggBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn sum(&self) -> BranchSum<'_> {
        let mut branches = vec![self.origin.branch(), self.pointwise.branch()];
        branches.extend(self.identity.as_ref().map(SumBranch::identity));
        BranchSum::new(self.spec(), branches)
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        let mut norms = vec![&mut self.origin.bn, &mut self.pointwise.bn];
        norms.extend(&mut self.identity);
        norms
    }

    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError> {
        close(&["pointwise.bn.", "identity."], own);
        plain.put("origin.conv.weight", "origin.bn.", own);
        Ok(())
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        vec![("origin.", "rbr_dense."), ("pointwise.", "rbr_1x1."), ("identity.", "rbr_identity.")]
    }
}

impl OfficialBlock for RepVggBlock {
    const MARKS: &'static [&'static str] = &["rbr_dense", "rbr_1x1", "rbr_identity"];
    const TIMM: Option<Port> = Some(Port {
        convs: &["conv_kxk.conv", "conv_1x1.conv"],
        modules: &[
            ("conv_kxk", "rbr_dense"),
            ("conv_1x1", "rbr_1x1"),
            ("identity", "rbr_identity"),
        ],
        folded: "reparam_conv",
    });

    fn recognises(has: HasTensor<'_>) -> bool {
        // The 1x1 convolution of a QARepVGG block is bare.
        Self::MARKS.iter().any(|mark| has(mark)) && !has("rbr_1x1.weight")
    }

    /// RepConv of YOLOv7 holds convolution and norm in a sequence.
    fn canonical(key: &str) -> Option<String> {
        Some(key.replacen(".0.", ".conv.", 1).replacen(".1.", ".bn.", 1))
    }

    fn describe(block: &BlockTensors<'_>) -> Result<Description, String> {
        let kernel = block.kernel("rbr_dense.conv.weight")?;
        let identity = block.has("rbr_identity");
        Ok(Description {
            block: Block::RepVgg,
            kernel,
            groups: identity.then(|| BlockTensors::groups_of_equal_channels(kernel)).flatten(),
            identity: Some(identity),
            dtype: block.dtype("rbr_dense.conv.weight"),
        })
    }

    fn folded_module(_: [usize; 2]) -> &'static str {
        "rbr_reparam"
    }
}

impl<'a> SumBranch<'a> {
    /// The input with a norm of its own.
    pub(super) fn identity(norm: &'a BatchNorm) -> Self {
        Self { map: BranchMap::Identity, norm: Some(norm) }
    }
}
