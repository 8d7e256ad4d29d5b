//! Squeeze-and-excitation.

use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::tensor::activation::{hard_sigmoid, relu};
use burn::tensor::{Device, Tensor};

/// Squeeze-and-excitation (Hu et al., CVPR 2018): every channel times a weight from 0 to 1 that
/// two layers compute from the means of all channels.
#[derive(Module, Debug)]
pub struct SqueezeExcite {
    /// Mean over all positions.
    pub pool: AdaptiveAvgPool2d,
    /// 1x1 to fewer channels, with ReLU.
    pub fc1: Conv2d,
    /// 1x1 back, with hard-sigmoid.
    pub fc2: Conv2d,
}

impl SqueezeExcite {
    /// A layer over `channels` channels with `squeezed` between its two convolutions and fresh
    /// weights.
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
        }
    }

    /// `[batch, channels, height, width]` to the same shape.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let means = self.pool.forward(input.clone());
        let weights = self.fc2.forward(relu(self.fc1.forward(means)));
        // min(max(x + 3, 0), 6) / 6
        input * hard_sigmoid(weights, 1.0 / 6.0, 0.5)
    }
}
