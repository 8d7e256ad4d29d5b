//! Convolutions and linear layers.

use super::LARGEST_SUM;
use super::digits::Digits;
use crate::{ConvShape, buffer, conv as float};

/// Sums of products of a convolution, `[batch, out, height', width']`: `x` is `[batch, in, height, width]`,
/// where `zero_point` stands for zero as the padding does, and `weight` `[out, in / groups, kh, kw]`.
///
/// # Panics
/// If a length does not match the shape, or a sum has more than [`LARGEST_SUM`] products.
pub fn conv(shape: &ConvShape, x: &[u8], zero_point: u8, weight: &[i8]) -> Vec<i32> {
    let zero = f32::from(zero_point);
    let x: Vec<f32> = x.iter().map(|&q| f32::from(q) - zero).collect();
    sums(shape, &x, weight)
}

/// Sums of products `[batch, out]` of the rows of `x`, `[batch, in]`, with those of `weight`,
/// `[out, in]`; `zero_point` stands for zero in `x`.
///
/// # Panics
/// If a slice is empty or does not consist of rows of `inputs` values, or there are more than
/// [`LARGEST_SUM`] of them.
pub fn linear(inputs: usize, x: &[u8], zero_point: u8, weight: &[i8]) -> Vec<i32> {
    assert!(inputs > 0 && x.len().is_multiple_of(inputs), "length of the input");
    assert!(weight.len().is_multiple_of(inputs), "length of the weight");
    let (batch, outputs) = (x.len() / inputs, weight.len() / inputs);
    // The images are the positions of a map.
    let shape = ConvShape::pointwise(1, [inputs, outputs], batch);
    let value =
        |index| f32::from(x[index % batch * inputs + index / batch]) - f32::from(zero_point);
    let x: Vec<f32> = (0..x.len()).map(value).collect();
    let sums = sums(&shape, &x, weight);
    (0..sums.len()).map(|index| sums[index % outputs * batch + index / outputs]).collect()
}

fn sums(shape: &ConvShape, x: &[f32], weight: &[i8]) -> Vec<i32> {
    let products = shape.weight_len() / shape.out_channels;
    assert!(products <= LARGEST_SUM, "a sum has more than {LARGEST_SUM} products");
    assert_eq!(weight.len(), shape.weight_len(), "length of the weight");
    let Digits { bits, digits } = Digits::new(weight, products);
    let mut sums = vec![0; shape.output_len()];
    let mut parts = buffer::take(shape.output_len());
    for digit in digits.iter().rev() {
        float::forward_direct(shape, x, digit, &mut parts);
        for (sum, part) in sums.iter_mut().zip(&*parts) {
            *sum = (*sum << bits) + *part as i32;
        }
    }
    sums
}
