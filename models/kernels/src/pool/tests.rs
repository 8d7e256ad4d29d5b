use super::*;
use crate::InstructionSet;
use crate::testing::{affordable, assert_close, for_each_set, random, with_set, with_threads};

fn shapes() -> Vec<ConvShape> {
    let (mut shapes, mut cases) = (vec![], 0);
    for (batch, channels, input) in
        [(1, 1, [1, 1]), (2, 3, [7, 5]), (1, 2, [8, 8]), (2, 2, [13, 33]), (1, 9, [56, 57])]
    {
        for kernel in [[1, 1], [2, 2], [3, 3], [5, 4], [3, 1]] {
            for stride in [[1, 1], [2, 2], [3, 3], [1, 2]] {
                for padding in [[0, 0], [1, 1], [2, 0]] {
                    let fits = (0..2).all(|axis| {
                        padding[axis] < kernel[axis]
                            && input[axis] + 2 * padding[axis] >= kernel[axis]
                    });
                    // Under Miri every eighth, of small maps.
                    cases += 1;
                    let few = affordable(channels * input[0] * input[1] * kernel[0] * kernel[1]);
                    if fits && few && (cases % 8 == 0 || !cfg!(miri)) {
                        shapes.push(ConvShape {
                            batch,
                            in_channels: channels,
                            out_channels: channels,
                            input,
                            kernel,
                            stride,
                            padding,
                            groups: channels,
                        });
                    }
                }
            }
        }
    }
    shapes
}

/// Calls with output, place in the window and input for every value of every window.
fn for_windows(shape: &ConvShape, mut call: impl FnMut(usize, usize, usize)) {
    let ([height, width], [rows, columns]) = (shape.input, shape.output());
    for plane in 0..shape.batch * shape.in_channels {
        for row in 0..rows {
            for column in 0..columns {
                for place in 0..shape.kernel[0] * shape.kernel[1] {
                    let [y, x] = [place / shape.kernel[1], place % shape.kernel[1]];
                    let y = (row * shape.stride[0] + y).wrapping_sub(shape.padding[0]);
                    let x = (column * shape.stride[1] + x).wrapping_sub(shape.padding[1]);
                    if y < height && x < width {
                        let output = (plane * rows + row) * columns + column;
                        call(output, place, (plane * height + y) * width + x);
                    }
                }
            }
        }
    }
}

#[test]
fn averages_and_their_gradients_follow_the_definition() {
    for_each_set(|| {
        for shape in shapes() {
            let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
            let window = (shape.kernel[0] * shape.kernel[1]) as f64;
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            for_windows(&shape, |output, _, input| {
                y[output] += f64::from(x[input]) / window;
                dx[input] += f64::from(dy[output]) / window;
            });
            let mut found = vec![f32::NAN; y.len()];
            average(&shape, &x, &mut found);
            assert_close(&found, &y, 1e-6);
            let mut found = vec![f32::NAN; x.len()];
            average_backward(&shape, &dy, &mut found, false);
            assert_close(&found, &dx, 1e-6);
            let mut found = x.clone();
            average_backward(&shape, &dy, &mut found, true);
            let sum: Vec<f64> = dx.iter().zip(&x).map(|(dx, &x)| dx + f64::from(x)).collect();
            assert_close(&found, &sum, 1e-6);
        }
    });
}

#[test]
fn maxima_and_their_gradients_follow_the_definition() {
    for_each_set(|| {
        for shape in shapes() {
            // Few values, so that many are equal.
            let x: Vec<f32> =
                random(3, shape.input_len()).iter().map(|value| (value * 3.0).round()).collect();
            let dy = random(2, shape.output_len());
            let mut truth = vec![(f32::NEG_INFINITY, 0, 0); dy.len()];
            for_windows(&shape, |output, place, input| {
                if x[input] > truth[output].0 {
                    truth[output] = (x[input], place, input);
                }
            });
            let (mut y, mut argmax) = (vec![f32::NAN; dy.len()], vec![255; dy.len()]);
            max(&shape, &x, &mut y, &mut argmax);
            for (index, &(value, place, _)) in truth.iter().enumerate() {
                assert_eq!((y[index], usize::from(argmax[index])), (value, place));
            }
            let mut dx = vec![0.0; x.len()];
            for (&(_, _, input), &gradient) in truth.iter().zip(&dy) {
                dx[input] += f64::from(gradient);
            }
            let mut found = vec![f32::NAN; x.len()];
            max_backward(&shape, &dy, &argmax, &mut found);
            assert_close(&found, &dx, 1e-6);
        }
    });
}

#[test]
fn maxima_of_nan_and_of_nothing_but_infinity() {
    for_each_set(|| {
        let shape = ConvShape {
            batch: 1,
            in_channels: 1,
            out_channels: 1,
            input: [5, 5],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            groups: 1,
        };
        let mut x = vec![f32::NEG_INFINITY; 25];
        let mut y = vec![0.0; shape.output_len()];
        let mut argmax = vec![0; y.len()];
        max(&shape, &x, &mut y, &mut argmax);
        assert!(y.iter().all(|&value| value == f32::NEG_INFINITY));
        // Every place lies in the input.
        max_backward(&shape, &y.clone(), &argmax, &mut x);
        x = random(1, 25);
        x[12] = f32::NAN;
        max(&shape, &x, &mut y, &mut argmax);
        assert_eq!(y.iter().filter(|value| value.is_nan()).count(), 9);
        assert_eq!([argmax[6], argmax[18]], [8, 0]);
    });
}

#[test]
fn instruction_sets_and_thread_counts_agree() {
    for shape in shapes() {
        let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
        let run = || {
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            average(&shape, &x, &mut y);
            average_backward(&shape, &dy, &mut dx, false);
            (y, dx)
        };
        let plain = with_set(InstructionSet::Portable, || with_threads(1, run));
        for_each_set(|| {
            assert_eq!(run(), plain);
            assert_eq!(with_threads(if cfg!(miri) { 4 } else { 16 }, run), plain);
        });
    }
}
