//! The gradient of the weight: `dW[D, C k k] = sum over images of dY[D, J] X[C k k, J]^T`.

use std::ops::Range;

use rayon::prelude::*;

use super::input_columns;
use super::product::channel_blocks;
use crate::ConvShape;
use crate::gemm::{self, Columns, Isa, Kernel, Rows};
use crate::shape::Geometry;
use crate::shared::Shared;

/// Columns summed at once.
const COLUMNS: usize = 256;

/// Values of a weight up to which tasks sum gradients of their own over shares of the columns;
/// of a larger one they take channels, although each then packs the whole output gradient.
const PRIVATE: usize = 1 << 17;

/// `dw =` the gradient of the weight: `shape.macs()` multiply-adds.
///
/// Both operands are packed with the columns in depth: as in the forward pass, then transposed
/// in registers. For a large weight tasks take input channels, else shares of the columns, whose
/// sums are added in order.
///
/// With a 1x1 kernel this is the sum over a batch of `dY_n X_n^T`; with `dy = x` the second
/// moments of the channels.
///
/// # Panics
/// As [`forward`](super::forward()).
pub fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let shape = &Geometry::new(shape, x.len(), dy.len()).with_weight(dw.len());
    let outputs = shape.output().iter().product::<usize>();
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let size = d * c * shape.kernel[0] * shape.kernel[1];
    let dw = Shared::new(dw);
    for group in 0..shape.groups {
        let row = [1, outputs];
        let gradient = Columns {
            source: dy,
            start: group * d * outputs,
            image_stride: shape.out_channels * outputs,
            channel_stride: outputs,
            size: row,
            stride: [1, 1],
            taps: vec![[0, 0]],
            grid: row,
        };
        gemm::dispatch(Run {
            gradient,
            input: input_columns(shape, group, x),
            rows: d,
            channels: c,
            total: shape.batch * outputs,
            dw: dw.part(group * size..(group + 1) * size),
        });
    }
}

/// The gradient's and the input's columns of one group.
struct Run<'a> {
    gradient: Columns<'a>,
    input: Columns<'a>,
    rows: usize,
    channels: usize,
    /// Columns.
    total: usize,
    dw: Shared<'a>,
}

impl Kernel for Run<'_> {
    unsafe fn run<I: Isa>(self) {
        let Self { gradient, input, rows, channels, total, dw } = self;
        let (threads, taps) = (rayon::current_num_threads(), input.taps.len());
        let size = rows * channels * taps;
        if size == 0 {
            return;
        }
        let width = 2 * I::LANES;
        let by_channels = size > PRIVATE && channels >= 8 * threads;
        let (channel_parts, column_parts) =
            if by_channels { (threads, 1) } else { (1, threads.min(total.div_ceil(width)).max(1)) };
        gemm::with_scratch((column_parts - 1) * size, |private| {
            let others = Shared::new(private);
            let share_of = |share: usize| match share {
                0 => dw,
                _ => others.part((share - 1) * size..share * size),
            };
            (0..channel_parts * column_parts).into_par_iter().for_each(|task| {
                let (share, part) = (task % column_parts, task / column_parts);
                let sum = Sum {
                    gradient: &gradient,
                    input: &input,
                    rows,
                    row_stride: channels * taps,
                    to: share_of(share),
                };
                let channels = gemm::part(0..channels, 1, part, channel_parts);
                let columns = gemm::part(0..total, width, share, column_parts);
                // SAFETY: the processor has `I`, as the caller promises.
                unsafe { sum.over::<I>(channels, columns) };
            });
            // SAFETY: the tasks are done.
            let dw = unsafe { dw.slice_mut(0..size) };
            for share in private.chunks_exact(size) {
                dw.par_iter_mut()
                    .zip(share)
                    .with_min_len(1 << 14)
                    .for_each(|(to, from)| *to += from);
            }
        });
    }
}

/// One task's part of the gradient.
struct Sum<'a, 'b> {
    gradient: &'a Columns<'b>,
    input: &'a Columns<'b>,
    rows: usize,
    row_stride: usize,
    to: Shared<'b>,
}

impl Sum<'_, '_> {
    /// The gradient of the weights of `channels` over `columns`.
    ///
    /// # Safety
    /// The processor has `I`, and no other task writes these weights.
    unsafe fn over<I: Isa>(&self, channels: Range<usize>, columns: Range<usize>) {
        let (width, taps, rows) = (2 * I::LANES, self.input.taps.len(), self.rows);
        let blocks = channel_blocks(channels.len(), taps);
        let deepest = blocks.iter().map(|block| block.len() * taps).max().unwrap_or(0);
        let deepest = deepest.next_multiple_of(width);
        // A transpose reads and writes whole squares: up to a vector of rows past the end.
        let slack = I::LANES * width;
        let lengths = [
            COLUMNS * rows.max(deepest) + slack,
            COLUMNS * rows + slack,
            COLUMNS * deepest + slack,
        ];
        gemm::with_scratch(lengths.iter().sum(), |scratch| {
            let (flat, rest) = scratch.split_at_mut(lengths[0]);
            let (a, b) = rest.split_at_mut(lengths[1]);
            let chunks = columns.len().div_ceil(COLUMNS);
            // SAFETY: the processor has `I`, as the caller promises; the buffers hold a
            // chunk of columns and the slack; the tiles are written in columns of this task's own.
            unsafe {
                I::enter(
                    #[inline(always)]
                    || {
                        for chunk in 0..chunks {
                            let columns = gemm::part(columns.clone(), width, chunk, chunks);
                            let depth = columns.len();
                            let direct = self.gradient.holds_squares::<I>(&(0..rows), &columns);
                            if !direct {
                                self.gradient.pack::<I>(
                                    0..rows,
                                    columns.clone(),
                                    flat.as_mut_ptr(),
                                );
                            }
                            for panel in 0..gemm::panels::<I>(rows) {
                                let band = gemm::panel_rows::<I>(panel, rows);
                                for step in (0..depth).step_by(I::LANES) {
                                    let (from, stride) = if direct {
                                        let from =
                                            self.gradient.square(band.start, columns.start + step);
                                        (from, self.gradient.channel_stride)
                                    } else {
                                        let from = step / width * rows + band.start;
                                        (flat.as_ptr().add(from * width + step % width), width)
                                    };
                                    // Each row of the square overwrites what the one before it
                                    // wrote past the panel's height.
                                    I::transpose(
                                        from,
                                        stride,
                                        a.as_mut_ptr().add(band.start * depth + step * band.len()),
                                        band.len(),
                                    );
                                }
                            }
                            for block in &blocks {
                                let inputs =
                                    channels.start + block.start..channels.start + block.end;
                                let count = block.len() * taps;
                                let first = inputs.start * taps;
                                let direct = self.input.holds_squares::<I>(&inputs, &columns);
                                if !direct {
                                    self.input.pack::<I>(
                                        inputs.clone(),
                                        columns.clone(),
                                        flat.as_mut_ptr(),
                                    );
                                }
                                for column in (0..count).step_by(I::LANES) {
                                    for step in (0..depth).step_by(I::LANES) {
                                        let (from, stride) = if direct {
                                            let channel = inputs.start + column;
                                            let from =
                                                self.input.square(channel, columns.start + step);
                                            (from, self.input.channel_stride)
                                        } else {
                                            let from = step / width * count + column;
                                            (flat.as_ptr().add(from * width + step % width), width)
                                        };
                                        let to = column / width * depth * width + column % width;
                                        I::transpose(
                                            from,
                                            stride,
                                            b.as_mut_ptr().add(to + step * width),
                                            width,
                                        );
                                    }
                                }
                                gemm::block::<I>(
                                    0..gemm::panels::<I>(rows),
                                    rows,
                                    depth,
                                    count,
                                    Rows::Packed(a.as_ptr()),
                                    b.as_ptr(),
                                    |row| {
                                        let start = row * self.row_stride + first;
                                        self.to.range(start..start + count)
                                    },
                                    self.row_stride,
                                    false,
                                    chunk > 0,
                                    |_| (),
                                );
                            }
                        }
                    },
                )
            }
            if chunks == 0 {
                for row in 0..rows {
                    let start = row * self.row_stride;
                    let own = start + channels.start * taps..start + channels.end * taps;
                    // SAFETY: no other task has these weights.
                    unsafe { self.to.slice_mut(own) }.fill(0.0);
                }
            }
        });
    }
}
