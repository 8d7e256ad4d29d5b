//! The block of OREPA (Hu et al., "Online Convolutional Re-parameterization", CVPR 2022,
//! <https://arxiv.org/abs/2204.00826>, section 3).

use std::f64::consts::PI;

use burn::module::{Module, Param, ParamId};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::block::{
    BlockTensors, ConvBlock, Description, OfficialBlock, PlainConv, groups_of_sequence,
};
use super::dbb_config::check_internal;
use super::unit::Block;
use crate::algebra::{ConvParams, Kernel, fuse_conv_bn};
use crate::cpu_ops;
use crate::error::ConfigError;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_part::BranchPart;
use crate::layers::branch_sum::{BranchMap, BranchSum, Positions, SumBranch};
use crate::layers::buffer::Buffer;
use crate::layers::conv_spec::{ConvSpec, host, host_kernel, weights};
use crate::layers::orepa_kernel::{self as kernel, OrepaBranches};
use crate::state_dict::StateDict;

/// Depthwise filters that the separable branch has for every input channel.
const EXPANSION: usize = 8;
/// The branches in the order of their scales: origin, average, frequency, sequence, pointwise,
/// separable.
const BRANCHES: [&str; 6] = ["kxk", "1x1_avg", "1x1_frequency", "1x1_kxk", "1x1", "depthwise_1x1"];
/// Their initial scales.
const SCALES: [f64; 6] = [0.25, 0.25, 0.0, 0.5, 1.0, 0.5];
/// The two branches of a 1x1 convolution: origin and product.
const POINTWISE_BRANCHES: [&str; 2] = ["1x1", "1x1_1x1"];
/// Their initial scales.
const POINTWISE_SCALES: [f64; 2] = [1.0, 0.5];
/// Groups up to which the sequence has as many internal channels as inputs; with more, twice as many.
const FEW_GROUPS: usize = 4;

/// What an OREPA block is made of.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrepaConfig {
    /// Channels between the 1x1 and the KxK kernel of the sequence. By default the input's, twice as
    /// many with more than 4 groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_channels: Option<usize>,
}

impl OrepaConfig {
    /// Checks the options.
    ///
    /// # Errors
    /// [`ConfigError::Option`] for internal channels out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_internal("orepa.internal_channels", self.internal_channels)
    }
}

/// One convolution whose kernel is computed from the weights of linear branches at every step, and
/// one batch norm: a training step costs little more than that of a plain convolution.
///
/// With `v` the rows of `vector`, which scale output channels, the kernel is
/// `v0 origin + v1 average / K^2 + v2 frequency prior + v3 (1x1, KxK) + v4 1x1 + v5 (depthwise, 1x1)`;
/// that of a 1x1 convolution `v0 origin + v1 (1x1, 1x1)`.
#[derive(Module, Debug)]
pub struct OrepaBlock {
    /// A plain kernel, `[out, in / groups, K, K]`.
    pub origin: Param<Tensor<4>>,
    /// What is added to it.
    pub form: OrepaForm,
    /// Scales of the branches for every output channel, `[branches, out]`.
    pub vector: Param<Tensor<2>>,
    /// The norm of the convolution's output.
    pub bn: BatchNorm,
    #[module(skip)]
    spec: ConvSpec,
}

/// The branches besides the plain kernel.
// As in `ConvUnit`, Burn has no `Module` for `Box`.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum OrepaForm {
    /// Of a kernel above 1x1.
    Window(OrepaBranches),
    /// Of a 1x1 kernel.
    Pointwise(OrepaProduct),
}

/// A product of two 1x1 kernels.
#[derive(Module, Debug)]
pub struct OrepaProduct {
    /// The first, `[min(in, out), in, 1, 1]`.
    pub first: Param<Tensor<4>>,
    /// The second, `[out, min(in, out), 1, 1]`.
    pub second: Param<Tensor<4>>,
}

impl OrepaBlock {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// An even or oblong kernel; a 1x1 kernel with groups, for which the paper has no form; an
    /// internal width that the groups do not divide.
    pub fn new(
        spec: &ConvSpec,
        config: &OrepaConfig,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        spec.check_odd_square("an OREPA block")?;
        config.check()?;
        let ([inputs, outputs], groups) = (spec.channels, spec.groups);
        let is_pointwise = spec.kernel_size == [1, 1];
        if is_pointwise && groups > 1 {
            return Err(ConfigError::GroupedPointwise { groups });
        }
        let default = if groups <= FEW_GROUPS { inputs } else { 2 * inputs };
        let internal = config.internal_channels.unwrap_or(default);
        if internal == 0 || !internal.is_multiple_of(groups) {
            return Err(ConfigError::InternalChannels { internal, groups });
        }
        let scales: &[f64] = if is_pointwise { &POINTWISE_SCALES } else { &SCALES };
        let gain = if is_pointwise { 3.0 } else { 6.0 };
        Ok(Self {
            origin: uniform(spec.weight_shape(), gain, device),
            form: match is_pointwise {
                true => OrepaForm::Pointwise(OrepaProduct::new(spec.channels, device)),
                false => OrepaForm::Window(OrepaBranches::new(spec, internal, device)),
            },
            vector: Param::from_tensor(rows(scales, outputs, device)),
            bn: BatchNorm::new(outputs, device),
            spec: spec.clone(),
        })
    }

    /// The kernel, differentiable in every weight.
    fn kernel(&self) -> Tensor<4> {
        let (origin, vector, groups) = (self.origin.val(), self.vector.val(), self.spec.groups);
        match &self.form {
            OrepaForm::Window(branches) => {
                cpu_ops::orepa_kernel(&origin, &vector, branches, groups)
                    .unwrap_or_else(|| kernel::of_branches(origin, vector, branches, groups))
            }
            OrepaForm::Pointwise(product) => {
                kernel::of_product(origin, vector, product.first.val(), product.second.val())
            }
        }
    }

    /// The kernel in `f64` on the host, with these values for `vector`.
    fn exact_kernel(&self, vector: &[f64]) -> Kernel {
        let origin = host_kernel(self.origin.val(), self.spec.groups);
        match &self.form {
            OrepaForm::Window(branches) => kernel::exact_of_branches(origin, vector, branches),
            OrepaForm::Pointwise(product) => {
                let [first, second] =
                    [&product.first, &product.second].map(|weight| host_kernel(weight.val(), 1));
                kernel::exact_of_product(origin, vector, first, second)
            }
        }
    }
}

impl OrepaBranches {
    fn new(spec: &ConvSpec, internal: usize, device: &Device) -> Self {
        let ([inputs, outputs], size) = (spec.channels, spec.kernel_size[0]);
        let per_group = inputs / spec.groups;
        let fresh = |shape: [usize; 4]| uniform(shape, 6.0, device);
        let mean = 1.0 / (size * size) as f64;
        Self {
            average: fresh([outputs, per_group, 1, 1]),
            constant_window: Buffer::new(Tensor::full([size, size], mean, device)),
            frequency: fresh([outputs, per_group, 1, 1]),
            constant_prior: Buffer::new(frequency_filters(outputs, size, device)),
            sequence1: Initializer::Zeros.init([internal, per_group, 1, 1], device),
            constant_identity: Buffer::lazy([internal, per_group, 1, 1], device, move |device| {
                Tensor::<2>::eye(per_group, device)
                    .repeat(&[internal.div_ceil(per_group), 1])
                    .narrow(0, 0, internal)
                    .reshape([internal, per_group, 1, 1])
            }),
            sequence2: fresh([outputs, internal / spec.groups, size, size]),
            pointwise: fresh([outputs, per_group, 1, 1]),
            depthwise: fresh([EXPANSION * inputs, 1, size, size]),
            separable: fresh([outputs, EXPANSION * per_group, 1, 1]),
        }
    }
}

impl OrepaProduct {
    /// The square one of both is the identity, so that the branch starts as one kernel.
    fn new([inputs, outputs]: [usize; 2], device: &Device) -> Self {
        let internal = inputs.min(outputs);
        let shape = [internal, internal, 1, 1];
        let eye = move |device: &Device, has_grad: bool| {
            Tensor::<2>::eye(internal, device).reshape(shape).set_require_grad(has_grad)
        };
        let identity =
            || Param::uninitialized(ParamId::new(), eye, device.clone(), true, shape.into());
        let fresh = |shape: [usize; 4]| uniform(shape, 3.0, device);
        let (first, second) = match outputs > inputs {
            true => (identity(), fresh([outputs, internal, 1, 1])),
            false => (fresh([internal, inputs, 1, 1]), identity()),
        };
        Self { first, second }
    }
}

/// Values uniform within the square root of `gain / fan-in`, as the authors draw them.
fn uniform(shape: [usize; 4], gain: f64, device: &Device) -> Param<Tensor<4>> {
    let fan_in: usize = shape[1..].iter().product();
    let bound = (gain / fan_in as f64).sqrt();
    Initializer::Uniform { min: -bound, max: bound }.init(shape, device)
}

fn rows(scales: &[f64], outputs: usize, device: &Device) -> Tensor<2> {
    let values: Vec<f32> =
        scales.iter().flat_map(|&scale| std::iter::repeat_n(scale as f32, outputs)).collect();
    Tensor::from_data(TensorData::new(values, [scales.len(), outputs]), device)
}

/// A cosine for every output channel, along the height for the first half of them, along the width
/// for the rest; their frequencies grow with the channel.
fn frequency_filters(outputs: usize, size: usize, device: &Device) -> Tensor<3> {
    let half = outputs as f64 / 2.0;
    let mut values = Vec::with_capacity(outputs * size * size);
    for output in 0..outputs {
        let frequency = output as f64 + 1.0;
        for (h, w) in (0..size).flat_map(|h| (0..size).map(move |w| (h, w))) {
            let (position, frequency) = match (output as f64) < half {
                true => (h, frequency),
                false => (w, frequency - half),
            };
            let phase = PI * (position as f64 + 0.5) * frequency / size as f64;
            values.push(phase.cos() as f32);
        }
    }
    Tensor::from_data(TensorData::new(values, [outputs, size, size]), device)
}

impl ConvBlock for OrepaBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn sum(&self) -> BranchSum<'_> {
        let map = BranchMap::Kernel(Box::new(self.kernel()));
        BranchSum::new(self.spec(), vec![SumBranch { map, norm: Some(&self.bn) }])
    }

    fn equivalent(&self) -> ConvParams {
        let kernel = self.exact_kernel(&host(self.vector.val()));
        fuse_conv_bn(&ConvParams::without_bias(kernel), &self.bn.stats())
    }

    /// The kernel is linear in `vector`: with all rows but one at zero it is that of one branch.
    fn parts(&self) -> Vec<BranchPart> {
        let names: &[&str] = match &self.form {
            OrepaForm::Window(_) => &BRANCHES,
            OrepaForm::Pointwise(_) => &POINTWISE_BRANCHES,
        };
        let (vector, stats) = (host(self.vector.val()), self.bn.stats());
        let outputs = self.spec.channels[1];
        let rows = names.iter().zip(vector.chunks(outputs)).enumerate();
        rows.map(|(row, (name, scales))| {
            let mut alone = vec![0.0; vector.len()];
            alone[row * outputs..][..outputs].copy_from_slice(scales);
            let params = ConvParams::without_bias(self.exact_kernel(&alone));
            BranchPart {
                name: (*name).into(),
                kernel: fuse_conv_bn(&params, &stats).kernel,
                scales: Some(scales.to_vec()),
            }
        })
        .collect()
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        vec![&mut self.bn]
    }

    /// The convolution, and the products that compute its kernel.
    fn macs(&self, positions: Positions) -> usize {
        let [outputs, per_group, height, width] = self.spec.weight_shape();
        let values = outputs * per_group * height * width;
        let generation = match &self.form {
            OrepaForm::Window(branches) => {
                let [_, internal_per_group, ..] = branches.sequence2.lazy_shape().dims::<4>();
                // Scales of six branches, two outer products, the sequence and the separable branch.
                values * (SCALES.len() + 2 + internal_per_group + EXPANSION)
            }
            OrepaForm::Pointwise(product) => {
                let [internal, ..] = product.first.lazy_shape().dims::<4>();
                values * (POINTWISE_SCALES.len() + internal)
            }
        };
        weights(&self.origin) * positions.output + generation
    }

    /// The plain kernel becomes the convolution, its scale 1 and the other scales 0: what they scale
    /// receives a gradient as soon as they have learnt.
    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError> {
        let [branches, outputs] = self.vector.lazy_shape().dims();
        let mut vector = vec![0.0f32; branches * outputs];
        vector[..outputs].fill(1.0);
        own.insert("vector".into(), TensorData::new(vector, [branches, outputs]));
        plain.put("origin", "bn.", own);
        Ok(())
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        match self.form {
            OrepaForm::Window(_) => vec![
                ("origin", "weight_orepa_origin"),
                ("form.average", "weight_orepa_avg_conv"),
                ("form.constant_window", "weight_orepa_avg_avg"),
                ("form.frequency", "weight_orepa_pfir_conv"),
                ("form.constant_prior", "weight_orepa_prior"),
                ("form.sequence1", "weight_orepa_1x1_kxk_idconv1"),
                ("form.constant_identity", "id_tensor"),
                ("form.sequence2", "weight_orepa_1x1_kxk_conv2"),
                ("form.pointwise", "weight_orepa_1x1"),
                ("form.depthwise", "weight_orepa_gconv_dw"),
                ("form.separable", "weight_orepa_gconv_pw"),
            ],
            OrepaForm::Pointwise(_) => vec![
                ("origin", "weight_or1x1_origin"),
                ("form.first", "weight_or1x1_l2i_conv1"),
                ("form.second", "weight_or1x1_l2i_conv2"),
            ],
        }
    }
}

impl OfficialBlock for OrepaBlock {
    const MARKS: &'static [&'static str] = &[
        "weight_orepa_origin",
        "weight_orepa_avg_conv",
        "weight_orepa_avg_avg",
        "weight_orepa_pfir_conv",
        "weight_orepa_prior",
        "weight_orepa_1x1_kxk_idconv1",
        "weight_orepa_1x1_kxk_conv2",
        "weight_orepa_1x1",
        "weight_orepa_gconv_dw",
        "weight_orepa_gconv_pw",
        "weight_or1x1_origin",
        "weight_or1x1_l2i_conv1",
        "weight_or1x1_l2i_conv2",
    ];
    const COMMON: &'static [&'static str] = &["vector", "bn", "id_tensor"];
    const CONSTANTS: &'static [&'static str] =
        &["weight_orepa_avg_avg", "weight_orepa_prior", "id_tensor"];
    const POINTWISE: bool = true;

    fn describe(block: &BlockTensors<'_>) -> Result<Description, String> {
        let pointwise = block.has("weight_or1x1_origin");
        let origin = if pointwise { "weight_or1x1_origin" } else { "weight_orepa_origin" };
        let kernel = block.kernel(origin)?;
        let mut internal = None;
        let mut groups = Some(1);
        if !pointwise {
            let [channels, ..] = block.kernel("weight_orepa_1x1_kxk_idconv1")?;
            let [_, per_group, ..] = block.kernel("weight_orepa_1x1_kxk_conv2")?;
            groups = Some(groups_of_sequence(channels, per_group)?);
            internal = Some(channels);
        }
        let options = OrepaConfig { internal_channels: internal };
        let dtype = block.dtype(origin);
        Ok(Description {
            block: Block::Orepa(options),
            kernel,
            groups,
            identity: Some(false),
            dtype,
        })
    }

    fn folded_module(kernel_size: [usize; 2]) -> &'static str {
        if kernel_size == [1, 1] { "or1x1_reparam" } else { "orepa_reparam" }
    }
}
