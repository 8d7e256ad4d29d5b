//! The depthwise Diverse Branch Block in its training form, as one convolution.
//!
//! Source: Ding et al., Diverse Branch Block (CVPR 2021), section 3.3, in the form of the paper's
//! code for depthwise layers: KxK; 1x1 to an internal width, batch norm padded with its image of
//! zero, KxK; average pool; each closed by a batch norm, and the three added. Every branch is
//! affine in the input values under the kernel, so that all batch statistics follow from the
//! moments of these values and the block is one depthwise convolution whose bias depends on
//! the border alone. The statistics, outputs and gradients are those of the definition.

use super::backward::backward;
use super::forward::forward;
use crate::{BatchStatistics, ConvShape, Norm};

/// The branch KxK convolution, batch norm.
#[derive(Clone, Copy, Debug)]
pub struct Kxk<'a> {
    /// `[channels, 1, k, k]`.
    pub weight: &'a [f32],
    /// The closing norm.
    pub norm: Norm<'a>,
}

/// The branch 1x1 convolution, padded batch norm, KxK convolution, batch norm. The internal
/// channels are a multiple `m >= 1` of the channels; channel `c` owns `c * m .. c * m + m`.
#[derive(Clone, Copy, Debug)]
pub struct PointwiseKxk<'a> {
    /// Effective weight of the 1x1 convolution, an identity included, `[internal, 1, 1, 1]`.
    pub weight1: &'a [f32],
    /// The inner norm, `[internal]`.
    pub norm1: Norm<'a>,
    /// Running mean of the inner norm before this step, `[internal]`.
    pub running_mean: &'a [f32],
    /// Running variance of the inner norm before this step, `[internal]`.
    pub running_var: &'a [f32],
    /// Weight of this batch in the running statistics that the border value is made from.
    pub momentum: f64,
    /// `[channels, m, k, k]`.
    pub weight2: &'a [f32],
    /// The closing norm, `[channels]`.
    pub norm2: Norm<'a>,
}

/// The branches of a block, at least one.
#[derive(Clone, Copy, Debug)]
pub struct Dbb<'a> {
    /// KxK convolution, batch norm.
    pub kxk: Option<Kxk<'a>>,
    /// 1x1, padded batch norm, KxK, batch norm.
    pub pointwise_kxk: Option<PointwiseKxk<'a>>,
    /// Average pool (padding counted as zeros), batch norm.
    pub average: Option<Norm<'a>>,
}

/// Batch statistics of the norms of a block; those of absent branches are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DbbStats {
    /// Of the KxK branch.
    pub kxk: BatchStatistics,
    /// Of the inner norm of the 1x1-KxK branch, over all positions of the input.
    pub inner: BatchStatistics,
    /// Of the closing norm of the 1x1-KxK branch.
    pub pointwise_kxk: BatchStatistics,
    /// Of the average branch.
    pub average: BatchStatistics,
}

/// What the backward pass needs of the forward pass beside its inputs: moments of each channel,
/// about 1 KB for 3x3 and 8 KB for 5x5.
#[derive(Clone, Debug)]
pub struct DbbSaved {
    pub(super) records: Vec<f64>,
}

/// Gradients of a block's parameters; those of absent branches are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DbbGrads {
    /// `[channels, 1, k, k]`.
    pub kxk_weight: Vec<f32>,
    /// `[channels]`.
    pub kxk_gamma: Vec<f32>,
    /// `[channels]`.
    pub kxk_beta: Vec<f32>,
    /// `[internal, 1, 1, 1]`.
    pub weight1: Vec<f32>,
    /// `[internal]`.
    pub gamma1: Vec<f32>,
    /// `[internal]`.
    pub beta1: Vec<f32>,
    /// `[channels, m, k, k]`.
    pub weight2: Vec<f32>,
    /// `[channels]`.
    pub gamma2: Vec<f32>,
    /// `[channels]`.
    pub beta2: Vec<f32>,
    /// `[channels]`.
    pub average_gamma: Vec<f32>,
    /// `[channels]`.
    pub average_beta: Vec<f32>,
}

/// Forward pass of a depthwise block in training. `y` is `[batch, channels, height', width']`;
/// with `relu`, negative outputs are 0.
///
/// Cost: the input is read twice, the second time from the cache unless the channel is larger.
/// Per output `k*k` multiply-adds for the convolution, and for the moments 13 with a 3x3 kernel of
/// stride 1 and padding 1, else `k*k (k*k + 1) / 2`. Each channel is the work of one task.
///
/// The sums are taken in `f32` over at most 4096 positions and about a value of the channel, so
/// that a mean far from zero costs no digits; on all else in `f64`. A branch whose variance is
/// a fraction `f` of what its weights could make of the input's loses `log10(1 / f)` digits of
/// the seven.
///
/// # Panics
/// If a length does not fit the shape, the shape is not depthwise, there is no branch, or a norm
/// has but one value per channel.
pub fn dbb_forward(
    shape: &ConvShape,
    x: &[f32],
    block: &Dbb<'_>,
    relu: bool,
    y: &mut [f32],
) -> (DbbStats, DbbSaved) {
    forward(shape, x, block, relu, y)
}

/// Backward pass: the gradient of the input and of all parameters from that of the output.
/// With a ReLU `y` is the output, which tells where it let pass; without, `None`. The border
/// value of the 1x1-KxK branch is a constant, as in the definition.
///
/// Cost: input, output gradient and output are read twice. Per output `k*k` multiply-adds for
/// the sums and `k*k + 1` for each branch, per input `k*k` for each branch and square of the stride.
///
/// # Panics
/// As [`dbb_forward`].
pub fn dbb_backward(
    shape: &ConvShape,
    x: &[f32],
    y: Option<&[f32]>,
    dy: &[f32],
    block: &Dbb<'_>,
    saved: &DbbSaved,
    dx: &mut [f32],
) -> DbbGrads {
    backward(shape, x, y, dy, block, saved, dx)
}
