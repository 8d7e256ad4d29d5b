//! Average pooling, padding counted in.

use rayon::prelude::*;

use crate::ConvShape;

/// Mean over the windows of every plane, zeros of the padding included; `x` is
/// `[batch, channels, height, width]`, `y` has the output's height and width. Costs one pass over
/// `x` and `y`.
///
/// # Panics
/// If a length does not fit the shape, or it does not keep the channels apart.
pub fn average(shape: &ConvShape, x: &[f32], y: &mut [f32]) {
    check(shape, x.len(), y.len());
    let [height, width] = shape.input;
    let columns = shape.output()[1];
    let share = 1.0 / (shape.kernel[0] * shape.kernel[1]) as f32;
    y.par_chunks_exact_mut(shape.output_positions())
        .zip(x.par_chunks_exact(shape.input_positions()))
        .for_each_init(
            || vec![0.0; width + 2 * shape.padding[1]],
            |line, (y, x)| {
                for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                    // The sum of the window's rows, padded with zeros left and right.
                    let sums = &mut line[shape.padding[1]..][..width];
                    sums.fill(0.0);
                    for tap in rows(shape, row, height) {
                        for (sum, &value) in sums.iter_mut().zip(&x[tap * width..][..width]) {
                            *sum += value;
                        }
                    }
                    if shape.stride[1] == 1 {
                        for (y, &value) in y.iter_mut().zip(line.iter()) {
                            *y = value;
                        }
                        for tap in 1..shape.kernel[1] {
                            for (y, &value) in y.iter_mut().zip(&line[tap..]) {
                                *y += value;
                            }
                        }
                        y.iter_mut().for_each(|y| *y *= share);
                    } else {
                        for (column, y) in y.iter_mut().enumerate() {
                            let window = &line[column * shape.stride[1]..][..shape.kernel[1]];
                            *y = window.iter().sum::<f32>() * share;
                        }
                    }
                }
            },
        );
}

/// The gradient of [`average`]'s input, or added to `dx`.
///
/// # Panics
/// If a length does not fit the shape, or it does not keep the channels apart.
pub fn average_backward(shape: &ConvShape, dy: &[f32], dx: &mut [f32], add: bool) {
    check(shape, dx.len(), dy.len());
    let [height, width] = shape.input;
    let [output_rows, columns] = shape.output();
    let share = 1.0 / (shape.kernel[0] * shape.kernel[1]) as f32;
    let padded = width + 2 * shape.padding[1];
    dx.par_chunks_exact_mut(shape.input_positions())
        .zip(dy.par_chunks_exact(shape.output_positions()))
        .for_each_init(
            || vec![0.0; padded * output_rows],
            |lines, (dx, dy)| {
                // Every row of the gradient spread over its windows' columns.
                lines.fill(0.0);
                for (line, dy) in lines.chunks_exact_mut(padded).zip(dy.chunks_exact(columns)) {
                    for tap in 0..shape.kernel[1] {
                        let targets = line[tap..].iter_mut().step_by(shape.stride[1]);
                        for (target, &value) in targets.zip(dy) {
                            *target += value * share;
                        }
                    }
                }
                if !add {
                    dx.fill(0.0);
                }
                for (row, line) in lines.chunks_exact(padded).enumerate() {
                    for tap in rows(shape, row, height) {
                        let values = &line[shape.padding[1]..];
                        for (dx, &value) in dx[tap * width..][..width].iter_mut().zip(values) {
                            *dx += value;
                        }
                    }
                }
            },
        );
}

/// The rows of the input under the windows of an output row.
fn rows(shape: &ConvShape, row: usize, height: usize) -> std::ops::Range<usize> {
    let start = row * shape.stride[0];
    let first = start.saturating_sub(shape.padding[0]);
    first..(start + shape.kernel[0]).saturating_sub(shape.padding[0]).min(height)
}

fn check(shape: &ConvShape, x: usize, y: usize) {
    assert_eq!(shape.in_channels, shape.out_channels, "channels of a pool");
    assert_eq!(x, shape.input_len(), "length of the input");
    assert_eq!(y, shape.output_len(), "length of the output");
}
