//! Squeeze-and-excitation.

use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::tensor::activation::{hard_sigmoid, relu, sigmoid};
use burn::tensor::{Device, Tensor};

/// Squeeze-and-excitation (Hu et al., CVPR 2018): every channel times a weight from 0 to 1 that
/// two layers compute from the means of all channels.
#[derive(Module, Debug)]
pub struct SqueezeExcite {
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// 1x1 to fewer channels, with ReLU.
    pub fc1: Conv2d,
    /// 1x1 back, with the gate.
    pub fc2: Conv2d,
    #[module(skip)]
    gate: Gate,
}

/// What makes weights from 0 to 1 of the last layer's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `min(max(x + 3, 0), 6) / 6`.
    HardSigmoid,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

impl SqueezeExcite {
    /// A layer over `channels` channels with `squeezed` between its two convolutions, fresh
    /// weights, and hard-sigmoid.
    pub fn new(channels: usize, squeezed: usize, device: &Device) -> Self {
        let pointwise = |channels: [usize; 2]| {
            let mut conv = Conv2dConfig::new(channels, [1, 1]).init(device);
            conv.bias = Some(Initializer::Zeros.init([channels[1]], device));
            conv
        };
        Self {
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc1: pointwise([channels, squeezed]),
            fc2: pointwise([squeezed, channels]),
            gate: Gate::HardSigmoid,
        }
    }

    /// The layer with another gate.
    pub fn with_gate(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// Its gate.
    pub fn gate(&self) -> Gate {
        self.gate
    }

    /// `[batch, channels, height, width]` to the same shape.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let means = self.pool.forward(input.clone());
        input * self.weights(means)
    }

    /// The weight of every channel from its mean, both `[batch, channels, 1, 1]`.
    pub(crate) fn weights(&self, means: Tensor<4>) -> Tensor<4> {
        let weights = self.fc2.forward(relu(self.fc1.forward(means)));
        match self.gate {
            Gate::HardSigmoid => hard_sigmoid(weights, 1.0 / 6.0, 0.5),
            Gate::Sigmoid => sigmoid(weights),
        }
    }
}
