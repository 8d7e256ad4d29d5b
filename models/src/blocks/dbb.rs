//! The Diverse Branch Block (Ding et al., CVPR 2021, section 3.3).

use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::tensor::module::{avg_pool2d, conv2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch_norm::BatchNorm;
use super::block::{ConvBlock, PlainBranch, Positions};
use super::bn_pad::{BnPad, Padded};
use super::branch_sum::{BranchMap, BranchSum, SumBranch};
use super::conv_bn::ConvBn;
use super::conv_spec::{ConvSpec, host_conv, weights};
use super::epilogue::Epilogue;
use super::pointwise::PointwiseConv;
use crate::algebra::{
    ConvParams, average_pool_kernel, embed_kernel, fuse_conv_bn, merge_1x1_kxk, sum_branches,
};
use crate::cpu_ops;
use crate::error::ConfigError;
use crate::implementation::LayerCount;

/// One of the four branches.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Branch {
    /// KxK convolution, BN.
    #[serde(rename = "kxk")]
    Kxk,
    /// 1x1 convolution, BN. A depthwise block has none.
    #[serde(rename = "1x1")]
    Pointwise,
    /// 1x1 convolution, BN, KxK convolution, BN.
    #[serde(rename = "1x1_kxk")]
    PointwiseKxk,
    /// 1x1 convolution, BN, average pool, BN. A depthwise block pools its input itself.
    #[serde(rename = "1x1_avg")]
    Average,
}

impl Branch {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kxk => "kxk",
            Self::Pointwise => "1x1",
            Self::PointwiseKxk => "1x1_kxk",
            Self::Average => "1x1_avg",
        }
    }
}

/// What a block is made of. The default is the paper's.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbbConfig {
    /// The branches, each once; any subset but the empty one.
    pub branches: Vec<Branch>,
    /// Channels between the 1x1 and the KxK convolution of the third branch. By default the
    /// input's, twice as many in a depthwise block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_channels: Option<usize>,
    /// Start with the KxK branch alone: the closing norms of the others start with scale 0.
    pub single_init: bool,
    /// Largest kernel that a network makes a block of; larger ones stay plain (the paper's code
    /// leaves out kernels of 7 and more). A block built by itself does not look at it.
    pub max_kernel: usize,
}

impl Default for DbbConfig {
    fn default() -> Self {
        Self {
            branches: vec![Branch::Kxk, Branch::Pointwise, Branch::PointwiseKxk, Branch::Average],
            internal_channels: None,
            single_init: false,
            max_kernel: 5,
        }
    }
}

impl DbbConfig {
    /// Checks the list of branches.
    ///
    /// # Errors
    /// [`ConfigError::NoBranch`] if it is empty, [`ConfigError::BranchTwice`] if it names one twice.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.branches.is_empty() {
            return Err(ConfigError::NoBranch);
        }
        let twice = |at: &usize| self.branches[..*at].contains(&self.branches[*at]);
        match (0..self.branches.len()).find(twice) {
            Some(at) => Err(ConfigError::BranchTwice { branch: self.branches[at].name() }),
            None => Ok(()),
        }
    }
}

/// Four parallel branches over one input, each closed by a batch norm, whose outputs are added;
/// equal in inference to one KxK convolution with bias.
#[derive(Module, Debug)]
pub struct DiverseBranchBlock {
    /// KxK convolution and BN.
    pub origin: Option<ConvBn>,
    /// 1x1 convolution and BN.
    pub pointwise: Option<ConvBn>,
    /// 1x1, BN, KxK, BN.
    pub pointwise_kxk: Option<PointwiseKxk>,
    /// 1x1, BN, average pool, BN.
    pub average: Option<AverageBranch>,
    #[module(skip)]
    spec: ConvSpec,
}

/// The branch 1x1 convolution, padded BN, KxK convolution, BN.
#[derive(Module, Debug)]
pub struct PointwiseKxk {
    /// The 1x1 convolution.
    pub conv1: PointwiseConv,
    /// The norm whose output is padded.
    pub bn1: BnPad,
    /// The KxK convolution; reads the padded map.
    pub conv2: Conv2d,
    /// The closing norm.
    pub bn2: BatchNorm,
}

/// The branch 1x1 convolution, padded BN, average pool, BN. In a depthwise block the first two
/// are absent and the pool pads its input with zeros.
#[derive(Module, Debug)]
pub struct AverageBranch {
    /// The 1x1 convolution.
    pub conv: Option<Conv2d>,
    /// The norm whose output is padded.
    pub bn: Option<BnPad>,
    /// The closing norm.
    pub avg_bn: BatchNorm,
    #[module(skip)]
    pool: AvgPoolOptions<2>,
}

impl DiverseBranchBlock {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// What cannot fold exactly: an even or oblong kernel, a padding other than half of it,
    /// groups equal to the outputs but not the inputs, an internal width the groups do not
    /// divide, no branch at all or one that is named twice.
    pub fn new(spec: &ConvSpec, config: &DbbConfig, device: &Device) -> Result<Self, ConfigError> {
        spec.check()?;
        config.check()?;
        let [inputs, outputs] = spec.channels;
        let size = spec.kernel_size[0];
        if spec.kernel_size[1] != size || size.is_multiple_of(2) {
            return Err(ConfigError::Kernel {
                block: "a Diverse Branch Block",
                kernel: spec.kernel_size,
            });
        }
        if spec.padding != [size / 2; 2] {
            return Err(ConfigError::Padding { kernel: size, padding: spec.padding });
        }
        let depthwise = spec.groups == outputs;
        if depthwise && inputs != outputs {
            return Err(ConfigError::Grouped { groups: spec.groups, inputs });
        }

        let has = |branch| config.branches.contains(&branch);
        let strided_pointwise =
            ConvSpec::new(spec.channels, [1, 1]).with_stride(spec.stride).with_groups(spec.groups);
        let block = Self {
            origin: has(Branch::Kxk).then(|| ConvBn::new(spec, device)).transpose()?,
            pointwise: (has(Branch::Pointwise) && !depthwise)
                .then(|| ConvBn::new(&strided_pointwise, device))
                .transpose()?,
            pointwise_kxk: has(Branch::PointwiseKxk)
                .then(|| {
                    let default = if depthwise { 2 * inputs } else { inputs };
                    PointwiseKxk::new(spec, config.internal_channels.unwrap_or(default), device)
                })
                .transpose()?,
            average: has(Branch::Average).then(|| AverageBranch::new(spec, depthwise, device)),
            spec: spec.clone(),
        };
        if block.closing_norms().next().is_none() {
            return Err(ConfigError::NoBranch);
        }
        Ok(if config.single_init { block.single_init() } else { block })
    }

    /// Sets the scale of the closing norm to 1 in the KxK branch and to 0 in the others, so
    /// that training starts from the plain convolution (the paper's `single_init`).
    pub fn single_init(mut self) -> Self {
        let constant = |bn: &mut BatchNorm, value: f64| {
            let gamma = bn.gamma.val();
            let (shape, device) = (gamma.shape(), gamma.device());
            bn.gamma = Param::from_tensor(Tensor::full(shape, value, &device));
        };
        if let Some(branch) = &mut self.origin {
            constant(&mut branch.bn, 1.0);
        }
        if let Some(branch) = &mut self.pointwise {
            constant(&mut branch.bn, 0.0);
        }
        if let Some(branch) = &mut self.pointwise_kxk {
            constant(&mut branch.bn2, 0.0);
        }
        if let Some(branch) = &mut self.average {
            constant(&mut branch.avg_bn, 0.0);
        }
        self
    }

    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// The definition.
    fn forward_branches(&self, input: Tensor<4>) -> Tensor<4> {
        let branches = [
            self.origin.as_ref().map(|b| b.forward(input.clone())),
            self.pointwise.as_ref().map(|b| b.forward(input.clone())),
            self.pointwise_kxk.as_ref().map(|b| b.forward(input.clone())),
            self.average.as_ref().map(|b| b.forward(input)),
        ];
        // A block without any branch cannot be constructed.
        branches.into_iter().flatten().reduce(|a, b| a + b).expect("a block has a branch")
    }

    fn branches(&self) -> Vec<SumBranch<'_>> {
        let branches = [
            self.origin.as_ref().map(ConvBn::branch),
            self.pointwise.as_ref().map(ConvBn::branch),
            self.pointwise_kxk.as_ref().map(|b| SumBranch {
                map: BranchMap::PaddedConv(&b.conv1, &b.bn1.bn, &b.conv2),
                norm: &b.bn2,
            }),
            self.average.as_ref().map(|b| SumBranch {
                map: match (&b.conv, &b.bn) {
                    (Some(conv), Some(bn)) => BranchMap::PaddedAverage(conv, &bn.bn),
                    _ => BranchMap::Average,
                },
                norm: &b.avg_bn,
            }),
        ];
        branches.into_iter().flatten().collect()
    }

    fn closing_norms(&self) -> impl Iterator<Item = &BatchNorm> {
        [
            self.origin.as_ref().map(|b| &b.bn),
            self.pointwise.as_ref().map(|b| &b.bn),
            self.pointwise_kxk.as_ref().map(|b| &b.bn2),
            self.average.as_ref().map(|b| &b.avg_bn),
        ]
        .into_iter()
        .flatten()
    }
}

impl ConvBlock for DiverseBranchBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        let sum = BranchSum { spec: self.spec(), branches: self.branches() };
        cpu_ops::branch_sum(&sum, &input, &epilogue)
            .unwrap_or_else(|| LayerCount::plain(|| epilogue.forward(self.forward_branches(input))))
    }

    /// Every branch by Transforms I, III, V and VI, then II.
    fn equivalent(&self) -> ConvParams {
        let size = self.spec.kernel_size;
        let groups = self.spec.groups;
        let branches: Vec<_> = [
            self.origin.as_ref().map(ConvBn::equivalent),
            self.pointwise.as_ref().map(ConvBn::equivalent),
            self.pointwise_kxk.as_ref().map(PointwiseKxk::equivalent),
            self.average.as_ref().map(|b| b.equivalent(size, groups)),
        ]
        .into_iter()
        .flatten()
        .map(|branch| ConvParams { kernel: embed_kernel(&branch.kernel, size), ..branch })
        .collect();
        sum_branches(&branches)
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        let mut norms = Vec::new();
        norms.extend(self.origin.as_mut().map(|b| &mut b.bn));
        norms.extend(self.pointwise.as_mut().map(|b| &mut b.bn));
        if let Some(branch) = &mut self.pointwise_kxk {
            norms.extend([&mut branch.bn1.bn, &mut branch.bn2]);
        }
        if let Some(branch) = &mut self.average {
            norms.extend(branch.bn.as_mut().map(|bn| &mut bn.bn));
            norms.push(&mut branch.avg_bn);
        }
        norms
    }

    fn macs(&self, positions: Positions) -> usize {
        let sequence = self.pointwise_kxk.as_ref();
        let average = self.average.as_ref().and_then(|branch| branch.conv.as_ref());
        let before_stride = [
            sequence.map(|branch| weights(&branch.conv1.weight)),
            average.map(|conv| weights(&conv.weight)),
        ];
        let after_stride = [
            self.origin.as_ref().map(|branch| weights(&branch.conv.weight)),
            self.pointwise.as_ref().map(|branch| weights(&branch.conv.weight)),
            sequence.map(|branch| weights(&branch.conv2.weight)),
        ];
        before_stride.into_iter().flatten().sum::<usize>() * positions.input
            + after_stride.into_iter().flatten().sum::<usize>() * positions.output
    }

    fn plain_branch(&self) -> Result<PlainBranch, ConfigError> {
        let Some(conv_bn) = &self.origin else {
            return Err(ConfigError::Option {
                option: "dbb.branches",
                value: "a list without \"kxk\"".into(),
                expected: "\"kxk\" among them, to start from weights",
            });
        };
        let closing_norms = &["pointwise.bn.", "pointwise_kxk.bn2.", "average.avg_bn."];
        Ok(PlainBranch { epsilon: conv_bn.bn.epsilon, path: "origin.", closing_norms })
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        let sequence = self.pointwise_kxk.as_ref();
        let first = match sequence.is_some_and(|branch| branch.conv1.is_identity_based()) {
            true => "dbb_1x1_kxk.idconv1.",
            false => "dbb_1x1_kxk.conv1.",
        };
        vec![
            ("origin.", "dbb_origin."),
            ("pointwise.", "dbb_1x1."),
            ("pointwise_kxk.conv1.", first),
            ("pointwise_kxk.", "dbb_1x1_kxk."),
            ("average.avg_bn.", "dbb_avg.avgbn."),
            ("average.", "dbb_avg."),
        ]
    }
}

impl PointwiseKxk {
    fn new(spec: &ConvSpec, internal: usize, device: &Device) -> Result<Self, ConfigError> {
        let groups = spec.groups;
        if internal == 0 || !internal.is_multiple_of(groups) {
            return Err(ConfigError::InternalChannels { internal, groups });
        }
        let [inputs, outputs] = spec.channels;
        let conv2 = ConvSpec { channels: [internal, outputs], ..spec.clone() };
        Ok(Self {
            conv1: PointwiseConv::new(inputs, internal, groups, device),
            bn1: BnPad::new(internal, device),
            conv2: conv2.init_conv(device),
            bn2: BatchNorm::new(outputs, device),
        })
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let Padded { centred, border } = self.bn1.forward(self.conv1.forward(input));
        // The KxK convolution pads the centred map with zeros; its response to the constant
        // border value is one number per output channel and enters as a bias.
        let weight = self.conv2.weight.val();
        let [outputs, per_group, kh, kw] = weight.dims();
        let groups = self.conv2.groups;
        let border = border
            .reshape([groups, 1, per_group])
            .repeat(&[1, outputs / groups, 1])
            .reshape([outputs, per_group]);
        let taps = weight.clone().reshape([outputs, per_group, kh * kw]).sum_dim(2);
        let bias = (taps.reshape([outputs, per_group]) * border).sum_dim(1).reshape([outputs]);
        let options = ConvOptions::new(self.conv2.stride, [kh / 2, kw / 2], [1, 1], groups);
        self.bn2.forward(conv2d(centred, weight, Some(bias), options))
    }

    fn equivalent(&self) -> ConvParams {
        let first = fuse_conv_bn(&self.conv1.equivalent(), &self.bn1.stats());
        let second = fuse_conv_bn(&host_conv(&self.conv2), &self.bn2.stats());
        merge_1x1_kxk(&first, &second)
    }
}

impl AverageBranch {
    fn new(spec: &ConvSpec, depthwise: bool, device: &Device) -> Self {
        let outputs = spec.channels[1];
        let pointwise = ConvSpec::new(spec.channels, [1, 1]).with_groups(spec.groups);
        let [ph, pw] = spec.padding;
        Self {
            conv: (!depthwise).then(|| pointwise.init_conv(device)),
            bn: (!depthwise).then(|| BnPad::new(outputs, device)),
            avg_bn: BatchNorm::new(outputs, device),
            pool: AvgPoolOptions::new(spec.kernel_size)
                .with_stride(spec.stride)
                .with_padding([ph, pw]),
        }
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let (Some(conv), Some(bn)) = (&self.conv, &self.bn) else {
            return self.avg_bn.forward(avg_pool2d(input, self.pool.clone()));
        };
        let Padded { centred, border } = bn.forward(conv.forward(input));
        let [channels] = border.dims();
        // The mean of a constant is the constant.
        let pooled = avg_pool2d(centred, self.pool.clone()) + border.reshape([1, channels, 1, 1]);
        self.avg_bn.forward(pooled)
    }

    fn equivalent(&self, size: [usize; 2], groups: usize) -> ConvParams {
        let norm = self.avg_bn.stats();
        let pool = average_pool_kernel(norm.gamma.len(), size, groups);
        let pool = fuse_conv_bn(&ConvParams::without_bias(pool), &norm);
        match (&self.conv, &self.bn) {
            (Some(conv), Some(bn)) => {
                merge_1x1_kxk(&fuse_conv_bn(&host_conv(conv), &bn.stats()), &pool)
            }
            _ => pool,
        }
    }
}
