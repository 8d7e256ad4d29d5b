use super::*;
use crate::Activation;
use crate::testing::{affordable, assert_within, for_each_set, largest, random, with_threads};

/// Calls `term(x index, w index, y index)` for every multiply-add of the definition.
fn each_term(shape: &ConvShape, mut term: impl FnMut(usize, usize, usize)) {
    let [oh, ow] = shape.output();
    let [h, w] = shape.input;
    let [kh, kw] = shape.kernel;
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    for n in 0..shape.batch {
        for o in 0..shape.out_channels {
            for i in 0..c {
                let channel = o / d * c + i;
                for (oy, ox) in (0..oh * ow).map(|p| (p / ow, p % ow)) {
                    for (ky, kx) in (0..kh * kw).map(|k| (k / kw, k % kw)) {
                        let y = (oy * shape.stride[0] + ky).wrapping_sub(shape.padding[0]);
                        let x = (ox * shape.stride[1] + kx).wrapping_sub(shape.padding[1]);
                        if y < h && x < w {
                            term(
                                ((n * shape.in_channels + channel) * h + y) * w + x,
                                ((o * c + i) * kh + ky) * kw + kx,
                                ((n * shape.out_channels + o) * oh + oy) * ow + ox,
                            );
                        }
                    }
                }
            }
        }
    }
}

fn activated(activation: Activation, value: f64) -> f64 {
    match activation {
        Activation::Identity => value,
        Activation::Relu => value.max(0.0),
        Activation::Relu6 => value.clamp(0.0, 6.0),
        Activation::HardSwish => value * (value + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

fn assert_close(name: &str, shape: &ConvShape, found: &[f32], expected: &[f64]) {
    let bound = 2e-6 * largest(expected, 1e-3);
    assert_within(format_args!("{name} of {shape:?}"), found, expected, bound);
}

fn shape(
    batch: usize,
    [in_channels, out_channels, groups]: [usize; 3],
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> ConvShape {
    ConvShape { batch, in_channels, out_channels, input, kernel, stride, padding, groups }
}

fn shapes() -> Vec<ConvShape> {
    let shapes = [
        shape(2, [3, 64, 1], [32, 32], [3, 3], [1, 1], [1, 1]),
        shape(2, [3, 32, 1], [33, 31], [3, 3], [2, 2], [1, 1]),
        shape(1, [3, 20, 1], [30, 29], [7, 7], [2, 2], [3, 3]),
        shape(5, [40, 70, 1], [7, 7], [3, 3], [1, 1], [1, 1]),
        shape(3, [65, 33, 1], [4, 4], [3, 3], [1, 1], [1, 1]),
        shape(2, [64, 96, 1], [9, 8], [1, 1], [1, 1], [0, 0]),
        shape(2, [64, 96, 1], [9, 8], [1, 1], [2, 2], [0, 0]),
        shape(2, [16, 24, 1], [9, 8], [3, 3], [2, 2], [1, 1]),
        shape(2, [16, 24, 1], [8, 8], [2, 2], [2, 2], [0, 0]),
        shape(2, [12, 8, 4], [6, 7], [3, 3], [1, 1], [1, 1]),
        shape(2, [6, 6, 6], [6, 7], [3, 3], [2, 2], [1, 1]),
        shape(1, [5, 7, 1], [1, 1], [3, 3], [1, 1], [1, 1]),
        shape(1, [5, 7, 1], [1, 1], [1, 1], [1, 1], [0, 0]),
        shape(1, [4, 5, 1], [11, 6], [5, 1], [3, 2], [0, 2]),
        shape(2, [4, 5, 1], [5, 6], [1, 1], [1, 1], [2, 1]),
        shape(2, [4, 5, 1], [9, 9], [2, 2], [3, 3], [1, 1]),
        shape(1, [80, 90, 1], [14, 14], [3, 3], [1, 1], [1, 1]),
        // In tiles of 2x2: odd maps and others, every padding, groups, one position.
        shape(2, [17, 35, 1], [9, 8], [3, 3], [1, 1], [0, 0]),
        shape(2, [16, 16, 1], [5, 13], [3, 3], [1, 1], [2, 2]),
        shape(3, [34, 40, 2], [6, 7], [3, 3], [1, 1], [1, 0]),
        shape(1, [24, 16, 1], [1, 1], [3, 3], [1, 1], [1, 1]),
        shape(1, [16, 20, 1], [3, 150], [3, 3], [1, 1], [1, 1]),
        shape(9, [48, 33, 1], [12, 12], [3, 3], [1, 1], [1, 1]),
        shape(1, [200, 130, 1], [8, 8], [3, 3], [1, 1], [1, 1]),
        shape(1, [2, 2, 1], [3, 5], [3, 3], [1, 1], [1, 1]),
        shape(1, [3, 2, 1], [4, 4], [3, 3], [1, 1], [0, 0]),
        shape(2, [300, 30, 1], [6, 6], [1, 1], [1, 1], [0, 0]),
        shape(3, [40, 50, 1], [16, 24], [1, 1], [1, 1], [0, 0]),
        shape(3, [40, 60, 2], [16, 8], [1, 1], [1, 1], [0, 0]),
        shape(1, [1024, 17, 1], [9, 8], [1, 1], [1, 1], [0, 0]),
        shape(2, [1024, 15, 1], [13, 11], [1, 1], [1, 1], [0, 0]),
        shape(1, [20, 43, 1], [7, 7], [3, 3], [1, 1], [1, 1]),
        shape(1, [30, 129, 1], [3, 8], [1, 1], [1, 1], [0, 0]),
        shape(1, [1, 1, 1], [40, 70], [3, 3], [1, 1], [1, 1]),
        // The gradient of the weight in as many tasks as there are threads.
        shape(2, [2, 3, 1], [5, 4], [3, 3], [1, 1], [1, 1]),
        shape(3, [3, 2, 1], [6, 5], [1, 1], [1, 1], [0, 0]),
    ];
    shapes.into_iter().filter(|shape| affordable(shape.macs())).collect()
}

#[test]
fn every_instruction_set_agrees_with_the_definition() {
    for_each_set(|| shapes().into_iter().for_each(agrees_with_the_definition));
}

fn agrees_with_the_definition(shape: ConvShape) {
    {
        let x = random(1, shape.input_len());
        let w = random(2, shape.weight_len());
        let dy = random(3, shape.output_len());
        let old = random(4, shape.output_len());
        let bias = random(5, shape.out_channels);
        let mut y_want = vec![0.0; dy.len()];
        let mut dx_want = vec![0.0; x.len()];
        let mut dw_want = vec![0.0; w.len()];
        each_term(&shape, |i, k, o| {
            y_want[o] += f64::from(x[i]) * f64::from(w[k]);
            dx_want[i] += f64::from(dy[o]) * f64::from(w[k]);
            dw_want[k] += f64::from(dy[o]) * f64::from(x[i]);
        });

        let mut y = vec![f32::NAN; dy.len()];
        forward(&shape, &x, &w, &mut y, Epilogue::default());
        assert_close("y", &shape, &y, &y_want);
        if let Some(prepared) = PreparedWeight::new(&shape, &w) {
            let mut y = vec![f32::NAN; dy.len()];
            forward_prepared(&shape, &x, (&w, &prepared), &mut y, Epilogue::default());
            assert_close("y with a prepared weight", &shape, &y, &y_want);
        }

        let [oh, ow] = shape.output();
        for (residual, accumulate, activation) in [
            (true, true, Activation::Relu),
            (true, false, Activation::Relu),
            (false, true, Activation::Identity),
            (false, false, Activation::Relu),
            (false, false, Activation::Relu6),
            (true, true, Activation::HardSwish),
            (false, false, Activation::HardSwish),
        ] {
            let mut y = old.clone();
            let epilogue = Epilogue {
                bias: Some(&bias),
                residual: residual.then_some(&dy),
                accumulate,
                activation,
            };
            forward(&shape, &x, &w, &mut y, epilogue);
            let before: Vec<f64> = (0..y.len())
                .map(|index| {
                    let mut value =
                        y_want[index] + f64::from(bias[index / (oh * ow) % shape.out_channels]);
                    if residual {
                        value += f64::from(dy[index]);
                    }
                    if accumulate {
                        value += f64::from(old[index]);
                    }
                    value
                })
                .collect();
            let want: Vec<f64> = before.iter().map(|&value| activated(activation, value)).collect();
            // The steepest slope is that of hard-swish, 1.5.
            let bound = 2e-6 * 1.5 * largest(&before, 1e-3);
            assert_within(format_args!("y with epilogue of {shape:?}"), &y, &want, bound);
        }

        let mut dx = vec![f32::NAN; x.len()];
        backward_input(&shape, &dy, &w, &mut dx, false);
        assert_close("dx", &shape, &dx, &dx_want);
        let mut dx = x.clone();
        backward_input(&shape, &dy, &w, &mut dx, true);
        let want: Vec<f64> = dx_want.iter().zip(&x).map(|(a, &b)| a + f64::from(b)).collect();
        assert_close("added dx", &shape, &dx, &want);

        let mut dw = vec![f32::NAN; w.len()];
        backward_weight(&shape, &x, &dy, &mut dw);
        assert_close("dw", &shape, &dw, &dw_want);
    }
}

#[test]
#[cfg_attr(miri, ignore = "about precision alone")]
fn statistics_survive_a_large_mean() {
    for_each_set(|| {
        for (batch, side) in [(5, 17), (1, 1), (64, 4)] {
            let shape = shape(batch, [2, 5, 1], [side, side], [1, 1], [1, 1], [0, 0]);
            let x: Vec<f32> = random(1, shape.input_len()).iter().map(|v| v + 300.0).collect();
            let w = [1.0, 0.0, 0.0, 1.0, 0.5, 0.25, -1.0, 0.0, 0.0, 0.0];
            let mut y = vec![0.0; shape.output_len()];
            let found = forward_with_stats(&shape, &x, &w, &mut y);
            for channel in 0..5 {
                let values = || {
                    let images = y.chunks(5 * side * side);
                    images.flat_map(|image| {
                        image[channel * side * side..][..side * side].iter().map(|&v| f64::from(v))
                    })
                };
                let count = values().count() as f64;
                let m = values().sum::<f64>() / count;
                let v = values().map(|value| (value - m).powi(2)).sum::<f64>() / count;
                assert!((found.mean[channel] - m).abs() < 1e-7 * m.abs().max(1.0));
                assert!((found.var[channel] - v).abs() <= 2e-6 * v, "{v}");
            }
        }
    });
}

#[test]
fn products_take_any_strides() {
    for_each_set(|| {
        let [m, k, n] = if affordable(37 * 300 * 45) { [37, 300, 45] } else { [9, 20, 7] };
        let (a, b, old) = (random(1, m * k), random(2, k * n), random(3, m * n));
        for (a_strides, b_strides) in [([k, 1], [n, 1]), ([1, m], [1, k]), ([k, 1], [1, k])] {
            for accumulate in [false, true] {
                let mut c = old.clone();
                let [a_matrix, b_matrix] = [(&a, [m, k], a_strides), (&b, [k, n], b_strides)]
                    .map(|(values, size, strides)| Matrix { values, size, strides });
                matmul(a_matrix, b_matrix, &mut c, accumulate);
                let at = |s: &[f32], i: usize| f64::from(s[i]);
                let want: Vec<f64> = (0..m * n)
                    .map(|index| {
                        let (i, j) = (index / n, index % n);
                        let before = if accumulate { at(&old, index) } else { 0.0 };
                        before
                            + (0..k)
                                .map(|s| {
                                    at(&a, i * a_strides[0] + s * a_strides[1])
                                        * at(&b, s * b_strides[0] + j * b_strides[1])
                                })
                                .sum::<f64>()
                    })
                    .collect();
                assert_close("c", &shapes()[0], &c, &want);
            }
        }
    });
}

#[test]
fn two_runs_are_equal_with_any_number_of_threads() {
    for_each_set(|| {
        for threads in if cfg!(miri) { &[1, 4][..] } else { &[1, 2, 3, 16] } {
            for shape in shapes() {
                let x = random(1, shape.input_len());
                let w = random(2, shape.weight_len());
                let dy = random(3, shape.output_len());
                let run = || {
                    let mut y = vec![f32::NAN; dy.len()];
                    let (mut dx, mut dw) = (vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
                    let found = with_threads(*threads, || {
                        let found = forward_with_stats(&shape, &x, &w, &mut y);
                        backward_input(&shape, &dy, &w, &mut dx, false);
                        backward_weight(&shape, &x, &dy, &mut dw);
                        found
                    });
                    ([y, dx, dw], [found.mean, found.var])
                };
                let (first, second) = (run(), run());
                assert_eq!(first, second);
                assert!(first.0.iter().flatten().all(|value| value.is_finite()));
            }
        }
    });
}

#[test]
fn weights_are_prepared_where_it_pays() {
    let of =
        |shape: &ConvShape| PreparedWeight::new(shape, &random(1, shape.weight_len())).is_some();
    let served = shape(1, [16, 20, 1], [5, 6], [3, 3], [1, 1], [1, 1]);
    assert!(of(&served));
    assert!(!of(&ConvShape { stride: [2, 2], ..served }));
    assert!(!of(&ConvShape { kernel: [3, 1], ..served }));
    assert!(!of(&ConvShape { groups: 2, ..served }));
    assert!(!of(&ConvShape { in_channels: 1, ..served }));
}

#[test]
#[should_panic(expected = "channels of the prepared weight")]
fn a_weight_prepared_for_other_channels_is_refused() {
    let served = shape(1, [16, 20, 1], [5, 6], [3, 3], [1, 1], [1, 1]);
    let prepared = PreparedWeight::new(&served, &random(1, served.weight_len())).unwrap();
    let other = ConvShape { out_channels: 16, ..served };
    let (x, w) = (random(2, other.input_len()), random(3, other.weight_len()));
    let mut y = vec![0.0; other.output_len()];
    forward_prepared(&other, &x, (&w, &prepared), &mut y, Epilogue::default());
}

#[test]
fn separable_convolutions_are_a_depthwise_and_a_pointwise_convolution() {
    let cases = [
        (2, [5, 7], [9, 8], [3, 3], [1, 1], [1, 1], Activation::Relu),
        (3, [20, 33], [7, 7], [3, 3], [1, 1], [1, 1], Activation::Relu6),
        (2, [6, 18], [10, 13], [3, 3], [2, 2], [1, 1], Activation::HardSwish),
        (1, [3, 2], [11, 40], [5, 5], [1, 1], [2, 2], Activation::HardSwish),
        (2, [4, 5], [12, 35], [5, 3], [1, 2], [2, 0], Activation::Identity),
        (1, [4, 5], [9, 9], [3, 3], [3, 3], [1, 1], Activation::Relu),
        (2, [3, 4], [4, 6], [1, 1], [1, 1], [0, 0], Activation::Relu),
        (1, [2, 3], [1, 1], [3, 3], [1, 1], [1, 1], Activation::Relu),
        (1, [300, 40], [15, 33], [3, 3], [1, 1], [1, 1], Activation::Relu),
    ];
    for_each_set(|| {
        for (batch, [channels, outputs], input, kernel, stride, padding, activation) in cases {
            let first = shape(batch, [channels; 3], input, kernel, stride, padding);
            let second =
                shape(batch, [channels, outputs, 1], first.output(), [1; 2], [1; 2], [0; 2]);
            if !affordable(first.macs() + second.macs()) {
                continue;
            }
            let x = random(1, first.input_len());
            let [weight, w] = [random(2, first.weight_len()), random(3, second.weight_len())];
            let [first_bias, bias] = [random(4, channels), random(5, outputs)];
            let residual = random(6, second.output_len());

            let mut between = vec![0.0; first.output_len()];
            each_term(&first, |i, k, o| between[o] += f64::from(x[i]) * f64::from(weight[k]));
            let positions = first.output_positions();
            let channel = |index: usize, channels: usize| index / positions % channels;
            for (index, value) in between.iter_mut().enumerate() {
                *value += f64::from(first_bias[channel(index, channels)]);
                *value = activated(activation, *value);
            }
            let mut want = vec![0.0; second.output_len()];
            each_term(&second, |i, k, o| want[o] += between[i] * f64::from(w[k]));
            for (index, value) in want.iter_mut().enumerate() {
                *value += f64::from(bias[channel(index, outputs)]) + f64::from(residual[index]);
                *value = value.max(0.0);
            }

            let depthwise =
                Depthwise { shape: first, weight: &weight, bias: Some(&first_bias), activation };
            let epilogue = Epilogue {
                bias: Some(&bias),
                residual: Some(&residual),
                accumulate: false,
                activation: Activation::Relu,
            };
            let mut y = vec![f32::NAN; want.len()];
            forward_separable(&depthwise, &x, &w, &mut y, epilogue);
            assert_close("y of separable", &first, &y, &want);
        }
    });
}
