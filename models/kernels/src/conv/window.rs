//! Windows of an image as rows of a matrix, packed straight from the image.

/// A map that windows are taken from: planes of `height x width`, `channels` an image.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub data: &'a [f32],
    /// Channels of an image of `data`.
    pub channels: usize,
    pub size: [usize; 2],
}

/// The positions at which windows are taken, and the taps of a window.
#[derive(Clone)]
pub(super) struct Grid {
    /// Rows and columns of positions of an image.
    pub size: [usize; 2],
    pub stride: [usize; 2],
    /// Row and column of each tap, relative to `position * stride`.
    pub taps: Vec<[isize; 2]>,
}

/// A stretch of columns whose values lie in one row of the image, for one tap: `zeros[0]` zeros,
/// values from `start` on, zeros up to `end`.
#[derive(Clone, Copy)]
struct Run {
    image: usize,
    row: usize,
    column: usize,
    length: usize,
    /// First column in the panel.
    first: usize,
}

/// What a panel of columns reads, for every tap.
pub(super) struct Panel {
    pieces: Vec<Piece>,
    /// Pieces of each tap.
    per_tap: usize,
    columns: usize,
    image_stride: usize,
}

/// Columns `first..first + length` of a panel: `[before, after)` of them are values, the others
/// zero.
#[derive(Clone, Copy)]
struct Piece {
    first: u32,
    length: u32,
    before: u32,
    after: u32,
    /// Of the first value, in channel 0 of its image; `image * channels * plane` is included.
    offset: usize,
}

impl Panel {
    pub fn new() -> Self {
        Self { pieces: Vec::new(), per_tap: 0, columns: 0, image_stride: 0 }
    }

    /// Prepares the columns `columns` of the positions of all images, numbered through.
    pub fn prepare(&mut self, source: &Source, grid: &Grid, columns: std::ops::Range<usize>) {
        let [rows, width] = grid.size;
        let [height, source_width] = source.size;
        let plane = height * source_width;
        self.columns = columns.len();
        self.image_stride = source.channels * plane;
        self.pieces.clear();
        // Where windows are single values of neighbouring positions, an image is one row.
        let flat = grid.stride == [1, 1] && grid.taps == [[0, 0]] && grid.size == source.size;
        let run_width = if flat { rows * width } else { width };
        for tap in &grid.taps {
            let mut column = columns.start;
            while column < columns.end {
                let line = column / run_width;
                let start = column % run_width;
                let length = (run_width - start).min(columns.end - column);
                let (image, row) = if flat { (line, 0) } else { (line / rows, line % rows) };
                let run = Run { image, row, column: start, length, first: column - columns.start };
                let row_source = (run.row * grid.stride[0]) as isize + tap[0];
                let step = grid.stride[1];
                let column_source = (run.column * step) as isize + tap[1];
                let limit = if flat { plane } else { source_width } as isize;
                // Columns of the run that lie inside.
                let before = (-column_source).max(0) as usize;
                let before = before.div_ceil(step).min(run.length);
                let after = (limit - column_source).max(0) as usize;
                let after = after.div_ceil(step).clamp(before, run.length);
                let outside = row_source < 0 || row_source >= height as isize || before == after;
                let (before, after) = if outside { (0, 0) } else { (before, after) };
                let offset = if outside {
                    0
                } else {
                    let column = column_source + (before * step) as isize;
                    run.image * self.image_stride
                        + (row_source * source_width as isize + column) as usize
                };
                self.pieces.push(Piece {
                    first: run.first as u32,
                    length: run.length as u32,
                    before: before as u32,
                    after: after as u32,
                    offset,
                });
                column += length;
            }
        }
        self.per_tap = self.pieces.len() / grid.taps.len();
    }

    /// Writes the matrix rows `(channel, tap)` numbered through from `rows.start` on, each into
    /// the next `stride` values of `out`.
    #[inline(always)]
    pub fn pack(
        &self,
        source: &Source,
        grid: &Grid,
        rows: std::ops::Range<usize>,
        stride: usize,
        out: &mut [f32],
    ) {
        let taps = grid.taps.len();
        let plane = source.size[0] * source.size[1];
        let step = grid.stride[1];
        let (mut channel, mut tap) = (rows.start / taps, rows.start % taps);
        for out in out.chunks_mut(stride).take(rows.len()) {
            let base = channel * plane;
            for piece in &self.pieces[tap * self.per_tap..(tap + 1) * self.per_tap] {
                let (length, before, after) =
                    (piece.length as usize, piece.before as usize, piece.after as usize);
                let out = &mut out[piece.first as usize..][..length];
                let values = &source.data[base + piece.offset..];
                if step == 1 {
                    out[..before].fill(0.0);
                    let inside = &mut out[before..after];
                    copy(inside, &values[..after - before]);
                    out[after..].fill(0.0);
                } else {
                    out[..before].fill(0.0);
                    let values = values.iter().step_by(step);
                    for (out, &value) in out[before..after].iter_mut().zip(values) {
                        *out = value;
                    }
                    out[after..].fill(0.0);
                }
            }
            tap += 1;
            if tap == taps {
                (channel, tap) = (channel + 1, 0);
            }
        }
    }
}

/// Short copies in a loop: a call of `memcpy` costs more.
#[inline(always)]
fn copy(out: &mut [f32], values: &[f32]) {
    let (out_chunks, out_rest) = out.as_chunks_mut::<8>();
    let (chunks, rest) = values.as_chunks::<8>();
    for (out, values) in out_chunks.iter_mut().zip(chunks) {
        *out = *values;
    }
    for (out, &value) in out_rest.iter_mut().zip(rest) {
        *out = value;
    }
}
