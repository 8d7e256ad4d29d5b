//! Convolutions as matrix products whose operands are packed straight from the images.
//!
//! No column buffer is materialised: a task packs the windows of some hundred positions into a
//! panel that stays in cache and multiplies it with all output channels. Transposed products, for
//! the gradients, differ in what is packed.

mod input_grad;
mod product;
mod scratch;
#[cfg(test)]
mod tests;
mod tile;
mod weight_grad;
mod window;

pub use input_grad::backward_input;
pub use weight_grad::backward_weight;

use crate::{ConvShape, depthwise};
use product::{Placement, Product, Weights};
use window::{Grid, Source};

/// What becomes of the result of a convolution before it is written: in this order the bias, what
/// `y` held, the residual and ReLU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[out]`.
    pub bias: Option<&'a [f32]>,
    /// Whether the result is added to `y`.
    pub add: bool,
    /// Of the shape of `y`.
    pub residual: Option<&'a [f32]>,
    /// Whether negative values become zero.
    pub relu: bool,
}

/// `y = conv(x, w)` and the epilogue; `x` is `[batch, in, height, width]`, `w`
/// `[out, in / groups, kh, kw]`, `y` `[batch, out, height', width']`. Costs
/// [`ConvShape::macs`] and one pass over `x` and `y`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn forward(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32], epilogue: Epilogue) {
    check(shape, x.len(), w.len(), y.len());
    assert!(
        epilogue.bias.is_none_or(|bias| bias.len() == shape.out_channels),
        "length of the bias"
    );
    assert!(epilogue.residual.is_none_or(|r| r.len() == y.len()), "length of the residual");
    if shape.is_depthwise() && !epilogue.add && epilogue.residual.is_none() {
        let activation = match epilogue.relu {
            true => depthwise::Activation::Relu,
            false => depthwise::Activation::Identity,
        };
        return depthwise::conv_forward(shape, x, w, epilogue.bias, activation, y);
    }
    let groups = Groups::new(shape);
    let grid = windows(shape);
    let depth = groups.inputs * groups.window;
    let offsets: Vec<usize> = (0..depth).collect();
    for group in 0..shape.groups {
        let weights = Weights {
            data: &w[group * groups.outputs * depth..][..groups.outputs * depth],
            rows: groups.outputs,
            row_step: depth,
            offsets: &offsets,
        };
        let source = Source {
            data: &x[group * groups.inputs * shape.input_positions()..],
            channels: shape.in_channels,
            size: shape.input,
        };
        let placement =
            Placement::whole(shape.out_channels, group * groups.outputs, shape.output());
        Product { batch: shape.batch, source, grid: &grid, weights }.run(&placement, epilogue, y);
    }
}

fn check(shape: &ConvShape, x: usize, w: usize, y: usize) {
    assert!(
        shape.in_channels.is_multiple_of(shape.groups)
            && shape.out_channels.is_multiple_of(shape.groups),
        "groups divide the channels"
    );
    assert_eq!(x, shape.input_len(), "length of the input");
    assert_eq!(w, shape.weight_len(), "length of the weight");
    assert_eq!(y, shape.output_len(), "length of the output");
}

/// Channels of a group and taps of a window.
struct Groups {
    inputs: usize,
    outputs: usize,
    window: usize,
}

impl Groups {
    fn new(shape: &ConvShape) -> Self {
        Self {
            inputs: shape.in_channels / shape.groups,
            outputs: shape.out_channels / shape.groups,
            window: shape.kernel[0] * shape.kernel[1],
        }
    }
}

/// The windows of the forward pass over the input.
fn windows(shape: &ConvShape) -> Grid {
    let [kh, kw] = shape.kernel;
    let [top, left] = shape.padding.map(|p| p as isize);
    let taps = (0..kh * kw).map(|tap| [(tap / kw) as isize - top, (tap % kw) as isize - left]);
    Grid { size: shape.output(), stride: shape.stride, taps: taps.collect() }
}
