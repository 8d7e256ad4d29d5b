//! The dense Diverse Branch Block in training (Ding et al., CVPR 2021), with every batch
//! statistic, border value and gradient of its definition.
//!
//! Two properties make it cheaper than its definition. First, the norms after the 1x1 convolutions
//! that open two of the branches follow from the moments of the block's input, which both share:
//! see [`PaddedNorm`]. Second, each branch is then linear up to its closing norm:
//!
//! - 1x1, norm, KxK is one KxK convolution with the kernel `W2 A`, over the same windows as the
//!   first branch: both are one convolution of twice the outputs. The contribution of the padding,
//!   the response of `W2` to the constant `d - p`, varies only at the border. Where the batch has
//!   too few positions for merging to pay off, `A x + d - p` is computed instead.
//! - 1x1, norm, average pool is a 1x1 convolution with `A` of the pooled input.
//!
//! Four maps remain: the inputs of the closing norms. Only they, the input and the output are kept
//! for the backward pass. If the input has few channels, they are not needed either: see
//! `patches.rs`.

mod border;
mod input_moments;
mod maps;
mod opening;
mod patches;

use crate::arithmetic::to_f64;
use crate::branch_sum::{BranchStatistics, SumGrad, SumStatistics, Wanted};
use crate::buffer::{self, Buffer};
use crate::shape::Geometry;
use crate::{Activation, BatchStatistics, ConvNorm, ConvShape, Norm, conv};
use input_moments::Moments;
use maps::Maps;
use opening::Affine;
use patches::Patches;

#[cfg(test)]
mod tests;

pub use crate::padded_norm::{PaddedNorm, PaddedNormGrad};

/// A dense block with its four branches. Statistics and gradients of the branches are in the order
/// of these fields.
#[derive(Clone, Copy, Debug)]
pub struct DenseBlock<'a> {
    /// Geometry of the KxK convolution; one group.
    pub shape: ConvShape,
    /// KxK convolution and norm.
    pub kxk: ConvNorm<'a>,
    /// 1x1 convolution and norm.
    pub pointwise: ConvNorm<'a>,
    /// 1x1 convolution, norm, KxK convolution, norm.
    pub pointwise_kxk: (PaddedNorm<'a>, ConvNorm<'a>),
    /// 1x1 convolution, norm, average pool, norm.
    pub average: (PaddedNorm<'a>, Norm<'a>),
}

/// What the backward pass needs besides input and output.
#[derive(Clone, Debug)]
pub struct DenseSaved {
    openings: Openings,
    form: Form,
}

/// The moments of the input, and the norms that open two of the branches.
#[derive(Clone, Debug)]
struct Openings {
    moments: Moments,
    /// Of the 1x1-KxK branch.
    merged: Affine,
    /// Of the average branch.
    averaged: Affine,
}

/// Gradients of the 1x1-KxK branch, before those through the statistics of its opening norm.
struct MergedGrad {
    /// Of `W2`.
    second: Vec<f32>,
    /// Of `A`.
    weight: Vec<f32>,
    /// Of `d`.
    offset: Vec<f64>,
}

/// How the block was computed.
#[derive(Clone, Debug)]
enum Form {
    /// From the four maps that the closing norms read.
    Maps(Maps),
    /// As one convolution.
    Patches(Patches),
}

impl DenseBlock<'_> {
    /// `y = act(sum of the branches of x + residual)`; `x` is `[batch, in, height, width]`, `y` and
    /// `residual` are `[batch, out, height', width']`.
    ///
    /// # Panics
    /// If a length does not match the shape, the shape has several groups, its padding is not half
    /// of an odd kernel, or a norm has only one value per channel.
    pub fn forward(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        activation: Activation,
        y: &mut [f32],
    ) -> (SumStatistics, DenseSaved) {
        self.check(x, y, residual);
        let shape = &self.shape;
        let dims = [shape.batch, shape.in_channels, shape.input_positions()];
        let by_patches = self.has_small_patches() && residual.is_none();
        let (moments, covariance) = Moments::new(x, dims, by_patches);
        let merged = self.pointwise_kxk.0.forward(&moments, &covariance);
        let averaged = self.average.0.forward(&moments, &covariance);

        let openings = Openings { moments, merged, averaged };
        let (statistics, form) = if by_patches {
            let (statistics, patches) = self.forward_patches(x, &openings, activation, y);
            (statistics, Form::Patches(patches))
        } else {
            let (statistics, maps) = self.forward_maps(x, residual, &openings, activation, y);
            (statistics, Form::Maps(maps))
        };
        let Ok([kxk, second, pointwise, average]) = <[BatchStatistics; 4]>::try_from(statistics)
        else {
            unreachable!("one for each of the four norms");
        };
        let branch = |opening: Option<&Affine>, closing| BranchStatistics {
            opening: opening.map(Affine::statistics),
            closing: Some(closing),
        };
        let branches = vec![
            branch(None, kxk),
            branch(None, pointwise),
            branch(Some(&openings.merged), second),
            branch(Some(&openings.averaged), average),
        ];
        (SumStatistics { branches, outer: None }, DenseSaved { openings, form })
    }

    /// Computes all gradients from that of `y`.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn backward(
        &self,
        x: &[f32],
        y: &[f32],
        saved: &DenseSaved,
        grad: &[f32],
        wanted: Wanted,
    ) -> SumGrad {
        self.check(x, y, None);
        assert_eq!(grad.len(), y.len(), "length of the output's gradient");
        let DenseSaved { openings, form } = saved;
        match form {
            Form::Maps(maps) => self.backward_maps(x, y, openings, maps, grad, wanted),
            Form::Patches(patches) if wanted.input => {
                // Usually the input is an image, whose gradient is not wanted. If it is, the maps
                // are needed.
                let mut again = buffer::take(y.len());
                let (_, maps) =
                    self.forward_maps(x, None, openings, patches.activation, &mut again);
                drop(again);
                self.backward_maps(x, y, openings, &maps, grad, wanted)
            }
            Form::Patches(patches) => self.backward_patches(x, y, openings, patches, grad),
        }
    }

    fn check(&self, x: &[f32], y: &[f32], residual: Option<&[f32]>) {
        let shape = &Geometry::new(&self.shape, x.len(), y.len()).with_residual(residual);
        assert_eq!(shape.groups, 1, "a dense block has one group");
        let half = (0..2).all(|axis| 2 * shape.padding[axis] + 1 == shape.kernel[axis]);
        assert!(half, "a dense block pads an odd kernel by half of it");
        let count = shape.batch * shape.output_positions();
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        let Self { kxk, pointwise, pointwise_kxk: (opening, second), average, .. } = self;
        let internal = opening.gamma.len();
        assert!(internal > 0, "the 1x1-KxK branch has no channels between its convolutions");
        assert_eq!(kxk.weight.len(), shape.weight_len(), "weight of the KxK branch");
        assert_eq!(pointwise.weight.len(), outputs * inputs, "weight of the 1x1 branch");
        let inner = ConvShape { in_channels: internal, ..**shape };
        assert_eq!(second.weight.len(), inner.weight_len(), "weight after the 1x1");
        let opening_count = shape.batch * shape.input_positions();
        opening.check([inputs, internal], 1, opening_count);
        average.0.check([inputs, outputs], 1, opening_count);
        self.closing_norms().iter().for_each(|norm| norm.check(outputs, count));
    }

    fn closing_norms(&self) -> [Norm<'_>; 4] {
        let second = &self.pointwise_kxk.1;
        [self.kxk.norm, second.norm, self.pointwise.norm, self.average.1]
    }

    /// Channels between the 1x1 and the KxK.
    fn internal(&self) -> usize {
        self.pointwise_kxk.0.gamma.len()
    }

    /// A 1x1 convolution over the kernels `[out, internal, kh, kw]` as images. Its weight is the
    /// transpose of `A`.
    fn kernel_shape(&self) -> ConvShape {
        let channels = [self.internal(), self.shape.in_channels];
        ConvShape::pointwise(self.shape.out_channels, channels, self.shape.window())
    }

    /// `W2 A`, `[out, in, kh, kw]`.
    fn merge(&self, merged: &Affine) -> Buffer {
        let weight = transpose(&merged.weight, self.internal());
        conv::convolve(&self.kernel_shape(), self.pointwise_kxk.1.weight, &weight)
    }

    /// The gradients of `W2`, `A` and `d` through [`Self::merge`] and [`Self::offset_taps`].
    fn unmerge(&self, merged: &Affine, kernels_grad: &[f32], taps_grad: &[f64]) -> MergedGrad {
        let shape = self.kernel_shape();
        let second = self.pointwise_kxk.1.weight;
        let weight = transpose(&merged.weight, self.internal());
        let mut second_grad = vec![0.0; second.len()];
        conv::backward_input(&shape, kernels_grad, &weight, &mut second_grad, false);
        let weight_grad = conv::weight_grad(&shape, second, kernels_grad);
        let weight_grad = transpose(&weight_grad, self.shape.in_channels);

        let window = self.shape.window();
        let internal = self.internal();
        let mut offset_grad = vec![0.0; internal];
        let kernels = second.chunks_exact(internal * window);
        for ((kernel, grad), taps) in kernels
            .zip(second_grad.chunks_exact_mut(internal * window))
            .zip(taps_grad.chunks_exact(window))
        {
            for (index, (&value, grad)) in kernel.iter().zip(grad).enumerate() {
                let (channel, tap) = (index / window, index % window);
                *grad += (taps[tap] * merged.offset[channel]) as f32;
                offset_grad[channel] += taps[tap] * f64::from(value);
            }
        }
        MergedGrad { second: second_grad, weight: weight_grad, offset: offset_grad }
    }

    /// Response of every tap of `W2` to `d - p`, `[out, kh * kw]`.
    fn offset_taps(&self, merged: &Affine) -> Vec<f64> {
        taps_of(self.pointwise_kxk.1.weight, &merged.offset, self.shape.window())
    }

    /// Response of every tap of the KxK branch to the shift, `[out, kh * kw]`.
    fn shift_taps(&self, shift: &[f32]) -> Vec<f64> {
        taps_of(self.kxk.weight, &to_f64(shift), self.shape.window())
    }

    /// Response of the 1x1 branch to the shift, `[out]`.
    fn pointwise_shift(&self, shift: &[f32]) -> Vec<f64> {
        taps_of(self.pointwise.weight, &to_f64(shift), 1)
    }

    /// Response of every tap of the average to `d - p`, `[out, kh * kw]`.
    fn mean_taps(&self, averaged: &Affine) -> Vec<f64> {
        let window = self.shape.window();
        let taps = |&offset: &f64| std::iter::repeat_n(offset / window as f64, window);
        averaged.offset.iter().flat_map(taps).collect()
    }
}

/// The response of every tap to a map that is constant in each channel, `[out, kh * kw]`.
fn taps_of(weight: &[f32], constant: &[f64], window: usize) -> Vec<f64> {
    let mut taps = Vec::with_capacity(weight.len() / constant.len());
    for kernel in weight.chunks_exact(constant.len() * window) {
        let start = taps.len();
        taps.resize(start + window, 0.0);
        for (channel, &constant) in kernel.chunks_exact(window).zip(constant) {
            for (tap, &value) in taps[start..].iter_mut().zip(channel) {
                *tap += f64::from(value) * constant;
            }
        }
    }
    taps
}

/// The transpose of a matrix of the given number of rows.
fn transpose(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows;
    (0..matrix.len()).map(|index| matrix[index % rows * columns + index / rows]).collect()
}
