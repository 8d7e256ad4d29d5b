//! The block of QARepVGG (Chu et al., AAAI 2024, <https://arxiv.org/abs/2212.01593>): RepVGG's,
//! changed so that 8-bit weights of the folded kernel keep its accuracy.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, TensorData};

use super::block::{
    BlockTensors, ConvBlock, Description, HasTensor, OfficialBlock, PlainConv, constant,
};
use super::conv_bn::ConvBn;
use super::unit::Block;
use crate::algebra::identity_kernel;
use crate::error::ConfigError;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_sum::{BranchMap, BranchSum, SumBranch};
use crate::layers::conv_spec::ConvSpec;
use crate::state_dict::StateDict;

/// A KxK convolution with batch norm, a 1x1 convolution and, where the block keeps the shape of its
/// input, the input itself, whose sum a second batch norm closes (the form the paper calls S4).
#[derive(Module, Debug)]
pub struct QaRepVggBlock {
    /// KxK convolution and BN.
    pub origin: ConvBn,
    /// 1x1 convolution, without norm.
    pub pointwise: Conv2d,
    /// The norm of the sum.
    pub bn: BatchNorm,
    #[module(skip)]
    spec: ConvSpec,
}

impl QaRepVggBlock {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// An even or oblong kernel, or a padding other than half of it.
    pub fn new(spec: &ConvSpec, device: &Device) -> Result<Self, ConfigError> {
        spec.check_centred("a QARepVGG block")?;
        Ok(Self {
            origin: ConvBn::new(spec, device)?,
            pointwise: spec.pointwise().init_conv(device),
            bn: BatchNorm::new(spec.channels[1], device),
            spec: spec.clone(),
        })
    }
}

impl ConvBlock for QaRepVggBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn sum(&self) -> BranchSum<'_> {
        let mut branches = vec![
            self.origin.branch(),
            SumBranch { map: BranchMap::Conv(&self.pointwise), norm: None },
        ];
        if self.spec.keeps_shape() {
            branches.push(SumBranch { map: BranchMap::Identity, norm: None });
        }
        BranchSum { outer: Some(&self.bn), ..BranchSum::new(self.spec(), branches) }
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        vec![&mut self.origin.bn, &mut self.bn]
    }

    /// The 1x1 convolution takes the identity away, and the inner norm normalises alone, so that the
    /// outer one sees what the plain norm has normalised: values of mean 0 and variance
    /// `var / (var + epsilon)`. The block is equal to the plain convolution in evaluation; with
    /// batch statistics its output differs by the factor that this ratio differs in, which is 1 but
    /// for `epsilon`.
    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError> {
        let epsilon = self.bn.epsilon;
        let values = |key: &str| -> Vec<f64> {
            plain.0.get(key).map_or_else(Vec::new, |data| data.iter::<f64>().collect())
        };
        let var = values("bn.running_var").into_iter().map(|var| var / (var + epsilon));
        let var: Vec<f64> = var.collect();
        let scaled = values("bn.gamma").into_iter().zip(&var);
        let gamma = scaled.map(|(gamma, var)| gamma * (var + epsilon).sqrt()).collect();
        let channels = var.len();
        let tensor = |values: Vec<f64>| {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            TensorData::new(values, [channels])
        };
        own.extend([
            ("bn.gamma".into(), tensor(gamma)),
            ("bn.beta".into(), tensor(values("bn.beta"))),
            ("bn.running_mean".into(), constant(vec![channels], 0.0)),
            ("bn.running_var".into(), tensor(var)),
        ]);
        plain.put("origin.conv.weight", "origin.bn.", own);
        own.insert("origin.bn.gamma".into(), constant(vec![channels], 1.0));
        own.insert("origin.bn.beta".into(), constant(vec![channels], 0.0));
        let identity = match self.spec.keeps_shape() {
            true => identity_kernel(channels, self.spec.groups).data,
            false => vec![0.0; self.spec.pointwise().weight_shape().iter().product()],
        };
        let pointwise: Vec<f32> = identity.into_iter().map(|value| -value as f32).collect();
        let shape = self.spec.pointwise().weight_shape();
        own.insert("pointwise.weight".into(), TensorData::new(pointwise, shape));
        Ok(())
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        vec![("origin.", "rbr_dense."), ("pointwise.", "rbr_1x1.")]
    }
}

impl OfficialBlock for QaRepVggBlock {
    const MARKS: &'static [&'static str] = &["rbr_dense", "rbr_1x1"];
    const COMMON: &'static [&'static str] = &["bn"];

    fn recognises(has: HasTensor<'_>) -> bool {
        has("rbr_1x1.weight")
    }

    fn describe(block: &BlockTensors<'_>) -> Result<Description, String> {
        let kernel = block.kernel("rbr_dense.conv.weight")?;
        Ok(Description {
            block: Block::QaRepVgg,
            kernel,
            groups: None,
            // The input itself leaves no tensor.
            identity: None,
            dtype: block.dtype("rbr_dense.conv.weight"),
        })
    }

    fn folded_module(_: [usize; 2]) -> &'static str {
        "rbr_reparam"
    }
}
