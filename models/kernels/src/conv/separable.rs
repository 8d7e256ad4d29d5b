//! Depthwise separable convolutions in inference.

use super::product::{Product, Run};
use super::{Epilogue, forward, forward_product, input_columns};
use crate::depthwise::conv_forward;
use crate::gemm::{self, Filters};
use crate::shape::Geometry;
use crate::{Activation, ConvShape, buffer};

/// A depthwise convolution, its bias and its activation.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a> {
    /// The geometry, of as many groups as channels.
    pub shape: ConvShape,
    /// Weight, `[channels, 1, kh, kw]`.
    pub weight: &'a [f32],
    /// Added per channel.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

/// `y = conv(depthwise(x), w)` with a 1x1 convolution of weight `w`, `[outputs, channels]`, then the
/// epilogue.
///
/// The output of the depthwise convolution is not stored: its values are computed where the product of
/// the 1x1 convolution packs its operand, if the kernel is 3x3 or 5x5 and the stride 1 or 2.
///
/// # Panics
/// If the first convolution does not exist or is not depthwise, or a length does not fit.
pub fn forward_separable(
    first: &Depthwise,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    epilogue: Epilogue,
) {
    let &Depthwise { shape: ref depthwise, weight, bias, activation } = first;
    let geometry =
        &Geometry::new(depthwise, x.len(), depthwise.output_len()).with_weight(weight.len());
    let channels = depthwise.out_channels;
    assert!(depthwise.is_depthwise(), "not a depthwise convolution: {depthwise:?}");
    assert!(bias.is_none_or(|bias| bias.len() == channels), "length of the bias");
    let sizes = [channels, w.len() / channels];
    let pointwise = ConvShape::pointwise(depthwise.batch, sizes, depthwise.output_positions());
    let pointwise = &Geometry::new(&pointwise, pointwise.input_len(), y.len())
        .with_weight(w.len())
        .with_residual(epilogue.residual);
    epilogue.check_bias(pointwise.out_channels);
    let Some(filters) = Filters::new(weight, bias, activation, [geometry.kernel, geometry.stride])
    else {
        let mut between = buffer::take(depthwise.output_len());
        conv_forward(depthwise, x, weight, bias, activation, &mut between);
        return forward(pointwise, &between, w, y, epilogue);
    };
    let product = Product {
        columns: input_columns(geometry, 0, x),
        filters: Some(filters),
        ..forward_product(pointwise, 0, x, w)
    };
    gemm::dispatch(Run { product: &product, y, epilogue, moments: None });
}
