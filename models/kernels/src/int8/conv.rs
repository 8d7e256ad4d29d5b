//! Convolutions.

use pulp::Arch;
use rayon::prelude::*;

use super::affine::to_u8;
use super::{LARGEST_BIAS, LARGEST_SUM, dots, four_rows, pitch, widened};
use crate::shape::Geometry;
use crate::{ConvShape, instruction_set};

/// From the sums of an output channel to 8 bits: `(sum + bias) * scale + zero_point`, rounded to the
/// nearest integer, ties to even, within 0 to 255.
#[derive(Clone, Copy, Debug)]
pub struct Rounding<'a> {
    /// In units of the product of the input's and the weight's scale, at most
    /// [`LARGEST_BIAS`] in magnitude; one per output channel.
    pub bias: &'a [i32],
    /// The scales of input and weight over that of the output; one per output channel.
    pub scale: &'a [f32],
    /// What stands for zero in the output.
    pub zero_point: u8,
}

impl Rounding<'_> {
    #[inline(always)]
    fn apply(&self, channel: usize, sums: &[i32], to: &mut [u8]) {
        let (bias, scale) = (self.bias[channel], self.scale[channel]);
        let zero = f32::from(self.zero_point);
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = to_u8((sum + bias) as f32 * scale, zero);
        }
    }
}

/// Output positions that are computed together: their patches stay in the cache.
const TILE: usize = 64;

/// Convolution `[batch, in, height, width]` to `y`, with `weight` `[out, in / groups, kh, kw]`; the
/// padding stands for zero, as `zero_point` does in `x`. Threads share the images.
///
/// # Panics
/// If a length does not match the shape, a sum has more than [`LARGEST_SUM`] products, or a bias is
/// beyond [`LARGEST_BIAS`].
pub fn conv(
    shape: &ConvShape,
    x: &[u8],
    zero_point: u8,
    weight: &[i8],
    rounding: &Rounding,
    y: &mut [u8],
) {
    let shape = &Geometry::new(shape, x.len(), y.len()).with_weight(weight.len());
    let channels = shape.out_channels;
    assert_eq!([rounding.bias.len(), rounding.scale.len()], [channels; 2], "one per channel");
    assert!(rounding.bias.iter().all(|bias| bias.abs() <= LARGEST_BIAS), "a bias is too large");
    let products = weight.len() / channels;
    assert!(products <= LARGEST_SUM, "a sum has more than {LARGEST_SUM} products");
    let arch = instruction_set::arch();
    let images = x.par_chunks(x.len() / shape.batch).zip(y.par_chunks_mut(y.len() / shape.batch));
    if shape.is_depthwise() {
        let weight: Vec<i32> = weight.iter().map(|&w| w.into()).collect();
        images.for_each(|(x, y)| depthwise(arch, shape, x, zero_point, &weight, rounding, y));
    } else {
        let weight = widened(weight, products);
        images.for_each(|(x, y)| dense(arch, shape, x, zero_point, &weight, rounding, y));
    }
}

/// One image, every output a sum over a patch of the input.
fn dense(
    arch: Arch,
    shape: &Geometry,
    x: &[u8],
    zero_point: u8,
    weight: &[i16],
    rounding: &Rounding,
    y: &mut [u8],
) {
    let positions = shape.output_positions();
    let [inputs, outputs] = [shape.in_channels, shape.out_channels].map(|n| n / shape.groups);
    let pitch = pitch(inputs * shape.window());
    let plane = shape.input[0] * shape.input[1];
    let mut patches = vec![0; TILE * pitch];
    let mut sums = [[0; TILE]; 4];
    for group in 0..shape.groups {
        let x = &x[group * inputs * plane..][..inputs * plane];
        let weight = &weight[group * outputs * pitch..][..outputs * pitch];
        for start in (0..positions).step_by(TILE) {
            let count = TILE.min(positions - start);
            fill(shape, x, zero_point, start, &mut patches[..count * pitch], pitch);
            for first in (0..outputs).step_by(4) {
                arch.dispatch(
                    #[inline(always)]
                    || {
                        let rows = four_rows(weight, pitch, first);
                        for (at, patch) in patches.chunks_exact(pitch).take(count).enumerate() {
                            let found = dots(patch, rows);
                            sums.iter_mut().zip(found).for_each(|(sums, sum)| sums[at] = sum);
                        }
                        for (channel, sums) in (first..outputs).zip(&sums) {
                            let channel = group * outputs + channel;
                            let to = &mut y[channel * positions + start..][..count];
                            rounding.apply(channel, sums, to);
                        }
                    },
                );
            }
        }
    }
}

/// The patches of the output positions from `start` on, one after the other, with a pitch; zero is 0.
fn fill(
    shape: &ConvShape,
    x: &[u8],
    zero_point: u8,
    start: usize,
    patches: &mut [i16],
    pitch: usize,
) {
    let [height, width] = shape.input;
    let [_, columns] = shape.output();
    let zero = i16::from(zero_point);
    for (at, patch) in (start..).zip(patches.chunks_exact_mut(pitch)) {
        let corner = [at / columns * shape.stride[0], at % columns * shape.stride[1]];
        let mut values = patch.iter_mut();
        for plane in x.chunks_exact(height * width) {
            for row in 0..shape.kernel[0] {
                // Outside of the map where the subtraction wraps around, too.
                let row = (corner[0] + row).wrapping_sub(shape.padding[0]);
                let row = (row < height).then(|| &plane[row * width..][..width]);
                for (column, to) in (0..shape.kernel[1]).zip(&mut values) {
                    let column = (corner[1] + column).wrapping_sub(shape.padding[1]);
                    let value = row.and_then(|row| row.get(column));
                    *to = value.map_or(0, |&value| i16::from(value) - zero);
                }
            }
        }
    }
}

/// One image, every channel by itself.
fn depthwise(
    arch: Arch,
    shape: &Geometry,
    x: &[u8],
    zero_point: u8,
    weight: &[i32],
    rounding: &Rounding,
    y: &mut [u8],
) {
    let [height, width] = shape.input;
    let [_, columns] = shape.output();
    let (stride, kernel) = (shape.stride, shape.kernel);
    // A row of the map in its padding.
    let mut padded = vec![0; width + 2 * shape.padding[1]];
    let mut sums = vec![0; columns];
    let planes = x.chunks_exact(height * width).zip(weight.chunks_exact(shape.window()));
    let outputs = y.chunks_exact_mut(shape.output_positions());
    for (channel, ((plane, weight), y)) in planes.zip(outputs).enumerate() {
        for (at, y) in y.chunks_exact_mut(columns).enumerate() {
            sums.fill(0);
            for (row, weight) in weight.chunks_exact(kernel[1]).enumerate() {
                let row = (at * stride[0] + row).wrapping_sub(shape.padding[0]);
                if row >= height {
                    continue;
                }
                arch.dispatch(
                    #[inline(always)]
                    || {
                        let from = &plane[row * width..][..width];
                        let to = &mut padded[shape.padding[1]..][..width];
                        for (to, &from) in to.iter_mut().zip(from) {
                            *to = i32::from(from) - i32::from(zero_point);
                        }
                        for (column, weight) in weight.iter().enumerate() {
                            let from = padded[column..].iter().step_by(stride[1]);
                            for (sum, value) in sums.iter_mut().zip(from) {
                                *sum += weight * value;
                            }
                        }
                    },
                );
            }
            arch.dispatch(
                #[inline(always)]
                || rounding.apply(channel, &sums, y),
            );
        }
    }
}
