//! Batch norm after a 1x1 convolution, from the moments of the convolution's input.
//!
//! With the mean `mu` and the covariance `S` of `x` over batch and positions, the map `W x` has
//! the mean `W mu` and the variances `diag(W S W^T)`. Its norm is the affine map `A x + d` with
//! `A = gamma / std W` and `d = beta - gamma / std W mu`: `W x` itself is never computed. The
//! backward pass turns gradients of `A` and `d` into those of `W`, `gamma`, `beta` and, through
//! `mu` and `S`, of `x`.
//!
//! The norm is the same if `x` and `mu` are both taken about a shift, as a block does whose input
//! is far from zero: see [`Moments`].

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::buffer::{self, Buffer};
use crate::norm::{Statistics, inverse_std, statistics, variance};
use crate::{BatchStatistics, ConvShape, Epilogue, FixedStatistics, Norm};
use crate::{conv, instruction_set, moments, norm, shift};

/// Mean of a map over batch and positions, and the shift about which the map is to be taken.
///
/// In a product with a weight, an input loses as many digits as its means have more than its
/// deviations. One whose means are far from zero is replaced by the input less `shift`, and
/// what the shift adds is known: a number for each tap that lies inside.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// The means, `[channels]`, or nothing where they are not far from zero.
    pub shift: Option<Vec<f32>>,
    /// Mean of the map less `shift`, `[channels]`.
    pub mean: Vec<f64>,
    /// Values per channel.
    pub count: usize,
}

/// Covariance of a map over batch and positions.
pub(crate) struct Covariance {
    /// `[channels, channels]`, of the biased kind.
    exact: Vec<f64>,
    rounded: Vec<f32>,
}

impl Moments {
    /// Of a map `[batch, channels, positions]`; reads it twice. With `shifts` there is a shift
    /// whatever the means.
    pub fn new(map: &[f32], dims: [usize; 3], shifts: bool) -> (Self, Covariance) {
        let [batch, channels, positions] = dims;
        let mut mean = statistics(map, dims).mean;
        let mut exact = moments::covariance(map, &mean, dims);
        let count = batch * positions;
        exact.iter_mut().for_each(|value| *value /= count as f64);
        let rounded = exact.iter().map(|&value| value as f32).collect();
        // A product with a weight adds channels: what counts is the means of all of them.
        let squares: f64 = mean.iter().map(|mean| mean * mean).sum();
        let variance: f64 = exact.iter().step_by(channels + 1).sum();
        let shift = (shifts || shift::is_far(squares.sqrt(), variance)).then(|| {
            let shift: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
            mean.iter_mut().zip(&shift).for_each(|(mean, &shift)| *mean -= f64::from(shift));
            shift
        });
        (Self { shift, mean, count }, Covariance { exact, rounded })
    }

    /// The map less the shift, where there is one.
    pub fn centred(&self, map: &[f32], positions: usize) -> Option<Buffer> {
        let shift = self.shift.as_ref()?;
        let mut centred = buffer::take(map.len());
        centred
            .par_chunks_exact_mut(positions)
            .zip(map.par_chunks_exact(positions))
            .enumerate()
            .for_each(|(plane, (centred, map))| {
                let shift = shift[plane % shift.len()];
                centred.iter_mut().zip(map).for_each(|(to, &from)| *to = from - shift);
            });
        Some(centred)
    }
}

impl Covariance {
    /// `W S` for a weight of so many rows and the products of its rows with those of `W`, which
    /// are the variances.
    ///
    /// Where channels rise and fall together, rows whose weights cancel are left with less than
    /// the rounding of the products in `f32`: these are computed again in `f64`.
    fn multiply(&self, weight: &[f32], outputs: usize) -> (Vec<f32>, Vec<f64>) {
        let inputs = weight.len() / outputs;
        let mut product = vec![0.0; outputs * inputs];
        conv::matmul(
            [outputs, inputs, inputs],
            weight,
            [inputs, 1],
            &self.rounded,
            [inputs, 1],
            &mut product,
            false,
        );
        let mut variances: Vec<f64> = weight
            .chunks_exact(inputs)
            .zip(product.chunks_exact(inputs))
            .map(|(weight, product)| dot(weight, product))
            .collect();
        let cancels = |&output: &usize| {
            let diagonal = self.exact.iter().step_by(inputs + 1);
            let weight = weight[output * inputs..][..inputs].iter().map(|&w| f64::from(w));
            let apart: f64 = diagonal.zip(weight).map(|(var, w)| var * w * w).sum();
            variances[output] < apart / 64.0
        };
        let cancelled: Vec<usize> = (0..outputs).filter(cancels).collect();
        // A few rows at once, which share the lines of the covariance.
        let exact: Vec<Vec<f64>> = cancelled
            .par_chunks(8)
            .flat_map_iter(|outputs| {
                let mut exact = vec![vec![0.0; inputs]; outputs.len()];
                instruction_set::dispatch(ExactRows {
                    covariance: &self.exact,
                    weight,
                    outputs,
                    exact: &mut exact,
                });
                exact
            })
            .collect();
        for (output, exact) in cancelled.into_iter().zip(exact) {
            let row = output * inputs..(output + 1) * inputs;
            variances[output] = mixed_dot(&weight[row.clone()], &exact);
            product[row].iter_mut().zip(&exact).for_each(|(to, &from)| *to = from as f32);
        }
        variances.iter_mut().for_each(|found| *found = variance(*found));
        (product, variances)
    }
}

/// Some rows of `W S` in `f64`.
struct ExactRows<'a> {
    covariance: &'a [f64],
    weight: &'a [f32],
    outputs: &'a [usize],
    exact: &'a mut [Vec<f64>],
}

impl WithSimd for ExactRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let inputs = self.exact[0].len();
        for (input, line) in self.covariance.chunks_exact(inputs).enumerate() {
            for (exact, &output) in self.exact.iter_mut().zip(self.outputs) {
                let weight = f64::from(self.weight[output * inputs + input]);
                exact.iter_mut().zip(line).for_each(|(sum, s)| *sum += weight * s);
            }
        }
    }
}

/// A 1x1 convolution without bias and its norm, whose output is padded with the norm's image of
/// zero.
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
    /// Whether the running statistics take the place of those of the batch, as constants.
    pub fixed: bool,
}

/// The norm as an affine map of the convolution's input.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    /// `A`, `[out, in]`.
    pub weight: Vec<f32>,
    /// `d - p`: the offset above the border value, `[out]`.
    pub offset: Vec<f64>,
    /// `p`: the border value, from the running statistics after this step, `[out]`.
    pub border: Vec<f64>,
    /// Batch mean of the convolution's output.
    pub mean: Vec<f32>,
    /// The same less the share of the shift.
    centre: Vec<f64>,
    /// Biased batch variance of it.
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
    /// If the lengths are not those of a norm after a 1x1 convolution of these channels and groups,
    /// or it uses the statistics of the batch and there is but one value per channel.
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

    /// The statistics that a fixed norm takes as constants.
    pub(crate) fn running(&self) -> FixedStatistics<'a> {
        FixedStatistics { mean: self.running_mean, var: self.running_var }
    }

    /// The border values, from the batch statistics of `count` values a channel or, without them,
    /// the running ones as they are.
    pub(crate) fn borders(&self, found: Option<&Statistics>, count: usize) -> Vec<f64> {
        let border = (0..self.gamma.len()).map(|channel| {
            let [gamma, beta] = [self.gamma[channel], self.beta[channel]].map(f64::from);
            let kept = [self.running_mean[channel], self.running_var[channel]].map(f64::from);
            let [mean, var] = match found {
                None => kept,
                Some(found) => {
                    let unbiased = count as f64 / (count as f64 - 1.0);
                    let newest = [found.mean[channel], found.var[channel] * unbiased];
                    [0, 1].map(|i| (1.0 - self.momentum) * kept[i] + self.momentum * newest[i])
                }
            };
            beta - mean * gamma / (var + self.epsilon).sqrt()
        });
        border.collect()
    }

    /// The shifts above the border values.
    pub(crate) fn shifts(&self, border: &[f64]) -> Vec<f32> {
        self.beta
            .iter()
            .zip(border)
            .map(|(&beta, border)| (f64::from(beta) - border) as f32)
            .collect()
    }

    /// The norm itself, with other shifts.
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
        let unbiased = input.count as f64 / (input.count as f64 - 1.0);
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
            let centre = mixed_dot(weight, &input.mean);
            let mean = centre + input.shift.as_ref().map_or(0.0, |shift| dot(weight, shift));
            let (gamma, beta) = (f64::from(self.gamma[output]), f64::from(self.beta[output]));
            let scale = gamma * inverse_std(var, self.epsilon);
            let rounded = &mut affine.weight[row];
            rounded.iter_mut().zip(weight).for_each(|(a, &w)| *a = (scale * f64::from(w)) as f32);
            // Of the rounded weight, so that the map has the mean `beta`.
            let offset = beta - mixed_dot(rounded, &input.mean);
            let updated = |old: f32, batch: f64| {
                (1.0 - self.momentum) * f64::from(old) + self.momentum * batch
            };
            let running_mean = updated(self.running_mean[output], mean);
            let running_var = updated(self.running_var[output], var * unbiased);
            let border = beta - running_mean * gamma / (running_var + self.epsilon).sqrt();
            affine.border[output] = border;
            affine.offset[output] = offset - border;
            affine.mean[output] = mean as f32;
            affine.centre[output] = centre;
            affine.var[output] = var as f32;
        }
        affine
    }

    /// From the gradients of `A` and `d`; adds the input's share to `input_grad`.
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
        conv::matmul(
            [inputs, outputs, inputs],
            self.weight,
            [1, inputs],
            &scaled,
            [inputs, 1],
            &mut input_grad.covariance,
            true,
        );
        grad
    }
}

/// Gradients of [`Moments`].
#[derive(Debug)]
pub(crate) struct MomentsGrad {
    mean: Vec<f64>,
    covariance: Vec<f32>,
}

impl MomentsGrad {
    pub fn zero(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], covariance: vec![0.0; channels * channels] }
    }

    /// Adds the gradient of the map itself to `grad`: `2 / count dS (x - mu) + dmu / count`, a
    /// 1x1 convolution. `map` is less the shift.
    pub fn add_to(
        self,
        moments: &Moments,
        map: &[f32],
        [batch, channels, positions]: [usize; 3],
        grad: &mut [f32],
    ) {
        let count = moments.count as f64;
        let weight: Vec<f32> =
            self.covariance.iter().map(|&value| (2.0 * f64::from(value) / count) as f32).collect();
        let bias: Vec<f32> = weight
            .chunks_exact(channels)
            .zip(&self.mean)
            .map(|(row, mean)| (mean / count - mixed_dot(row, &moments.mean)) as f32)
            .collect();
        let shape = ConvShape::pointwise(batch, [channels; 2], positions);
        conv::forward(
            &shape,
            map,
            &weight,
            grad,
            Epilogue { bias: Some(&bias), accumulate: true, ..Epilogue::default() },
        );
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn mixed_dot(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(&a, b)| f64::from(a) * b).sum()
}
