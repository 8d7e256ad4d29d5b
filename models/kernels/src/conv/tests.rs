//! Against the sums of the definition in `f64`.

use super::*;

fn numbers(length: usize, seed: usize) -> Vec<f32> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0) as f32
        })
        .collect()
}

/// Visits every product of the convolution: indices into input, weight and output.
fn for_each_product(shape: &ConvShape, mut visit: impl FnMut(usize, usize, usize)) {
    let [rows, columns] = shape.output();
    let [height, width] = shape.input;
    let (inputs, outputs) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    for output in 0..shape.batch * shape.out_channels * rows * columns {
        let (plane, position) = (output / (rows * columns), output % (rows * columns));
        let (image, channel) = (plane / shape.out_channels, plane % shape.out_channels);
        for weight in 0..inputs * shape.kernel[0] * shape.kernel[1] {
            let (tap_row, tap_column) =
                (weight / shape.kernel[1] % shape.kernel[0], weight % shape.kernel[1]);
            let input = channel / outputs * inputs + weight / (shape.kernel[0] * shape.kernel[1]);
            let row =
                (position / columns * shape.stride[0] + tap_row).wrapping_sub(shape.padding[0]);
            let column =
                (position % columns * shape.stride[1] + tap_column).wrapping_sub(shape.padding[1]);
            if row < height && column < width {
                let input = ((image * shape.in_channels + input) * height + row) * width + column;
                let weight = channel * inputs * shape.kernel[0] * shape.kernel[1] + weight;
                visit(input, weight, output);
            }
        }
    }
}

fn close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-3f64, |max, v| max.max(v.abs()));
    for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs() / scale;
        assert!(error < 2e-6, "{what} at {index}: {found} for {expected}");
    }
}

fn shapes() -> Vec<ConvShape> {
    let shape =
        |batch, [inputs, outputs]: [usize; 2], input, kernel, stride, padding, groups| ConvShape {
            batch,
            in_channels: inputs,
            out_channels: outputs,
            input,
            kernel,
            stride,
            padding,
            groups,
        };
    vec![
        shape(2, [3, 5], [7, 9], [3, 3], [1, 1], [1, 1], 1),
        shape(3, [4, 40], [6, 5], [3, 3], [2, 2], [1, 1], 1),
        shape(1, [30, 13], [33, 34], [3, 3], [1, 1], [1, 1], 1),
        shape(5, [17, 65], [4, 4], [3, 3], [1, 1], [1, 1], 1),
        shape(2, [3, 16], [20, 19], [7, 7], [2, 2], [3, 3], 1),
        shape(2, [33, 12], [8, 9], [1, 1], [1, 1], [0, 0], 1),
        shape(2, [5, 6], [8, 9], [1, 1], [2, 2], [0, 0], 1),
        shape(2, [8, 12], [9, 8], [3, 3], [1, 1], [1, 1], 4),
        shape(2, [6, 6], [7, 7], [5, 5], [2, 2], [2, 2], 6),
        shape(2, [4, 3], [5, 6], [3, 1], [1, 1], [1, 0], 1),
        shape(2, [4, 3], [5, 6], [1, 3], [2, 1], [0, 1], 1),
        shape(1, [2, 3], [1, 1], [3, 3], [1, 1], [1, 1], 1),
        shape(2, [2, 3], [2, 3], [5, 5], [3, 3], [2, 2], 1),
        shape(1, [3, 2], [9, 9], [2, 2], [3, 3], [0, 0], 1),
        shape(70, [2, 2], [1, 1], [1, 1], [1, 1], [0, 0], 1),
    ]
}

#[test]
fn forward_is_the_sum_of_the_definition() {
    for (seed, shape) in shapes().iter().enumerate() {
        let (x, w) = (numbers(shape.input_len(), seed), numbers(shape.weight_len(), seed + 50));
        let mut expected = vec![0.0; shape.output_len()];
        for_each_product(shape, |input, weight, output| {
            expected[output] += f64::from(x[input]) * f64::from(w[weight]);
        });
        let mut y = vec![f32::NAN; shape.output_len()];
        forward(shape, &x, &w, &mut y, Epilogue::default());
        close(&format!("{shape:?}"), &y, &expected);

        let (bias, residual) = (numbers(shape.out_channels, 7), numbers(y.len(), 8));
        let before = numbers(y.len(), 9);
        let plane = shape.output_positions();
        for (index, value) in expected.iter_mut().enumerate() {
            let bias = bias[index / plane % shape.out_channels];
            *value += f64::from(bias) + f64::from(before[index]) + f64::from(residual[index]);
            *value = value.max(0.0);
        }
        y.copy_from_slice(&before);
        let epilogue =
            Epilogue { bias: Some(&bias), add: true, residual: Some(&residual), relu: true };
        forward(shape, &x, &w, &mut y, epilogue);
        close(&format!("{shape:?} with epilogue"), &y, &expected);
    }
}

#[test]
fn gradients_are_the_sums_of_the_definition() {
    for (seed, shape) in shapes().iter().enumerate() {
        let (x, w) = (numbers(shape.input_len(), seed), numbers(shape.weight_len(), seed + 50));
        let dy = numbers(shape.output_len(), seed + 90);
        let before = numbers(x.len(), 9);
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        for_each_product(shape, |input, weight, output| {
            dx[input] += f64::from(dy[output]) * f64::from(w[weight]);
            dw[weight] += f64::from(dy[output]) * f64::from(x[input]);
        });
        let mut found = vec![f32::NAN; x.len()];
        backward_input(shape, &dy, &w, &mut found, false);
        close(&format!("{shape:?} input"), &found, &dx);
        found.copy_from_slice(&before);
        backward_input(shape, &dy, &w, &mut found, true);
        dx.iter_mut().zip(&before).for_each(|(dx, &before)| *dx += f64::from(before));
        close(&format!("{shape:?} input, added"), &found, &dx);
        let mut found = vec![f32::NAN; w.len()];
        backward_weight(shape, &x, &dy, &mut found);
        close(&format!("{shape:?} weight"), &found, &dw);
    }
}

#[test]
fn equal_threads_give_equal_bits() {
    for shape in shapes() {
        let (x, w) = (numbers(shape.input_len(), 1), numbers(shape.weight_len(), 2));
        let dy = numbers(shape.output_len(), 3);
        let run = || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
            pool.install(|| {
                let (mut y, mut dx, mut dw) =
                    (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
                forward(&shape, &x, &w, &mut y, Epilogue::default());
                backward_input(&shape, &dy, &w, &mut dx, false);
                backward_weight(&shape, &x, &dy, &mut dw);
                [y, dx, dw].concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
            })
        };
        assert!(run() == run(), "{shape:?}");
    }
}

#[test]
fn a_residue_that_is_no_number_stays_none() {
    let shape = ConvShape::pointwise(1, [1, 1], 2);
    let mut y = [0.0; 2];
    let epilogue = Epilogue { relu: true, ..Epilogue::default() };
    forward(&shape, &[f32::NAN, -1.0], &[1.0], &mut y, epilogue);
    assert!(y[0].is_nan() && y[1] == 0.0, "{y:?}");
}
