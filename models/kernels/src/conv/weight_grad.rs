//! The gradient of a convolution's weight.

use rayon::prelude::*;

use super::scratch;
use super::tile::{COLUMNS, ROWS, Tile};
use super::window::{Grid, Panel, Source};
use super::{Groups, check, windows};
use crate::ConvShape;

/// Positions that are multiplied at a time, the terms of the product.
const POSITIONS: usize = 256;

/// `dw[o, c, tap]`, the sum over all windows of `dy[o]` times the input under the tap. Shapes as
/// in [`forward`](super::forward); costs [`ConvShape::macs`] and one pass over `x` and `dy`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    check(shape, x.len(), dw.len(), dy.len());
    let groups = Groups::new(shape);
    let grid = windows(shape);
    let kernel = groups.outputs * groups.inputs * groups.window;
    for (group, dw) in dw.chunks_exact_mut(kernel).enumerate() {
        let x = Source {
            data: &x[group * groups.inputs * shape.input_positions()..],
            channels: shape.in_channels,
            size: shape.input,
        };
        let dy = Source {
            data: &dy[group * groups.outputs * shape.output_positions()..],
            channels: shape.out_channels,
            size: shape.output(),
        };
        let rows = groups.inputs * groups.window;
        correlate(shape.batch, x, &grid, rows, dy, groups.outputs, dw);
    }
}

/// `out[o, r]`, the sum over batch and positions of `dy[o]` times row `r` of the windows.
fn correlate(
    batch: usize,
    x: Source,
    grid: &Grid,
    rows: usize,
    dy: Source,
    outputs: usize,
    out: &mut [f32],
) {
    let tile = Tile::detect();
    let positions = batch * grid.size[0] * grid.size[1];
    let row_panels = rows.div_ceil(ROWS);
    let column_panels = outputs.div_ceil(COLUMNS);
    let stride = column_panels * COLUMNS;
    let threads = rayon::current_num_threads();
    // Threads share the rows, unless they are so few that packing the other factor counts: then
    // they share the positions and add up.
    let by_rows = row_panels / threads >= 12 || threads == 1;
    let shares = if by_rows { threads } else { threads.min(positions.div_ceil(POSITIONS)) };
    let panels_each = if by_rows { row_panels.div_ceil(shares) } else { row_panels };
    let blocks = positions.div_ceil(POSITIONS);
    let length = panels_each * ROWS * stride;
    scratch::with(shares * length, |sums| {
        sums.par_chunks_exact_mut(length).enumerate().for_each(|(share, sums)| {
            let panels = if by_rows {
                (share * panels_each).min(row_panels)..((share + 1) * panels_each).min(row_panels)
            } else {
                0..row_panels
            };
            let blocks = if by_rows {
                0..blocks
            } else {
                share * blocks / shares..(share + 1) * blocks / shares
            };
            let range = blocks.start * POSITIONS..(blocks.end * POSITIONS).min(positions);
            accumulate(tile, x, grid, rows, panels, dy, outputs, range, sums);
        });
        let sums = &*sums;
        out.par_chunks_exact_mut(rows).enumerate().for_each(|(output, out)| {
            for (row, out) in out.iter_mut().enumerate() {
                *out = if by_rows {
                    sums[row * stride + output]
                } else {
                    (0..shares).map(|share| sums[share * length + row * stride + output]).sum()
                };
            }
        });
    });
}

/// Sums over some positions for some panels of rows, `[row, output]`.
#[allow(clippy::too_many_arguments)]
fn accumulate(
    tile: Tile,
    x: Source,
    grid: &Grid,
    rows: usize,
    panels: std::ops::Range<usize>,
    dy: Source,
    outputs: usize,
    range: std::ops::Range<usize>,
    sums: &mut [f32],
) {
    let column_panels = outputs.div_ceil(COLUMNS);
    let stride = column_panels * COLUMNS;
    let dy_grid = Grid { size: dy.size, stride: [1, 1], taps: vec![[0, 0]] };
    let (mut windows, mut gradients) = (Panel::new(), Panel::new());
    let mut started = false;
    let lengths = [POSITIONS * stride, ROWS * POSITIONS, COLUMNS * POSITIONS];
    scratch::with(lengths.iter().sum(), |buffer| {
        let (b, buffer) = buffer.split_at_mut(lengths[0]);
        let (a, lines) = buffer.split_at_mut(lengths[1]);
        for start in range.clone().step_by(POSITIONS) {
            let block = start..(start + POSITIONS).min(range.end);
            let depth = block.len();
            gradients.prepare(&dy, &dy_grid, block.clone());
            windows.prepare(&x, grid, block);
            for panel in 0..column_panels {
                let channels = panel * COLUMNS..((panel + 1) * COLUMNS).min(outputs);
                let width = channels.len();
                gradients.pack(&dy, &dy_grid, channels, POSITIONS, lines);
                let b = &mut b[panel * COLUMNS * POSITIONS..];
                transpose(lines, width, depth, b);
            }
            for (index, panel) in panels.clone().enumerate() {
                let terms = panel * ROWS..((panel + 1) * ROWS).min(rows);
                windows.pack(&x, grid, terms.clone(), POSITIONS, a);
                for column in 0..column_panels {
                    let b = &b[column * COLUMNS * POSITIONS..];
                    let c = &mut sums[index * ROWS * stride + column * COLUMNS..];
                    tile.run::<POSITIONS, 1>(terms.len(), depth, a, b, c, stride, started);
                }
            }
            started = true;
        }
    });
    if !started {
        sums.fill(0.0);
    }
}

/// `[COLUMNS, POSITIONS]` to `[depth, COLUMNS]`; channels from `width` on are zero.
fn transpose(lines: &[f32], width: usize, depth: usize, out: &mut [f32]) {
    const BLOCK: usize = 8;
    for first in (0..depth).step_by(BLOCK) {
        let block = BLOCK.min(depth - first);
        for channel in 0..width {
            let line = &lines[channel * POSITIONS + first..][..block];
            for (index, &value) in line.iter().enumerate() {
                out[(first + index) * COLUMNS + channel] = value;
            }
        }
        for index in 0..block {
            out[(first + index) * COLUMNS + width..(first + index + 1) * COLUMNS].fill(0.0);
        }
    }
}
