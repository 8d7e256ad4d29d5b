//! Convolutions with 3x3 kernels and stride 1 by Winograd's algorithm F(2x2, 3x3) (Lavin and Gray, Fast
//! Algorithms for Convolutional Neural Networks, CVPR 2016).
//!
//! A tile of 2x2 outputs reads 4x4 inputs, which are transformed for all tiles of a task; each of the 16
//! elements of a tile is then a 1x1 convolution. Transforms work on vectors of channels.

use std::ops::Range;

use rayon::prelude::*;

use super::activation::Activate;
use super::convolution::Epilogue;
use super::dense::{block_starts, vector_stride};
use super::map::Map;
use super::tile::Product;
use super::weight::{panel, panel_vectors, panels};
use super::{BLOCK, TASK};
use crate::conv::transform;
pub(super) use crate::conv::transform::ELEMENTS;
use crate::gemm::{self, Isa, Kernel};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::simd::WIDEST;
use crate::{Activation, ConvShape, team};

/// The fewest channels, of inputs and outputs, that make products of matrices.
const LEAST_CHANNELS: usize = if cfg!(test) { 16 } else { 32 };

/// Whether the algorithm is taken.
pub(super) fn serves(shape: &ConvShape) -> bool {
    let channels = shape.in_channels.min(shape.out_channels);
    (shape.kernel, shape.stride) == ([3, 3], [1, 1]) && channels >= LEAST_CHANNELS
}

/// Packs transformed kernels: 16 matrices of panels `[in, vectors * LANES]`.
pub(super) struct Transform<'a> {
    pub shape: &'a Geometry,
    pub weight: &'a [f32],
    pub to: &'a mut [f32],
}

impl Kernel for Transform<'_> {
    unsafe fn run<I: Isa>(self) {
        let Self { shape, weight, to } = self;
        let [inputs, outputs] = [shape.in_channels, shape.out_channels];
        let depth = inputs.next_multiple_of(BLOCK);
        let matrix = to.len() / ELEMENTS;
        let to = Shared::new(to);
        (0..panels::<I>(outputs)).into_par_iter().for_each(|panel| {
            let first = panel * 2 * I::LANES;
            let width = panel_vectors::<I>(panel, outputs) * I::LANES;
            for input in 0..inputs {
                for lane in (0..width).step_by(I::LANES) {
                    let mut taps = [[0.0; WIDEST]; 9];
                    for output in (first + lane..first + lane + I::LANES).filter(|&o| o < outputs) {
                        let from = &weight[(output * inputs + input) * 9..][..9];
                        for (tap, &value) in taps.iter_mut().zip(from) {
                            tap[output - first - lane] = value;
                        }
                    }
                    let place = first * depth + input * width + lane;
                    // SAFETY: the processor has `I`, as the caller promises; the panels are disjoint.
                    unsafe {
                        I::enter(
                            #[inline(always)]
                            || {
                                let mut vectors = [I::splat(0.0); 9];
                                for (vector, tap) in vectors.iter_mut().zip(&taps) {
                                    *vector = I::load(tap.as_ptr());
                                }
                                let elements = transform::kernels::<I>(&vectors);
                                for (element, value) in elements.into_iter().enumerate() {
                                    let at = element * matrix + place;
                                    I::store(to.range(at..at + I::LANES), value);
                                }
                            },
                        );
                    }
                }
            }
        });
    }
}

pub(super) fn convolve(
    shape: &Geometry,
    input: &Map,
    weight: &[f32],
    epilogue: Epilogue,
    output: &mut Map,
) {
    let [batch, channels, height, width] = output.dims();
    let winograd = Winograd {
        input,
        padding: shape.padding,
        weight,
        grid: [height, width].map(|extent| extent.div_ceil(2)),
        bias: epilogue.padded_bias(channels),
        residual: epilogue.residual.map(Map::values),
        activation: epilogue.activation,
        size: [height, width],
        batch,
        channels,
        block_len: output.block_len(),
        image_len: output.image_len(),
        output: Shared::new(output.values_mut()),
    };
    gemm::dispatch(winograd);
}

struct Winograd<'a> {
    input: &'a Map,
    padding: [usize; 2],
    weight: &'a [f32],
    /// Rows and columns of tiles of an image.
    grid: [usize; 2],
    bias: Vec<f32>,
    residual: Option<&'a [f32]>,
    activation: Activation,
    /// Height and width, images, channels, and values of a block and of an image of the output.
    size: [usize; 2],
    batch: usize,
    channels: usize,
    block_len: usize,
    image_len: usize,
    output: Shared<'a>,
}

/// Values between matrices that are written together: not a multiple of a page, whose lines would compete
/// for one set of the first cache.
fn apart(len: usize) -> usize {
    const PAGE: usize = 1024;
    len.next_multiple_of(PAGE) + 5 * BLOCK
}

impl Kernel for Winograd<'_> {
    unsafe fn run<I: Isa>(self) {
        let tiles = self.batch * self.grid[0] * self.grid[1];
        let depth = self.input.blocks() * BLOCK;
        let threads = rayon::current_num_threads();
        let most = (2 * TASK / (ELEMENTS * depth) / I::ROWS * I::ROWS).max(I::ROWS);
        let parts = tiles.div_ceil(most).next_multiple_of(threads);
        let panels = panels::<I>(self.channels);
        let (parts, panel_parts) = match tiles < threads * I::ROWS {
            true => (1, threads.min(panels)),
            false => (parts, 1),
        };
        team::for_each(parts * panel_parts, |index| {
            let tiles = gemm::part(0..tiles, 1, index / panel_parts, parts);
            let panels = gemm::part(0..panels, 1, index % panel_parts, panel_parts);
            // SAFETY: the processor has `I`, as the caller promises; the tasks have different outputs.
            unsafe { self.compute::<I>(tiles, panels) };
        });
    }
}

impl Winograd<'_> {
    /// # Safety
    /// The processor has `I`, and nothing else uses these outputs.
    unsafe fn compute<I: Isa>(&self, tiles: Range<usize>, panels: Range<usize>) {
        if tiles.is_empty() {
            return;
        }
        let (count, blocks) = (tiles.len(), self.input.blocks());
        let places: Vec<_> = tiles.map(|tile| self.place(tile)).collect();
        let block_len = count * BLOCK;
        let inputs_len = apart(blocks * block_len);
        let products_len = apart(2 * I::LANES.max(BLOCK / 2) * count);
        let taps = block_starts(blocks, block_len);
        let matrix = self.weight.len() / ELEMENTS;
        let zeros = [0.0; 2 * WIDEST];
        gemm::with_scratches(
            [ELEMENTS * inputs_len, ELEMENTS * products_len],
            |[inputs, products]| {
                // SAFETY: as the caller promises.
                unsafe {
                    I::enter(
                        #[inline(always)]
                        || {
                            for block in 0..blocks {
                                for (index, place) in places.iter().enumerate() {
                                    let to = &mut inputs[block * block_len + index * BLOCK..];
                                    self.transform_input::<I>(place, block, to, inputs_len);
                                }
                            }
                        },
                    );
                    for index in panels {
                        let vectors = panel_vectors::<I>(index, self.channels);
                        for element in 0..ELEMENTS {
                            let product = Product {
                                taps: &taps,
                                run: BLOCK,
                                x: inputs[element * inputs_len..].as_ptr(),
                                weight: panel::<I>(
                                    &self.weight[element * matrix..],
                                    blocks * BLOCK,
                                    index,
                                ),
                                vectors,
                                bias: zeros.as_ptr(),
                                residual: None,
                                activation: Activation::Identity,
                                y: products[element * products_len..].as_mut_ptr(),
                                vector_stride: vector_stride::<I>(block_len),
                            };
                            product.run::<I, BLOCK>(count);
                        }
                        I::enter(
                            #[inline(always)]
                            || {
                                for vector in 0..vectors {
                                    let from = &products[vector * vector_stride::<I>(block_len)..];
                                    let channel = index * 2 * I::LANES + vector * I::LANES;
                                    self.transform_outputs::<I>(
                                        &places,
                                        channel,
                                        from,
                                        products_len,
                                    );
                                }
                            },
                        );
                    }
                }
            },
        );
    }

    /// The image of a tile, and the row and column of its first output.
    fn place(&self, tile: usize) -> [usize; 3] {
        let [down, across] = self.grid;
        let (image, tile) = (tile / (down * across), tile % (down * across));
        [image, 2 * (tile / across), 2 * (tile % across)]
    }

    /// Writes the transformed inputs of a tile and a block of channels, whose elements are `stride` apart.
    ///
    /// # Safety
    /// Inside `enter`.
    #[inline(always)]
    unsafe fn transform_input<I: Isa>(
        &self,
        &[image, row, column]: &[usize; 3],
        block: usize,
        to: &mut [f32],
        stride: usize,
    ) {
        let [_, _, height, width] = self.input.dims();
        let len = self.input.block_len();
        let from = &self.input.values()[(image * self.input.blocks() + block) * len..][..len];
        let to = &mut to[..(ELEMENTS - 1) * stride + BLOCK];
        for lane in (0..BLOCK).step_by(I::LANES) {
            // SAFETY: as the caller promises; only places inside the input are read.
            unsafe {
                let mut inputs = [[I::splat(0.0); 4]; 4];
                for (down, inputs) in inputs.iter_mut().enumerate() {
                    let row = (row + down).wrapping_sub(self.padding[0]);
                    if row >= height {
                        continue;
                    }
                    for (across, input) in inputs.iter_mut().enumerate() {
                        let column = (column + across).wrapping_sub(self.padding[1]);
                        if column < width {
                            *input =
                                I::load(from.as_ptr().add((row * width + column) * BLOCK + lane));
                        }
                    }
                }
                let elements = transform::input_tile::<I>(&inputs);
                for (element, value) in elements.into_iter().enumerate() {
                    I::store(to.as_mut_ptr().add(element * stride + lane), value);
                }
            }
        }
    }

    /// Writes the outputs of tiles for the vector of channels from `channel` on. The elements of a tile are
    /// `stride` apart.
    ///
    /// # Safety
    /// Inside `enter`; nothing else uses these outputs.
    #[inline(always)]
    unsafe fn transform_outputs<I: Isa>(
        &self,
        places: &[[usize; 3]],
        channel: usize,
        from: &[f32],
        stride: usize,
    ) {
        let [height, width] = self.size;
        let from = &from[..(ELEMENTS - 1) * stride + (places.len() - 1) * BLOCK + I::LANES];
        let first = channel / BLOCK * self.block_len + channel % BLOCK;
        // SAFETY: as the caller promises; only places inside the output are written.
        unsafe {
            let activate = Activate::<I>::new(self.activation);
            let bias = I::load(self.bias[channel..][..I::LANES].as_ptr());
            for (index, &[image, row, column]) in places.iter().enumerate() {
                let mut elements = [[I::splat(0.0); 4]; 4];
                for (element, value) in elements.as_flattened_mut().iter_mut().enumerate() {
                    *value = I::load(from.as_ptr().add(element * stride + index * BLOCK));
                }
                let outputs = transform::output_tile::<I>(&elements);
                for (down, outputs) in outputs.iter().enumerate() {
                    for (across, &output) in outputs.iter().enumerate() {
                        let (row, column) = (row + down, column + across);
                        if row >= height || column >= width {
                            continue;
                        }
                        let place = image * self.image_len + first + (row * width + column) * BLOCK;
                        let mut sum = I::add(output, bias);
                        if let Some(residual) = self.residual {
                            sum = I::add(sum, I::load(residual[place..][..I::LANES].as_ptr()));
                        }
                        let to = self.output.range(place..place + I::LANES);
                        I::store(to, activate.apply(sum));
                    }
                }
            }
        }
    }
}
