//! The algebra of one channel, in `f64`.
//!
//! Let `phi` be the values under the kernel at an output position and `class` the position's
//! border class, which tells the taps that fall inside the input. Every branch before its
//! closing norm is affine, `o = kernel . phi + offset[class]`, so that its batch mean and
//! variance, and the gradients through them, follow from the first moments of `phi` in each class
//! and the second moments over all positions.

use super::grid::Grid;
use crate::arithmetic::{add_scaled, dot};
use crate::norm;

/// Batch norm of one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelNorm {
    pub gamma: f64,
    pub beta: f64,
    pub epsilon: f64,
}

/// Moments of one channel of a batch. `x - shift` stands for the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments<'a> {
    /// Near the mean of the channel; the first and second moments are those of the values less the
    /// shift.
    pub shift: f64,
    /// Mean and variance of the input over all its positions.
    pub mean: f64,
    pub variance: f64,
    /// Mean over all outputs of the value under a tap in the outputs of a class,
    /// `[tap, class]`.
    pub first: &'a [f64],
    /// Mean products of the values under two taps, `a <= b`.
    pub second: &'a [f64],
}

/// Sums over the outputs of the gradient `g` of the block's output.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradSums<'a> {
    /// `g` over the outputs of a class.
    pub class: &'a [f64],
    /// `g` times the value under a tap.
    pub tap: &'a [f64],
}

/// A branch including its closing norm.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    /// Weight of each tap.
    pub kernel: Vec<f64>,
    /// The constant that is added at the outputs of each class.
    pub offset: Vec<f64>,
    pub mean: f64,
    pub variance: f64,
    inverse_std: f64,
    /// Whether mean and variance are constants rather than statistics of the batch.
    fixed: bool,
    /// Second moments times the kernel.
    product: Vec<f64>,
    /// First moments times the kernel, by class.
    by_class: Vec<f64>,
}

/// Gradients of a branch, and how to compute the gradient of its output.
#[derive(Clone, Debug)]
pub(super) struct AffineGrad {
    pub gamma: f64,
    pub beta: f64,
    /// Gradient of [`Affine::kernel`].
    pub kernel: Vec<f64>,
    /// Sum of the gradient of the branch's output over the outputs at which a tap is inside.
    pub inside: Vec<f64>,
    /// The gradient of the branch's output is `scale * g + slope * (kernel . phi) + constant`.
    pub scale: f64,
    pub slope: f64,
    /// By class.
    pub constant: Vec<f64>,
    /// Sum of the gradient of the branch's output over the outputs of a class.
    pub by_class: Vec<f64>,
}

impl Affine {
    pub(super) fn new(grid: &Grid) -> Self {
        let (taps, classes) = (grid.taps(), grid.classes());
        Self {
            kernel: vec![0.0; taps],
            offset: vec![0.0; classes],
            mean: 0.0,
            variance: 0.0,
            inverse_std: 0.0,
            fixed: false,
            product: vec![0.0; taps],
            by_class: vec![0.0; classes],
        }
    }

    /// Computes everything else from the kernel; `inside` is added for each tap inside the input.
    pub(super) fn close(
        &mut self,
        grid: &Grid,
        moments: &Moments<'_>,
        inside: Option<&[f64]>,
        epsilon: f64,
    ) {
        let classes = grid.classes();
        self.offset.fill(0.0);
        self.by_class.fill(0.0);
        for (tap, &weight) in self.kernel.iter().enumerate() {
            let range = tap * classes..(tap + 1) * classes;
            let extra = moments.shift * weight + inside.map_or(0.0, |inside| inside[tap]);
            add_scaled(extra, &grid.inside[range.clone()], &mut self.offset);
            add_scaled(weight, &moments.first[range], &mut self.by_class);
        }
        multiply_symmetric(moments.second, &self.kernel, &mut self.product);
        let linear: f64 = self.by_class.iter().sum();
        let offset = dot(&self.offset, &grid.shares);
        let mut variance = dot(&self.kernel, &self.product) - linear * linear;
        for ((&o, &part), &share) in self.offset.iter().zip(&self.by_class).zip(&grid.shares) {
            let centred = o - offset;
            variance += centred * (2.0 * part + share * centred);
        }
        self.mean = linear + offset;
        self.variance = norm::variance(variance);
        self.inverse_std = norm::inverse_std(self.variance, epsilon);
        self.fixed = false;
    }

    /// Uses these statistics as constants instead of those of the batch.
    pub(super) fn fix(&mut self, mean: f64, variance: f64, epsilon: f64) {
        self.mean = mean;
        self.variance = variance;
        self.inverse_std = norm::inverse_std(variance, epsilon);
        self.fixed = true;
    }

    pub(super) fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// The factor by which the norm multiplies.
    pub(super) fn scale(&self, gamma: f64) -> f64 {
        gamma * self.inverse_std
    }

    /// Adds the normalised branch to the kernel and the biases (by class) of the block.
    pub(super) fn add_to(&self, norm: ChannelNorm, kernel: &mut [f64], bias: &mut [f64]) {
        let scale = self.scale(norm.gamma);
        add_scaled(scale, &self.kernel, kernel);
        for (bias, &offset) in bias.iter_mut().zip(&self.offset) {
            *bias += norm.beta + scale * (offset - self.mean);
        }
    }

    /// The backward pass; `outputs` is the number of output positions in the batch.
    pub(super) fn backward(
        &self,
        grid: &Grid,
        moments: &Moments<'_>,
        sums: &GradSums<'_>,
        gamma: f64,
        outputs: f64,
        grad: &mut AffineGrad,
    ) {
        let classes = grid.classes();
        grad.beta = sums.class.iter().sum();
        // Sum of g * (o - mean).
        let mut centred = dot(&self.kernel, sums.tap);
        for (&offset, &sum) in self.offset.iter().zip(sums.class) {
            centred += (offset - self.mean) * sum;
        }
        grad.gamma = centred * self.inverse_std;
        grad.scale = self.scale(gamma);
        // The gradient through the statistics.
        let (slope, mean) = match self.fixed {
            true => (0.0, 0.0),
            false => (
                -grad.scale * grad.gamma * self.inverse_std / outputs,
                -grad.scale * grad.beta / outputs,
            ),
        };
        grad.slope = slope;
        for (constant, &offset) in grad.constant.iter_mut().zip(&self.offset) {
            *constant = slope * (offset - self.mean) + mean;
        }
        for (class, sum) in grad.by_class.iter_mut().enumerate() {
            *sum = grad.scale * sums.class[class]
                + outputs * grad.slope * self.by_class[class]
                + outputs * grad.constant[class] * grid.shares[class];
        }
        for tap in 0..grid.taps() {
            let range = tap * classes..(tap + 1) * classes;
            let inside = dot(&grid.inside[range.clone()], &grad.by_class);
            grad.inside[tap] = inside;
            grad.kernel[tap] = grad.scale * sums.tap[tap]
                + outputs * grad.slope * self.product[tap]
                + outputs * dot(&moments.first[range], &grad.constant)
                + moments.shift * inside;
        }
    }
}

impl AffineGrad {
    pub(super) fn new(grid: &Grid) -> Self {
        let (taps, classes) = (grid.taps(), grid.classes());
        Self {
            gamma: 0.0,
            beta: 0.0,
            kernel: vec![0.0; taps],
            inside: vec![0.0; taps],
            scale: 0.0,
            slope: 0.0,
            constant: vec![0.0; classes],
            by_class: vec![0.0; classes],
        }
    }
}

/// The batch norm between the 1x1 and the KxK convolution, of one internal channel:
/// `scale * x + shift`, padded with `border`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    pub mean: f64,
    pub variance: f64,
    pub scale: f64,
    pub shift: f64,
    inverse_std: f64,
    weight: f64,
    gamma: f64,
    epsilon: f64,
    /// Whether mean and variance are constants rather than statistics of the batch.
    fixed: bool,
}

impl Inner {
    /// The norm of `weight * x`, with the statistics of the batch unless a mean and a variance are
    /// given as constants.
    pub(super) fn new(
        moments: &Moments<'_>,
        weight: f64,
        norm: ChannelNorm,
        fixed: Option<[f64; 2]>,
    ) -> Self {
        let batch = [weight * moments.mean, weight * weight * moments.variance];
        let [mean, variance] = fixed.unwrap_or(batch);
        let ChannelNorm { gamma, beta, epsilon } = norm;
        let inverse_std = norm::inverse_std(variance, epsilon);
        let scale = gamma * weight * inverse_std;
        let (shift, fixed) = match fixed {
            None => (beta - scale * moments.mean, false),
            Some(_) => (beta - gamma * inverse_std * mean, true),
        };
        Self { mean, variance, scale, shift, inverse_std, weight, gamma, epsilon, fixed }
    }

    /// From the gradients of scale and shift those of weight, gamma and beta, and of the
    /// input's mean and variance.
    pub(super) fn backward(&self, moments: &Moments<'_>, scale: f64, shift: f64) -> [f64; 5] {
        if self.fixed {
            let gamma = (scale * self.weight - shift * self.mean) * self.inverse_std;
            return [scale * self.gamma * self.inverse_std, gamma, shift, 0.0, 0.0];
        }
        let mean = -self.scale * shift;
        let scale = scale - moments.mean * shift;
        let cube = self.inverse_std.powi(3);
        let variance = -0.5 * self.gamma * self.weight.powi(3) * cube * scale;
        let weight = self.gamma * self.epsilon * cube * scale;
        [weight, scale * self.weight * self.inverse_std, shift, mean, variance]
    }
}

/// `product = matrix * vector` for the upper triangle of a symmetric matrix.
fn multiply_symmetric(upper: &[f64], vector: &[f64], product: &mut [f64]) {
    product.fill(0.0);
    let mut rest = upper;
    for a in 0..vector.len() {
        let (row, tail) = rest.split_at(vector.len() - a);
        product[a] += dot(row, &vector[a..]);
        add_scaled(vector[a], &row[1..], &mut product[a + 1..]);
        rest = tail;
    }
}
