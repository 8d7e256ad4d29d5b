//! Average and maximum over windows of a map, and over whole planes.
//!
//! Windows are given as those of a convolution with as many output as input channels; weight
//! and groups play no part. Each kernel goes once over what it reads and once over what it
//! writes.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::ConvShape;
use crate::planes::{self, SharedMap};
use crate::simd::{Full, Lanes, sweep};

/// Values behind a row of scratch that a vector may read over its end: those of the widest one.
const SLACK: usize = 16;

/// Output rows whose vertical sums are made before the first horizontal one, so that no load
/// waits for a store.
const BAND: usize = 8;

fn check(shape: &ConvShape, input: usize, output: usize) {
    assert_eq!(shape.in_channels, shape.out_channels, "a pool keeps its channels");
    let inside = (0..2).all(|axis| shape.padding[axis] < shape.kernel[axis]);
    assert!(inside, "a window lies in the padding");
    assert_eq!(input, shape.input_len(), "length of the input");
    assert_eq!(output, shape.output_len(), "length of the output");
}

/// The window's rows (or columns) that lie in an input of `len`, for output `index`.
fn taps(shape: &ConvShape, axis: usize, index: usize) -> Range<usize> {
    let (padding, start) = (shape.padding[axis], index * shape.stride[axis]);
    padding.saturating_sub(start)..shape.kernel[axis].min(shape.input[axis] + padding - start)
}

/// Mean of each window, where the padding counts as zeros (`count_include_pad`).
///
/// # Panics
/// If a length does not fit the shape, the channels differ or the padding is not smaller than
/// the kernel.
pub fn average(shape: &ConvShape, x: &[f32], y: &mut [f32]) {
    check(shape, x.len(), y.len());
    let y = SharedMap::new(y);
    let planes = shape.batch * shape.in_channels;
    planes::for_each(planes, shape.input[0] * shape.input[1], |range| {
        Arch::new().dispatch(Average { shape, x, y, range });
    });
}

struct Average<'a> {
    shape: &'a ConvShape,
    x: &'a [f32],
    y: SharedMap<'a>,
    range: Range<usize>,
}

impl WithSimd for Average<'_> {
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

impl Average<'_> {
    /// `kernel` and `stride` are those of the columns, known to the compiler where it matters.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, kernel: usize, stride: usize) {
        let Self { shape, x, y, range } = self;
        let ([height, width], [rows, columns]) = (shape.input, shape.output());
        let (padding, window) = (shape.padding[1], (shape.kernel[0] * kernel) as f32);
        let scale = simd.splat_f32s(1.0 / window);
        // A padded row of vertical sums, its columns sorted by their remainder modulo the stride.
        let pitch = (width + 2 * padding).div_ceil(stride) + SLACK;
        let mut sums = vec![0.0f32; BAND * stride * pitch];
        let mut row_sums = vec![0.0f32; width];
        for plane in range {
            let from = &x[plane * height * width..][..height * width];
            let to = y.start(plane, rows * columns);
            for band in (0..rows).step_by(BAND) {
                let band = band..rows.min(band + BAND);
                for (row, sums) in band.clone().zip(sums.chunks_exact_mut(stride * pitch)) {
                    let taps = taps(shape, 0, row);
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
                    sweep!(S, columns, |at, lanes, _TURN| {
                        let mut sum = simd.splat_f32s(0.0);
                        for tap in 0..kernel {
                            let from = tap % stride * pitch + tap / stride + at;
                            debug_assert!(from + S::F32_LANES <= sums.len());
                            // SAFETY: the last window ends within the padded row, and the slack
                            // behind it is as wide as a vector. This task alone has the plane.
                            let value = unsafe { Full.load(simd, sums.as_ptr().add(from)) };
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
    sweep!(S, width, |at, lanes, _TURN| {
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
    check(shape, dx.len(), dy.len());
    let dx = SharedMap::new(dx);
    let planes = shape.batch * shape.in_channels;
    planes::for_each(planes, shape.input[0] * shape.input[1], |range| {
        Arch::new().dispatch(AverageBackward { shape, dy, dx, accumulate, range });
    });
}

struct AverageBackward<'a> {
    shape: &'a ConvShape,
    dy: &'a [f32],
    dx: SharedMap<'a>,
    accumulate: bool,
    range: Range<usize>,
}

impl WithSimd for AverageBackward<'_> {
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

impl AverageBackward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, kernel: usize, stride: usize) {
        let Self { shape, dy, dx, accumulate, range } = self;
        let ([height, width], [rows, columns]) = (shape.input, shape.output());
        let (padding, window) = (shape.padding[1], (shape.kernel[0] * kernel) as f32);
        let scale = simd.splat_f32s(1.0 / window);
        // A row of vertical sums between zeros.
        let left = (kernel - 1) / stride;
        let pitch = left + columns.max((width + padding).div_ceil(stride)) + SLACK;
        let mut sums = vec![0.0f32; BAND * pitch];
        // The gradients of a row, its columns sorted by their remainder modulo the stride.
        let class = width.div_ceil(stride);
        let mut sorted = vec![0.0f32; stride * class];
        for plane in range {
            let from = &dy[plane * rows * columns..][..rows * columns];
            let to = dx.start(plane, height * width);
            for band in (0..height).step_by(BAND) {
                let band = band..height.min(band + BAND);
                for (row, sums) in band.clone().zip(sums.chunks_exact_mut(pitch)) {
                    let windows = windows(shape, 0, row);
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
                        sweep!(S, count, |at, lanes, _TURN| {
                            let mut sum = simd.splat_f32s(0.0);
                            for back in 0..kernel.saturating_sub(phase).div_ceil(stride) {
                                let from = left + first + at - back;
                                debug_assert!(from + S::F32_LANES <= sums.len());
                                // SAFETY: the zeros before the row are as many as windows reach
                                // back; the slack behind it is as wide as a vector.
                                let value = unsafe { Full.load(simd, sums.as_ptr().add(from)) };
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
fn windows(shape: &ConvShape, axis: usize, index: usize) -> Range<usize> {
    let (stride, padded) = (shape.stride[axis], index + shape.padding[axis]);
    let start = (padded + 1).saturating_sub(shape.kernel[axis]).div_ceil(stride);
    let end = shape.output()[axis].min(padded / stride + 1);
    start.min(end)..end
}

/// Maximum of each window, and which of its values that is: `argmax` is the row in the window
/// times the kernel's width, plus the column, of the first maximum. NaN counts as a maximum.
///
/// # Panics
/// As [`average`]; or if a window has more than 256 values.
pub fn max(shape: &ConvShape, x: &[f32], y: &mut [f32], argmax: &mut [u8]) {
    check(shape, x.len(), y.len());
    assert_eq!(argmax.len(), y.len(), "length of the places");
    assert!(shape.kernel[0] * shape.kernel[1] <= 256, "a window has more than 256 values");
    let (y, argmax) = (SharedMap::new(y), SharedMap::new(argmax));
    let planes = shape.batch * shape.in_channels;
    planes::for_each(planes, shape.input[0] * shape.input[1], |range| {
        Arch::new().dispatch(Max { shape, x, y, argmax, range });
    });
}

struct Max<'a> {
    shape: &'a ConvShape,
    x: &'a [f32],
    y: SharedMap<'a>,
    argmax: SharedMap<'a, u8>,
    range: Range<usize>,
}

impl WithSimd for Max<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [kernel, stride] = [self.shape.kernel, self.shape.stride].map(|pair| pair[1]);
        match (kernel, stride) {
            (3, 2) => self.run(simd, 3, 2),
            _ => self.run(simd, kernel, stride),
        }
    }
}

impl Max<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S, kernel: usize, stride: usize) {
        let Self { shape, x, y, argmax, range } = self;
        let ([height, width], [rows, columns]) = (shape.input, shape.output());
        let padding = shape.padding[1];
        let pitch = (width + 2 * padding).div_ceil(stride) + SLACK;
        // The rows padded, their columns sorted by their remainder modulo the stride.
        let mut sorted = vec![f32::NEG_INFINITY; height * stride * pitch];
        // Places are kept as floats to be selected along with the values; above 2^23, so that
        // the low bits of the float are the place.
        const INTEGERS: f32 = (1 << 23) as f32;
        let first: Vec<f32> =
            (0..columns).map(|column| INTEGERS + taps(shape, 1, column).start as f32).collect();
        let mut places = vec![0.0f32; columns];
        for plane in range {
            let from = x[plane * height * width..][..height * width].chunks_exact(width);
            for (from, sorted) in from.zip(sorted.chunks_exact_mut(stride * pitch)) {
                sort_columns(from, padding, stride, pitch, sorted);
            }
            // SAFETY: this task alone has these planes.
            let (y, argmax) =
                unsafe { (y.plane(plane, rows * columns), argmax.plane(plane, rows * columns)) };
            let results = y.chunks_exact_mut(columns).zip(argmax.chunks_exact_mut(columns));
            for (row, (y, argmax)) in results.enumerate() {
                let taps = taps(shape, 0, row);
                let start = row * shape.stride[0] + taps.start - shape.padding[0];
                let sorted = &sorted[start * stride * pitch..][..taps.len() * stride * pitch];
                let first_row = simd.splat_f32s((taps.start * kernel) as f32);
                sweep!(S, columns, |at, lanes, _TURN| {
                    let mut best = simd.splat_f32s(f32::NEG_INFINITY);
                    // SAFETY: `sweep` stays within `columns` values.
                    let mut place = unsafe { lanes.load(simd, first.as_ptr().add(at)) };
                    place = simd.add_f32s(place, first_row);
                    for (line, row) in taps.clone().enumerate() {
                        for tap in 0..kernel {
                            let from = (line * stride + tap % stride) * pitch + tap / stride + at;
                            debug_assert!(from + S::F32_LANES <= sorted.len());
                            // SAFETY: the last window ends within the padded row, and the slack
                            // behind it is as wide as a vector.
                            let value = unsafe { Full.load(simd, sorted.as_ptr().add(from)) };
                            let wins = simd.or_m32s(
                                simd.greater_than_f32s(value, best),
                                simd.not_m32s(simd.equal_f32s(value, value)),
                            );
                            best = simd.select_f32s(wins, value, best);
                            let here = simd.splat_f32s(INTEGERS + (row * kernel + tap) as f32);
                            place = simd.select_f32s(wins, here, place);
                        }
                    }
                    // SAFETY: `sweep` stays within `columns` values.
                    unsafe {
                        lanes.store(simd, y.as_mut_ptr().add(at), best);
                        lanes.store(simd, places.as_mut_ptr().add(at), place);
                    }
                });
                for (argmax, &place) in argmax.iter_mut().zip(&places) {
                    *argmax = place.to_bits() as u8;
                }
            }
        }
    }
}

/// Puts a row into its padding, sorted by the remainder of the padded column modulo the stride:
/// `pitch` values for each remainder.
#[inline(always)]
fn sort_columns(from: &[f32], padding: usize, stride: usize, pitch: usize, to: &mut [f32]) {
    if stride == 1 {
        to[padding..][..from.len()].copy_from_slice(from);
        return;
    }
    if stride == 2 {
        let (even, odd) = to.split_at_mut(pitch);
        // Of the columns of the row, not of its padding.
        let (even, odd) = if padding.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        let (even, odd) = (&mut even[padding / 2..], &mut odd[padding.div_ceil(2)..]);
        let (pairs, rest) = from.as_chunks::<2>();
        for ((pair, even), odd) in pairs.iter().zip(&mut *even).zip(odd) {
            [*even, *odd] = *pair;
        }
        even[pairs.len()..][..rest.len()].copy_from_slice(rest);
        return;
    }
    for column in 0..stride.min(from.len()) {
        let (phase, start) = ((column + padding) % stride, (column + padding) / stride);
        let to = &mut to[phase * pitch + start..(phase + 1) * pitch];
        let picked = from[column..].iter().step_by(stride);
        to.iter_mut().zip(picked).for_each(|(to, &value)| *to = value);
    }
}

/// Gradient of [`max`], to the places it has found.
///
/// # Panics
/// As [`max`]; or if a place lies outside the input.
pub fn max_backward(shape: &ConvShape, dy: &[f32], argmax: &[u8], dx: &mut [f32]) {
    check(shape, dx.len(), dy.len());
    assert_eq!(argmax.len(), dy.len(), "length of the places");
    let ([height, width], [rows, columns]) = (shape.input, shape.output());
    // Of a place in the window, from the window's first value.
    let offsets: Vec<usize> = (0..shape.kernel[0] * shape.kernel[1])
        .map(|place| place / shape.kernel[1] * width + place % shape.kernel[1])
        .collect();
    let padding = shape.padding[0] * width + shape.padding[1];
    let dx = SharedMap::new(dx);
    planes::for_each(shape.batch * shape.in_channels, height * width, |range| {
        for plane in range {
            // SAFETY: this task alone has the plane.
            let to = unsafe { dx.plane(plane, height * width) };
            to.fill(0.0);
            for row in 0..rows {
                let start = plane * rows * columns + row * columns;
                let (dy, argmax) = (&dy[start..][..columns], &argmax[start..][..columns]);
                let mut window = row * shape.stride[0] * width;
                for (&gradient, &place) in dy.iter().zip(argmax) {
                    to[(window + offsets[usize::from(place)]).wrapping_sub(padding)] += gradient;
                    window += shape.stride[1];
                }
            }
        }
    });
}

#[cfg(test)]
mod tests;
