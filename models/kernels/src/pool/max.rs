//! The maximum of each window, and its position.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{LARGEST_WINDOW, geometry, sort_columns, taps};
use crate::ConvShape;
use crate::instruction_set;
use crate::planes;
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::simd::{Lanes, WIDEST, load, sweep};

/// Maximum of each window, and its position: `argmax` is the row in the window times the width of
/// the kernel, plus the column, of the first maximum. NaN counts as a maximum.
///
/// # Panics
/// As [`average`](super::average()); or if a window has more than [`LARGEST_WINDOW`] values.
pub fn max(shape: &ConvShape, x: &[f32], y: &mut [f32], argmax: &mut [u8]) {
    let _span = profile::work(Work::Pools);
    let shape = &geometry(shape, x.len(), y.len());
    assert_eq!(argmax.len(), y.len(), "length of the places");
    check_window(shape);
    let (y, argmax) = (Shared::new(y), Shared::new(argmax));
    let planes = shape.batch * shape.in_channels;
    planes::for_each(planes, shape.input[0] * shape.input[1], |range| {
        instruction_set::dispatch(Max { shape, x, y, argmax, range });
    });
}

fn check_window(shape: &Geometry) {
    let [height, width] = shape.kernel;
    assert!(height * width <= LARGEST_WINDOW, "a window has more than {LARGEST_WINDOW} values");
}

struct Max<'a> {
    shape: &'a Geometry,
    x: &'a [f32],
    y: Shared<'a>,
    argmax: Shared<'a, u8>,
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
        let pitch = (width + 2 * padding).div_ceil(stride) + WIDEST;
        // The rows padded, their columns sorted by their remainder modulo the stride.
        let mut sorted = vec![f32::NEG_INFINITY; height * stride * pitch];
        // Positions are stored as floats, so that they are selected like the values, and offset by
        // 2^23, so that the low bits of the float are the position.
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
            let (y, argmax) = unsafe {
                (y.plane_mut(plane, rows * columns), argmax.plane_mut(plane, rows * columns))
            };
            let results = y.chunks_exact_mut(columns).zip(argmax.chunks_exact_mut(columns));
            for (row, (y, argmax)) in results.enumerate() {
                let taps = taps(shape, 0, row);
                let start = row * shape.stride[0] + taps.start - shape.padding[0];
                let sorted = &sorted[start * stride * pitch..][..taps.len() * stride * pitch];
                let first_row = simd.splat_f32s((taps.start * kernel) as f32);
                sweep!(simd, columns, |at, lanes, _TURN| {
                    let mut best = simd.splat_f32s(f32::NEG_INFINITY);
                    // SAFETY: `sweep` stays within `columns` values.
                    let mut place = unsafe { lanes.load(simd, first.as_ptr().add(at)) };
                    place = simd.add_f32s(place, first_row);
                    for (line, row) in taps.clone().enumerate() {
                        for tap in 0..kernel {
                            let from = (line * stride + tap % stride) * pitch + tap / stride + at;
                            // SAFETY: the last window ends within the padded row, and the slack
                            // behind it is as wide as a vector.
                            let value = unsafe { load(simd, sorted, from) };
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

/// Gradient of [`max`], added at the positions of the maxima.
///
/// # Panics
/// As [`max`]; or if a place lies outside the input.
pub fn max_backward(shape: &ConvShape, dy: &[f32], argmax: &[u8], dx: &mut [f32]) {
    let _span = profile::work(Work::Pools);
    let shape = &geometry(shape, dx.len(), dy.len());
    assert_eq!(argmax.len(), dy.len(), "length of the places");
    check_window(shape);
    let ([height, width], [rows, columns]) = (shape.input, shape.output());
    // Of a place in the window, from the window's first value.
    let offsets: Vec<usize> = (0..shape.window())
        .map(|place| place / shape.kernel[1] * width + place % shape.kernel[1])
        .collect();
    let padding = shape.padding[0] * width + shape.padding[1];
    let dx = Shared::new(dx);
    planes::for_each(shape.batch * shape.in_channels, height * width, |range| {
        for plane in range {
            // SAFETY: this task alone has the plane.
            let to = unsafe { dx.plane_mut(plane, height * width) };
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
