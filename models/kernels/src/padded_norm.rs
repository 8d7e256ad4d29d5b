//! A norm whose output is padded with what it makes of zero.

use crate::conv_norm::{FixedStatistics, Norm};
use crate::norm::{self, Statistics, unbiased};

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
}
