//! A convolution and its batch norm in training: the parts that blocks are made of.

use crate::norm;

/// A batch norm in training.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Scale, `[channels]`.
    pub gamma: &'a [f32],
    /// Shift, `[channels]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f64,
    /// Constant statistics, which replace those of the batch.
    pub fixed: Option<FixedStatistics<'a>>,
}

impl Norm<'_> {
    /// # Panics
    /// If there is not one value for each channel, or the norm uses the statistics of the batch and
    /// `count`, the number of values per channel, is 1.
    #[track_caller]
    pub(crate) fn check(&self, channels: usize, count: usize) {
        assert_eq!([self.gamma.len(), self.beta.len()], [channels; 2], "scale and shift of a norm");
        match &self.fixed {
            Some(fixed) => {
                let lengths = [fixed.mean.len(), fixed.var.len()];
                assert_eq!(lengths, [channels; 2], "statistics of a norm");
            }
            None => norm::check_count(count),
        }
    }
}

/// Mean and variance that a norm uses as constants, `[channels]` each.
#[derive(Clone, Copy, Debug)]
pub struct FixedStatistics<'a> {
    /// Mean.
    pub mean: &'a [f32],
    /// Variance.
    pub var: &'a [f32],
}

/// A convolution without bias and its norm.
#[derive(Clone, Copy, Debug)]
pub struct ConvNorm<'a> {
    /// Weight, `[out, in / groups, kh, kw]`.
    pub weight: &'a [f32],
    /// The norm.
    pub norm: Norm<'a>,
}

/// Mean and biased variance of a norm's input over the batch, `[channels]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchStatistics {
    /// Mean.
    pub mean: Vec<f32>,
    /// Biased variance.
    pub var: Vec<f32>,
}
