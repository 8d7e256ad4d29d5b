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
use crate::BatchStatistics;
use crate::arithmetic::dot;
use crate::conv::{self, Matrix};
use crate::norm::{inverse_std, unbiased};
use crate::padded_norm::{PaddedNorm, PaddedNormGrad};

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

impl Affine {
    pub fn statistics(&self) -> BatchStatistics {
        BatchStatistics { mean: self.mean.clone(), var: self.var.clone() }
    }
}

impl PaddedNorm<'_> {
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
