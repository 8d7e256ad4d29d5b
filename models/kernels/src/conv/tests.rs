use super::*;
use crate::Activation;
use crate::testing::{
    activated, affordable, assert_within, each_term, for_each_set, largest, random, shape,
    with_threads,
};

fn assert_close(name: &str, shape: &ConvShape, found: &[f32], expected: &[f64]) {
    let bound = 2e-6 * largest(expected, 1e-3);
    assert_within(format_args!("{name} of {shape:?}"), found, expected, bound);
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

        let [oh, ow] = shape.output();
        let mut y = vec![f32::NAN; dy.len()];
        let found = forward_with_stats(&shape, &x, &w, &mut y);
        assert_close("y with statistics", &shape, &y, &y_want);
        for channel in 0..shape.out_channels {
            let of_channel = |index: &usize| index / (oh * ow) % shape.out_channels == channel;
            let values: Vec<f64> =
                (0..y.len()).filter(of_channel).map(|index| y_want[index]).collect();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let var = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            let scale = largest(&y_want, 1e-3);
            let [mean_error, var_error] =
                [found.mean[channel] - mean, found.var[channel] - var].map(f64::abs);
            assert!(mean_error < 2e-6 * scale, "mean of {channel}, {shape:?}: {mean_error}");
            assert!(
                var_error < 4e-6 * scale * scale,
                "variance of {channel}, {shape:?}: {var_error}"
            );
        }

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
