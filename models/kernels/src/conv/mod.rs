//! Convolution and its gradients as products of matrices whose operands are packed from the
//! images (`im2col` that is never stored).
//!
//! The output of one group is `Y[D, J] = W[D, C k k] X[C k k, J]` with the columns `J` of all
//! images in a row, so that small maps of several images fill one panel. Tasks take blocks of
//! columns; where there are few, also blocks of rows. The forward pass reads the weight in place,
//! the input gradient packs it once a call.

mod weight;

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::{self, Columns, Isa, Kernel, Rows, Shared};
use crate::norm::Statistics;
use crate::{ConvShape, depthwise};

pub use weight::backward_weight;

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

/// What is done to an output while it is in cache, in this order: bias, residual, the output's
/// earlier value, ReLU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added per output channel.
    pub bias: Option<&'a [f32]>,
    /// Added per value, shaped as the output.
    pub residual: Option<&'a [f32]>,
    /// Whether the result is added to what the output holds.
    pub accumulate: bool,
    /// Whether negative values become zero.
    pub relu: bool,
}

/// `y = conv(x, w)`, then the epilogue. `shape.macs()` multiply-adds; `x` is read once
/// from memory and per tap from cache, `y` is written once.
pub fn forward(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32], epilogue: Epilogue) {
    check(shape, x.len(), w.len(), y.len());
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), shape.out_channels, "values of the bias");
    }
    if let Some(residual) = epilogue.residual {
        assert_eq!(residual.len(), y.len(), "values of the residual");
    }
    if shape.is_depthwise() && !epilogue.accumulate && epilogue.residual.is_none() {
        let activation = match epilogue.relu {
            true => depthwise::Activation::Relu,
            false => depthwise::Activation::Identity,
        };
        return depthwise::conv_forward(shape, x, w, epilogue.bias, activation, y);
    }
    for group in 0..shape.groups {
        let product = forward_product(shape, group, x, w);
        gemm::dispatch(Run { product: &product, y, epilogue, moments: None });
    }
}

/// `y = conv(x, w)` and per output channel the mean and the biased variance of `y` over batch and
/// positions. Costs what [`forward`] costs and one pass over `y` in cache.
///
/// Each task sums deviations from the first value it sees of a channel; the tasks' moments are
/// combined in `f64` (Chan, Golub and LeVeque, 1983), in order.
pub fn forward_with_stats(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32]) -> Statistics {
    check(shape, x.len(), w.len(), y.len());
    let (mut mean, mut var) = (vec![0.0; shape.out_channels], vec![0.0; shape.out_channels]);
    let per_group = shape.out_channels / shape.groups;
    for group in 0..shape.groups {
        let product = forward_product(shape, group, x, w);
        let channels = group * per_group..(group + 1) * per_group;
        let moments = Some((&mut mean[channels.clone()], &mut var[channels]));
        gemm::dispatch(Run { product: &product, y, epilogue: Epilogue::default(), moments });
    }
    Statistics { mean, var }
}

/// `dx (+)= ` the gradient of the input: `shape.macs()` multiply-adds.
///
/// The inputs of one phase of the stride (all of them at stride 1) are a convolution of `dy` with
/// the part of the flipped, transposed kernel that reaches them, so no zero is multiplied.
pub fn backward_input(shape: &ConvShape, dy: &[f32], w: &[f32], dx: &mut [f32], accumulate: bool) {
    check(shape, dx.len(), w.len(), dy.len());
    let epilogue = Epilogue { accumulate, ..Epilogue::default() };
    let [height, width] = shape.input;
    let ([sy, sx], [kh, kw]) = (shape.stride, shape.kernel);
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let (inputs, outputs) = (height * width, shape.output().iter().product::<usize>());
    // Kernel positions along an axis that reach the inputs of a phase, with the output they read.
    let reach = |axis: usize, phase: usize| {
        let stride = shape.stride[axis] as isize;
        (0..shape.kernel[axis]).filter_map(move |k| {
            let ahead = (phase + shape.padding[axis]) as isize - k as isize;
            (ahead.rem_euclid(stride) == 0).then(|| (k, ahead.div_euclid(stride)))
        })
    };
    let reached = |axis: usize| {
        (0..shape.stride[axis].min(shape.input[axis])).all(|phase| reach(axis, phase).count() > 0)
    };
    if !(accumulate || reached(0) && reached(1)) {
        dx.par_chunks_mut(1 << 14).for_each(|chunk| chunk.fill(0.0));
    }
    for group in 0..shape.groups {
        for py in 0..sy.min(height) {
            for px in 0..sx.min(width) {
                let (mut taps, mut places) = (Vec::new(), Vec::new());
                for (ky, ty) in reach(0, py) {
                    for (kx, tx) in reach(1, px) {
                        taps.push([ty, tx]);
                        places.push(ky * kw + kx);
                    }
                }
                if taps.is_empty() {
                    continue;
                }
                let grid = [(height - py).div_ceil(sy), (width - px).div_ceil(sx)];
                let columns = flatten(Columns {
                    source: dy,
                    start: group * d * outputs,
                    image_stride: shape.out_channels * outputs,
                    channel_stride: outputs,
                    size: shape.output(),
                    stride: [1, 1],
                    taps,
                    grid,
                });
                let product = Product {
                    rows: c,
                    channels: d,
                    images: shape.batch,
                    weight: &w[group * d * c * kh * kw..],
                    row_stride: kh * kw,
                    channel_stride: c * kh * kw,
                    places,
                    output: Output {
                        start: group * c * inputs + py * width + px,
                        image_stride: shape.in_channels * inputs,
                        channel_stride: inputs,
                        position_strides: [sy * width, sx],
                        width: grid[1],
                    },
                    channel: group * c,
                    columns,
                };
                gemm::dispatch(Run { product: &product, y: dx, epilogue, moments: None });
            }
        }
    }
}

/// `C (+)= A B` for `A` of `rows x depth` and `B` of `depth x columns`, each given with the
/// strides between its rows and between its columns; `C` is dense and row-major. Fast where the
/// columns of `B` are 1 or 2 apart. `rows * depth * columns` multiply-adds.
///
/// For the sum over a batch of `A_n B_n^T` (covariances, for one) see [`backward_weight`] with a
/// 1x1 kernel.
#[allow(clippy::too_many_arguments)]
pub fn matmul(
    [rows, depth, columns]: [usize; 3],
    a: &[f32],
    a_strides: [usize; 2],
    b: &[f32],
    b_strides: [usize; 2],
    c: &mut [f32],
    accumulate: bool,
) {
    let extent = |[m, n]: [usize; 2], [s, t]: [usize; 2]| {
        if m == 0 || n == 0 { 0 } else { (m - 1) * s + (n - 1) * t + 1 }
    };
    assert!(a.len() >= extent([rows, depth], a_strides), "A is too short");
    assert!(b.len() >= extent([depth, columns], b_strides), "B is too short");
    assert_eq!(c.len(), rows * columns, "values of C");
    assert!(b_strides[1] > 0, "the columns of B lie apart");
    let product = Product {
        rows,
        channels: depth,
        images: 1,
        weight: a,
        row_stride: a_strides[0],
        channel_stride: a_strides[1],
        places: vec![0],
        output: Output {
            start: 0,
            image_stride: 0,
            channel_stride: columns,
            position_strides: [columns, 1],
            width: columns,
        },
        channel: 0,
        columns: Columns {
            source: b,
            start: 0,
            image_stride: 0,
            channel_stride: b_strides[0],
            // Column j is `j * stride` on, whatever the width.
            size: [1, columns.saturating_sub(1) * b_strides[1] + 1],
            stride: [1, b_strides[1]],
            taps: vec![[0, 0]],
            grid: [1, columns],
        },
    };
    let epilogue = Epilogue { accumulate, ..Epilogue::default() };
    gemm::dispatch(Run { product: &product, y: c, epilogue, moments: None });
}

fn check(shape: &ConvShape, x: usize, w: usize, y: usize) {
    let divides = |channels: usize| channels.is_multiple_of(shape.groups);
    assert!(divides(shape.in_channels) && divides(shape.out_channels), "groups divide channels");
    assert_eq!(x, shape.input_len(), "values of the input");
    assert_eq!(w, shape.weight_len(), "values of the weight");
    assert_eq!(y, shape.output_len(), "values of the output");
}

/// The columns of the input of one group.
fn input_columns<'a>(shape: &ConvShape, group: usize, x: &'a [f32]) -> Columns<'a> {
    let inputs = shape.input[0] * shape.input[1];
    let tap = |axis: usize, k: usize| k as isize - shape.padding[axis] as isize;
    let [kh, kw] = shape.kernel;
    flatten(Columns {
        source: x,
        start: group * (shape.in_channels / shape.groups) * inputs,
        image_stride: shape.in_channels * inputs,
        channel_stride: inputs,
        size: shape.input,
        stride: shape.stride,
        taps: (0..kh * kw).map(|k| [tap(0, k / kw), tap(1, k % kw)]).collect(),
        grid: shape.output(),
    })
}

/// An image that is read whole is one row.
fn flatten(columns: Columns) -> Columns {
    let whole = columns.stride == [1, 1] && columns.size == columns.grid;
    if whole && columns.taps == [[0, 0]] {
        let row = [1, columns.positions()];
        Columns { size: row, grid: row, ..columns }
    } else {
        columns
    }
}

fn forward_product<'a>(shape: &ConvShape, group: usize, x: &'a [f32], w: &'a [f32]) -> Product<'a> {
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let taps = shape.kernel[0] * shape.kernel[1];
    let [height, width] = shape.output();
    let columns = input_columns(shape, group, x);
    Product {
        rows: d,
        channels: c,
        images: shape.batch,
        weight: &w[group * d * c * taps..],
        row_stride: c * taps,
        channel_stride: taps,
        places: (0..taps).collect(),
        output: Output {
            start: group * d * height * width,
            image_stride: shape.out_channels * height * width,
            channel_stride: height * width,
            position_strides: [width, 1],
            width,
        },
        channel: group * d,
        columns,
    }
}

/// Where the results go.
struct Output {
    start: usize,
    image_stride: usize,
    channel_stride: usize,
    /// Between rows and between columns of the grid.
    position_strides: [usize; 2],
    /// Columns of the grid.
    width: usize,
}

/// A product of a weight with the columns of a batch.
struct Product<'a> {
    rows: usize,
    /// Channels of the source; the depth is `channels * taps`.
    channels: usize,
    images: usize,
    weight: &'a [f32],
    row_stride: usize,
    channel_stride: usize,
    /// Of each tap in the weight's kernel.
    places: Vec<usize>,
    output: Output,
    /// The first row's channel in bias and residual.
    channel: usize,
    columns: Columns<'a>,
}

/// Blocks of whole channels with a depth near `DEPTH`, each as its channels.
fn channel_blocks(channels: usize, taps: usize) -> Vec<Range<usize>> {
    let count = (channels * taps).div_ceil(DEPTH).clamp(1, channels.max(1));
    (0..count).map(|block| gemm::part(0..channels, 1, block, count)).collect()
}

struct Run<'a, 'b> {
    product: &'a Product<'b>,
    y: &'a mut [f32],
    epilogue: Epilogue<'a>,
    moments: Option<(&'a mut [f64], &'a mut [f64])>,
}

/// Sums of the deviations from `shift` and of their squares.
#[derive(Clone, Copy, Default)]
struct Sums {
    shift: f32,
    sum: f32,
    squares: f32,
}

impl Kernel for Run<'_, '_> {
    fn run<I: Isa>(self) {
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
        let sums_at = SharedSums(sums.as_mut_ptr(), moments.is_some());
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
                let sums = sums_at.row(task / row_parts * product.rows);
                product.task::<I>(packed, &blocks, columns, panels, out, &epilogue, sums);
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
                variance[row] = (squares / count).max(0.0);
            }
        }
    }
}

/// The sums of all tasks, or none.
#[derive(Clone, Copy)]
struct SharedSums(*mut Sums, bool);

// SAFETY: each task writes the rows of its own chunk.
unsafe impl Send for SharedSums {}
// SAFETY: as above.
unsafe impl Sync for SharedSums {}

impl SharedSums {
    fn row(self, index: usize) -> Option<*mut Sums> {
        self.1.then(|| self.0.wrapping_add(index))
    }
}

impl Product<'_> {
    /// The output's `columns` for the row panels `panels`, which no other task writes.
    #[allow(clippy::too_many_arguments)]
    fn task<I: Isa>(
        &self,
        packed: Option<&[f32]>,
        blocks: &[Range<usize>],
        columns: Range<usize>,
        panels: Range<usize>,
        out: Shared,
        epilogue: &Epilogue,
        sums: Option<*mut Sums>,
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
            let place =
                |row: usize| c.at(if blocks.len() == 1 { 0 } else { (row - first_row) * stride });
            // SAFETY: `dispatch` chose an instruction set of this processor; the buffers have room
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
                                            self.finish::<I>(row, &columns, values, out, epilogue);
                                            if let Some(sums) = sums {
                                                *sums.add(row) =
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

    /// Writes one row's `values`, the output of `columns`; they may change.
    #[inline(always)]
    unsafe fn finish<I: Isa>(
        &self,
        row: usize,
        columns: &Range<usize>,
        mut values: *mut f32,
        out: Shared,
        epilogue: &Epilogue,
    ) {
        let positions = self.columns.positions();
        let output = &self.output;
        let bias = epilogue.bias.map_or(0.0, |bias| bias[self.channel + row]);
        let floor = if epilogue.relu { 0.0 } else { f32::NEG_INFINITY };
        let plain = epilogue.bias.is_none() && !epilogue.relu;
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
                let to = out.at(start);
                let residual = epilogue.residual.map(|values| &values[start..start + run]);
                if sx == 1 && stream {
                    let values = std::slice::from_raw_parts_mut(values, run);
                    if let Some(residual) = residual {
                        for (value, residual) in values.iter_mut().zip(residual) {
                            *value = above(*value + bias + residual, floor);
                        }
                    } else if !plain {
                        for value in values.iter_mut() {
                            *value = above(*value + bias, floor);
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
                                *to = above(from + bias, floor);
                            }
                        }
                        (None, true) => {
                            for (to, from) in to.iter_mut().zip(from) {
                                *to = above(from + bias + *to, floor);
                            }
                        }
                        (Some(residual), false) => {
                            for ((to, from), residual) in to.iter_mut().zip(from).zip(residual) {
                                *to = above(from + bias + residual, floor);
                            }
                        }
                        (Some(residual), true) => {
                            for ((to, from), residual) in to.iter_mut().zip(from).zip(residual) {
                                *to = above(from + bias + residual + *to, floor);
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

/// The larger, keeping what is not a number.
#[inline(always)]
fn above(value: f32, floor: f32) -> f32 {
    if value < floor { floor } else { value }
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

#[cfg(test)]
mod tests;
