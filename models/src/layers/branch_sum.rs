//! A block as the sum of branches that it is: its forward pass, its fold and its cost.

use burn::nn::conv::Conv2d;
use burn::tensor::module::{avg_pool2d, conv2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions};
use burn::tensor::{Tensor, s};

use super::batch_norm::BatchNorm;
use super::bn_pad::{Padded, padded};
use super::conv_spec::{ConvSpec, host_conv, host_kernel, weights};
use super::epilogue::Epilogue;
use super::pointwise::PointwiseConv;
use crate::algebra::{
    ConvParams, average_pool_kernel, embed_kernel, fuse_conv_bn, identity_kernel,
    merge_1x1_average, merge_1x1_kxk, sum_branches,
};

/// A sum of branches over one input, with an optional norm of the sum: what every block is.
#[derive(Debug)]
pub struct BranchSum<'a> {
    /// The geometry of the window that holds the kernels of all branches.
    pub spec: ConvSpec,
    /// At least one.
    pub branches: Vec<SumBranch<'a>>,
    /// The norm of the sum.
    pub outer: Option<&'a BatchNorm>,
}

/// A linear map of the input and the norm that closes it; without one the map is added as it is.
#[derive(Debug)]
pub struct SumBranch<'a> {
    /// The map.
    pub map: BranchMap<'a>,
    /// Its norm.
    pub norm: Option<&'a BatchNorm>,
}

/// A linear map of the input of a block.
#[derive(Debug)]
pub enum BranchMap<'a> {
    /// A convolution without bias whose kernel lies in the middle of the window.
    Conv(&'a Conv2d),
    /// A convolution with a computed kernel, `[out, in / groups, height, width]` of the window.
    Kernel(Box<Tensor<4>>),
    /// The input itself, in a block that keeps its shape.
    Identity,
    /// The mean over the window; zeros of the padding count.
    Average,
    /// 1x1 convolution, padded norm, convolution.
    PaddedConv(&'a PointwiseConv, &'a BatchNorm, &'a Conv2d),
    /// 1x1 convolution, padded norm, mean over the window.
    PaddedAverage(&'a Conv2d, &'a BatchNorm),
}

/// Positions of a map before and after the stride of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Of the input.
    pub input: usize,
    /// Of the output.
    pub output: usize,
}

impl<'a> BranchSum<'a> {
    /// A sum without a norm of its own.
    pub fn new(spec: ConvSpec, branches: Vec<SumBranch<'a>>) -> Self {
        Self { spec, branches, outer: None }
    }

    /// The definition with Burn's operations: `[batch, in, height, width]` to
    /// `[batch, out, height', width']`, then the epilogue.
    ///
    /// # Panics
    /// If there is no branch.
    pub(crate) fn definition(&self, input: &Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        let maps = self
            .branches
            .iter()
            .map(|branch| normed(branch.norm, branch.map.forward(&self.spec, input.clone())));
        // The caller's duty.
        let sum = maps.reduce(|a, b| a + b).expect("a block has a branch");
        epilogue.forward(normed(self.outer, sum))
    }

    /// The equivalent kernel and bias, in `f64` on the host: every branch by Transforms I, III, V
    /// and VI, then II, then I for the norm of the sum.
    ///
    /// # Panics
    /// If there is no branch.
    pub fn equivalent(&self) -> ConvParams {
        let branches: Vec<_> = self.branches.iter().map(|branch| self.folded(branch)).collect();
        closed(sum_branches(&branches), self.outer)
    }

    /// Kernel and bias of one branch with its norm, in the window of the block.
    pub(super) fn folded(&self, branch: &SumBranch<'_>) -> ConvParams {
        let params = closed(branch.map.equivalent(&self.spec), branch.norm);
        ConvParams { kernel: embed_kernel(&params.kernel, self.spec.kernel_size), ..params }
    }

    /// Multiply-accumulate operations of the convolutions of all branches for one image.
    pub fn macs(&self, positions: Positions) -> usize {
        let conv = |conv: &Conv2d| weights(&conv.weight);
        let of_branch = |branch: &SumBranch<'_>| match &branch.map {
            BranchMap::Conv(of) => conv(of) * positions.output,
            BranchMap::Kernel(kernel) => kernel.shape().num_elements() * positions.output,
            BranchMap::Identity | BranchMap::Average => 0,
            BranchMap::PaddedConv(first, _, second) => {
                weights(&first.weight) * positions.input + conv(second) * positions.output
            }
            BranchMap::PaddedAverage(first, _) => conv(first) * positions.input,
        };
        self.branches.iter().map(of_branch).sum()
    }
}

impl BranchMap<'_> {
    /// The definition with Burn's operations.
    fn forward(&self, spec: &ConvSpec, input: Tensor<4>) -> Tensor<4> {
        let average = |map: Tensor<4>| {
            let [height, width] = spec.padding;
            let pool = AvgPoolOptions::new(spec.kernel_size)
                .with_stride(spec.stride)
                .with_padding([height, width]);
            avg_pool2d(map, pool)
        };
        match self {
            Self::Conv(conv) => conv.forward(read_by(spec, conv, input)),
            Self::Kernel(kernel) => conv2d(input, Tensor::clone(kernel), None, options(spec)),
            Self::Identity => input,
            Self::Average => average(input),
            Self::PaddedConv(first, norm, conv) => {
                let Padded { centred, border } = padded(norm, first.forward(input));
                // The convolution pads the centred map with zeros; its response to the constant
                // border value is one number per output channel and enters as a bias.
                let weight = conv.weight.val();
                let [outputs, per_group, kh, kw] = weight.dims();
                let groups = spec.groups;
                let border = border
                    .reshape([groups, 1, per_group])
                    .repeat(&[1, outputs / groups, 1])
                    .reshape([outputs, per_group]);
                let taps = weight.clone().reshape([outputs, per_group, kh * kw]).sum_dim(2);
                let bias = (taps.reshape([outputs, per_group]) * border).sum_dim(1);
                conv2d(centred, weight, Some(bias.reshape([outputs])), options(spec))
            }
            Self::PaddedAverage(conv, norm) => {
                let Padded { centred, border } = padded(norm, conv.forward(input));
                let [channels] = border.dims();
                // The mean of a constant is the constant.
                average(centred) + border.reshape([1, channels, 1, 1])
            }
        }
    }

    /// Kernel and bias of the map, in `f64` on the host.
    fn equivalent(&self, spec: &ConvSpec) -> ConvParams {
        match self {
            Self::Conv(conv) => host_conv(conv),
            Self::Kernel(kernel) => {
                ConvParams::without_bias(host_kernel(Tensor::clone(kernel), spec.groups))
            }
            Self::Identity => {
                ConvParams::without_bias(identity_kernel(spec.channels[1], spec.groups))
            }
            Self::Average => ConvParams::without_bias(average_pool_kernel(
                spec.channels[1],
                spec.kernel_size,
                spec.groups,
            )),
            Self::PaddedConv(first, norm, conv) => {
                merge_1x1_kxk(&fuse_conv_bn(&first.equivalent(), &norm.stats()), &host_conv(conv))
            }
            Self::PaddedAverage(conv, norm) => {
                merge_1x1_average(&fuse_conv_bn(&host_conv(conv), &norm.stats()), spec.kernel_size)
            }
        }
    }
}

/// A convolution and the norm that follows it, if there is one, as one convolution.
pub(super) fn closed(params: ConvParams, norm: Option<&BatchNorm>) -> ConvParams {
    match norm {
        Some(norm) => fuse_conv_bn(&params, &norm.stats()),
        None => params,
    }
}

/// The map after a norm, if there is one.
fn normed(norm: Option<&BatchNorm>, map: Tensor<4>) -> Tensor<4> {
    match norm {
        Some(norm) => norm.forward(map),
        None => map,
    }
}

fn options(spec: &ConvSpec) -> ConvOptions<2> {
    ConvOptions::new(spec.stride, spec.padding, [1, 1], spec.groups)
}

/// The part of a block's input that a convolution in the middle of the block's window reads: all
/// of it, unless the window has less padding than it is larger.
fn read_by(spec: &ConvSpec, conv: &Conv2d, input: Tensor<4>) -> Tensor<4> {
    let cut = |axis: usize| {
        let margin = spec.kernel_size[axis].saturating_sub(conv.kernel_size[axis]) / 2;
        margin.saturating_sub(spec.padding[axis])
    };
    let ([_, _, height, width], top, left) = (input.dims(), cut(0), cut(1));
    match [top, left] {
        [0, 0] => input,
        _ => input.slice(s![.., .., top..height - top, left..width - left]),
    }
}
