//! The block of MobileOne (Vasu et al., CVPR 2023, <https://arxiv.org/abs/2206.04040>,
//! section 3.3).

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::block::{BlockTensors, ConvBlock, Description, OfficialBlock, PlainConv, Port, close};
use super::conv_bn::ConvBn;
use super::unit::Block;
use crate::by_layer::ByLayer;
use crate::error::ConfigError;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_sum::{BranchSum, SumBranch};
use crate::layers::conv_spec::ConvSpec;
use crate::state_dict::StateDict;

/// Most copies of a convolution in one block.
const MOST_COPIES: usize = 16;
/// Copies where nothing is said, as in most layers of the paper's smallest network.
const DEFAULT_COPIES: usize = 4;

/// What a MobileOne block is made of.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MobileOneConfig {
    /// Copies of the KxK convolution, 1 to 16, each with its norm. By default 4, in the networks of
    /// the paper as many as there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<usize>,
    /// Copies in single layers of a network, by pattern; the last match wins. A block built by itself
    /// does not look at it.
    #[serde(skip_serializing_if = "ByLayer::is_empty")]
    pub layers: ByLayer<usize>,
}

impl MobileOneConfig {
    /// That many copies.
    pub fn with_copies(copies: usize) -> Self {
        Self { copies: Some(copies), layers: ByLayer::default() }
    }

    /// The options of a layer, whose network has so many copies in it by default.
    pub(crate) fn of_layer(&self, layer: &str, default: Option<usize>) -> Self {
        let copies = self.layers.get(layer).copied().or(self.copies).or(default);
        Self { copies, layers: ByLayer::default() }
    }

    fn copies(&self) -> usize {
        self.copies.unwrap_or(DEFAULT_COPIES)
    }

    /// Checks the numbers of copies.
    ///
    /// # Errors
    /// [`ConfigError::Option`] if one is out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let of_layers = self.layers.0.iter().map(|(_, copies)| *copies);
        match of_layers.chain([self.copies()]).find(|copies| !(1..=MOST_COPIES).contains(copies)) {
            None => Ok(()),
            Some(copies) => Err(ConfigError::Option {
                option: "mobileone.copies",
                value: copies.to_string(),
                expected: "1 to 16",
            }),
        }
    }
}

/// Copies of a KxK convolution, a 1x1 convolution if K is larger than 1, and, where the block keeps
/// the shape of its input, the identity, each with batch norm, whose outputs are added.
#[derive(Module, Debug)]
pub struct MobileOneBlock {
    /// The KxK convolutions and their norms.
    pub copies: Vec<ConvBn>,
    /// 1x1 convolution and BN.
    pub scale: Option<ConvBn>,
    /// BN of the input.
    pub identity: Option<BatchNorm>,
    #[module(skip)]
    spec: ConvSpec,
}

impl MobileOneBlock {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// An even or oblong kernel, a padding other than half of it, a number of copies out of range.
    pub fn new(
        spec: &ConvSpec,
        config: &MobileOneConfig,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        spec.check_centred("a MobileOne block")?;
        config.check()?;
        let copies = (0..config.copies()).map(|_| ConvBn::new(spec, device));
        let scale = (spec.kernel_size != [1, 1]).then(|| ConvBn::new(&spec.pointwise(), device));
        Ok(Self {
            copies: copies.collect::<Result<_, _>>()?,
            scale: scale.transpose()?,
            identity: spec.keeps_shape().then(|| BatchNorm::new(spec.channels[1], device)),
            spec: spec.clone(),
        })
    }
}

impl ConvBlock for MobileOneBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn sum(&self) -> BranchSum<'_> {
        let convs = self.copies.iter().chain(&self.scale).map(ConvBn::branch);
        let identity = self.identity.as_ref().map(SumBranch::identity);
        BranchSum::new(self.spec(), convs.chain(identity).collect())
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        let convs = self.copies.iter_mut().chain(&mut self.scale).map(|conv| &mut conv.bn);
        convs.chain(&mut self.identity).collect()
    }

    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError> {
        let copies: Vec<_> = (1..self.copies.len()).map(|n| format!("copies.{n}.bn.")).collect();
        let mut others: Vec<_> = copies.iter().map(String::as_str).collect();
        others.extend(["scale.bn.", "identity."]);
        close(&others, own);
        plain.put("copies.0.conv.weight", "copies.0.bn.", own);
        Ok(())
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        vec![("copies.", "rbr_conv."), ("scale.", "rbr_scale."), ("identity.", "rbr_skip.")]
    }
}

impl OfficialBlock for MobileOneBlock {
    const MARKS: &'static [&'static str] = &["rbr_conv", "rbr_scale", "rbr_skip"];
    const POINTWISE: bool = true;
    const TIMM: Option<Port> = Some(Port {
        convs: &["conv_kxk.0.conv"],
        modules: &[("conv_kxk", "rbr_conv"), ("conv_scale", "rbr_scale"), ("identity", "rbr_skip")],
        folded: "reparam_conv",
    });

    fn describe(block: &BlockTensors<'_>) -> Result<Description, String> {
        let kernel = block.kernel("rbr_conv.0.conv.weight")?;
        let identity = block.has("rbr_skip");
        // A gap in the numbers leaves a tensor over, which loading then names.
        let copies = (0..MOST_COPIES).take_while(|n| block.has(&format!("rbr_conv.{n}"))).count();
        Ok(Description {
            block: Block::MobileOne(MobileOneConfig::with_copies(copies)),
            kernel,
            groups: identity.then(|| BlockTensors::groups_of_equal_channels(kernel)).flatten(),
            identity: Some(identity),
            dtype: block.dtype("rbr_conv.0.conv.weight"),
        })
    }

    fn folded_module(_: [usize; 2]) -> &'static str {
        "reparam_conv"
    }
}
