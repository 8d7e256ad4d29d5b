//! The norms of a block, between modules and kernels.

use burn::tensor::{Device, Tensor, TensorData};
use dbb_kernels::dense::PaddedNorm;

use super::operation::{FlexTensor, slice, values};
use crate::blocks::{BatchNorm, RunningStat};

/// Whether every norm uses the statistics of the batch.
pub(super) fn all_train(norms: &[&BatchNorm], device: &Device) -> bool {
    norms.iter().all(|norm| norm.trains_on(device))
}

/// Takes mean and biased variance of every norm, in turns, into its running statistics; does what
/// [`BatchNorm`] does with tensors.
pub(super) fn record<const S: usize>(
    norms: &[&BatchNorm],
    statistics: [Vec<f32>; S],
    counts: &[usize],
) {
    for ((norm, found), &count) in norms.iter().zip(statistics.chunks_exact(2)).zip(counts) {
        let unbiased = count as f64 / (count - 1) as f64;
        update(&norm.running_mean, &found[0], norm.momentum, 1.0);
        update(&norm.running_var, &found[1], norm.momentum, unbiased);
    }
}

fn update(stat: &RunningStat, newest: &[f32], momentum: f64, factor: f64) {
    let (value, device) = (stat.value(), stat.value().device());
    let kept = values(value);
    let updated: Vec<f32> = slice(&kept)
        .iter()
        .zip(newest)
        .map(|(&kept, &newest)| {
            ((1.0 - momentum) * f64::from(kept) + momentum * factor * f64::from(newest)) as f32
        })
        .collect();
    let shape = [updated.len()];
    stat.set(Tensor::from_data(TensorData::new(updated, shape), &device));
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
