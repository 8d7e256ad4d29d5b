//! Folded convolutions in inference.

use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use dbb_kernels::{ConvShape, buffer, conv as kernel};

use super::operation::{give, serves, slice, untracked, values};
use crate::layers::activation::Activation;
use crate::layers::conv_spec::ConvSpec;
use crate::layers::epilogue::Epilogue;

/// Whether the kernel serves a convolution of an input: not on an autodiff device.
pub(crate) fn serves_conv(conv: &Conv2d, input: &Tensor<4>) -> bool {
    !input.device().is_autodiff() && serves(input) && shape_of_conv(conv, input).is_some()
}

/// The geometry of a convolution over an input, if a kernel has it.
pub(super) fn shape_of_conv(conv: &Conv2d, input: &Tensor<4>) -> Option<ConvShape> {
    shape_of(&ConvSpec::find(conv)?, input.dims())
}

/// Convolution, bias, residual and activation in one pass, where [`serves_conv`].
pub(crate) fn conv(conv: &Conv2d, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
    let shape = shape_of_conv(conv, &input).expect("the caller has asked");
    let (x, weight) = (values(input), values(conv.weight.val()));
    let bias = conv.bias.as_ref().map(|bias| values(bias.val()));
    let residual = epilogue.residual.map(values);
    let mut y = buffer::take(shape.output_len());
    let epilogue = dbb_kernels::Epilogue {
        bias: bias.as_ref().map(slice),
        residual: residual.as_ref().map(slice),
        activation: activation(epilogue.activation),
        ..Default::default()
    };
    kernel::forward(&shape, slice(&x), slice(&weight), &mut y, epilogue);
    std::iter::once(x).chain(residual).for_each(give);
    untracked(y.into_vec(), shape.output_shape())
}

/// The geometry over an input, if there is such a convolution.
pub(super) fn shape_of(spec: &ConvSpec, input: [usize; 4]) -> Option<ConvShape> {
    let shape = spec.over(input);
    shape.check().is_ok().then_some(shape)
}

/// The activation as the kernels name it.
pub(super) fn activation(activation: Option<Activation>) -> dbb_kernels::Activation {
    match activation {
        None => dbb_kernels::Activation::Identity,
        Some(Activation::Relu) => dbb_kernels::Activation::Relu,
        Some(Activation::Relu6) => dbb_kernels::Activation::Relu6,
        Some(Activation::HardSwish) => dbb_kernels::Activation::HardSwish,
    }
}
