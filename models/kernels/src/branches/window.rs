//! Kernels smaller than the window of their block.

use crate::ConvShape;
use crate::buffer::{self, Buffer};

/// A convolution whose kernel lies in the middle of the block's window.
pub(super) struct Window {
    pub shape: ConvShape,
    /// Rows and columns on each side of the input that no kernel reads.
    cut: [usize; 2],
    input: [usize; 2],
}

impl Window {
    pub fn new(shape: &ConvShape, kernel: [usize; 2], branches: usize) -> Self {
        let margin = [0, 1].map(|axis| (shape.kernel[axis] - kernel[axis]) / 2);
        let cut = [0, 1].map(|axis| margin[axis].saturating_sub(shape.padding[axis]));
        let conv = ConvShape {
            out_channels: branches * shape.out_channels,
            input: [0, 1].map(|axis| shape.input[axis] - 2 * cut[axis]),
            kernel,
            padding: [0, 1].map(|axis| shape.padding[axis].saturating_sub(margin[axis])),
            ..*shape
        };
        Self { shape: conv, cut, input: shape.input }
    }

    /// The part of the input that kernels read, if it is not all of it.
    pub fn crop(&self, x: &[f32]) -> Option<Buffer> {
        (self.cut != [0, 0]).then(|| {
            let mut cropped = buffer::take(self.shape.input_len());
            self.rows(|inner, outer, width| {
                cropped[inner..inner + width].copy_from_slice(&x[outer..outer + width]);
            });
            cropped
        })
    }

    /// Adds the gradient of a part to that of the input, or writes it there.
    pub fn add_cropped(&self, cropped: &[f32], input: &mut [f32], accumulate: bool) {
        if !accumulate {
            input.fill(0.0);
        }
        self.rows(|inner, outer, width| {
            let values = cropped[inner..inner + width].iter();
            input[outer..outer + width].iter_mut().zip(values).for_each(|(to, from)| *to += from);
        });
    }

    /// Calls `work` with the start of every row of the part, in it and in the input, and the width.
    fn rows(&self, mut work: impl FnMut(usize, usize, usize)) {
        let ([height, width], [top, left]) = (self.shape.input, self.cut);
        for plane in 0..self.shape.batch * self.shape.in_channels {
            for row in 0..height {
                let outer = (plane * self.input[0] + top + row) * self.input[1] + left;
                work((plane * height + row) * width, outer, width);
            }
        }
    }
}
