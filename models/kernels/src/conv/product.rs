//! The product of a weight with the columns of a batch, divided into tasks, with the epilogue
//! applied while results are in the cache.

use std::ops::Range;

use rayon::prelude::*;

use super::epilogue::{Epilogue, Finish};
use super::winograd::Winograd;
use crate::Activation;
use crate::gemm::{self, Columns, Isa, Kernel, Rows};
use crate::norm;
use crate::shared::Shared;

/// Depth of one packed block.
const DEPTH: usize = 256;
/// Columns of one task's block.
const COLUMNS: usize = 256;

/// Rows whose distance is a multiple of this many values, a page, compete for one set of the L1
/// cache. Reading them in place is slower by a sixth, and packing them pays off from `COLUMNS`
/// columns on (measured at 98, 196, 392, 784 columns). Other rows are as fast in place.
const ALIASED: usize = 1024;

/// The number of values above which an output does not stay in a cache until it is read again, so
/// that it is written with non-temporal stores. In tests it is small, so that both ways are tested.
const LARGE: usize = if cfg!(test) { 1 << 10 } else { 1 << 22 };

/// Where the results go.
pub(super) struct Output {
    pub start: usize,
    pub image_stride: usize,
    pub channel_stride: usize,
    /// Between rows and between columns of the grid.
    pub position_strides: [usize; 2],
    /// Columns of the grid.
    pub width: usize,
}

/// A product of a weight with the columns of a batch.
pub(super) struct Product<'a> {
    pub rows: usize,
    /// Channels of the source; the depth is `channels * taps`.
    pub channels: usize,
    pub images: usize,
    pub weight: &'a [f32],
    pub row_stride: usize,
    pub channel_stride: usize,
    /// Of each tap in the weight's kernel.
    pub places: Vec<usize>,
    pub output: Output,
    /// The first row's channel in bias and residual.
    pub channel: usize,
    pub columns: Columns<'a>,
    /// Whether nothing but products may be added.
    pub direct: bool,
}

/// Blocks of whole channels with a depth near `DEPTH`, each as its channels.
pub(super) fn channel_blocks(channels: usize, taps: usize) -> Vec<Range<usize>> {
    let count = (channels * taps).div_ceil(DEPTH).clamp(1, channels.max(1));
    (0..count).map(|block| gemm::part(0..channels, 1, block, count)).collect()
}

pub(super) struct Run<'a, 'b> {
    pub product: &'a Product<'b>,
    pub y: &'a mut [f32],
    pub epilogue: Epilogue<'a>,
    pub moments: Option<(&'a mut [f64], &'a mut [f64])>,
}

/// Sums of the deviations from `shift` and of their squares.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    shift: f32,
    sum: f32,
    squares: f32,
}

impl Kernel for Run<'_, '_> {
    unsafe fn run<I: Isa>(self) {
        let Self { product, y, epilogue, moments } = self;
        let taps = product.places.len();
        let total = product.images * product.columns.positions();
        if product.rows == 0 || total == 0 {
            return;
        }
        if let Some(winograd) = Winograd::of(product).filter(|_| !product.direct) {
            // SAFETY: the processor has `I`, as the caller promises.
            return unsafe { winograd.run::<I>(y, epilogue, moments) };
        }
        let blocks = channel_blocks(product.channels, taps);
        let steps: Vec<_> =
            blocks.iter().map(|block| block.start * taps..block.end * taps).collect();
        let depth = product.channels * taps;
        let places: Vec<_> = (0..product.channels)
            .flat_map(|c| product.places.iter().map(move |k| c * product.channel_stride + k))
            .collect();
        let width = 2 * I::LANES;
        let threads = rayon::current_num_threads();
        let units = total.div_ceil(width);
        let row_parts =
            if units < 4 * threads { threads.min(gemm::panels::<I>(product.rows)) } else { 1 };
        let column_parts = if row_parts > 1 {
            1
        } else {
            total.div_ceil(COLUMNS).next_multiple_of(threads).min(units)
        };
        let column_parts = column_parts.max(total.div_ceil(COLUMNS).min(units));
        let mut sums = match moments {
            Some(_) => vec![Sums::default(); column_parts * product.rows],
            None => Vec::new(),
        };
        let all_sums = moments.is_some().then(|| Shared::new(&mut sums));
        let out = Shared::new(y);
        let aliased = product.row_stride.is_multiple_of(ALIASED) && total > COLUMNS;
        let in_place = places.iter().copied().eq(0..depth) && !aliased;
        let room = if in_place { 0 } else { product.rows * depth };
        gemm::with_scratch(room, |packed| {
            let (rows, row_stride) = (product.rows, product.row_stride);
            let packed = (!in_place).then(|| {
                gemm::pack_rows::<I>(rows, row_stride, &places, &steps, product.weight, packed);
                &*packed
            });
            let tasks = Tasks { product, packed, blocks: &blocks, out, epilogue: &epilogue };
            (0..column_parts * row_parts).into_par_iter().for_each(|task| {
                let columns = gemm::part(0..total, width, task / row_parts, column_parts);
                let panels =
                    gemm::part(0..gemm::panels::<I>(product.rows), 1, task % row_parts, row_parts);
                let first = task / row_parts * product.rows;
                let sums = all_sums.map(|sums| sums.part(first..first + product.rows));
                // SAFETY: the processor has `I`, as the caller promises.
                unsafe { tasks.run::<I>(columns, panels, sums) };
            });
        });
        if let Some(found) = moments {
            let count = |part| gemm::part(0..total, width, part, column_parts).len() as f64;
            means_of(&(0..column_parts).map(count).collect::<Vec<_>>(), &sums, found);
        }
    }
}

/// Means and variances of all rows, given the number of values of each part and the sums of its rows.
pub(super) fn means_of(counts: &[f64], sums: &[Sums], (mean, variance): (&mut [f64], &mut [f64])) {
    let rows = mean.len();
    for row in 0..rows {
        let parts =
            counts.iter().enumerate().map(|(part, &count)| (count, &sums[part * rows + row]));
        (mean[row], variance[row]) = combine(parts);
    }
}

/// The epilogue of a row.
pub(super) fn finish_of(product: &Product, epilogue: &Epilogue, row: usize) -> Finish {
    Finish {
        bias: epilogue.bias.map_or(0.0, |bias| bias[product.channel + row]),
        bounds: epilogue.activation.bounds(),
        plain: epilogue.bias.is_none() && epilogue.activation == Activation::Identity,
        accumulate: epilogue.accumulate,
        stream: product.images * product.output.image_stride > LARGE && !epilogue.accumulate,
    }
}

/// Mean and variance of all parts of a row, given the number of values and the sums of each.
fn combine<'a>(parts: impl Iterator<Item = (f64, &'a Sums)>) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for (part, sums) in parts {
        let ahead = f64::from(sums.sum) / part;
        let within = f64::from(sums.squares) - f64::from(sums.sum) * ahead;
        let apart = f64::from(sums.shift) + ahead - mean;
        squares += within + apart * apart * count * part / (count + part);
        count += part;
        mean += apart * part / count;
    }
    (mean, norm::variance(squares / count))
}

/// What the tasks of a product share.
struct Tasks<'a, 'b> {
    product: &'a Product<'b>,
    /// The weight as [`gemm::pack_rows`] has packed it in these blocks, unless it is read in place.
    packed: Option<&'a [f32]>,
    /// Of the channels.
    blocks: &'a [Range<usize>],
    out: Shared<'a>,
    epilogue: &'a Epilogue<'a>,
}

impl Tasks<'_, '_> {
    /// Computes the output's `columns` for the row panels `panels`.
    ///
    /// # Safety
    /// The processor has `I`, and no other task writes these columns of these panels.
    unsafe fn run<I: Isa>(
        &self,
        columns: Range<usize>,
        panels: Range<usize>,
        sums: Option<Shared<'_, Sums>>,
    ) {
        let (product, blocks) = (self.product, self.blocks);
        let taps = product.places.len();
        let stride = columns.len().next_multiple_of(2 * I::LANES);
        let deepest = blocks.iter().map(|block| block.len() * taps).max().unwrap_or(0);
        let first_row = gemm::panel_rows::<I>(panels.start, product.rows).start;
        let last_row = gemm::panel_rows::<I>(panels.end - 1, product.rows).end;
        // With a single block of the depth there is room for one panel at a time only.
        let kept = if blocks.len() == 1 { I::ROWS } else { last_row - first_row };
        gemm::with_scratch(stride * (deepest + kept), |scratch| {
            let (b, c) = scratch.split_at_mut(stride * deepest);
            let c = Shared::new(c);
            let place = |row: usize| {
                let start = if blocks.len() == 1 { 0 } else { (row - first_row) * stride };
                c.range(start..start + stride)
            };
            // SAFETY: the processor has `I`, as the caller promises; the buffers have room
            // for whole panels and tiles, and the weight is packed in these blocks.
            unsafe {
                I::enter(
                    #[inline(always)]
                    || {
                        for (index, block) in blocks.iter().enumerate() {
                            let source = &product.columns;
                            source.pack::<I>(block.clone(), columns.clone(), b.as_mut_ptr());
                            let part = gemm::Block {
                                panels: panels.clone(),
                                rows: product.rows,
                                depth: block.len() * taps,
                                columns: columns.len(),
                                a: self.weight(block.start * taps),
                                b: b.as_ptr(),
                                c_stride: stride,
                                c_padded: true,
                                accumulate: index > 0,
                            };
                            part.run::<I>(
                                place,
                                #[inline(always)]
                                |rows| {
                                    if index + 1 == blocks.len() {
                                        let values = place(rows.start);
                                        self.finish::<I>(rows, &columns, values, stride, sums);
                                    }
                                },
                            );
                        }
                        I::fence();
                    },
                )
            }
        });
    }

    /// The weight from this place of its depth on.
    fn weight(&self, step: usize) -> Rows {
        match self.packed {
            Some(packed) => Rows::Packed(packed[self.product.rows * step..].as_ptr()),
            None => {
                let from = self.product.weight[step..].as_ptr();
                Rows::InPlace { from, stride: self.product.row_stride }
            }
        }
    }

    /// Writes the output of rows whose values are `stride` apart, and computes their sums.
    ///
    /// # Safety
    /// Inside `enter`; there are `columns` values of each row, and no other task writes them.
    #[inline(always)]
    unsafe fn finish<I: Isa>(
        &self,
        rows: Range<usize>,
        columns: &Range<usize>,
        values: *mut f32,
        stride: usize,
        sums: Option<Shared<'_, Sums>>,
    ) {
        for (offset, row) in rows.enumerate() {
            // SAFETY: as the caller promises.
            unsafe {
                let values = values.add(offset * stride);
                match self.epilogue.activation {
                    Activation::HardSwish => self.finish_row::<I, true>(row, columns, values),
                    _ => self.finish_row::<I, false>(row, columns, values),
                }
                if let Some(sums) = sums {
                    *sums.range(row..row + 1) = moments::<I>(values, columns.len());
                }
            }
        }
    }

    /// Writes the output of one row and `columns` from `values`, which may be overwritten. The
    /// activation is hard-swish, or else a clamp.
    ///
    /// # Safety
    /// As for [`Self::finish`].
    #[inline(always)]
    unsafe fn finish_row<I: Isa, const HARD_SWISH: bool>(
        &self,
        row: usize,
        columns: &Range<usize>,
        mut values: *mut f32,
    ) {
        let (product, epilogue) = (self.product, self.epilogue);
        let (positions, output) = (product.columns.positions(), &product.output);
        let finish = finish_of(product, epilogue, row);
        let [sy, sx] = output.position_strides;
        let dense = output.position_strides == [output.width, 1];
        let mut column = columns.start;
        while column < columns.end {
            let (image, position) = (column / positions, column % positions);
            let (py, px) = (position / output.width, position % output.width);
            let run = if dense { positions - position } else { output.width - px };
            let run = run.min(columns.end - column);
            let start = output.start
                + image * output.image_stride
                + row * output.channel_stride
                + py * sy
                + px * sx;
            let residual = epilogue.residual.map(|values| &values[start..start + run]);
            let to = self.out.range(start..start + (run - 1) * sx + 1);
            // SAFETY: the output's places of these columns belong to this task; the lengths were
            // checked against the shape.
            unsafe {
                let from = std::slice::from_raw_parts_mut(values, run);
                finish.write::<I, HARD_SWISH>(from, residual, to, sx);
                values = values.add(run);
            }
            column += run;
        }
    }
}

/// The sums of `count` values less the first one.
#[inline(always)]
pub(super) unsafe fn moments<I: Isa>(values: *const f32, count: usize) -> Sums {
    // SAFETY: the caller runs inside `enter` and gives `count` values, at least one.
    unsafe {
        let shift = *values;
        let back = I::splat(-shift);
        let (mut sums, mut squares) = ([I::splat(0.0); 4], [I::splat(0.0); 4]);
        let step = 4 * I::LANES;
        let whole = count / step * step;
        for start in (0..whole).step_by(step) {
            for (lane, (sum, squares)) in sums.iter_mut().zip(&mut squares).enumerate() {
                let ahead = I::add(I::load(values.add(start + lane * I::LANES)), back);
                *sum = I::add(*sum, ahead);
                *squares = I::mul_add(ahead, ahead, *squares);
            }
        }
        let [a, b, c, d] = sums;
        let mut sum = I::sum(I::add(I::add(a, b), I::add(c, d)));
        let [a, b, c, d] = squares;
        let mut squares = I::sum(I::add(I::add(a, b), I::add(c, d)));
        for index in whole..count {
            let ahead = *values.add(index) - shift;
            sum += ahead;
            squares += ahead * ahead;
        }
        Sums { shift, sum, squares }
    }
}
