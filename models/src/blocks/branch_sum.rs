//! A block as the sum of branches that it is, for the kernels.

use burn::nn::conv::Conv2d;

use super::batch_norm::BatchNorm;
use super::conv_spec::ConvSpec;
use super::pointwise::PointwiseConv;

/// A sum of branches over one input.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub(crate) struct BranchSum<'a> {
    /// The geometry of the window that holds the kernels of all branches.
    pub spec: ConvSpec,
    pub branches: Vec<SumBranch<'a>>,
}

/// A linear map of the input and the norm that closes it.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub(crate) struct SumBranch<'a> {
    pub map: BranchMap<'a>,
    pub norm: &'a BatchNorm,
}

/// A linear map of the input of a block.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub(crate) enum BranchMap<'a> {
    /// A convolution whose kernel lies in the middle of the window.
    Conv(&'a Conv2d),
    /// The mean over the window.
    Average,
    /// 1x1 convolution, padded norm, convolution.
    PaddedConv(&'a PointwiseConv, &'a BatchNorm, &'a Conv2d),
    /// 1x1 convolution, padded norm, mean over the window.
    PaddedAverage(&'a Conv2d, &'a BatchNorm),
}
