//! Convolution and its gradients as products of matrices whose operands are packed from the
//! images (`im2col` that is never stored).
//!
//! The output of one group is `Y[D, J] = W[D, C k k] X[C k k, J]` with the columns `J` of all
//! images in a row, so that small maps of several images fill one panel. Tasks compute blocks of
//! columns and, if there are few columns, blocks of rows. The forward pass reads the weight in
//! place; the input gradient packs it once per call.

mod epilogue;
mod product;
mod weight;
mod winograd;

use rayon::prelude::*;

use crate::buffer::{self, Buffer};
use crate::gemm::{self, Columns};
use crate::norm::Statistics;
use crate::profile::{self, Work};
use crate::shape::{Geometry, matrix_len};
use crate::{Activation, ConvShape, depthwise};
use product::{Output, Product, Run};

pub use epilogue::Epilogue;
pub use weight::backward_weight;
pub(crate) use winograd::transform;

/// `y = conv(x, w)`, then the epilogue. `shape.macs()` multiply-adds; `x` is read once from memory
/// and once per tap from the cache, `y` is written once.
///
/// # Panics
/// If there is no such convolution or a length does not fit the shape.
pub fn forward(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32], epilogue: Epilogue) {
    let shape = &Geometry::new(shape, x.len(), y.len())
        .with_weight(w.len())
        .with_residual(epilogue.residual);
    epilogue.check_bias(shape.out_channels);
    if shape.is_depthwise() && !epilogue.accumulate && epilogue.residual.is_none() {
        return depthwise::conv_forward(shape, x, w, epilogue.bias, epilogue.activation, y);
    }
    let _span = profile::work(Work::Products);
    for group in 0..shape.groups {
        let product = forward_product(shape, group, x, w);
        gemm::dispatch(Run { product: &product, y, epilogue, moments: None });
    }
}

/// [`forward`] without an epilogue, as sums of products: of integers they are exact as long as they are in
/// `f32`.
///
/// # Panics
/// As [`forward`].
pub(crate) fn forward_direct(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32]) {
    let shape = &Geometry::new(shape, x.len(), y.len()).with_weight(w.len());
    if shape.is_depthwise() {
        return depthwise::conv_forward(shape, x, w, None, Activation::Identity, y);
    }
    for group in 0..shape.groups {
        let product = Product { direct: true, ..forward_product(shape, group, x, w) };
        let epilogue = Epilogue::default();
        gemm::dispatch(Run { product: &product, y, epilogue, moments: None });
    }
}

/// [`forward`] without an epilogue, into a new map.
pub(crate) fn convolve(shape: &ConvShape, x: &[f32], w: &[f32]) -> Buffer {
    let mut y = buffer::take(shape.output_len());
    forward(shape, x, w, &mut y, Epilogue::default());
    y
}

/// [`backward_weight`], into a new gradient.
pub(crate) fn weight_grad(shape: &ConvShape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut dw = vec![0.0; shape.weight_len()];
    backward_weight(shape, x, dy, &mut dw);
    dw
}

/// `y = conv(x, w)` and per output channel the mean and the biased variance of `y` over batch and
/// positions. Costs what [`forward`] costs and one pass over `y` in cache.
///
/// Each task sums deviations from the first value it sees of a channel; the tasks' moments are
/// combined in `f64` (Chan, Golub and LeVeque, 1983), in order.
///
/// # Panics
/// As [`forward`].
pub fn forward_with_stats(shape: &ConvShape, x: &[f32], w: &[f32], y: &mut [f32]) -> Statistics {
    let _span = profile::work(Work::Products);
    let shape = &Geometry::new(shape, x.len(), y.len()).with_weight(w.len());
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
/// The inputs of one phase of the stride (all inputs at stride 1) are a convolution of `dy` with
/// the taps of the flipped, transposed kernel that reach them, so that no zeros are multiplied.
///
/// # Panics
/// As [`forward`].
pub fn backward_input(shape: &ConvShape, dy: &[f32], w: &[f32], dx: &mut [f32], accumulate: bool) {
    let _span = profile::work(Work::Products);
    let shape = &Geometry::new(shape, dx.len(), dy.len()).with_weight(w.len());
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
                    direct: false,
                };
                gemm::dispatch(Run { product: &product, y: dx, epilogue, moments: None });
            }
        }
    }
}

/// A matrix in a slice: the value at row `i` and column `j` is
/// `values[i * strides[0] + j * strides[1]]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The values.
    pub values: &'a [f32],
    /// Rows and columns.
    pub size: [usize; 2],
    /// Between rows and between columns.
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// A dense matrix, row by row.
    pub fn row_major(values: &'a [f32], size: [usize; 2]) -> Self {
        Self { values, size, strides: [size[1], 1] }
    }

    /// The transposed matrix, in the same slice.
    pub fn transposed(self) -> Self {
        let Self { values, size: [rows, columns], strides: [down, across] } = self;
        Self { values, size: [columns, rows], strides: [across, down] }
    }

    /// A value.
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.strides[0] + column * self.strides[1]]
    }

    fn check(&self, name: &str) {
        let len = matrix_len(name, self.size, self.strides);
        assert!(self.values.len() >= len, "{name} is too short");
    }

    /// The strides, except those of a single row or column, which no slice bounds.
    fn bounded_strides(&self) -> [usize; 2] {
        let ([rows, columns], [down, across]) = (self.size, self.strides);
        [if rows > 1 { down } else { columns }, if columns > 1 { across } else { 1 }]
    }
}

/// `C (+)= A B`, where `C` is dense and row-major. Fast where the columns of `B` are 1 or 2 apart.
/// `rows * depth * columns` multiply-adds.
///
/// For the sum over a batch of `A_n B_n^T` (covariances, for example) see [`backward_weight`] with
/// a 1x1 kernel.
///
/// # Panics
/// If a matrix is longer than its slice, the sizes do not match, or the columns of `B` coincide.
pub fn matmul(a: Matrix, b: Matrix, c: &mut [f32], accumulate: bool) {
    let _span = profile::work(Work::Products);
    let ([rows, depth], [_, columns]) = (a.size, b.size);
    a.check("A");
    b.check("B");
    assert_eq!(b.size[0], depth, "rows of B, which are the columns of A");
    assert_eq!(c.len(), matrix_len("C", [rows, columns], [columns, 1]), "values of C");
    assert!(b.strides[1] > 0, "the columns of B lie apart");
    if c.is_empty() || depth == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    let (a_strides, b_strides) = (a.bounded_strides(), b.bounded_strides());
    let product = Product {
        rows,
        channels: depth,
        images: 1,
        weight: a.values,
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
            source: b.values,
            start: 0,
            image_stride: 0,
            channel_stride: b_strides[0],
            // One row, whose columns are `b_strides[1]` apart.
            size: [1, (columns - 1) * b_strides[1] + 1],
            stride: [1, b_strides[1]],
            taps: vec![[0, 0]],
            grid: [1, columns],
        },
        direct: false,
    };
    let epilogue = Epilogue { accumulate, ..Epilogue::default() };
    gemm::dispatch(Run { product: &product, y: c, epilogue, moments: None });
}

/// The columns of the input of one group.
fn input_columns<'a>(shape: &Geometry, group: usize, x: &'a [f32]) -> Columns<'a> {
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

/// If an image is read as a whole, it is treated as one row.
fn flatten(columns: Columns) -> Columns {
    let whole = columns.stride == [1, 1] && columns.size == columns.grid;
    if whole && columns.taps == [[0, 0]] {
        let row = [1, columns.positions()];
        Columns { size: row, grid: row, ..columns }
    } else {
        columns
    }
}

fn forward_product<'a>(shape: &Geometry, group: usize, x: &'a [f32], w: &'a [f32]) -> Product<'a> {
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let taps = shape.window();
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
        direct: false,
    }
}

#[cfg(test)]
mod tests;
