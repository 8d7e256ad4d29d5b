//! The plain convolution with batch norm.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::batch_norm::BatchNorm;
use super::conv_spec::{ConvSpec, host_conv};
use super::epilogue::Epilogue;
use crate::algebra::{ConvParams, fuse_conv_bn};
use crate::fused;
use crate::implementation::LayerCount;

/// A convolution without bias, followed by batch norm: the baseline of every comparison and
/// the first two branches of a Diverse Branch Block.
#[derive(Module, Debug)]
pub struct ConvBn {
    /// The convolution.
    pub conv: Conv2d,
    /// The norm of its output.
    pub bn: BatchNorm,
}

impl ConvBn {
    /// A block with fresh weights; the geometry must have passed [`ConvSpec::check`].
    pub(crate) fn new(spec: &ConvSpec, device: &Device) -> Self {
        Self { conv: spec.init_conv(device), bn: BatchNorm::new(spec.channels[1], device) }
    }

    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// The same, and what the network makes of the output.
    pub fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        fused::conv_bn(self, &input, &epilogue).unwrap_or_else(|| {
            LayerCount::plain(|| epilogue.forward(self.bn.forward(self.conv.forward(input))))
        })
    }

    /// The equivalent kernel and bias (Transform I).
    pub fn equivalent(&self) -> ConvParams {
        fuse_conv_bn(&host_conv(&self.conv), &self.bn.stats())
    }
}
