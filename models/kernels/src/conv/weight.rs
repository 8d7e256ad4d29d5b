//! The gradient of the weight: `dW[D, C k k] = sum over images of dY[D, J] X[C k k, J]^T`.

use std::ops::Range;

use rayon::prelude::*;

use super::input_columns;
use super::product::channel_blocks;
use super::winograd::WinogradGrad;
use crate::ConvShape;
use crate::gemm::{self, Columns, Isa, Kernel, Rows};
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::shared::Shared;

/// Columns summed at once.
const COLUMNS: usize = 256;

/// The largest weight of which each task sums its own gradient over a part of the columns. For a
/// larger weight tasks divide the input channels, although each then packs the whole output
/// gradient.
const PRIVATE: usize = 1 << 17;

/// `dw =` the gradient of the weight: `shape.macs()` multiply-adds.
///
/// The columns are the depth of this product: both operands are packed as in the forward pass, then
/// transposed in registers. For a large weight tasks divide the input channels, otherwise the
/// columns, whose sums are added in order.
///
/// With a 1x1 kernel this is the sum over a batch of `dY_n X_n^T`; with `dy = x` the second
/// moments of the channels.
///
/// # Panics
/// As [`forward`](super::forward()).
pub fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let _span = profile::work(Work::Products);
    let shape = &Geometry::new(shape, x.len(), dy.len()).with_weight(dw.len());
    let outputs = shape.output().iter().product::<usize>();
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let size = d * c * shape.window();
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
            images: shape.batch,
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
    images: usize,
    rows: usize,
    channels: usize,
    /// Columns.
    total: usize,
    dw: Shared<'a>,
}

impl Kernel for Run<'_> {
    unsafe fn run<I: Isa>(self) {
        let Self { gradient, input, images, rows, channels, total, dw } = self;
        let (threads, taps) = (rayon::current_num_threads(), input.taps.len());
        let size = rows * channels * taps;
        if size == 0 {
            return;
        }
        if let Some(winograd) = WinogradGrad::of(&gradient, &input, [images, channels, rows]) {
            // SAFETY: the processor has `I`, as the caller promises; `dw` is this call's alone.
            return unsafe { winograd.run::<I>(dw) };
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
        // A transpose reads and writes whole squares, up to one vector of rows past the end.
        let slack = I::LANES * width;
        let lengths = [
            COLUMNS * rows.max(deepest) + slack,
            COLUMNS * rows + slack,
            COLUMNS * deepest + slack,
        ];
        gemm::with_scratches(lengths, |buffers| {
            let [flat, a, b] = buffers.map(<[f32]>::as_mut_ptr);
            let chunks = columns.len().div_ceil(COLUMNS);
            // SAFETY: the processor has `I`, as the caller promises; the buffers hold a chunk of
            // columns and the slack; the tiles are written in columns of this task alone.
            unsafe {
                I::enter(
                    #[inline(always)]
                    || {
                        for chunk in 0..chunks {
                            let columns = gemm::part(columns.clone(), width, chunk, chunks);
                            self.pack_gradient::<I>(&columns, flat, a);
                            for block in &blocks {
                                let inputs =
                                    channels.start + block.start..channels.start + block.end;
                                self.pack_input::<I>(&inputs, &columns, flat, b);
                                let (first, count) = (inputs.start * taps, inputs.len() * taps);
                                let block = gemm::Block {
                                    panels: 0..gemm::panels::<I>(rows),
                                    rows,
                                    depth: columns.len(),
                                    columns: count,
                                    a: Rows::Packed(a),
                                    b,
                                    c_stride: self.row_stride,
                                    c_padded: false,
                                    accumulate: chunk > 0,
                                };
                                let c = |row| {
                                    let start = row * self.row_stride + first;
                                    self.to.range(start..start + count)
                                };
                                block.run::<I>(c, |_| ());
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

    /// Packs the gradient for [`Rows::Packed`], with `columns` as depth.
    ///
    /// # Safety
    /// Inside `enter`; `flat` and `to` have room for whole squares.
    #[inline(always)]
    unsafe fn pack_gradient<I: Isa>(&self, columns: &Range<usize>, flat: *mut f32, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe {
            let squares = Squares::new::<I>(self.gradient, 0..self.rows, columns, flat);
            for panel in 0..gemm::panels::<I>(self.rows) {
                let band = gemm::panel_rows::<I>(panel, self.rows);
                for step in (0..columns.len()).step_by(I::LANES) {
                    let (from, stride) = squares.at::<I>(band.start, step);
                    // Each row of the square overwrites what the one before it wrote past the
                    // height of the panel.
                    let to = to.add(band.start * columns.len() + step * band.len());
                    I::transpose(from, stride, to, band.len());
                }
            }
        }
    }

    /// Packs the input of `channels` in panels of two vectors of its rows, with `columns` as depth.
    ///
    /// # Safety
    /// As for [`Self::pack_gradient`].
    #[inline(always)]
    unsafe fn pack_input<I: Isa>(
        &self,
        channels: &Range<usize>,
        columns: &Range<usize>,
        flat: *mut f32,
        to: *mut f32,
    ) {
        let (width, depth) = (2 * I::LANES, columns.len());
        // SAFETY: as the caller promises.
        unsafe {
            let squares = Squares::new::<I>(self.input, channels.clone(), columns, flat);
            for row in (0..squares.rows).step_by(I::LANES) {
                for step in (0..depth).step_by(I::LANES) {
                    let (from, stride) = squares.at::<I>(row, step);
                    let to = to.add(row / width * depth * width + row % width + step * width);
                    I::transpose(from, stride, to, width);
                }
            }
        }
    }
}

/// The squares of a matrix of columns that are transposed.
struct Squares<'a, 'b> {
    source: &'a Columns<'b>,
    /// The matrix as [`Columns::pack`] has written it, unless the source itself holds the squares.
    packed: Option<*const f32>,
    rows: usize,
    /// First channel and first column.
    first: [usize; 2],
}

impl<'a, 'b> Squares<'a, 'b> {
    /// # Safety
    /// Inside `enter`; `flat` has room for the packed matrix.
    #[inline(always)]
    unsafe fn new<I: Isa>(
        source: &'a Columns<'b>,
        channels: Range<usize>,
        columns: &Range<usize>,
        flat: *mut f32,
    ) -> Self {
        let rows = channels.len() * source.taps.len();
        let first = [channels.start, columns.start];
        let packed = !source.holds_squares::<I>(&channels, columns);
        if packed {
            // SAFETY: as the caller promises.
            unsafe { source.pack::<I>(channels, columns.clone(), flat) }
        }
        Self { source, packed: packed.then_some(flat.cast_const()), rows, first }
    }

    /// Where the square at a row and a column begins, and how far its rows are apart.
    #[inline(always)]
    fn at<I: Isa>(&self, row: usize, column: usize) -> (*const f32, usize) {
        let width = 2 * I::LANES;
        match self.packed {
            Some(packed) => {
                let place = (column / width * self.rows + row) * width + column % width;
                (packed.wrapping_add(place), width)
            }
            None => {
                let from = self.source.square(self.first[0] + row, self.first[1] + column);
                (from, self.source.channel_stride)
            }
        }
    }
}
