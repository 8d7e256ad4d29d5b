//! Real numbers as integers of 8 bits.

use rayon::prelude::*;

use super::LARGEST_BIAS;
use crate::instruction_set;

/// What integers of 8 bits stand for: `scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// The distance of neighbours, positive and finite.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: u8,
}

impl Affine {
    /// The nearest integer, ties to even, within 0 to 255: `QuantizeLinear` of ONNX. NaN becomes 0.
    pub fn quantize(self, values: &[f32]) -> Vec<u8> {
        let zero = f32::from(self.zero_point);
        let mut integers = vec![0; values.len()];
        instruction_set::arch().dispatch(
            #[inline(always)]
            || {
                for (to, value) in integers.iter_mut().zip(values) {
                    *to = to_u8(value / self.scale, zero);
                }
            },
        );
        integers
    }

    /// The numbers that integers stand for: `DequantizeLinear` of ONNX.
    pub fn dequantize(self, integers: &[u8]) -> Vec<f32> {
        let zero = i32::from(self.zero_point);
        integers.iter().map(|&q| (i32::from(q) - zero) as f32 * self.scale).collect()
    }
}

/// A multiple of the scale as an integer of 8 bits.
#[inline(always)]
fn to_u8(multiple: f32, zero_point: f32) -> u8 {
    (multiple.round_ties_even() + zero_point).clamp(0.0, 255.0) as u8
}

/// Sums of a map `[batch, channels, positions]` rounded to 8 bits: `(sum + bias) * scale + zero_point` to the
/// nearest integer, ties to even, within 0 to 255. `bias` and `scale` are those of the channels: the bias in
/// units of the sums, and the scale of the sums over that of the output.
///
/// # Panics
/// If the lengths do not fit, or a bias is beyond [`LARGEST_BIAS`].
pub fn requantize(
    sums: &[i32],
    positions: usize,
    bias: &[i32],
    scale: &[f32],
    zero_point: u8,
) -> Vec<u8> {
    let channels = bias.len();
    assert_eq!(scale.len(), channels, "one scale per channel");
    assert!(bias.iter().all(|bias| bias.abs() <= LARGEST_BIAS), "a bias is too large");
    assert!(sums.len().is_multiple_of(channels * positions), "whole images");
    let zero = f32::from(zero_point);
    let mut map = vec![0; sums.len()];
    let planes = map.par_chunks_mut(positions).zip(sums.par_chunks(positions));
    let arch = instruction_set::arch();
    planes.enumerate().for_each(|(plane, (map, sums))| {
        let (bias, scale) = (bias[plane % channels], scale[plane % channels]);
        arch.dispatch(
            #[inline(always)]
            || {
                for (to, sum) in map.iter_mut().zip(sums) {
                    *to = to_u8((sum + bias) as f32 * scale, zero);
                }
            },
        );
    });
    map
}

/// The sum of two maps of the same length.
///
/// # Panics
/// If the lengths differ.
pub fn add(maps: [&[u8]; 2], inputs: [Affine; 2], output: Affine) -> Vec<u8> {
    let [a, b] = maps;
    assert_eq!(a.len(), b.len(), "lengths of the maps");
    let [ratio_a, ratio_b] = inputs.map(|input| input.scale / output.scale);
    let [zero_a, zero_b] = inputs.map(|input| f32::from(input.zero_point));
    let constant = f32::from(output.zero_point) - (ratio_a * zero_a + ratio_b * zero_b);
    let mut sums = vec![0; a.len()];
    instruction_set::arch().dispatch(
        #[inline(always)]
        || {
            for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                *sum = to_u8(constant + ratio_a * f32::from(a) + ratio_b * f32::from(b), 0.0);
            }
        },
    );
    sums
}

/// The means of planes of `positions` values.
///
/// # Panics
/// If `positions` is zero.
pub fn mean(map: &[u8], positions: usize, input: Affine, output: Affine) -> Vec<u8> {
    let scale = input.scale / (output.scale * positions as f32);
    let planes = map.chunks_exact(positions).map(|plane| {
        let sum: i64 = plane.iter().map(|&q| i64::from(q)).sum();
        let sum = sum - positions as i64 * i64::from(input.zero_point);
        to_u8(sum as f32 * scale, output.zero_point.into())
    });
    planes.collect()
}
