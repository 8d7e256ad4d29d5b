//! Weights times windows.

use rayon::prelude::*;

use super::Epilogue;
use super::scratch;
use super::tile::{COLUMNS, ROWS, Tile};
use super::window::{Grid, Panel, Source};

/// Terms of a product that are multiplied at a time: a panel of so many rows fits the first cache.
const DEPTH: usize = 192;
/// Panels of a task: together they make one load of the weights worth its while.
const PANELS: usize = 4;

/// The matrix of weights: `(row, term)` lies at `row * row_step + offsets[term]`.
pub(super) struct Weights<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub row_step: usize,
    pub offsets: &'a [usize],
}

/// Where the product's rows (channels) and columns (positions) lie in the output.
pub(super) struct Placement {
    /// Channels of an image of the output, and the first that is written.
    channels: usize,
    first: usize,
    /// Height and width of its planes.
    size: [usize; 2],
    /// Position `(row, column)` lies at `(row, column) * stride + start`.
    stride: [usize; 2],
    start: [usize; 2],
}

impl Placement {
    /// Every position of the output.
    pub fn whole(channels: usize, first: usize, size: [usize; 2]) -> Self {
        Self { channels, first, size, stride: [1, 1], start: [0, 0] }
    }

    /// Every `stride`-th position from `start` on.
    pub fn strided(self, stride: [usize; 2], start: [usize; 2]) -> Self {
        Self { stride, start, ..self }
    }

    fn is_whole(&self) -> bool {
        self.stride == [1, 1] && self.start == [0, 0]
    }
}

/// A product of weights and the windows of every image.
pub(super) struct Product<'a> {
    pub batch: usize,
    pub source: Source<'a>,
    pub grid: &'a Grid,
    pub weights: Weights<'a>,
}

/// The output, which tasks write at positions of their own.
struct Output(*mut f32, usize);

// SAFETY: every task writes other elements, see `Product::run`.
unsafe impl Sync for Output {}

impl Output {
    #[inline(always)]
    fn at(&self, index: usize) -> *mut f32 {
        debug_assert!(index < self.1);
        // SAFETY: the placement lies inside the output, as asserted in `Product::run`.
        unsafe { self.0.add(index) }
    }
}

impl Product<'_> {
    pub fn run(&self, placement: &Placement, epilogue: Epilogue, y: &mut [f32]) {
        let tile = Tile::detect();
        let [rows, width] = self.grid.size;
        let positions = self.batch * rows * width;
        if positions == 0 {
            return;
        }
        let plane = placement.size[0] * placement.size[1];
        assert!(y.len() >= self.batch * placement.channels * plane, "length of the output");
        assert!(
            placement.first + self.weights.rows <= placement.channels,
            "channels of the output"
        );
        assert!(
            (rows - 1) * placement.stride[0] + placement.start[0] < placement.size[0]
                && (width - 1) * placement.stride[1] + placement.start[1] < placement.size[1],
            "positions of the output"
        );
        let depth = self.weights.offsets.len();
        let row_panels = self.weights.rows.div_ceil(ROWS);
        let output = Output(y.as_mut_ptr(), y.len());
        scratch::with(row_panels * ROWS * depth, |packed| {
            self.weights.pack(packed);
            let packed = &*packed;
            // Smaller tasks where there are few positions, so that every thread has some.
            let panels = positions.div_ceil(COLUMNS);
            let per_task = panels.div_ceil(4 * rayon::current_num_threads()).clamp(1, PANELS);
            let columns = per_task * COLUMNS;
            let run_task = |panel: &mut Vec<Panel>, task: usize| {
                let range = task * columns..((task + 1) * columns).min(positions);
                self.task(tile, packed, range, panel, placement, epilogue, &output);
            };
            (0..positions.div_ceil(columns))
                .into_par_iter()
                .for_each_init(|| (0..PANELS).map(|_| Panel::new()).collect(), run_task);
        });
    }

    #[allow(clippy::too_many_arguments)]
    fn task(
        &self,
        tile: Tile,
        packed: &[f32],
        columns: std::ops::Range<usize>,
        prepared: &mut [Panel],
        placement: &Placement,
        epilogue: Epilogue,
        output: &Output,
    ) {
        let depth = self.weights.offsets.len();
        let row_panels = self.weights.rows.div_ceil(ROWS);
        let panels = columns.len().div_ceil(COLUMNS);
        let stride = panels * COLUMNS;
        for (index, panel) in prepared.iter_mut().take(panels).enumerate() {
            let start = columns.start + index * COLUMNS;
            panel.prepare(&self.source, self.grid, start..(start + COLUMNS).min(columns.end));
        }
        scratch::with(row_panels * ROWS * stride + DEPTH * COLUMNS, |buffer| {
            let (sums, windows) = buffer.split_at_mut(row_panels * ROWS * stride);
            for start in (0..depth).step_by(DEPTH) {
                let terms = start..(start + DEPTH).min(depth);
                for (index, panel) in prepared.iter().take(panels).enumerate() {
                    panel.pack(&self.source, self.grid, terms.clone(), COLUMNS, windows);
                    for row in 0..row_panels {
                        let a = &packed[(row * depth + terms.start) * ROWS..];
                        let c = &mut sums[row * ROWS * stride + index * COLUMNS..];
                        let rows = self.weights.rows - row * ROWS;
                        tile.run::<1, ROWS>(rows, terms.len(), a, windows, c, stride, start > 0);
                    }
                }
            }
            self.write(sums, stride, columns, placement, epilogue, output);
        });
    }

    /// Writes the columns of a task to the output, stretch by stretch.
    fn write(
        &self,
        sums: &[f32],
        stride: usize,
        columns: std::ops::Range<usize>,
        placement: &Placement,
        epilogue: Epilogue,
        output: &Output,
    ) {
        let [rows, width] = self.grid.size;
        let plane = placement.size[0] * placement.size[1];
        let whole = placement.is_whole();
        let line = if whole { rows * width } else { width };
        let step = placement.stride[1];
        let mut column = columns.start;
        while column < columns.end {
            let (index, start) = (column / line, column % line);
            let length = (line - start).min(columns.end - column);
            let (image, offset) = if whole {
                (index, start)
            } else {
                let row = index % rows * placement.stride[0] + placement.start[0];
                (index / rows, row * placement.size[1] + start * step + placement.start[1])
            };
            for row in 0..self.weights.rows {
                let channel = image * placement.channels + placement.first + row;
                let base = channel * plane + offset;
                let bias = epilogue.bias.map_or(0.0, |bias| bias[placement.first + row]);
                let sums = &sums[row * stride + column - columns.start..][..length];
                if step == 1 {
                    // SAFETY: columns are positions of their own task alone, rows are channels;
                    // the stretch lies inside the output, as asserted in `run`.
                    let out = unsafe { std::slice::from_raw_parts_mut(output.at(base), length) };
                    let residual = epilogue.residual.map(|residual| &residual[base..][..length]);
                    finish(sums, out, bias, epilogue.add, residual, epilogue.relu);
                } else {
                    for (index, &sum) in sums.iter().enumerate() {
                        let at = base + index * step;
                        // SAFETY: as above.
                        let out = unsafe { std::slice::from_raw_parts_mut(output.at(at), 1) };
                        let residual = epilogue.residual.map(|residual| &residual[at..][..1]);
                        finish(&[sum], out, bias, epilogue.add, residual, epilogue.relu);
                    }
                }
            }
            column += length;
        }
    }
}

#[inline(always)]
fn finish(
    sums: &[f32],
    out: &mut [f32],
    bias: f32,
    add: bool,
    residual: Option<&[f32]>,
    relu: bool,
) {
    if add {
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out += sum + bias;
        }
    } else {
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out = sum + bias;
        }
    }
    if let Some(residual) = residual {
        for (out, &value) in out.iter_mut().zip(residual) {
            *out += value;
        }
    }
    if relu {
        // Not `max`, which makes a number of what is none.
        for out in out {
            *out = if *out < 0.0 { 0.0 } else { *out };
        }
    }
}

impl Weights<'_> {
    /// Panels of [`ROWS`] rows, term by term, the last one filled up with zeros.
    fn pack(&self, packed: &mut [f32]) {
        let depth = self.offsets.len();
        packed.par_chunks_exact_mut(ROWS * depth).enumerate().for_each(|(panel, packed)| {
            let first = panel * ROWS;
            let rows = ROWS.min(self.rows - first);
            for (out, &offset) in packed.chunks_exact_mut(ROWS).zip(self.offsets) {
                for (row, out) in out.iter_mut().enumerate() {
                    *out = if row < rows {
                        self.data[(first + row) * self.row_step + offset]
                    } else {
                        0.0
                    };
                }
            }
        });
    }
}
