//! Running statistics, from what kernels have found.

use burn::tensor::{Tensor, TensorData};
use dbb_kernels::BatchStatistics;

use super::operation::{slice, values};
use crate::layers::batch_norm::BatchNorm;
use crate::layers::buffer::Buffer;

/// Takes mean and biased variance of `count` values a channel into the running statistics of a
/// norm; does what [`BatchNorm`] does with tensors.
pub(super) fn record(norm: &BatchNorm, found: &BatchStatistics, count: usize) {
    let unbiased = count as f64 / (count - 1) as f64;
    update(&norm.running_mean, &found.mean, norm.momentum, 1.0);
    update(&norm.running_var, &found.var, norm.momentum, unbiased);
}

fn update(stat: &Buffer, newest: &[f32], momentum: f64, factor: f64) {
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
