//! Depthwise convolutions.

use std::ops::Range;

use super::BLOCK;
use super::activation::Activate;
use super::map::Map;
use crate::gemm::{self, Isa, Kernel};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{Activation, planes};

/// Filters of all channels, with bias and activation.
pub(super) struct Filters<'a> {
    shape: &'a Geometry,
    /// `[channels / 16, kh, kw, 16]`.
    weight: &'a [f32],
    bias: &'a [f32],
    activation: Activation,
    /// Width of the output.
    width: usize,
    /// The columns of outputs whose windows lie inside the input.
    inside: Range<usize>,
}

/// Where the windows of outputs side by side lie.
#[derive(Clone, Copy)]
struct Windows {
    /// The first tap of the first window inside the input.
    from: *const f32,
    weight: *const f32,
    /// Rows and columns of taps inside.
    taps: [usize; 2],
}

impl<'a> Filters<'a> {
    pub fn new(
        shape: &'a Geometry,
        weight: &'a [f32],
        bias: &'a [f32],
        activation: Activation,
    ) -> Self {
        let ([_, width], [padding, stride, kernel, input]) = (
            shape.output(),
            [shape.padding, shape.stride, shape.kernel, shape.input].map(|pair| pair[1]),
        );
        let end = (input + padding + stride).saturating_sub(kernel) / stride;
        let start = padding.div_ceil(stride).min(width);
        Self { shape, weight, bias, activation, width, inside: start..end.clamp(start, width) }
    }

    /// Computes rows of outputs of a block of channels of an image, which lie at `to` behind each other.
    ///
    /// # Safety
    /// Inside `enter`; `from` is the block's plane of the input, and `to` and the residual have room for the
    /// rows.
    #[inline(always)]
    pub unsafe fn run<I: Isa>(
        &self,
        block: usize,
        from: &[f32],
        rows: Range<usize>,
        residual: Option<*const f32>,
        to: *mut f32,
    ) {
        let shape = self.shape;
        let ([_, width], [_, across], [_, kernel_width]) =
            (shape.input, shape.stride, shape.kernel);
        let from_plane = from.as_ptr();
        let weight = self.weight[block * shape.window() * BLOCK..].as_ptr();
        for lane in (0..BLOCK).step_by(I::LANES) {
            // SAFETY: as the caller promises; taps outside the input are left out.
            unsafe {
                let bias = I::load(self.bias[block * BLOCK + lane..].as_ptr());
                let finish =
                    Finish { bias, residual, to, activate: Activate::new(self.activation) };
                for row in rows.clone() {
                    let (input_row, taps) = self.taps(0, row);
                    let start = (row - rows.start) * self.width;
                    let mut column = 0;
                    while column < self.width {
                        let (input_column, [first, end]) = self.taps(1, column);
                        let from = (input_row * width + input_column) * BLOCK + lane;
                        let tap = (taps[0] * kernel_width + first) * BLOCK + lane;
                        let windows = Windows {
                            from: from_plane.wrapping_add(from),
                            weight: weight.wrapping_add(tap),
                            taps: [taps[1] - taps[0], end - first],
                        };
                        let place = (start + column) * BLOCK + lane;
                        let inside = match self.inside.contains(&column) {
                            true => self.inside.end - column,
                            false => 1,
                        };
                        column += match (inside, across) {
                            (8.., 1) => self.outputs::<I, 8, 1>(windows, finish, place),
                            (8.., 2) => self.outputs::<I, 8, 2>(windows, finish, place),
                            (4.., 1) => self.outputs::<I, 4, 1>(windows, finish, place),
                            (4.., 2) => self.outputs::<I, 4, 2>(windows, finish, place),
                            _ => self.outputs::<I, 1, 1>(windows, finish, place),
                        };
                    }
                }
            }
        }
    }

    /// The first row (or column) of the input that an output reads, and the first and the end of the taps
    /// that lie inside.
    #[inline(always)]
    fn taps(&self, axis: usize, output: usize) -> (usize, [usize; 2]) {
        let [padding, stride, kernel, input] =
            [self.shape.padding, self.shape.stride, self.shape.kernel, self.shape.input]
                .map(|pair| pair[axis]);
        let start = output * stride;
        let first = padding.saturating_sub(start).min(kernel);
        let end = (input + padding).saturating_sub(start).min(kernel).max(first);
        ((start + first).saturating_sub(padding), [first, end])
    }

    /// Computes `COUNT` outputs side by side, and returns their number.
    ///
    /// # Safety
    /// Inside `enter`; the windows lie inside the input.
    #[inline(always)]
    unsafe fn outputs<I: Isa, const COUNT: usize, const STRIDE: usize>(
        &self,
        windows: Windows,
        finish: Finish<I>,
        place: usize,
    ) -> usize {
        let Windows { from, weight, taps: [rows, columns] } = windows;
        let ([_, width], [_, kernel_width]) = (self.shape.input, self.shape.kernel);
        // SAFETY: as the caller promises.
        unsafe {
            let mut sums = [finish.bias; COUNT];
            for row in 0..rows {
                let from = from.wrapping_add(row * width * BLOCK);
                let weight = weight.wrapping_add(row * kernel_width * BLOCK);
                for column in 0..columns {
                    let weight = I::load(weight.add(column * BLOCK));
                    let from = from.add(column * BLOCK);
                    for (index, sum) in sums.iter_mut().enumerate() {
                        *sum = I::mul_add(weight, I::load(from.add(index * STRIDE * BLOCK)), *sum);
                    }
                }
            }
            for (index, sum) in sums.into_iter().enumerate() {
                finish.write(sum, place + index * BLOCK);
            }
        }
        COUNT
    }
}

/// What an output goes through.
#[derive(Clone, Copy)]
struct Finish<I: Isa> {
    bias: I::Vector,
    residual: Option<*const f32>,
    activate: Activate<I>,
    to: *mut f32,
}

impl<I: Isa> Finish<I> {
    /// # Safety
    /// Inside `enter`; the place exists.
    #[inline(always)]
    unsafe fn write(self, sum: I::Vector, place: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            let sum = match self.residual {
                Some(residual) => I::add(sum, I::load(residual.add(place))),
                None => sum,
            };
            I::store(self.to.add(place), self.activate.apply(sum));
        }
    }
}

/// A whole layer.
pub(super) fn convolve(filters: &Filters, input: &Map, residual: Option<&Map>, output: &mut Map) {
    gemm::dispatch(Layer { filters, input, residual, output });
}

struct Layer<'a> {
    filters: &'a Filters<'a>,
    input: &'a Map,
    residual: Option<&'a Map>,
    output: &'a mut Map,
}

impl Kernel for Layer<'_> {
    unsafe fn run<I: Isa>(self) {
        let Self { filters, input, residual, output } = self;
        let ([batch, _, height, _], blocks) = (output.dims(), output.blocks());
        let ([from_len, to_len], output) =
            ([input.block_len(), output.block_len()], Shared::new(output.values_mut()));
        planes::for_each(batch * blocks, to_len, |range| {
            // SAFETY: the processor has `I`, as the caller promises; this task alone has these blocks.
            unsafe {
                I::enter(
                    #[inline(always)]
                    || {
                        for index in range {
                            let from = &input.values()[index * from_len..][..from_len];
                            let residual =
                                residual.map(|map| map.values()[index * to_len..].as_ptr());
                            let to = output.plane(index, to_len);
                            filters.run::<I>(index % blocks, from, 0..height, residual, to);
                        }
                    },
                );
            }
        });
    }
}
