//! The gradient of the weight, by the transposed transforms.
//!
//! With `Y` the gradient of a tile of the output and `d` the inputs it reads, the gradient of a
//! kernel is
//!
//! ```text
//! G^T ( sum over tiles of (A Y A^T) * (B^T d B) ) G
//! ```
//!
//! For each of the 16 elements the sum over the tiles of all kernels is a product of matrices.

use std::ops::Range;

use rayon::prelude::*;

use super::{CHANNELS, ELEMENTS, Work, apart, tiles, transform, window};
use crate::gemm::{self, Columns, Isa, Rows};
use crate::shared::Shared;

/// Values of the transformed tiles of a chunk, which fit in the second cache.
const CHUNK: usize = 1 << 18;

/// The largest gradient of which each task sums its own over a part of the tiles. For a larger one
/// tasks divide the input channels.
const PRIVATE: usize = 1 << 17;

/// A gradient that this algorithm can compute.
pub(in crate::conv) struct WinogradGrad<'a> {
    gradient: Columns<'a>,
    inputs: Columns<'a>,
    rows: usize,
    channels: usize,
    /// Tiles of all images.
    total: usize,
}

impl<'a> WinogradGrad<'a> {
    /// The algorithm for the gradient of `images` outputs of `rows` channels, which are given as
    /// columns of one tap, and the inputs' columns; if it serves them and needs less time.
    pub fn of(
        gradient: &Columns<'a>,
        inputs: &Columns<'a>,
        [images, channels, rows]: [usize; 3],
    ) -> Option<Self> {
        let (corner, order) = window(inputs)?;
        let in_order = order.into_iter().eq(0..9);
        let work = Work::new(inputs, images, channels, rows);
        if !in_order || !work.is_taken() {
            return None;
        }
        let inputs = tiles(inputs, corner, 4);
        // The gradient as maps of the output's height and width.
        let maps = Columns { size: work.grid, grid: work.grid, taps: vec![[0, 0]], ..*gradient };
        let gradient = tiles(&maps, [0, 0], 2);
        Some(Self { gradient, inputs, rows, channels, total: work.tiles })
    }

    /// Computes the gradient, `[rows, channels, 9]`.
    ///
    /// # Safety
    /// The processor has `I`, and nothing else uses `dw`.
    pub unsafe fn run<I: Isa>(&self, dw: Shared<'_>) {
        let Self { rows, channels, total, .. } = *self;
        let (threads, width) = (rayon::current_num_threads(), 2 * I::LANES);
        let by_channels = 9 * rows * channels > PRIVATE && channels >= 8 * threads;
        let (channel_parts, tile_parts) =
            if by_channels { (threads, 1) } else { (1, threads.min(total.div_ceil(width))) };
        let size = ELEMENTS * rows * channels;
        gemm::with_scratch(tile_parts * size, |sums| {
            let shares = Shared::new(sums);
            (0..channel_parts * tile_parts).into_par_iter().for_each(|task| {
                let (share, part) = (task % tile_parts, task / tile_parts);
                let task = Task {
                    grad: self,
                    // In units of a panel, so that panels are whole.
                    channels: gemm::part(0..channels, width, part, channel_parts),
                    tiles: gemm::part(0..total, width, share, tile_parts),
                    to: shares.part(share * size..(share + 1) * size),
                };
                // SAFETY: the processor has `I`, as the caller promises; no other task has this share
                // of these channels.
                unsafe { task.run::<I>() };
            });
            let sums = &*sums;
            (0..rows).into_par_iter().with_min_len(4).for_each(|row| {
                let places = row * channels * 9..(row + 1) * channels * 9;
                // SAFETY: rows are disjoint, and the caller has `dw` alone.
                let to = unsafe { dw.slice_mut(places) };
                for (channel, to) in to.chunks_exact_mut(9).enumerate() {
                    let element = |element: usize| -> f32 {
                        let place = (element * rows + row) * channels + channel;
                        (0..tile_parts).map(|share| sums[share * size + place]).sum()
                    };
                    to.copy_from_slice(&transform::kernel_grad(std::array::from_fn(element)));
                }
            });
        });
    }
}

/// A part of the channels and the tiles.
struct Task<'a, 'b> {
    grad: &'a WinogradGrad<'b>,
    channels: Range<usize>,
    tiles: Range<usize>,
    /// `[element, row, channel]` of all channels.
    to: Shared<'a>,
}

impl Task<'_, '_> {
    /// # Safety
    /// The processor has `I`, and no other task has these channels of `to`.
    unsafe fn run<I: Isa>(&self) {
        let WinogradGrad { rows, channels: all, .. } = *self.grad;
        let (width, columns) = (2 * I::LANES, self.channels.len());
        if columns == 0 {
            return;
        }
        let padded = columns.next_multiple_of(width);
        // A larger chunk reads and writes the sums less often.
        let chunk = (CHUNK / (ELEMENTS * (rows + padded))).max(rows * padded / (rows + padded));
        let chunks = self.tiles.len().div_ceil(chunk.next_multiple_of(width));
        let longest = self.tiles.len().div_ceil(chunks).next_multiple_of(width) + width;
        // A transpose reads and writes whole squares, up to a vector of rows past the end.
        let slack = I::LANES * width;
        let (left, right) = (apart(longest * rows + slack), apart(longest * padded + slack));
        let square = apart(width * width);
        let packed = ELEMENTS * CHANNELS.max(I::LANES) * width;
        let lengths = [ELEMENTS * left, ELEMENTS * right, ELEMENTS * square, packed];
        gemm::with_scratches(lengths, |[a, b, squares, packed]| {
            // SAFETY: the processor has `I`, as the caller promises; the buffers hold a chunk of tiles
            // and the slack.
            unsafe {
                I::enter(
                    #[inline(always)]
                    || {
                        for index in 0..chunks {
                            let tiles = gemm::part(self.tiles.clone(), width, index, chunks);
                            self.pack_gradient::<I>(&tiles, packed, squares, a);
                            self.pack_inputs::<I>(&tiles, packed, squares, b);
                            for element in 0..ELEMENTS {
                                let block = gemm::Block {
                                    panels: 0..gemm::panels::<I>(rows),
                                    rows,
                                    depth: tiles.len(),
                                    columns,
                                    a: Rows::Packed(a[element * left..].as_ptr()),
                                    b: b[element * right..].as_ptr(),
                                    c_stride: all,
                                    c_padded: false,
                                    accumulate: index > 0,
                                };
                                let c = |row| {
                                    let start = (element * rows + row) * all + self.channels.start;
                                    self.to.range(start..start + columns)
                                };
                                block.run::<I>(c, |_| ());
                            }
                        }
                    },
                )
            }
        });
    }

    /// Packs the transformed gradient for [`Rows::Packed`], with the tiles as depth.
    ///
    /// # Safety
    /// Inside `enter`; the buffers have room.
    #[inline(always)]
    unsafe fn pack_gradient<I: Isa>(
        &self,
        tiles: &Range<usize>,
        packed: &mut [f32],
        squares: &mut [f32],
        to: &mut [f32],
    ) {
        let (width, rows) = (2 * I::LANES, self.grad.rows);
        let (element, square) = (to.len() / ELEMENTS, squares.len() / ELEMENTS);
        let depth = tiles.len();
        for panel in 0..gemm::panels::<I>(rows) {
            let band = gemm::panel_rows::<I>(panel, rows);
            for (step, first) in tiles.clone().step_by(width).enumerate() {
                let some = first..(first + width).min(tiles.end);
                // SAFETY: as the caller promises. Each row of a transposed square overwrites what the
                // one before it wrote past the height of the panel.
                unsafe {
                    self.grad.gradient.pack::<I>(band.clone(), some, packed.as_mut_ptr());
                    for (row, from) in packed.chunks_exact(4 * width).take(band.len()).enumerate() {
                        transform::gradient::<I>(from, &mut squares[row * width..], square);
                    }
                    for index in 0..ELEMENTS {
                        for half in [0, I::LANES] {
                            let tile = step * width + half;
                            if tile >= depth {
                                continue;
                            }
                            let from = squares[index * square + half..].as_ptr();
                            let place = index * element + band.start * depth + tile * band.len();
                            I::transpose(from, width, to[place..].as_mut_ptr(), band.len());
                        }
                    }
                }
            }
        }
    }

    /// Packs the transformed inputs in panels of two vectors of channels, with the tiles as depth.
    ///
    /// # Safety
    /// As for [`Self::pack_gradient`].
    #[inline(always)]
    unsafe fn pack_inputs<I: Isa>(
        &self,
        tiles: &Range<usize>,
        packed: &mut [f32],
        squares: &mut [f32],
        to: &mut [f32],
    ) {
        let width = 2 * I::LANES;
        let (element, square) = (to.len() / ELEMENTS, squares.len() / ELEMENTS);
        let depth = tiles.len();
        for (panel, first_channel) in self.channels.clone().step_by(width).enumerate() {
            let channels = first_channel..(first_channel + width).min(self.channels.end);
            for (step, first) in tiles.clone().step_by(width).enumerate() {
                let some = first..(first + width).min(tiles.end);
                // SAFETY: as the caller promises. Rows of squares past the last tile are overwritten by
                // the next panel.
                unsafe {
                    for start in channels.clone().step_by(CHANNELS) {
                        let part = start..(start + CHANNELS).min(channels.end);
                        self.grad.inputs.pack::<I>(part.clone(), some.clone(), packed.as_mut_ptr());
                        for (from, channel) in packed.chunks_exact(ELEMENTS * width).zip(part) {
                            let row = channel - channels.start;
                            transform::input::<I>(from, &mut squares[row * width..], square);
                        }
                    }
                    for index in 0..ELEMENTS {
                        for (tile_half, channel_half) in
                            [(0, 0), (0, I::LANES), (I::LANES, 0), (I::LANES, I::LANES)]
                        {
                            let tile = step * width + tile_half;
                            if tile >= depth {
                                continue;
                            }
                            let from = squares[index * square + channel_half * width + tile_half..]
                                .as_ptr();
                            let place =
                                index * element + (panel * depth + tile) * width + channel_half;
                            I::transpose(from, width, to[place..].as_mut_ptr(), width);
                        }
                    }
                }
            }
        }
    }
}
