//! First and second moments of the channels of a map `[batch, channels, positions]`.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::profile::{self, Work};
use crate::simd::{Lanes, sweep};
use crate::{gemm, instruction_set, planes, shape::map_len};

/// Values added in `f32` before they are flushed to `f64`.
const BLOCK: usize = 1024;

/// Sum of each channel over batch and positions, `[channels]`; one pass.
///
/// # Panics
/// If the map is empty or its length not that of `dims`.
pub fn sums(map: &[f32], dims: [usize; 3]) -> Vec<f64> {
    let _span = profile::work(Work::Moments);
    let [batch, channels, positions] = dims;
    assert_eq!(map.len(), map_len(dims), "length of the map");
    planes::reduce(batch * channels, positions, channels, |range, sums| {
        instruction_set::dispatch(Sums { map, range, positions, sums });
    })
}

struct Sums<'a> {
    map: &'a [f32],
    range: Range<usize>,
    positions: usize,
    sums: &'a mut [f64],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.sums.len();
        for plane in self.range {
            let values = &self.map[plane * self.positions..][..self.positions];
            for block in values.chunks(BLOCK) {
                let mut sum = [simd.splat_f32s(0.0); 2];
                sweep!(simd, block.len(), |at, lanes, TURN| {
                    // SAFETY: `sweep` stays within the block.
                    let value = unsafe { lanes.load(simd, block.as_ptr().add(at)) };
                    sum[TURN] = simd.add_f32s(sum[TURN], value);
                });
                let sum = simd.reduce_sum_f32s(simd.add_f32s(sum[0], sum[1]));
                self.sums[plane % channels] += f64::from(sum);
            }
        }
    }
}

/// Channels along one side of a tile of products. The number of channels is rounded up to a
/// multiple of it.
const TILE: usize = 4;

/// Sum over batch and positions of `(x_i - shift_i) (x_j - shift_j)` for all pairs of channels,
/// `[channels, channels]`: with the means as shift, the covariance times the number of values.
///
/// One pass over the map and `batch * positions * channels^2 / 2` multiply-adds. The values less
/// the shift are packed, a few hundred positions of all channels at a time, and a tile of products
/// is computed as dot products along the positions. Everything is in `f64`: where channels are
/// correlated, the variance of a combination of them is a small difference of large covariances. A
/// sum that overflows `f32` is infinite.
///
/// # Panics
/// If the map is empty or a length does not fit `dims`.
pub fn covariance(x: &[f32], shift: &[f64], dims: [usize; 3]) -> Vec<f64> {
    let _span = profile::work(Work::Moments);
    let [batch, channels, positions] = dims;
    assert_eq!(x.len(), map_len(dims), "length of the map");
    assert_eq!(shift.len(), channels, "one shift per channel");
    let padded = channels.next_multiple_of(TILE);
    // Each task has its own products, whose memory needs enough positions to pay off.
    const POSITIONS_PER_TASK: usize = 1024;
    let values = batch * positions;
    let tasks = rayon::current_num_threads().min(values / POSITIONS_PER_TASK).max(1);
    let parts: Vec<Vec<f64>> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let range = gemm::part(0..values, 1, task, tasks);
            let mut products = vec![0.0; padded * padded];
            instruction_set::dispatch(Covariance {
                x,
                shift,
                dims,
                range,
                products: &mut products,
            });
            products
        })
        .collect();
    let mut covariance = vec![0.0; channels * channels];
    for i in 0..channels {
        for j in 0..=i {
            let sum: f64 = parts.iter().map(|part| part[i * padded + j]).sum();
            // An overflow of `f32` must be visible in the result.
            let sum = if (sum as f32).is_finite() { sum } else { f64::from(sum as f32) };
            covariance[i * channels + j] = sum;
            covariance[j * channels + i] = sum;
        }
    }
    covariance
}

struct Covariance<'a> {
    x: &'a [f32],
    shift: &'a [f64],
    dims: [usize; 3],
    /// Of the positions of all images, one image after the other.
    range: Range<usize>,
    /// Only the tiles on and below the diagonal are computed.
    products: &'a mut [f64],
}

impl WithSimd for Covariance<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A tile of 4x4 accumulators needs 32 registers.
        match S::REGISTER_COUNT {
            32.. => self.run::<S, TILE>(simd),
            _ => self.run::<S, { TILE / 2 }>(simd),
        }
    }
}

impl Covariance<'_> {
    #[inline(always)]
    fn run<S: Simd, const J: usize>(self, simd: S) {
        let Self { x, shift, dims: [_, channels, positions], range, products } = self;
        let padded = channels.next_multiple_of(TILE);
        // The packed values fit a cache of 1 MiB.
        let block = (96 * 1024 / padded.max(1)).clamp(192, BLOCK);
        // Rows that are a power of two apart would compete for the same cache sets.
        let pitch = block + S::F64_LANES;
        let mut packed = vec![0.0; padded * pitch];
        let mut start = range.start;
        while start < range.end {
            let len = block.min(range.end - start);
            for (channel, row) in packed.chunks_exact_mut(pitch).take(channels).enumerate() {
                let mut row = &mut row[..len.next_multiple_of(S::F64_LANES)];
                let mut at = start;
                while at < start + len {
                    let (image, position) = (at / positions, at % positions);
                    let run = (positions - position).min(start + len - at);
                    let from = (image * channels + channel) * positions + position;
                    let (to, rest) = row.split_at_mut(run);
                    centre(&x[from..from + run], shift[channel], to);
                    (row, at) = (rest, at + run);
                }
                row.fill(0.0);
            }
            for i in (0..padded).step_by(TILE) {
                for j in (0..i + TILE).step_by(J) {
                    let rows = [&packed[i * pitch..], &packed[j * pitch..]];
                    tile::<S, J>(simd, rows, pitch, len, |row, column, sum| {
                        products[(i + row) * padded + j + column] += sum;
                    });
                }
            }
            start += len;
        }
    }
}

/// `to = from - shift`.
#[inline(always)]
fn centre(from: &[f32], shift: f64, to: &mut [f64]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = f64::from(from) - shift);
}

/// The dot products of four rows with `J` others, over `len` values rounded up to whole vectors.
#[inline(always)]
fn tile<S: Simd, const J: usize>(
    simd: S,
    [a, b]: [&[f64]; 2],
    pitch: usize,
    len: usize,
    mut add: impl FnMut(usize, usize, f64),
) {
    let len = len.next_multiple_of(S::F64_LANES);
    assert!(len <= pitch && a.len() >= TILE * pitch && b.len() >= J * pitch);
    let (a, b) = (a.as_ptr(), b.as_ptr());
    let mut sums = [[simd.splat_f64s(0.0); J]; TILE];
    for at in (0..len).step_by(S::F64_LANES) {
        // SAFETY: the assertion keeps all rows within their slices; a vector is plain data.
        unsafe {
            let mut columns = [simd.splat_f64s(0.0); J];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = b.add(j * pitch + at).cast::<S::f64s>().read_unaligned();
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let row = a.add(i * pitch + at).cast::<S::f64s>().read_unaligned();
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = simd.mul_add_e_f64s(row, column, *sum);
                }
            }
        }
    }
    for (i, sums) in sums.into_iter().enumerate() {
        for (j, sum) in sums.into_iter().enumerate() {
            add(i, j, simd.reduce_sum_f64s(sum));
        }
    }
}

#[cfg(test)]
mod tests;
