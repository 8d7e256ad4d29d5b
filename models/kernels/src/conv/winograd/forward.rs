//! The forward pass, which is that of the input gradient, too.

use std::ops::Range;

use rayon::prelude::*;

use super::super::epilogue::{Epilogue, Finish};
use super::super::product::{Product, Sums, finish_of, means_of, moments};
use super::{CHANNELS, ELEMENTS, Work, apart, tiles, transform, window};
use crate::Activation;
use crate::gemm::{self, Columns, Isa, Rows};
use crate::shared::Shared;
use crate::simd::WIDEST;

/// Values of the transformed inputs of a task, which fit in the second cache.
const TASK: usize = 1 << 18;

/// A product that is a convolution this algorithm can compute.
pub(in crate::conv) struct Winograd<'a, 'b> {
    product: &'a Product<'b>,
    /// The 16 inputs of every tile as taps.
    tiles: Columns<'b>,
    /// The place of every tap, row by row, in a kernel of the weight.
    places: [usize; 9],
}

/// Outputs of tiles that lie side by side in one row of the map.
struct Strip {
    /// The first value among the task's outputs of a row: the upper ones of all tiles, then the lower
    /// ones.
    from: usize,
    length: usize,
    /// Its place in the output's first channel.
    to: usize,
}

impl<'a, 'b> Winograd<'a, 'b> {
    /// The algorithm for a product, if it serves it and needs less time.
    pub fn of(product: &'a Product<'b>) -> Option<Self> {
        let dense = product.output.position_strides == [product.output.width, 1];
        let (corner, order) = window(&product.columns)?;
        let places = order.map(|tap| product.places[tap]);
        let work = Work::new(&product.columns, product.images, product.channels, product.rows);
        if !dense || !work.is_taken() {
            return None;
        }
        let tiles = tiles(&product.columns, corner, 4);
        Some(Self { product, tiles, places })
    }

    /// The number of values of the transformed kernels.
    fn kernels_len(&self) -> usize {
        ELEMENTS * apart(self.product.rows * self.product.channels)
    }

    /// Computes the product.
    ///
    /// # Safety
    /// The processor has `I`.
    pub unsafe fn run<I: Isa>(
        &self,
        y: &mut [f32],
        epilogue: Epilogue<'_>,
        moments: Option<(&mut [f64], &mut [f64])>,
    ) {
        let Product { rows, channels, images, .. } = *self.product;
        let total = images * self.tiles.positions();
        let width = 2 * I::LANES;
        let threads = rayon::current_num_threads();
        let largest = (TASK / (ELEMENTS * channels) / width * width).max(width);
        let units = total.div_ceil(width);
        let parts = total.div_ceil(largest).next_multiple_of(threads).min(units);
        let row_parts = match parts < threads {
            true => threads.min(gemm::panels::<I>(rows)),
            false => 1,
        };
        let mut sums = vec![Sums::default(); if moments.is_some() { parts * rows } else { 0 }];
        let all_sums = moments.is_some().then(|| Shared::new(&mut sums));
        let out = Shared::new(y);
        gemm::with_scratch(self.kernels_len(), |kernels| {
            // SAFETY: as the caller promises.
            unsafe { self.transform_kernels::<I>(kernels) };
            let kernels = &*kernels;
            (0..parts * row_parts).into_par_iter().for_each(|task| {
                let task = Task {
                    winograd: self,
                    kernels,
                    tiles: gemm::part(0..total, width, task / row_parts, parts),
                    panels: gemm::part(0..gemm::panels::<I>(rows), 1, task % row_parts, row_parts),
                    out,
                    epilogue: &epilogue,
                    sums: all_sums.map(|sums| {
                        let first = task / row_parts * rows;
                        sums.part(first..first + rows)
                    }),
                };
                // SAFETY: the processor has `I`, as the caller promises.
                unsafe { task.run::<I>() };
            });
        });
        if let Some(found) = moments {
            let count = |part| {
                let strips = self.strips(gemm::part(0..total, width, part, parts), 0);
                strips.iter().map(|strip| strip.length).sum::<usize>() as f64
            };
            let counts: Vec<_> = (0..parts).map(count).collect();
            means_of(&counts, &sums, found);
        }
    }

    /// The kernels for [`Rows::Packed`], one matrix for every element of a tile.
    ///
    /// # Safety
    /// The processor has `I`.
    unsafe fn transform_kernels<I: Isa>(&self, to: &mut [f32]) {
        let Product { rows, channels, weight, row_stride, channel_stride, .. } = *self.product;
        let size = apart(rows * channels);
        let to = Shared::new(to);
        let panels = gemm::panels::<I>(rows);
        (0..panels).into_par_iter().for_each(|panel| {
            let band = gemm::panel_rows::<I>(panel, rows);
            let start = band.start * channels;
            // SAFETY: the processor has `I`, as the caller promises; no panel has more rows than a
            // vector; the panels are disjoint and fill the matrices.
            unsafe {
                I::enter(
                    #[inline(always)]
                    || {
                        for channel in 0..channels {
                            let mut taps = [[0.0; WIDEST]; 9];
                            for (lane, row) in band.clone().enumerate() {
                                let from = &weight[row * row_stride + channel * channel_stride..];
                                for (tap, &place) in taps.iter_mut().zip(&self.places) {
                                    tap[lane] = from[place];
                                }
                            }
                            let mut vectors = [I::splat(0.0); 9];
                            for (vector, tap) in vectors.iter_mut().zip(&taps) {
                                *vector = I::load(tap.as_ptr());
                            }
                            let place = start + channel * band.len();
                            let elements = transform::kernels::<I>(&vectors);
                            for (element, value) in elements.into_iter().enumerate() {
                                let first = element * size + place;
                                if channel * band.len() + I::LANES <= channels * band.len() {
                                    // The next channels overwrite what is past the height of the
                                    // panel.
                                    let to = to.range(first..first + I::LANES);
                                    I::store(to, value);
                                    continue;
                                }
                                let mut lanes = [0.0; WIDEST];
                                I::store(lanes.as_mut_ptr(), value);
                                to.slice_mut(first..first + band.len())
                                    .copy_from_slice(&lanes[..band.len()]);
                            }
                        }
                    },
                )
            }
        });
    }

    /// The strips of the outputs of `tiles`; the lower ones begin at `lower`.
    fn strips(&self, tiles: Range<usize>, lower: usize) -> Vec<Strip> {
        let ([down, across], [height, width]) = (self.tiles.grid, self.product.columns.grid);
        let output = &self.product.output;
        let (mut strips, mut tile) = (Vec::new(), tiles.start);
        while tile < tiles.end {
            let (image, place) = (tile / (down * across), tile % (down * across));
            let (row, column) = (2 * (place / across), 2 * (place % across));
            let count = (across - place % across).min(tiles.end - tile);
            let length = (2 * count).min(width - column);
            for (half, row) in (row..height.min(row + 2)).enumerate() {
                strips.push(Strip {
                    from: half * lower + 2 * (tile - tiles.start),
                    length,
                    to: output.start + image * output.image_stride + row * output.width + column,
                });
            }
            tile += count;
        }
        strips
    }
}

/// A part of the tiles and the rows.
struct Task<'a, 'b> {
    winograd: &'a Winograd<'a, 'b>,
    kernels: &'a [f32],
    tiles: Range<usize>,
    panels: Range<usize>,
    out: Shared<'a>,
    epilogue: &'a Epilogue<'a>,
    sums: Option<Shared<'a, Sums>>,
}

impl Task<'_, '_> {
    /// # Safety
    /// The processor has `I`, and no other task writes these outputs.
    unsafe fn run<I: Isa>(&self) {
        let Product { rows, channels, .. } = *self.winograd.product;
        let width = 2 * I::LANES;
        let stride = self.tiles.len().next_multiple_of(width);
        let strips = self.winograd.strips(self.tiles.clone(), 2 * stride);
        let product_stride = apart(I::ROWS * stride);
        let lengths = [
            ELEMENTS * apart(channels * stride),
            ELEMENTS * CHANNELS * width,
            ELEMENTS * product_stride,
            4 * stride,
            4 * stride,
        ];
        gemm::with_scratches(lengths, |[inputs, packed, products, outputs, compact]| {
            // SAFETY: the processor has `I`, as the caller promises; the buffers have room for whole
            // tiles of every element.
            unsafe {
                I::enter(
                    #[inline(always)]
                    || {
                        self.transform_inputs::<I>(packed, inputs);
                        for panel in self.panels.clone() {
                            for element in 0..ELEMENTS {
                                let size = apart(rows * channels);
                                let block = gemm::Block {
                                    panels: panel..panel + 1,
                                    rows,
                                    depth: channels,
                                    columns: self.tiles.len(),
                                    a: Rows::Packed(self.kernels[element * size..].as_ptr()),
                                    b: inputs[element * apart(channels * stride)..].as_ptr(),
                                    c_stride: stride,
                                    c_padded: true,
                                    accumulate: false,
                                };
                                let c = products[element * product_stride..].as_mut_ptr();
                                block.run::<I>(|_| c, |_| ());
                            }
                            for (offset, row) in gemm::panel_rows::<I>(panel, rows).enumerate() {
                                let from = &products[offset * stride..];
                                transform::output::<I>(from, product_stride, stride, outputs);
                                self.finish::<I>(row, &strips, outputs, compact);
                            }
                        }
                        I::fence();
                    },
                )
            }
        });
    }

    /// Writes the transformed inputs of all channels: for each element panels of two vectors of
    /// tiles, each `[channels, 2 * LANES]`.
    ///
    /// # Safety
    /// Inside `enter`; the buffers have room.
    #[inline(always)]
    unsafe fn transform_inputs<I: Isa>(&self, packed: &mut [f32], to: &mut [f32]) {
        let channels = self.winograd.product.channels;
        let width = 2 * I::LANES;
        let element = to.len() / ELEMENTS;
        for (panel, first) in self.tiles.clone().step_by(width).enumerate() {
            let tiles = first..(first + width).min(self.tiles.end);
            for start in (0..channels).step_by(CHANNELS) {
                let part = start..(start + CHANNELS).min(channels);
                // SAFETY: as the caller promises.
                unsafe {
                    self.winograd.tiles.pack::<I>(part.clone(), tiles.clone(), packed.as_mut_ptr());
                    for (from, channel) in packed.chunks_exact(ELEMENTS * width).zip(part) {
                        let to = &mut to[(panel * channels + channel) * width..];
                        transform::input::<I>(from, to, element);
                    }
                }
            }
        }
    }

    /// Writes the outputs of a row of the product, and computes their sums.
    ///
    /// # Safety
    /// Inside `enter`; no other task writes these outputs.
    #[inline(always)]
    unsafe fn finish<I: Isa>(
        &self,
        row: usize,
        strips: &[Strip],
        outputs: &mut [f32],
        compact: &mut [f32],
    ) {
        let product = self.winograd.product;
        let finish = finish_of(product, self.epilogue, row);
        let mut count = 0;
        for strip in strips {
            let from = &mut outputs[strip.from..][..strip.length];
            if self.sums.is_some() {
                compact[count..count + strip.length].copy_from_slice(from);
                count += strip.length;
            }
            let start = strip.to + row * product.output.channel_stride;
            // SAFETY: these places belong to this task.
            unsafe { self.write::<I>(finish, from, start) };
        }
        if let Some(sums) = self.sums {
            // SAFETY: no other task has this row of these tiles; there is an output.
            unsafe { *sums.range(row..row + 1) = moments::<I>(compact.as_ptr(), count) };
        }
    }

    /// # Safety
    /// As for [`Self::finish`].
    #[inline(always)]
    unsafe fn write<I: Isa>(&self, finish: Finish, from: &mut [f32], start: usize) {
        let places = start..start + from.len();
        let residual = self.epilogue.residual.map(|values| &values[places.clone()]);
        let to = self.out.range(places);
        // SAFETY: as the caller promises.
        unsafe {
            match self.epilogue.activation {
                Activation::HardSwish => finish.write::<I, true>(from, residual, to, 1),
                _ => finish.write::<I, false>(from, residual, to, 1),
            }
        }
    }
}
