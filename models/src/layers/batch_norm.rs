//! Batch norm as PyTorch defines it.

use std::sync::Arc;

use burn::module::{Flag, Initializer, Module, Param};
use burn::tensor::module::{batch_norm, batch_norm_train};
use burn::tensor::{Device, Tensor};

use super::buffer::Buffer;
use super::conv_spec::host;
use crate::algebra::NormStats;
use crate::whole_batch::{Scope, WholeBatch};

/// Batch normalisation (Ioffe & Szegedy, ICML 2015) of maps `[batch, channels, height, width]`
/// with the conventions of PyTorch's `BatchNorm2d`: the biased batch variance normalises, the
/// unbiased one enters `running_var`.
///
/// On a device with autodiff, and unless frozen, a forward uses and records batch statistics;
/// otherwise it uses the running ones. Take [`Module::valid`] to evaluate.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale, `[channels]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub beta: Param<Tensor<1>>,
    /// Mean that inference normalises with, `[channels]`.
    pub running_mean: Buffer,
    /// Variance that inference normalises with, `[channels]`.
    pub running_var: Buffer,
    /// Whether batch statistics are used on an autodiff device; `freeze` clears it.
    pub training: Param<Flag>,
    /// Weight of the newest batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance, inside the square root.
    pub epsilon: f64,
}

/// The constants of a batch norm. The default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// Added to the variance, inside the square root.
    pub epsilon: f64,
    /// Weight of the newest batch in the running statistics.
    pub momentum: f64,
}

impl Default for NormConfig {
    fn default() -> Self {
        Self { epsilon: 1e-5, momentum: 0.1 }
    }
}

impl BatchNorm {
    /// An identity norm: scale 1, shift 0, mean 0, variance 1, with the default constants.
    pub fn new(channels: usize, device: &Device) -> Self {
        let NormConfig { epsilon, momentum } = NormConfig::default();
        Self {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            running_mean: Buffer::new(Tensor::zeros([channels], device)),
            running_var: Buffer::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
            momentum,
            epsilon,
        }
    }

    /// Normalises `[batch, channels, height, width]`.
    ///
    /// # Panics
    /// In training, if a channel has a single value (batch, height and width of 1): it has no
    /// variance, and PyTorch refuses it, too.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        if self.trains_on(&input.device()) {
            return self.forward_train(input);
        }
        let (mean, var) = (self.running_mean.value(), self.running_var.value());
        batch_norm(input, self.gamma.val(), self.beta.val(), mean, var, self.epsilon)
    }

    fn forward_train(&self, input: Tensor<4>) -> Tensor<4> {
        if let Some(batch) = WholeBatch::current() {
            return self.forward_synchronised(input, &batch);
        }
        let [n, c, h, w] = input.dims();
        let count = n * h * w;
        assert!(
            count > 1,
            "batch norm needs more than one value per channel in training, got [{n}, {c}, {h}, {w}]"
        );
        let batch = batch_norm_train(input, self.gamma.val(), self.beta.val(), self.epsilon);
        self.record(batch.mean, batch.variance, count);
        batch.output
    }

    /// The same with the statistics of a batch of which the input is a part.
    fn forward_synchronised(&self, input: Tensor<4>, batch: &Arc<Scope>) -> Tensor<4> {
        let [_, channels, height, width] = input.dims();
        let count = batch.images() * height * width;
        assert!(count > 1, "batch norm needs more than one value per channel in training");
        // Two passes, as a single one would subtract large numbers.
        let mean_of = |map: Tensor<4>| {
            let rows = map.swap_dims(0, 1).reshape([channels as i32, -1]);
            batch.sum(rows.sum_dim(1).reshape([channels])).div_scalar(count as f64)
        };
        let shaped = |values: Tensor<1>| values.reshape([1, channels, 1, 1]);
        let mean = mean_of(input.clone());
        let centred = input - shaped(mean.clone());
        let variance = mean_of(centred.clone() * centred.clone());
        let scale = self.gamma.val() / variance.clone().add_scalar(self.epsilon).sqrt();
        self.record(mean.detach(), variance.detach(), count);
        centred * shaped(scale) + shaped(self.beta.val())
    }

    /// Whether a forward of an input on this device uses and records batch statistics.
    pub(crate) fn trains_on(&self, device: &Device) -> bool {
        device.is_autodiff() && self.training.is_enabled()
    }

    /// Takes the mean and the biased variance of a batch of `count` values per channel into the
    /// running statistics.
    fn record(&self, mean: Tensor<1>, variance: Tensor<1>, count: usize) {
        let unbiased = variance.mul_scalar(count as f64 / (count - 1) as f64);
        self.update(&self.running_mean, mean);
        self.update(&self.running_var, unbiased);
    }

    fn update(&self, stat: &Buffer, newest: Tensor<1>) {
        let kept = stat.value().mul_scalar(1.0 - self.momentum);
        stat.set(kept + newest.mul_scalar(self.momentum));
    }

    /// Value of a map of zeros after this norm, in inference: `beta - running_mean * gamma /
    /// sqrt(running_var + epsilon)`, `[channels]`, without gradient.
    pub fn image_of_zero(&self) -> Tensor<1> {
        let std = self.running_var.value().add_scalar(self.epsilon).sqrt();
        let scale = self.gamma.val().detach() / std;
        self.beta.val().detach() - self.running_mean.value() * scale
    }

    /// Scale, shift and running statistics on the host.
    pub fn stats(&self) -> NormStats {
        NormStats {
            gamma: host(self.gamma.val()),
            beta: host(self.beta.val()),
            mean: host(self.running_mean.value()),
            var: host(self.running_var.value()),
            epsilon: self.epsilon,
        }
    }
}
