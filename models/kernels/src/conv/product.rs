//! A product of a weight with the columns of a batch, cut into tasks, whose results get their
//! epilogue while they are in cache.

use std::ops::Range;

use rayon::prelude::*;

use super::Epilogue;
use crate::Activation;
use crate::activation::{clamp, hard_swish};
use crate::gemm::{self, Columns, Isa, Kernel, Rows};
use crate::norm;
use crate::shared::Shared;

/// Depth of one packed block.
const DEPTH: usize = 256;
/// Columns of one task's block.
const COLUMNS: usize = 256;

/// Rows that are a multiple of so many values apart, a page, compete for one set of the first cache.
/// Reading them in place costs a sixth of the speed, packing them pays from `COLUMNS` columns on
/// (measured at 98, 196, 392, 784 columns). Any other rows are as fast in place.
const ALIASED: usize = 1024;

/// Values of an output that no cache keeps until its reader comes: larger ones are written past
/// the caches. In tests few, so that both ways are tested.
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
struct Sums {
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
            (0..column_parts * row_parts).into_par_iter().for_each(|task| {
                let columns = gemm::part(0..total, width, task / row_parts, column_parts);
                let panels =
                    gemm::part(0..gemm::panels::<I>(product.rows), 1, task % row_parts, row_parts);
                let first = task / row_parts * product.rows;
                let sums = all_sums.map(|sums| sums.part(first..first + product.rows));
                // SAFETY: the processor has `I`, as the caller promises.
                unsafe {
                    product.task::<I>(packed, &blocks, columns, panels, out, &epilogue, sums);
                }
            });
        });
        if let Some((mean, variance)) = moments {
            for row in 0..product.rows {
                let (mut count, mut average, mut squares) = (0.0, 0.0, 0.0);
                for chunk in 0..column_parts {
                    let part = gemm::part(0..total, width, chunk, column_parts).len() as f64;
                    let sum = &sums[chunk * product.rows + row];
                    let ahead = f64::from(sum.sum) / part;
                    let within = f64::from(sum.squares) - f64::from(sum.sum) * ahead;
                    let apart = f64::from(sum.shift) + ahead - average;
                    squares += within + apart * apart * count * part / (count + part);
                    count += part;
                    average += apart * part / count;
                }
                mean[row] = average;
                variance[row] = norm::variance(squares / count);
            }
        }
    }
}

impl Product<'_> {
    /// The output's `columns` for the row panels `panels`.
    ///
    /// # Safety
    /// The processor has `I`, and no other task writes these columns of these panels.
    #[allow(clippy::too_many_arguments)]
    unsafe fn task<I: Isa>(
        &self,
        packed: Option<&[f32]>,
        blocks: &[Range<usize>],
        columns: Range<usize>,
        panels: Range<usize>,
        out: Shared<'_>,
        epilogue: &Epilogue,
        sums: Option<Shared<'_, Sums>>,
    ) {
        let width = 2 * I::LANES;
        let taps = self.places.len();
        let stride = columns.len().next_multiple_of(width);
        let deepest = blocks.iter().map(|block| block.len() * taps).max().unwrap_or(0);
        let first_row = gemm::panel_rows::<I>(panels.start, self.rows).start;
        let last_row = gemm::panel_rows::<I>(panels.end - 1, self.rows).end;
        // One block of the depth needs room for one panel at a time only.
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
                            let last = index + 1 == blocks.len();
                            let channels = block.clone();
                            let step = block.start * taps;
                            let a = match packed {
                                Some(packed) => Rows::Packed(packed[self.rows * step..].as_ptr()),
                                None => Rows::InPlace {
                                    from: self.weight[step..].as_ptr(),
                                    stride: self.row_stride,
                                },
                            };
                            self.columns.pack::<I>(channels, columns.clone(), b.as_mut_ptr());
                            gemm::block::<I>(
                                panels.clone(),
                                self.rows,
                                block.len() * taps,
                                columns.len(),
                                a,
                                b.as_ptr(),
                                place,
                                stride,
                                true,
                                index > 0,
                                #[inline(always)]
                                |rows| {
                                    if last {
                                        let values = place(rows.start);
                                        for (offset, row) in rows.enumerate() {
                                            let values = values.add(offset * stride);
                                            match epilogue.activation {
                                                Activation::HardSwish => self.finish::<I, true>(
                                                    row, &columns, values, out, epilogue,
                                                ),
                                                _ => self.finish::<I, false>(
                                                    row, &columns, values, out, epilogue,
                                                ),
                                            }
                                            if let Some(sums) = sums {
                                                *sums.range(row..row + 1) =
                                                    moments::<I>(values, columns.len());
                                            }
                                        }
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

    /// Writes one row's `values`, the output of `columns`; they may change. The activation is
    /// hard-swish, or else one that bounds the values.
    #[inline(always)]
    unsafe fn finish<I: Isa, const HARD_SWISH: bool>(
        &self,
        row: usize,
        columns: &Range<usize>,
        mut values: *mut f32,
        out: Shared<'_>,
        epilogue: &Epilogue,
    ) {
        let positions = self.columns.positions();
        let output = &self.output;
        let bias = epilogue.bias.map_or(0.0, |bias| bias[self.channel + row]);
        let bounds = epilogue.activation.bounds();
        let plain = epilogue.bias.is_none() && epilogue.activation == Activation::Identity;
        let stream = self.images * output.image_stride > LARGE && !epilogue.accumulate;
        let dense = output.position_strides == [output.width, 1];
        let mut column = columns.start;
        while column < columns.end {
            let (image, position) = (column / positions, column % positions);
            let (py, px) = (position / output.width, position % output.width);
            let [sy, sx] = output.position_strides;
            let run = if dense { positions - position } else { output.width - px };
            let run = run.min(columns.end - column);
            let start = output.start
                + image * output.image_stride
                + row * output.channel_stride
                + py * sy
                + px * sx;
            // SAFETY: the output's places of these columns belong to this task; the lengths were
            // checked against the shape.
            unsafe {
                let to = out.range(start..start + (run - 1) * sx + 1);
                let residual = epilogue.residual.map(|values| &values[start..start + run]);
                if sx == 1 && stream {
                    let values = std::slice::from_raw_parts_mut(values, run);
                    if let Some(residual) = residual {
                        for (value, residual) in values.iter_mut().zip(residual) {
                            *value = activate::<HARD_SWISH>(*value + bias + residual, bounds);
                        }
                    } else if !plain {
                        for value in values.iter_mut() {
                            *value = activate::<HARD_SWISH>(*value + bias, bounds);
                        }
                    }
                    I::stream(to, values.as_ptr(), run);
                } else if sx == 1 {
                    let from = std::slice::from_raw_parts(values, run);
                    let to = std::slice::from_raw_parts_mut(to, run);
                    match (residual, epilogue.accumulate) {
                        (None, false) if plain => to.copy_from_slice(from),
                        (None, false) => {
                            for (to, from) in to.iter_mut().zip(from) {
                                *to = activate::<HARD_SWISH>(from + bias, bounds);
                            }
                        }
                        (None, true) => {
                            for (to, from) in to.iter_mut().zip(from) {
                                *to = activate::<HARD_SWISH>(from + bias + *to, bounds);
                            }
                        }
                        (Some(residual), false) => {
                            for ((to, from), residual) in to.iter_mut().zip(from).zip(residual) {
                                *to = activate::<HARD_SWISH>(from + bias + residual, bounds);
                            }
                        }
                        (Some(residual), true) => {
                            for ((to, from), residual) in to.iter_mut().zip(from).zip(residual) {
                                *to = activate::<HARD_SWISH>(from + bias + residual + *to, bounds);
                            }
                        }
                    }
                } else {
                    // The strided outputs of the input gradient, which has no other epilogue.
                    for index in 0..run {
                        let to = to.add(index * sx);
                        let before = if epilogue.accumulate { *to } else { 0.0 };
                        *to = before + *values.add(index);
                    }
                }
                values = values.add(run);
            }
            column += run;
        }
    }
}

/// A value after the activation; what is not a number stays so.
#[inline(always)]
fn activate<const HARD_SWISH: bool>(value: f32, bounds: [f32; 2]) -> f32 {
    if HARD_SWISH { hard_swish(value) } else { clamp(value, bounds) }
}

/// The sums of `count` values about the first.
#[inline(always)]
unsafe fn moments<I: Isa>(values: *const f32, count: usize) -> Sums {
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
