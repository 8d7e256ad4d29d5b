//! Mean and variance of the channels of one map.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{BLOCK, Dims};
use crate::profile::{self, Work};
use crate::simd::{Lanes, sweep};
use crate::{instruction_set, planes, shape::map_len, shift};

/// Mean and biased variance of each channel over batch and positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// `[channels]`.
    pub mean: Vec<f64>,
    /// `[channels]`.
    pub var: Vec<f64>,
}

/// Mean and biased variance of each channel of a map; one pass.
///
/// Sums are of values less a shift near the mean, in `f32` for at most 1024 values and then in
/// `f64`, so that a mean far from zero costs no accuracy. A second pass follows if the shift,
/// estimated from a few values, turns out to be far from the mean.
///
/// # Panics
/// If the map is empty or its length not that of `dims`.
pub fn statistics(map: &[f32], dims: [usize; 3]) -> Statistics {
    let _span = profile::work(Work::Norms);
    let [batch, channels, positions] = dims;
    assert_eq!(map.len(), map_len(dims), "length of the map");
    let plane = |image, channel| &map[(image * channels + channel) * positions..][..positions];
    let guess = |channel| shift::guess([batch, positions], |image| plane(image, channel));
    let mut shift: Vec<f32> = (0..channels).map(guess).collect();
    let found = about(map, &shift, dims);
    let mut far = false;
    for (channel, shift) in shift.iter_mut().enumerate() {
        let mean = found.mean[channel];
        if shift::is_far(mean - f64::from(*shift), found.var[channel]) {
            *shift = mean as f32;
            far = true;
        }
    }
    if far { about(map, &shift, dims) } else { found }
}

/// The statistics from sums about these shifts.
fn about(map: &[f32], shift: &[f32], dims: Dims) -> Statistics {
    let [batch, channels, positions] = dims;
    let sums = planes::reduce(batch * channels, positions, 2 * channels, |range, sums| {
        instruction_set::dispatch(Spread { map, shift, range, positions, sums });
    });
    let count = (batch * positions) as f64;
    let (mean, var) = sums
        .chunks_exact(2)
        .zip(shift)
        .map(|(sums, &shift)| {
            let offset = sums[0] / count;
            (f64::from(shift) + offset, variance(sums[1] / count - offset * offset))
        })
        .unzip();
    Statistics { mean, var }
}

/// Checks that a norm in training has more than one value per channel, as PyTorch does: the
/// unbiased variance of a single value would be 0 / 0.
///
/// # Panics
/// If there are fewer than two values per channel.
#[track_caller]
pub(crate) fn check_count(count: usize) {
    assert!(count > 1, "batch norm needs more than one value per channel in training");
}

/// A computed variance, with negative values from rounding replaced by 0. Non-finite values are
/// kept.
pub(crate) fn variance(found: f64) -> f64 {
    match found < 0.0 {
        true if found.is_finite() => 0.0,
        true => f64::NAN,
        false => found,
    }
}

/// `1 / sqrt(variance + epsilon)`.
///
/// NaN if the variance is not finite in `f32`. Otherwise the result would be zero, and the output
/// of the norm would be its shift, which would hide the overflow.
pub(crate) fn inverse_std(variance: f64, epsilon: f64) -> f64 {
    match (variance as f32).is_finite() {
        true => 1.0 / (variance + epsilon).sqrt(),
        false => f64::NAN,
    }
}

/// Adds sum and squares about a shift of each plane.
pub(super) struct Spread<'a> {
    pub map: &'a [f32],
    pub shift: &'a [f32],
    pub range: Range<usize>,
    pub positions: usize,
    /// `[channels, 2]`.
    pub sums: &'a mut [f64],
}

impl WithSimd for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { map, shift, range, positions, sums } = self;
        let mut channel = range.start % shift.len();
        let planes = map[range.start * positions..range.end * positions].chunks_exact(positions);
        for plane in planes {
            let about = simd.splat_f32s(shift[channel]);
            for block in plane.chunks(BLOCK) {
                let mut sum = [simd.splat_f32s(0.0); 2];
                let mut squares = sum;
                sweep!(simd, block.len(), |at, lanes, TURN| {
                    // SAFETY: `sweep` stays within the block.
                    let value = unsafe { lanes.load(simd, block.as_ptr().add(at)) };
                    let value = lanes.keep(simd, simd.sub_f32s(value, about));
                    sum[TURN] = simd.add_f32s(sum[TURN], value);
                    squares[TURN] = simd.mul_add_e_f32s(value, value, squares[TURN]);
                });
                sums[2 * channel] += total(simd, sum);
                sums[2 * channel + 1] += total(simd, squares);
            }
            channel = if channel + 1 == shift.len() { 0 } else { channel + 1 };
        }
    }
}

/// Sum of the lanes of both vectors.
#[inline(always)]
pub(super) fn total<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> f64 {
    f64::from(simd.reduce_sum_f32s(simd.add_f32s(a, b)))
}

/// The ratio of the unbiased to the biased variance of `count` values.
pub(crate) fn unbiased(count: usize) -> f64 {
    count as f64 / (count as f64 - 1.0)
}
