//! Depthwise convolutions in inference.

use super::channels::{map_channels, with_scratch};
use super::convolve::{Base, Convolve};
use super::copy::{pad, unpitch};
use super::grid::Grid;
use super::planes::{Planes, TargetPlanes};
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{Activation, ConvShape, instruction_set};

/// Depthwise convolution `[batch, channels, height, width]` to `y`, with `weight`
/// `[channels, 1, kh, kw]`, an optional bias `[channels]` and an activation. Any kernel, stride
/// and padding.
///
/// Cost: one pass over input and output; `kh * kw` multiply-adds per output. Threads share the
/// channels.
///
/// # Panics
/// If a length does not match the shape, or the shape is not depthwise.
pub fn conv_forward(
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    let _span = profile::work(Work::Depthwise);
    let arch = instruction_set::arch();
    let shape = &Geometry::new(shape, x.len(), y.len()).with_weight(weight.len());
    let channels = shape.out_channels;
    assert!(bias.is_none_or(|bias| bias.len() == channels), "length of the bias");
    let grid = &Grid::new(shape);
    let outputs = Shared::new(y);
    map_channels(channels, |range| {
        let lengths =
            [grid.lead + grid.strips_buffer(), grid.output_buffer(), grid.output_buffer()];
        with_scratch(lengths, |[strips, zeros, out]| {
            let strips = &mut strips[grid.lead..];
            for channel in range {
                let weight = &weight[channel * grid.taps()..][..grid.taps()];
                let constant = bias.map_or(0.0, |bias| bias[channel]);
                for image in 0..shape.batch {
                    let images = image..image + 1;
                    let input = Planes::new(x, [channels, grid.input()], images.clone(), channel);
                    pad(arch, grid, input, 0.0, strips, None);
                    Convolve {
                        source: strips,
                        offsets: &grid.offsets,
                        weights: [weight],
                        bases: [Base { strip: zeros, scale: 0.0, constant }],
                        outs: [&mut *out],
                        count: grid.sweep(),
                    }
                    .run(arch);
                    let planes = [channels, grid.output()];
                    // SAFETY: this task alone has the channel, one image at a time.
                    let mut target = unsafe { TargetPlanes::new(outputs, planes, images, channel) };
                    unpitch(arch, grid, out, activation, &mut target);
                }
            }
        });
    });
}
