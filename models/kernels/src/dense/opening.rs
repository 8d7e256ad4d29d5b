//! Batch norm after a 1x1 convolution, from the moments of the convolution's input.
//!
//! With the mean `mu` and the covariance `S` of `x` over batch and positions, the map `W x` has
//! the mean `W mu` and the variances `diag(W S W^T)`. Its norm is the affine map `A x + d` with
//! `A = gamma / std W` and `d = beta - gamma / std W mu`: `W x` itself is never computed. The
//! backward pass turns gradients of `A` and `d` into those of `W`, `gamma`, `beta` and, through
//! `mu` and `S`, of `x`.
//!
//! The norm does not change if a shift is subtracted from both `x` and `mu`, as a block does whose
//! input has means far from zero: see [`Moments`].

use super::input_moments::{Covariance, Moments, MomentsGrad};
use crate::arithmetic::dot;
use crate::conv::{self, Matrix};
use crate::norm::{self, Statistics, inverse_std};
use crate::{BatchStatistics, FixedStatistics, Norm};

/// A 1x1 convolution without bias and its norm, whose output is padded with the border value: the
/// norm's output for zero.
#[derive(Clone, Copy, Debug)]
pub struct PaddedNorm<'a> {
    /// Weight, `[out, in]`.
    pub weight: &'a [f32],
    /// Scale, `[out]`.
    pub gamma: &'a [f32],
    /// Shift, `[out]`.
    pub beta: &'a [f32],
    /// Running mean before this step, `[out]`.
    pub running_mean: &'a [f32],
    /// Running variance before this step, `[out]`.
    pub running_var: &'a [f32],
    /// Weight of this batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance.
    pub epsilon: f64,
    /// Whether the running statistics replace those of the batch, as constants.
    pub fixed: bool,
}

/// The norm as an affine map of the convolution's input.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    /// `A`, `[out, in]`.
    pub weight: Vec<f32>,
    /// `d - p`: the offset less the border value, `[out]`.
    pub offset: Vec<f64>,
    /// `p`: the border value, from the running statistics after this step, `[out]`.
    pub border: Vec<f64>,
    /// Batch mean of the convolution's output.
    pub mean: Vec<f32>,
    /// The batch mean without the contribution of the shift.
    centre: Vec<f64>,
    /// Biased batch variance of the convolution's output.
    pub var: Vec<f32>,
    /// `W S`, `[out, in]`.
    weight_covariance: Vec<f32>,
}

/// Gradients of a [`PaddedNorm`].
#[derive(Clone, Debug, PartialEq)]
pub struct PaddedNormGrad {
    /// `[out, in]`.
    pub weight: Vec<f32>,
    /// `[out]`.
    pub gamma: Vec<f32>,
    /// `[out]`.
    pub beta: Vec<f32>,
}

impl Affine {
    pub fn statistics(&self) -> BatchStatistics {
        BatchStatistics { mean: self.mean.clone(), var: self.var.clone() }
    }
}

impl<'a> PaddedNorm<'a> {
    /// # Panics
    /// If the lengths do not match a norm after a 1x1 convolution with these channels and groups,
    /// or it uses the statistics of the batch and there is only one value per channel.
    #[track_caller]
    pub(crate) fn check(&self, [inputs, outputs]: [usize; 2], groups: usize, count: usize) {
        let Self { gamma, beta, running_mean, running_var, .. } = self;
        let lengths = [gamma, beta, running_mean, running_var].map(|values| values.len());
        assert!(outputs > 0, "a 1x1 convolution has outputs");
        assert_eq!(lengths, [outputs; 4], "parameters of a padded norm");
        let weight = outputs * (inputs / groups);
        assert_eq!(self.weight.len(), weight, "weight before a padded norm");
        if !self.fixed {
            norm::check_count(count);
        }
    }

    /// The statistics that a norm with constant statistics uses.
    pub(crate) fn running(&self) -> FixedStatistics<'a> {
        FixedStatistics { mean: self.running_mean, var: self.running_var }
    }

    /// The border values, from the batch statistics of `count` values per channel or, without them,
    /// from the running statistics alone.
    pub(crate) fn borders(&self, found: Option<&Statistics>, count: usize) -> Vec<f64> {
        let unbiased = unbiased(count);
        let border = (0..self.gamma.len()).map(|channel| {
            let newest = found.map(|found| [found.mean[channel], found.var[channel] * unbiased]);
            self.border(channel, newest)
        });
        border.collect()
    }

    /// The border value of a channel: the norm's output for zero with the running statistics,
    /// updated with the mean and the unbiased variance of the batch if they are given.
    pub(crate) fn border(&self, channel: usize, newest: Option<[f64; 2]>) -> f64 {
        let [gamma, beta] = [self.gamma[channel], self.beta[channel]].map(f64::from);
        let kept = [self.running_mean[channel], self.running_var[channel]].map(f64::from);
        let [mean, var] = newest.map_or(kept, |newest| {
            [0, 1].map(|i| (1.0 - self.momentum) * kept[i] + self.momentum * newest[i])
        });
        beta - mean * gamma / (var + self.epsilon).sqrt()
    }

    /// The shifts of the norm less the border values.
    pub(crate) fn shifts(&self, border: &[f64]) -> Vec<f32> {
        self.beta
            .iter()
            .zip(border)
            .map(|(&beta, border)| (f64::from(beta) - border) as f32)
            .collect()
    }

    /// The norm, with other shifts.
    pub(crate) fn as_norm<'n>(&self, beta: &'n [f32]) -> Norm<'n>
    where
        'a: 'n,
    {
        let fixed = self.fixed.then(|| self.running());
        Norm { gamma: self.gamma, beta, epsilon: self.epsilon, fixed }
    }

    pub(crate) fn forward(&self, input: &Moments, covariance: &Covariance) -> Affine {
        let (outputs, inputs) = (self.gamma.len(), input.mean.len());
        let (weight_covariance, variances) = covariance.multiply(self.weight, outputs);
        let unbiased = unbiased(input.count);
        let mut affine = Affine {
            weight: vec![0.0; outputs * inputs],
            offset: vec![0.0; outputs],
            border: vec![0.0; outputs],
            mean: vec![0.0; outputs],
            centre: vec![0.0; outputs],
            var: vec![0.0; outputs],
            weight_covariance,
        };
        for (output, var) in variances.into_iter().enumerate() {
            let row = output * inputs..(output + 1) * inputs;
            let weight = &self.weight[row.clone()];
            let centre = dot(weight, &input.mean);
            let mean = centre + input.shift.as_ref().map_or(0.0, |shift| dot(weight, shift));
            let (gamma, beta) = (f64::from(self.gamma[output]), f64::from(self.beta[output]));
            let scale = gamma * inverse_std(var, self.epsilon);
            let rounded = &mut affine.weight[row];
            rounded.iter_mut().zip(weight).for_each(|(a, &w)| *a = (scale * f64::from(w)) as f32);
            // Computed from the rounded weight, so that the mean of the map is `beta`.
            let offset = beta - dot(rounded, &input.mean);
            let border = self.border(output, Some([mean, var * unbiased]));
            affine.border[output] = border;
            affine.offset[output] = offset - border;
            affine.mean[output] = mean as f32;
            affine.centre[output] = centre;
            affine.var[output] = var as f32;
        }
        affine
    }

    /// Computes the gradients from those of `A` and `d`, and adds those of the moments to
    /// `input_grad`.
    pub(crate) fn backward(
        &self,
        input: &Moments,
        affine: &Affine,
        weight_grad: &[f32],
        offset_grad: &[f64],
        input_grad: &mut MomentsGrad,
    ) -> PaddedNormGrad {
        let (outputs, inputs) = (self.gamma.len(), input.mean.len());
        let mut grad = PaddedNormGrad {
            weight: vec![0.0; outputs * inputs],
            gamma: vec![0.0; outputs],
            beta: vec![0.0; outputs],
        };
        // diag(dvar) W, whose product with W^T is the gradient of the covariance.
        let mut scaled = vec![0.0; outputs * inputs];
        for (output, &offset) in offset_grad.iter().enumerate() {
            let row = output * inputs..(output + 1) * inputs;
            let weight = &self.weight[row.clone()];
            let inv_std = inverse_std(affine.var[output].into(), self.epsilon);
            let scale = f64::from(self.gamma[output]) * inv_std;
            let scale_grad =
                dot(&weight_grad[row.clone()], weight) - offset * affine.centre[output];
            let var_grad = -0.5 * scale_grad * scale * inv_std * inv_std;
            let mean_grad = -offset * scale;
            grad.gamma[output] = (scale_grad * inv_std) as f32;
            grad.beta[output] = offset as f32;
            for (index, &w) in row.zip(weight) {
                let column = index % inputs;
                let through_moments = mean_grad * input.mean[column]
                    + 2.0 * var_grad * f64::from(affine.weight_covariance[index]);
                grad.weight[index] =
                    (scale * f64::from(weight_grad[index]) + through_moments) as f32;
                scaled[index] = (var_grad * f64::from(w)) as f32;
                input_grad.mean[column] += mean_grad * f64::from(w);
            }
        }
        let [weight, scaled] =
            [self.weight, &scaled].map(|values| Matrix::row_major(values, [outputs, inputs]));
        conv::matmul(weight.transposed(), scaled, &mut input_grad.covariance, true);
        grad
    }
}

/// The ratio of the unbiased to the biased variance of `count` values.
fn unbiased(count: usize) -> f64 {
    count as f64 / (count as f64 - 1.0)
}
