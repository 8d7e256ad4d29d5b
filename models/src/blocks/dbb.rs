//! The Diverse Branch Block (Ding et al., CVPR 2021, section 3.3).

use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::block::{
    BlockTensors, ConvBlock, Description, OfficialBlock, PlainConv, close, groups_of_sequence,
};
use super::conv_bn::ConvBn;
use super::dbb_config::{Branch, DbbConfig, MOST_BRANCHES};
use super::unit::Block;
use crate::error::ConfigError;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::bn_pad::BnPad;
use crate::layers::branch_sum::{BranchMap, BranchSum, SumBranch};
use crate::layers::conv_spec::ConvSpec;
use crate::layers::pointwise::PointwiseConv;
use crate::state_dict::StateDict;

/// Four parallel branches over one input, each closed by a batch norm, whose outputs are added;
/// equal in inference to one KxK convolution with bias. There may be copies of some and an identity.
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
    /// Further KxK and 1x1 convolutions, each with its BN.
    pub copies: Vec<ConvBn>,
    /// BN of the input.
    pub identity: Option<BatchNorm>,
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
}

impl DiverseBranchBlock {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// What cannot fold exactly: an even or oblong kernel, a padding other than half of it,
    /// groups equal to the outputs but not the inputs, an internal width the groups do not
    /// divide, no branch at all or one that is named twice.
    pub fn new(spec: &ConvSpec, config: &DbbConfig, device: &Device) -> Result<Self, ConfigError> {
        spec.check_centred("a Diverse Branch Block")?;
        config.check()?;
        let [inputs, outputs] = spec.channels;
        let depthwise = spec.groups == outputs;
        if depthwise && inputs != outputs {
            return Err(ConfigError::Grouped { groups: spec.groups, inputs });
        }

        let has = |branch| config.branches.contains(&branch);
        let times = |of| config.branches.iter().filter(|&&branch| branch == of).count();
        let copies = |of, spec: ConvSpec| (1..times(of)).map(move |_| ConvBn::new(&spec, device));
        let pointwise_copies = copies(Branch::Pointwise, spec.pointwise());
        let pointwise_copies = pointwise_copies.take(if depthwise { 0 } else { usize::MAX });
        let mut block = Self {
            origin: has(Branch::Kxk).then(|| ConvBn::new(spec, device)).transpose()?,
            pointwise: (has(Branch::Pointwise) && !depthwise)
                .then(|| ConvBn::new(&spec.pointwise(), device))
                .transpose()?,
            pointwise_kxk: has(Branch::PointwiseKxk)
                .then(|| {
                    let default = if depthwise { 2 * inputs } else { inputs };
                    PointwiseKxk::new(spec, config.internal_channels.unwrap_or(default), device)
                })
                .transpose()?,
            average: has(Branch::Average).then(|| AverageBranch::new(spec, depthwise, device)),
            copies: copies(Branch::Kxk, spec.clone())
                .chain(pointwise_copies)
                .collect::<Result<_, _>>()?,
            identity: (config.identity && spec.keeps_shape())
                .then(|| BatchNorm::new(outputs, device)),
            spec: spec.clone(),
        };
        if block.closing_norms_mut().is_empty() {
            return Err(ConfigError::NoBranch);
        }
        Ok(match (config.single_init, config.init_gamma) {
            (true, _) => block.single_init(),
            (false, Some(scale)) => block.with_closing_scales(|_| scale),
            (false, None) => block,
        })
    }

    /// Sets the scale of the closing norm to 1 in the KxK branch and to 0 in the others, so
    /// that training starts from the plain convolution (the paper's `single_init`).
    pub fn single_init(self) -> Self {
        self.with_closing_scales(|is_origin| if is_origin { 1.0 } else { 0.0 })
    }

    /// Sets the scale of every closing norm; `scale` is told whether it is that of the KxK branch.
    fn with_closing_scales(mut self, scale: impl Fn(bool) -> f64) -> Self {
        let has_origin = self.origin.is_some();
        for (index, norm) in self.closing_norms_mut().into_iter().enumerate() {
            let gamma = norm.gamma.val();
            let value = scale(has_origin && index == 0);
            norm.gamma = Param::from_tensor(Tensor::full(gamma.shape(), value, &gamma.device()));
        }
        self
    }

    /// The closing norms, that of the KxK branch first.
    fn closing_norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        let convs = self.origin.iter_mut().chain(&mut self.pointwise).chain(&mut self.copies);
        convs
            .map(|branch| &mut branch.bn)
            .chain(self.pointwise_kxk.as_mut().map(|branch| &mut branch.bn2))
            .chain(self.average.as_mut().map(|branch| &mut branch.avg_bn))
            .chain(&mut self.identity)
            .collect()
    }
}

impl ConvBlock for DiverseBranchBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn sum(&self) -> BranchSum<'_> {
        let convs = self.origin.iter().chain(&self.pointwise).chain(&self.copies);
        let mut branches: Vec<_> = convs.map(ConvBn::branch).collect();
        branches.extend(self.pointwise_kxk.as_ref().map(|branch| SumBranch {
            map: BranchMap::PaddedConv(&branch.conv1, &branch.bn1.bn, &branch.conv2),
            norm: Some(&branch.bn2),
        }));
        branches.extend(self.average.as_ref().map(|branch| SumBranch {
            map: match (&branch.conv, &branch.bn) {
                (Some(conv), Some(bn)) => BranchMap::PaddedAverage(conv, &bn.bn),
                _ => BranchMap::Average,
            },
            norm: Some(&branch.avg_bn),
        }));
        branches.extend(self.identity.as_ref().map(SumBranch::identity));
        BranchSum::new(self.spec(), branches)
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        let mut norms = Vec::new();
        let convs = self.origin.iter_mut().chain(&mut self.pointwise).chain(&mut self.copies);
        norms.extend(convs.map(|branch| &mut branch.bn));
        if let Some(branch) = &mut self.pointwise_kxk {
            norms.extend([&mut branch.bn1.bn, &mut branch.bn2]);
        }
        if let Some(branch) = &mut self.average {
            norms.extend(branch.bn.as_mut().map(|bn| &mut bn.bn));
            norms.push(&mut branch.avg_bn);
        }
        norms.extend(&mut self.identity);
        norms
    }

    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError> {
        if self.origin.is_none() {
            return Err(ConfigError::Option {
                option: "dbb.branches",
                value: "a list without \"kxk\"".into(),
                expected: "\"kxk\" among them, to start from weights",
            });
        }
        let copies: Vec<_> = (0..self.copies.len()).map(|n| format!("copies.{n}.bn.")).collect();
        let mut others: Vec<_> = copies.iter().map(String::as_str).collect();
        others.extend(["pointwise.bn.", "pointwise_kxk.bn2.", "average.avg_bn.", "identity."]);
        close(&others, own);
        plain.put("origin.conv.weight", "origin.bn.", own);
        Ok(())
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
            ("copies.", "dbb_copies."),
            ("identity.", "dbb_identity."),
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
}

impl AverageBranch {
    fn new(spec: &ConvSpec, depthwise: bool, device: &Device) -> Self {
        let outputs = spec.channels[1];
        let pointwise = ConvSpec::new(spec.channels, [1, 1]).with_groups(spec.groups);
        Self {
            conv: (!depthwise).then(|| pointwise.init_conv(device)),
            bn: (!depthwise).then(|| BnPad::new(outputs, device)),
            avg_bn: BatchNorm::new(outputs, device),
        }
    }
}

impl OfficialBlock for DiverseBranchBlock {
    const MARKS: &'static [&'static str] =
        &["dbb_origin", "dbb_1x1", "dbb_1x1_kxk", "dbb_avg", "dbb_copies", "dbb_identity"];

    /// Ports of the paper's code keep the identity-based weight in a module of its own, and the
    /// identity, which is no parameter, beside it.
    fn canonical(key: &str) -> Option<String> {
        match key.strip_prefix("dbb_1x1_kxk.idconv1.") {
            Some("id_tensor") => None,
            Some("conv.weight") => Some("dbb_1x1_kxk.idconv1.weight".into()),
            _ => Some(key.into()),
        }
    }

    fn describe(block: &BlockTensors<'_>) -> Result<Description, String> {
        let origin = block.shape("dbb_origin.conv.weight")?;
        let second = block.shape("dbb_1x1_kxk.conv2.weight")?;
        let first = match block.shape("dbb_1x1_kxk.idconv1.weight")? {
            None => block.shape("dbb_1x1_kxk.conv1.weight")?,
            first => first,
        };
        // Kernel size and outputs stand in either KxK convolution, the inputs of a group in the
        // first of those that read the block's input.
        let (Some([outputs, _, kh, kw]), Some([_, per_group, ..])) =
            (origin.or(second), origin.or(first))
        else {
            return Err("it has no KxK branch to tell its kernel size by".into());
        };
        let groups = match (first, second) {
            (Some([internal, ..]), Some([_, internal_per_group, ..])) => {
                Some(groups_of_sequence(internal, internal_per_group)?)
            }
            // Only a depthwise block pools its own input.
            _ if block.has("dbb_avg") && !block.has("dbb_avg.conv") => Some(outputs),
            _ => None,
        };
        let main = match origin {
            Some(_) => "dbb_origin.conv.weight",
            None => "dbb_1x1_kxk.conv2.weight",
        };
        let mut branches = Vec::new();
        for (module, branch) in [
            ("dbb_origin", Branch::Kxk),
            ("dbb_1x1", Branch::Pointwise),
            ("dbb_1x1_kxk", Branch::PointwiseKxk),
            ("dbb_avg", Branch::Average),
        ] {
            branches.extend(block.has(module).then_some(branch));
        }
        for copy in 0..MOST_BRANCHES {
            match block.shape(&format!("dbb_copies.{copy}.conv.weight"))? {
                Some([_, _, 1, 1]) if kh > 1 => branches.push(Branch::Pointwise),
                Some(_) => branches.push(Branch::Kxk),
                None => break,
            }
        }
        let identity = block.has("dbb_identity");
        Ok(Description {
            block: Block::Dbb(DbbConfig {
                branches,
                identity,
                internal_channels: first.map(|[internal, ..]| internal),
                ..DbbConfig::default()
            }),
            kernel: [outputs, per_group, kh, kw],
            groups,
            identity: Some(identity),
            dtype: block.dtype(main),
        })
    }

    fn folded_module(_: [usize; 2]) -> &'static str {
        "dbb_reparam"
    }
}
