//! Folded convolutions in inference.

use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use dbb_kernels::{ConvShape, buffer, conv as kernel};

use super::operation::{FlexTensor, give, serves, slice, untracked, values};
use super::prepared::prepared;
use crate::layers::activation::Activation;
use crate::layers::conv_spec::ConvSpec;
use crate::layers::epilogue::Epilogue;

/// Whether the kernel serves a convolution of an input: not on an autodiff device.
pub(crate) fn serves_conv(conv: &Conv2d, input: &Tensor<4>) -> bool {
    !input.device().is_autodiff() && serves(input) && shape_of_conv(conv, input).is_some()
}

/// The geometry of a convolution over an input, if a kernel has it.
pub(super) fn shape_of_conv(conv: &Conv2d, input: &Tensor<4>) -> Option<ConvShape> {
    shape_of(&ConvSpec::find(conv)?, input)
}

/// Convolution, bias, residual and activation in one pass, where [`serves_conv`].
pub(crate) fn conv(conv: &Conv2d, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
    let shape = shape_of_conv(conv, &input).expect("the caller has asked");
    let (x, weight) = (values(input), values(conv.weight.val()));
    let bias = conv.bias.as_ref().map(|bias| values(bias.val()));
    let residual = epilogue.residual.map(values);
    let mut y = buffer::take(shape.output_len());
    let epilogue = kernel_epilogue(&bias, &residual, epilogue.activation);
    let weight_values = slice(&weight);
    match prepared(&shape, &weight) {
        Some(prepared) => {
            let weight = (weight_values, &*prepared);
            kernel::forward_prepared(&shape, slice(&x), weight, &mut y, epilogue);
        }
        None => kernel::forward(&shape, slice(&x), weight_values, &mut y, epilogue),
    }
    std::iter::once(x).chain(residual).for_each(give);
    untracked(y.into_vec(), shape.output_shape())
}

/// Whether the kernel serves a depthwise convolution and the 1x1 convolution that reads it.
pub(crate) fn serves_separable([depthwise, pointwise]: [&Conv2d; 2], input: &Tensor<4>) -> bool {
    let specs = [depthwise, pointwise].map(ConvSpec::find);
    let [Some(first), Some(second)] = specs else { return false };
    let fits = first.channels[1] == second.channels[0];
    let plain = second == ConvSpec::square(second.channels, 1, 1);
    first.is_depthwise() && fits && plain && serves_conv(depthwise, input)
}

/// A depthwise convolution with bias and activation, then a 1x1 convolution with bias, residual and
/// activation, where [`serves_separable`].
pub(crate) fn separable(
    convs: [&Conv2d; 2],
    input: Tensor<4>,
    between: Activation,
    epilogue: Epilogue,
) -> Tensor<4> {
    let shape = shape_of_conv(convs[0], &input).expect("the caller has asked");
    let x = values(input);
    let weights = convs.map(|conv| values(conv.weight.val()));
    let biases = convs.map(|conv| conv.bias.as_ref().map(|bias| values(bias.val())));
    let residual = epilogue.residual.map(values);
    let [batch, _, height, width] = shape.output_shape();
    let output_shape = [batch, convs[1].weight.dims()[0], height, width];
    let mut y = buffer::take(output_shape.iter().product());
    let depthwise = kernel::Depthwise {
        shape,
        weight: slice(&weights[0]),
        bias: biases[0].as_ref().map(slice),
        activation: activation(Some(between)),
    };
    let epilogue = kernel_epilogue(&biases[1], &residual, epilogue.activation);
    kernel::forward_separable(&depthwise, slice(&x), slice(&weights[1]), &mut y, epilogue);
    std::iter::once(x).chain(residual).for_each(give);
    untracked(y.into_vec(), output_shape)
}

fn kernel_epilogue<'a>(
    bias: &'a Option<FlexTensor>,
    residual: &'a Option<FlexTensor>,
    last: Option<Activation>,
) -> dbb_kernels::Epilogue<'a> {
    dbb_kernels::Epilogue {
        bias: bias.as_ref().map(slice),
        residual: residual.as_ref().map(slice),
        activation: activation(last),
        ..Default::default()
    }
}

/// The geometry over an input, if there is such a convolution.
pub(super) fn shape_of(spec: &ConvSpec, input: &Tensor<4>) -> Option<ConvShape> {
    let [batch, _, height, width] = input.dims();
    let shape = ConvShape {
        batch,
        in_channels: spec.channels[0],
        out_channels: spec.channels[1],
        input: [height, width],
        kernel: spec.kernel_size,
        stride: spec.stride,
        padding: spec.padding,
        groups: spec.groups,
    };
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
