//! Pools, and what is computed from them.

use super::BLOCK;
use super::convolution::check_input;
use super::map::Map;
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{ConvShape, planes};

/// The maximum of each window; NaN counts as a maximum.
///
/// # Panics
/// If there is no such pool, a window lies in the padding, or the input has another shape.
#[track_caller]
pub fn max_pool(shape: &ConvShape, input: &Map) -> Map {
    // The groups have no effect.
    let shape = ConvShape { groups: shape.in_channels, ..*shape };
    assert_eq!(shape.in_channels, shape.out_channels, "a pool keeps its channels");
    let geometry = Geometry::new(&shape, shape.input_len(), shape.output_len());
    let inside = (0..2).all(|axis| geometry.padding[axis] < geometry.kernel[axis]);
    assert!(inside, "a window lies in the padding");
    check_input(input, &shape);
    let _span = profile::work(Work::Pools);
    let mut output = Map::new(shape.output_shape());
    let ([batch, _, height, width], blocks) = (output.dims(), output.blocks());
    let (from_len, to_len) = (input.block_len(), output.block_len());
    let to = Shared::new(output.values_mut());
    let taps = |axis: usize, index: usize| {
        let start = index * geometry.stride[axis];
        let (padding, size) = (geometry.padding[axis], geometry.input[axis]);
        start.saturating_sub(padding)..(start + geometry.kernel[axis] - padding).min(size)
    };
    planes::for_each(batch * blocks, to_len, |range| {
        for index in range {
            let from = input.values()[index * from_len..][..from_len].as_chunks::<BLOCK>().0;
            // SAFETY: this task alone has the block.
            let to = unsafe { to.plane_mut(index, to_len) }.as_chunks_mut::<BLOCK>().0;
            for (position, to) in to.iter_mut().enumerate() {
                let (rows, columns) = (taps(0, position / width), taps(1, position % width));
                let mut most = [f32::NEG_INFINITY; BLOCK];
                for row in rows {
                    for from in &from[row * geometry.input[1]..][columns.clone()] {
                        for (most, &value) in most.iter_mut().zip(from) {
                            *most = if value > *most || value.is_nan() { value } else { *most };
                        }
                    }
                }
                *to = most;
            }
        }
    });
    debug_assert_eq!(height * width * BLOCK, to_len);
    output
}

/// The mean of each channel over all positions, `[batch, channels]`.
pub fn means(map: &Map) -> Vec<f32> {
    let _span = profile::work(Work::Pools);
    let [batch, channels, _, width] = map.dims();
    let scale = 1.0 / map.positions() as f32;
    let blocks = map.values().chunks_exact(map.block_len());
    let mut means = Vec::with_capacity(batch * channels);
    for (index, block) in blocks.enumerate() {
        let mut total = [0.0; BLOCK];
        for row in block.as_chunks::<BLOCK>().0.chunks_exact(width) {
            let mut sum = [0.0; BLOCK];
            for value in row {
                sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
            }
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
        let lanes = (channels - index % map.blocks() * BLOCK).min(BLOCK);
        means.extend(total[..lanes].iter().map(|total| total * scale));
    }
    means
}

/// Every channel times its factor, `[batch, channels]`.
///
/// # Panics
/// If there is another number of factors.
#[track_caller]
pub fn scale(map: &Map, factors: &[f32]) -> Map {
    let (channels, blocks, len) = (map.channels(), map.blocks(), map.block_len());
    assert_eq!(factors.len(), map.dims()[0] * channels, "length of the factors");
    let mut output = Map::new(map.dims());
    let to = Shared::new(output.values_mut());
    planes::for_each(map.dims()[0] * blocks, len, |range| {
        for index in range {
            let (image, first) = (index / blocks, index % blocks * BLOCK);
            let lanes = BLOCK.min(channels - first);
            let mut block = [0.0; BLOCK];
            block[..lanes].copy_from_slice(&factors[image * channels + first..][..lanes]);
            let from = map.values()[index * len..][..len].as_chunks::<BLOCK>().0;
            // SAFETY: this task alone has the block.
            let to = unsafe { to.plane_mut(index, len) }.as_chunks_mut::<BLOCK>().0;
            for (to, from) in to.iter_mut().zip(from) {
                for ((to, from), factor) in to.iter_mut().zip(from).zip(&block) {
                    *to = from * factor;
                }
            }
        }
    });
    output
}
