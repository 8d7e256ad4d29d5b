//! Branches that begin with a 1x1 convolution and a padded norm.

use super::maps::constants;
use super::source::{MapGrads, convolve};
use super::{BranchSum, Wanted};
use crate::activation::Activation;
use crate::buffer::{self, Buffer};
use crate::closing::{Closing, rounded};
use crate::members::Batch;
use crate::padded_norm::{PaddedNorm, PaddedNormGrad};
use crate::{BatchStatistics, ConvShape, conv};

/// The 1x1 convolution and the norm that open a branch.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// The 1x1 convolution of the input.
    pub map: Buffer,
    /// The output of its norm, less the border value.
    pub centred: Buffer,
    norm: Closing,
    /// The value that pads the norm, `[internal]`.
    pub border: Vec<f64>,
    /// The constant that the border value adds to the branch, `[out]`.
    pub constant: Vec<f64>,
}

impl BranchSum<'_> {
    /// The geometry of the 1x1 convolution that opens a branch.
    fn opening_shape(&self, opening: &PaddedNorm<'_>) -> ConvShape {
        ConvShape {
            out_channels: opening.gamma.len(),
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            ..self.shape
        }
    }

    /// The 1x1 convolution and the norm that open a branch.
    pub(super) fn open(
        &self,
        x: &[f32],
        opening: &PaddedNorm<'_>,
        statistics: &mut Option<BatchStatistics>,
        whole: Batch<'_>,
    ) -> Opened {
        let shape = self.opening_shape(opening);
        let (map, mut found) = convolve(&shape, x, opening.weight, !opening.fixed);
        whole.extend(&mut found);
        let border = opening.borders(found.as_ref(), whole.images() * shape.output_positions());
        *statistics = found.as_ref().map(|found| rounded(&found.mean, &found.var));
        let found = found.unwrap_or_else(|| constants(&opening.running()));
        let beta = opening.shifts(&border);
        let norm = opening.as_norm(&beta);
        let mut centred = buffer::take(map.len());
        let dims = shape.output_dims();
        let plain = Activation::Identity;
        let (norm, _) =
            Closing::forward(&[&map], &[found], &[norm], None, plain, dims, &mut centred);
        Opened { map, centred, norm, border, constant: Vec::new() }
    }

    /// The constant that the border value adds to a branch: the sum of the kernel over its taps,
    /// times the border value, `[out]`.
    pub(super) fn response(&self, weight: &[f32], internal: usize, border: &[f64]) -> Vec<f64> {
        let window = self.shape.window();
        let per_group = self.shape.out_channels / self.shape.groups;
        let kernels = weight.chunks_exact(internal * window).enumerate();
        let response = kernels.map(|(output, kernel)| {
            let border = &border[output / per_group * internal..][..internal];
            let taps = |kernel: &[f32]| kernel.iter().map(|&w| f64::from(w)).sum::<f64>();
            kernel.chunks_exact(window).zip(border).map(|(kernel, b)| taps(kernel) * b).sum()
        });
        response.collect()
    }

    /// The gradient of the weight through [`Self::response`].
    pub(super) fn response_grad(
        &self,
        len: usize,
        internal: usize,
        border: &[f64],
        sums: &[f32],
    ) -> Vec<f32> {
        let window = self.shape.window();
        let per_group = self.shape.out_channels / self.shape.groups;
        let grad = (0..len).map(|index| {
            let output = index / (internal * window);
            let channel = output / per_group * internal + index / window % internal;
            (border[channel] * f64::from(sums[output])) as f32
        });
        grad.collect()
    }

    /// The gradients of the 1x1 convolution and the norm that open a branch.
    pub(super) fn backward_opening(
        &self,
        x: &[f32],
        opening: &PaddedNorm<'_>,
        opened: &Opened,
        grad: Buffer,
        grads: &mut MapGrads<'_>,
    ) -> PaddedNormGrad {
        let shape = self.opening_shape(opening);
        let beta = opening.shifts(&opened.border);
        let norm = opening.as_norm(&beta);
        let (parameters, whole) = (grads.parameters, grads.whole);
        let wanted = Wanted { input: true, residual: false, parameters };
        let mut found = opened.norm.backward(&[&opened.map], &[norm], &[], &grad, wanted, whole);
        drop(grad);
        let ([gamma, beta], map_grad) = (found.norms.remove(0), found.maps.remove(0));
        let weight = if parameters { conv::weight_grad(&shape, x, &map_grad) } else { vec![] };
        grads.input.add(|input, accumulate| {
            conv::backward_input(&shape, &map_grad, opening.weight, input, accumulate);
        });
        PaddedNormGrad { weight, gamma, beta }
    }
}
