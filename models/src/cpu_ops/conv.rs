//! The folded convolution in inference.

use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use dbb_kernels::{ConvShape, buffer, conv as kernel};

use super::operation::{give, serves, slice, untracked, values};
use crate::blocks::{Activation, ConvSpec, Epilogue};

/// Whether the kernel serves a convolution of an input: not on an autodiff device.
pub(crate) fn serves_conv(input: &Tensor<4>) -> bool {
    !input.device().is_autodiff() && serves(input)
}

/// Convolution, bias, residual and activation in one pass, where [`serves_conv`].
pub(crate) fn conv(conv: &Conv2d, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
    let shape = shape_of(&ConvSpec::of(conv), &input);
    let (x, weight) = (values(input), values(conv.weight.val()));
    let bias = conv.bias.as_ref().map(|bias| values(bias.val()));
    let (residual, relu, rest) = split(epilogue);
    let residual = residual.map(values);
    let mut y = buffer::take(shape.output_len());
    let fused = dbb_kernels::Epilogue {
        bias: bias.as_ref().map(slice),
        residual: residual.as_ref().map(slice),
        relu,
        ..Default::default()
    };
    kernel::forward(&shape, slice(&x), slice(&weight), &mut y, fused);
    std::iter::once(x).chain(residual).for_each(give);
    rest.forward(untracked(y, shape.output_shape()))
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

/// The residual and whether ReLU follows, which kernels apply; and what is left to do after them.
pub(super) fn split(
    Epilogue { residual, activation }: Epilogue,
) -> (Option<Tensor<4>>, bool, Epilogue) {
    let relu = activation == Some(Activation::Relu);
    let activation = if relu { None } else { activation };
    (residual, relu, Epilogue { residual: None, activation })
}
