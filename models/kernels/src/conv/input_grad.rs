//! The gradient of a convolution's input.

use super::product::{Placement, Product, Weights};
use super::window::{Grid, Source};
use super::{Epilogue, Groups, check};
use crate::ConvShape;

/// `dx = conv^T(dy, w)`, or added to `dx`. Shapes as in [`forward`](super::forward); costs
/// [`ConvShape::macs`] and one pass over `dy` and `dx`.
///
/// With a stride, the input's positions fall into classes by their remainder; each class is a
/// convolution of stride 1 of `dy` with some of the taps, so that no zero is multiplied.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward_input(shape: &ConvShape, dy: &[f32], w: &[f32], dx: &mut [f32], add: bool) {
    check(shape, dx.len(), w.len(), dy.len());
    let groups = Groups::new(shape);
    let [kh, kw] = shape.kernel;
    let [height, width] = shape.input;
    for phase in 0..shape.stride[0] * shape.stride[1] {
        let start = [phase / shape.stride[1], phase % shape.stride[1]];
        if start[0] >= height || start[1] >= width {
            continue;
        }
        // Input row `r` meets output row `(r + padding - tap) / stride` where that is whole.
        let along = |axis: usize| {
            let taps = shape.kernel[axis];
            (0..taps)
                .filter_map(|tap| {
                    let ahead = (start[axis] + shape.padding[axis]) as isize - tap as isize;
                    let stride = shape.stride[axis] as isize;
                    (ahead.rem_euclid(stride) == 0).then(|| (tap, ahead.div_euclid(stride)))
                })
                .collect::<Vec<_>>()
        };
        let (rows, columns) = (along(0), along(1));
        let mut taps = Vec::new();
        let mut places = Vec::new();
        for &(row, row_offset) in &rows {
            for &(column, column_offset) in &columns {
                taps.push([row_offset, column_offset]);
                places.push(row * kw + column);
            }
        }
        let size =
            [0, 1].map(|axis| (shape.input[axis] - start[axis]).div_ceil(shape.stride[axis]));
        if taps.is_empty() {
            if !add {
                clear(dx, shape, start, size);
            }
            continue;
        }
        let grid = Grid { size, stride: [1, 1], taps };
        let offsets: Vec<usize> = (0..groups.outputs)
            .flat_map(|output| {
                places.iter().map(move |place| output * groups.inputs * kh * kw + place)
            })
            .collect();
        for group in 0..shape.groups {
            let kernel = groups.outputs * groups.inputs * groups.window;
            let weights = Weights {
                data: &w[group * kernel..][..kernel],
                rows: groups.inputs,
                row_step: groups.window,
                offsets: &offsets,
            };
            let source = Source {
                data: &dy[group * groups.outputs * shape.output_positions()..],
                channels: shape.out_channels,
                size: shape.output(),
            };
            let placement = Placement::whole(shape.in_channels, group * groups.inputs, shape.input)
                .strided(shape.stride, start);
            let epilogue = Epilogue { add, ..Epilogue::default() };
            Product { batch: shape.batch, source, grid: &grid, weights }
                .run(&placement, epilogue, dx);
        }
    }
}

/// Zeros at the positions of a class that no window reaches.
fn clear(dx: &mut [f32], shape: &ConvShape, start: [usize; 2], size: [usize; 2]) {
    let width = shape.input[1];
    for plane in dx.chunks_exact_mut(shape.input_positions()) {
        for row in 0..size[0] {
            let row = &mut plane[(row * shape.stride[0] + start[0]) * width..][..width];
            row[start[1]..].iter_mut().step_by(shape.stride[1]).for_each(|value| *value = 0.0);
        }
    }
}
