//! Real numbers as integers of 8 bits.

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
pub(super) fn to_u8(multiple: f32, zero_point: f32) -> u8 {
    (multiple.round_ties_even() + zero_point).clamp(0.0, 255.0) as u8
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
