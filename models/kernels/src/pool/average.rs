//! The mean of each window, as sums over rows and then over columns.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{geometry, sort_columns, taps};
use crate::ConvShape;
use crate::instruction_set;
use crate::planes;
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::simd::{Lanes, WIDEST, load, sweep};

/// Output rows whose vertical sums are computed before the first horizontal one, so that no load
/// waits for a store.
const BAND: usize = 8;

/// Calls `run` with kernel and stride of the columns, as constants in the frequent cases.
macro_rules! with_columns {
    ($pass:ident) => {
        impl WithSimd for $pass<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let [kernel, stride] = [self.shape.kernel, self.shape.stride].map(|pair| pair[1]);
                match (kernel, stride) {
                    (3, 1) => self.run(simd, 3, 1),
                    (3, 2) => self.run(simd, 3, 2),
                    (_, 1) => self.run(simd, kernel, 1),
                    _ => self.run(simd, kernel, stride),
                }
            }
        }
    };
}

with_columns!(Average);
with_columns!(AverageBackward);

/// Mean of each window, where the padding counts as zeros (`count_include_pad`).
///
/// # Panics
/// If a length does not match the shape, the numbers of channels differ, or the padding is not
/// smaller than the kernel.
pub fn average(shape: &ConvShape, x: &[f32], y: &mut [f32]) {
    let _span = profile::work(Work::Pools);
    let shape = &geometry(shape, x.len(), y.len());
    let y = Shared::new(y);
    let planes = shape.batch * shape.in_channels;
    planes::for_each(planes, shape.input[0] * shape.input[1], |range| {
        instruction_set::dispatch(Average { shape, x, y, range });
    });
}

pub(super) struct Average<'a> {
    pub shape: &'a Geometry,
    pub x: &'a [f32],
    pub y: Shared<'a>,
    pub range: Range<usize>,
}

impl Average<'_> {
    /// `kernel` and `stride` are those of the columns.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, kernel: usize, stride: usize) {
        let Self { shape, x, y, range } = self;
        let ([height, width], [rows, columns]) = (shape.input, shape.output());
        let (padding, window) = (shape.padding[1], (shape.kernel[0] * kernel) as f32);
        let scale = simd.splat_f32s(1.0 / window);
        // A padded row of vertical sums, its columns sorted by their remainder modulo the stride.
        let pitch = (width + 2 * padding).div_ceil(stride) + WIDEST;
        let mut sums = vec![0.0f32; BAND * stride * pitch];
        let mut row_sums = vec![0.0f32; width];
        let taps: Vec<_> = (0..rows).map(|row| taps(shape, 0, row)).collect();
        for plane in range {
            let from = &x[plane * height * width..][..height * width];
            let to = y.plane(plane, rows * columns);
            for band in (0..rows).step_by(BAND) {
                let band = band..rows.min(band + BAND);
                for (row, sums) in band.clone().zip(sums.chunks_exact_mut(stride * pitch)) {
                    let taps = &taps[row];
                    let first = row * shape.stride[0] + taps.start - shape.padding[0];
                    let from = &from[first * width..][..taps.len() * width];
                    let contiguous = stride == 1;
                    let to = if contiguous { &mut sums[padding..][..width] } else { &mut row_sums };
                    add_rows(simd, from, to);
                    if !contiguous {
                        sort_columns(&row_sums, padding, stride, pitch, sums);
                    }
                }
                for (row, sums) in band.zip(sums.chunks_exact(stride * pitch)) {
                    sweep!(simd, columns, |at, lanes, _TURN| {
                        let mut sum = simd.splat_f32s(0.0);
                        for tap in 0..kernel {
                            let from = tap % stride * pitch + tap / stride + at;
                            // SAFETY: the last window ends within the padded row, and the slack
                            // behind it is as wide as a vector. This task alone has the plane.
                            let value = unsafe { load(simd, sums, from) };
                            sum = simd.add_f32s(sum, value);
                        }
                        let mean = simd.mul_f32s(scale, sum);
                        // SAFETY: `sweep` stays within the row; this task alone has the plane.
                        unsafe { lanes.store(simd, to.add(row * columns + at), mean) };
                    });
                }
            }
        }
    }
}

/// Sum of the rows of `from`, each as long as `to`.
#[inline(always)]
fn add_rows<S: Simd>(simd: S, from: &[f32], to: &mut [f32]) {
    let width = to.len();
    let rows = from.len() / width;
    match rows {
        // The compiler unrolls the frequent case.
        3 => add_some_rows(simd, from, to, 3),
        _ => add_some_rows(simd, from, to, rows),
    }
}

#[inline(always)]
fn add_some_rows<S: Simd>(simd: S, from: &[f32], to: &mut [f32], rows: usize) {
    let width = to.len();
    assert_eq!(from.len(), rows * width);
    sweep!(simd, width, |at, lanes, _TURN| {
        let mut sum = simd.splat_f32s(0.0);
        for row in 0..rows {
            // SAFETY: `sweep` stays within a row, and there are `rows` of them.
            let value = unsafe { lanes.load(simd, from.as_ptr().add(row * width + at)) };
            sum = simd.add_f32s(sum, value);
        }
        // SAFETY: as above.
        unsafe { lanes.store(simd, to.as_mut_ptr().add(at), sum) };
    });
}

/// Gradient of [`average`], or its addition to `dx`.
///
/// # Panics
/// As [`average`].
pub fn average_backward(shape: &ConvShape, dy: &[f32], dx: &mut [f32], accumulate: bool) {
    let _span = profile::work(Work::Pools);
    let shape = &geometry(shape, dx.len(), dy.len());
    let dx = Shared::new(dx);
    let planes = shape.batch * shape.in_channels;
    planes::for_each(planes, shape.input[0] * shape.input[1], |range| {
        instruction_set::dispatch(AverageBackward { shape, dy, dx, accumulate, range });
    });
}

pub(super) struct AverageBackward<'a> {
    pub shape: &'a Geometry,
    pub dy: &'a [f32],
    pub dx: Shared<'a>,
    pub accumulate: bool,
    pub range: Range<usize>,
}

impl AverageBackward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, kernel: usize, stride: usize) {
        let Self { shape, dy, dx, accumulate, range } = self;
        let ([height, width], [rows, columns]) = (shape.input, shape.output());
        let (padding, window) = (shape.padding[1], (shape.kernel[0] * kernel) as f32);
        let scale = simd.splat_f32s(1.0 / window);
        // A row of vertical sums between zeros.
        let left = (kernel - 1) / stride;
        let pitch = left + columns.max((width + padding).div_ceil(stride)) + WIDEST;
        let mut sums = vec![0.0f32; BAND * pitch];
        // The gradients of a row, its columns sorted by their remainder modulo the stride.
        let class = width.div_ceil(stride);
        let mut sorted = vec![0.0f32; stride * class];
        let windows: Vec<_> = (0..height).map(|row| windows(shape, 0, row)).collect();
        for plane in range {
            let from = &dy[plane * rows * columns..][..rows * columns];
            let to = dx.plane(plane, height * width);
            for band in (0..height).step_by(BAND) {
                let band = band..height.min(band + BAND);
                for (row, sums) in band.clone().zip(sums.chunks_exact_mut(pitch)) {
                    let windows = &windows[row];
                    let from = &from[windows.start * columns..windows.end * columns];
                    add_rows(simd, from, &mut sums[left..][..columns]);
                }
                for (row, sums) in band.zip(sums.chunks_exact(pitch)) {
                    // SAFETY: the row lies in the plane, which this task alone has.
                    let to = unsafe { std::slice::from_raw_parts_mut(to.add(row * width), width) };
                    for column in 0..stride.min(width) {
                        let (phase, first) =
                            ((column + padding) % stride, (column + padding) / stride);
                        let count = (width - column).div_ceil(stride);
                        sweep!(simd, count, |at, lanes, _TURN| {
                            let mut sum = simd.splat_f32s(0.0);
                            for back in 0..kernel.saturating_sub(phase).div_ceil(stride) {
                                let from = left + first + at - back;
                                // SAFETY: the zeros before the row are as many as windows reach
                                // back; the slack behind it is as wide as a vector.
                                let value = unsafe { load(simd, sums, from) };
                                sum = simd.add_f32s(sum, value);
                            }
                            let mut gradient = simd.mul_f32s(scale, sum);
                            if stride == 1 {
                                // SAFETY: `sweep` stays within the row.
                                unsafe {
                                    let to = to.as_mut_ptr().add(at);
                                    if accumulate {
                                        gradient = simd.add_f32s(gradient, lanes.load(simd, to));
                                    }
                                    lanes.store(simd, to, gradient);
                                }
                            } else {
                                // SAFETY: `sweep` stays within the class of this column.
                                unsafe {
                                    let to = sorted.as_mut_ptr().add(column * class + at);
                                    lanes.store(simd, to, gradient);
                                }
                            }
                        });
                    }
                    if stride > 1 {
                        merge(&sorted, class, stride, accumulate, to);
                    }
                }
            }
        }
    }
}

/// Writes sorted columns back to their places.
#[inline(always)]
fn merge(sorted: &[f32], class: usize, stride: usize, accumulate: bool, to: &mut [f32]) {
    if stride == 2 {
        let (even, odd) = sorted.split_at(class);
        let (pairs, rest) = to.as_chunks_mut::<2>();
        for (to, (even, odd)) in pairs.iter_mut().zip(even.iter().zip(odd)) {
            let kept = if accumulate { *to } else { [0.0; 2] };
            *to = [kept[0] + even, kept[1] + odd];
        }
        for (to, even) in rest.iter_mut().zip(&even[pairs.len()..]) {
            *to = if accumulate { *to + even } else { *even };
        }
        return;
    }
    for (column, sorted) in sorted.chunks_exact(class).enumerate() {
        for (to, value) in to.iter_mut().skip(column).step_by(stride).zip(sorted) {
            *to = if accumulate { *to + value } else { *value };
        }
    }
}

/// The outputs whose windows hold the row (or column) `index` of the input.
fn windows(shape: &Geometry, axis: usize, index: usize) -> Range<usize> {
    let (stride, padded) = (shape.stride[axis], index + shape.padding[axis]);
    let start = (padded + 1).saturating_sub(shape.kernel[axis]).div_ceil(stride);
    let end = shape.output()[axis].min(padded / stride + 1);
    start.min(end)..end
}
