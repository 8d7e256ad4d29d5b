//! The norms of a block, between modules and kernels.

use burn::tensor::{Device, Tensor};
use dbb_kernels::dense::PaddedNorm;

use super::operation::{FlexTensor, slice, values};
use crate::blocks::BatchNorm;

/// Whether every norm uses the statistics of the batch.
pub(super) fn all_train(norms: &[&BatchNorm], device: &Device) -> bool {
    norms.iter().all(|norm| norm.trains_on(device))
}

/// Takes mean and variance of every norm into its running statistics.
pub(super) fn record<const S: usize>(
    norms: &[&BatchNorm],
    statistics: [Tensor<1>; S],
    counts: &[usize],
) {
    let mut statistics = statistics.into_iter();
    for (norm, &count) in norms.iter().zip(counts) {
        if let (Some(mean), Some(variance)) = (statistics.next(), statistics.next()) {
            norm.record(mean, variance, count);
        }
    }
}

/// What a norm whose output is padded has seen before this step.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    running_mean: FlexTensor,
    running_var: FlexTensor,
    momentum: f64,
    epsilon: f64,
}

impl Opening {
    pub fn new(norm: &BatchNorm) -> Self {
        Self {
            running_mean: values(norm.running_mean.value()),
            running_var: values(norm.running_var.value()),
            momentum: norm.momentum,
            epsilon: norm.epsilon,
        }
    }

    pub fn padded<'a>(&'a self, [weight, gamma, beta]: [&'a [f32]; 3]) -> PaddedNorm<'a> {
        PaddedNorm {
            weight,
            gamma,
            beta,
            running_mean: slice(&self.running_mean),
            running_var: slice(&self.running_var),
            momentum: self.momentum,
            epsilon: self.epsilon,
        }
    }
}
