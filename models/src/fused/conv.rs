//! The folded convolution in inference.

use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use dbb_kernels::{ConvShape, conv as kernel};

use super::operation::{serves, slice, untracked, values};
use crate::blocks::{Activation, ConvSpec, Epilogue};

/// Convolution, bias, residual and activation in one pass. Not on an autodiff device.
pub(crate) fn conv(conv: &Conv2d, input: &Tensor<4>, epilogue: &Epilogue) -> Option<Tensor<4>> {
    if input.device().is_autodiff() || !serves(input) {
        return None;
    }
    let shape = shape_of(&ConvSpec::of(conv), input);
    let (x, weight) = (values(input.clone()), values(conv.weight.val()));
    let bias = conv.bias.as_ref().map(|bias| values(bias.val()));
    let residual = epilogue.residual.clone().map(values);
    let (relu, rest) = split(epilogue.activation);
    let mut y = vec![0.0; shape.output_len()];
    let fused = dbb_kernels::Epilogue {
        bias: bias.as_ref().map(slice),
        residual: residual.as_ref().map(slice),
        relu,
        ..Default::default()
    };
    kernel::forward(&shape, slice(&x), slice(&weight), &mut y, fused);
    let y = untracked(y, shape.output_shape());
    Some(match rest {
        Some(activation) => activation.forward(y),
        None => y,
    })
}

/// The geometry of a convolution over an input.
pub(super) fn shape_of(spec: &ConvSpec, input: &Tensor<4>) -> ConvShape {
    let [batch, _, height, width] = input.dims();
    ConvShape {
        batch,
        in_channels: spec.channels[0],
        out_channels: spec.channels[1],
        input: [height, width],
        kernel: spec.kernel_size,
        stride: spec.stride,
        padding: spec.padding,
        groups: spec.groups,
    }
}

/// Whether the kernel applies ReLU, and what is left to apply after it.
pub(super) fn split(activation: Option<Activation>) -> (bool, Option<Activation>) {
    match activation {
        Some(Activation::Relu) => (true, None),
        other => (false, other),
    }
}
