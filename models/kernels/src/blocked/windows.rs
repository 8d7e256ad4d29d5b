//! The inputs of some rows of windows, padded.

use std::ops::Range;

use super::TASK;
use crate::shape::Geometry;

/// The layout of a copy `[blocks, rows, phases, pitch, lanes]`: the columns of a row are sorted by their
/// remainder modulo the stride, so that the inputs of outputs side by side lie side by side.
pub(super) struct Windows {
    blocks: usize,
    lanes: usize,
    /// Height and width of the input.
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    /// The most rows of outputs whose inputs are copied at once.
    pub rows: usize,
    input_rows: usize,
    phases: usize,
    pitch: usize,
}

impl Windows {
    /// For an input `[batch, blocks, height, width, lanes]`.
    pub fn new(shape: &Geometry, blocks: usize, lanes: usize) -> Self {
        let ([height, width], kernel, stride) = (shape.output(), shape.kernel, shape.stride);
        // Rows and columns of the input that no window reads are not copied.
        let phases = stride[1].min(kernel[1]);
        let pitch = width + (kernel[1] - 1) / stride[1];
        let row = blocks * phases * pitch * lanes;
        let fitting = (TASK / row).saturating_sub(kernel[0]) / stride[0] + 1;
        let rows = fitting.min(height);
        Self {
            blocks,
            lanes,
            size: shape.input,
            kernel,
            stride,
            padding: shape.padding,
            rows,
            input_rows: (rows - 1) * stride[0] + kernel[0],
            phases,
            pitch,
        }
    }

    fn row_len(&self) -> usize {
        self.phases * self.pitch * self.lanes
    }

    /// Values of the copy.
    pub fn len(&self) -> usize {
        self.blocks * self.input_rows * self.row_len()
    }

    /// Where the taps of a window lie, in the order block, row, column.
    pub fn taps(&self) -> Vec<usize> {
        let [height, width] = self.kernel;
        let mut taps = Vec::with_capacity(self.blocks * height * width);
        for row in
            (0..self.blocks).flat_map(|block| (0..height).map(move |y| block * self.input_rows + y))
        {
            for column in 0..width {
                let (phase, index) = (column % self.stride[1], column / self.stride[1]);
                taps.push(row * self.row_len() + (phase * self.pitch + index) * self.lanes);
            }
        }
        taps
    }

    /// Where the first window of a row of outputs lies.
    pub fn row_start(&self, row: usize) -> usize {
        row * self.stride[0] * self.row_len()
    }

    /// Copies the inputs of rows of outputs of an image; `LANES` are the layout's.
    pub fn copy<const LANES: usize>(&self, image: &[f32], rows: Range<usize>, to: &mut [f32]) {
        let ([height, width], [down, across]) = (self.size, self.stride);
        let image = image.as_chunks::<LANES>().0;
        let to = to.as_chunks_mut::<LANES>().0;
        let needed = (rows.len() - 1) * down + self.kernel[0];
        for block in 0..self.blocks {
            let plane = &image[block * height * width..][..height * width];
            for input in (0..needed).filter(|input| input % down < self.kernel[0]) {
                let start = (block * self.input_rows + input) * self.phases * self.pitch;
                let to = &mut to[start..][..self.phases * self.pitch];
                let row = (rows.start * down + input).checked_sub(self.padding[0]);
                let Some(row) = row.filter(|&row| row < height) else {
                    to.fill([0.0; LANES]);
                    continue;
                };
                let from = &plane[row * width..][..width];
                for (phase, to) in to.chunks_exact_mut(self.pitch).enumerate() {
                    // Of the columns phase, phase + across, .., less the padding, those inside.
                    let before =
                        self.padding[1].saturating_sub(phase).div_ceil(across).min(to.len());
                    let first = (phase + before * across).wrapping_sub(self.padding[1]);
                    let inside =
                        width.saturating_sub(first).div_ceil(across).min(to.len() - before);
                    let (zeros, rest) = to.split_at_mut(before);
                    let (values, more) = rest.split_at_mut(inside);
                    zeros.fill([0.0; LANES]);
                    more.fill([0.0; LANES]);
                    if inside == 0 {
                        continue;
                    }
                    if across == 1 {
                        values.copy_from_slice(&from[first..first + inside]);
                    } else {
                        let from = from[first..].iter().step_by(across);
                        values.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        }
    }
}
