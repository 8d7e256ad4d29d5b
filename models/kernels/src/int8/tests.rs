//! Against sums of integers written down here, with every instruction set.

use super::*;
use crate::ConvShape;
use crate::testing::{for_each_set, random};

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    random(seed, len).iter().map(|value| (value * 127.5 + 127.5) as u8).collect()
}

fn weights(seed: u64, len: usize) -> Vec<i8> {
    random(seed, len).iter().map(|value| (value * 128.0) as i8).collect()
}

/// The sum at a place.
fn expected(
    shape: &ConvShape,
    x: &[u8],
    zero_point: u8,
    weight: &[i8],
    [image, channel, row, column]: [usize; 4],
) -> i64 {
    let ([height, width], [kh, kw]) = (shape.input, shape.kernel);
    let [inputs, outputs] = [shape.in_channels, shape.out_channels].map(|n| n / shape.groups);
    let mut sum = 0;
    for input in 0..inputs {
        let plane = image * shape.in_channels + channel / outputs * inputs + input;
        for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
            let y = (row * shape.stride[0] + i) as isize - shape.padding[0] as isize;
            let x_at = (column * shape.stride[1] + j) as isize - shape.padding[1] as isize;
            if (0..height as isize).contains(&y) && (0..width as isize).contains(&x_at) {
                let at = (plane * height + y as usize) * width + x_at as usize;
                let tap = ((channel * inputs + input) * kh + i) * kw + j;
                sum += (i64::from(x[at]) - i64::from(zero_point)) * i64::from(weight[tap]);
            }
        }
    }
    sum
}

#[test]
fn convolutions_are_sums_of_integers() {
    let base = ConvShape {
        batch: 2,
        in_channels: 4,
        out_channels: 6,
        input: [9, 11],
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        groups: 1,
    };
    let shapes = [
        base,
        ConvShape { stride: [2, 2], groups: 2, ..base },
        ConvShape { kernel: [1, 1], padding: [0, 0], out_channels: 5, ..base },
        ConvShape { kernel: [5, 3], padding: [2, 0], stride: [1, 2], ..base },
        ConvShape { out_channels: 4, groups: 4, ..base },
        // Winograd's algorithm would round.
        ConvShape { in_channels: 70, out_channels: 33, ..base },
        ConvShape { out_channels: 4, groups: 4, stride: [2, 2], kernel: [3, 5], ..base },
    ];
    for_each_set(|| {
        for (seed, shape) in (1..).zip(&shapes) {
            let x = bytes(seed, shape.input_len());
            let weight = weights(10 * seed, shape.weight_len());
            let channels = shape.out_channels;
            let y = conv(shape, &x, 130, &weight);
            let [_, _, rows, columns] = shape.output_shape();
            for (index, &found) in y.iter().enumerate() {
                let (plane, at) = (index / (rows * columns), index % (rows * columns));
                let place = [plane / channels, plane % channels, at / columns, at % columns];
                let wanted = expected(shape, &x, 130, &weight, place);
                assert_eq!(i64::from(found), wanted, "{shape:?} at {place:?}");
            }
        }
    });
}

#[test]
fn sums_are_rounded_by_channel() {
    // Two channels of two positions: 2.5 and -1 steps above 3, and half a step and far more above.
    let sums = [4, -3, 2, 100_000];
    for_each_set(|| {
        assert_eq!(requantize(&sums, 2, &[1, -1], &[0.5, 0.5], 3), [5, 2, 3, 255]);
    });
}

/// The largest sum that is allowed does not overflow: every product has the largest magnitude.
#[test]
fn the_largest_sums_are_exact() {
    let inputs = LARGEST_SUM;
    let largest = i64::from(LARGEST_BIAS) + inputs as i64 * 255 * 128;
    assert!(i32::try_from(largest).is_ok());
    for_each_set(|| {
        let sums = linear(inputs, &vec![255; 2 * inputs], 0, &vec![-128; 3 * inputs]);
        assert_eq!(sums, [-(inputs as i32) * 255 * 128; 6]);
    });
}

#[test]
fn linear_layers_are_sums_of_integers() {
    let (batch, inputs, outputs) = (3, 37, 6);
    let (x, weight) = (bytes(1, batch * inputs), weights(2, outputs * inputs));
    for_each_set(|| {
        let found = linear(inputs, &x, 5, &weight);
        for (index, &found) in found.iter().enumerate() {
            let (image, output) = (index / outputs, index % outputs);
            let products = (0..inputs).map(|input| {
                let value = i32::from(x[image * inputs + input]) - 5;
                value * i32::from(weight[output * inputs + input])
            });
            assert_eq!(found, products.sum::<i32>(), "image {image}, output {output}");
        }
    });
}

#[test]
fn numbers_become_the_nearest_integers() {
    let affine = Affine { scale: 0.5, zero_point: 10 };
    for_each_set(|| {
        // Ties go to even multiples; beyond the range lies the nearest end.
        let values = [0.0, 0.25, 0.75, -0.25, 1.0, -5.0, -6.0, 122.5, 1e9, f32::NAN];
        assert_eq!(affine.quantize(&values), [10, 10, 12, 10, 12, 0, 0, 255, 255, 0]);
        assert_eq!(affine.dequantize(&[0, 10, 13, 255]), [-5.0, 0.0, 1.5, 122.5]);
    });
}

#[test]
fn sums_and_means_are_rounded_once() {
    let [a, b] = [Affine { scale: 0.5, zero_point: 10 }, Affine { scale: 0.25, zero_point: 0 }];
    let output = Affine { scale: 1.0, zero_point: 3 };
    for_each_set(|| {
        // 0 + 0; 1 + 0.75 to 2; -5 + 0 to the lower end; 122.5 + 63.75 to 186 and 3.
        let sums = add([&[10, 12, 0, 255], &[0, 3, 0, 255]], [a, b], output);
        assert_eq!(sums, [3, 5, 0, 189]);
    });
    // Means 0 and 2.5 of a, in units of 1: 0 and, of 2 and 3, the even one.
    assert_eq!(mean(&[10, 10, 15, 15], 2, a, output), [3, 5]);
}
