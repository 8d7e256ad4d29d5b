//! The difference at the border between a map padded with a constant and one padded with zeros.
//!
//! Convolved with a kernel, a map that is `c` inside the image and zero around it gives `c` times
//! the sum of the taps that lie inside. Away from the border that is one number per output channel;
//! only positions whose window extends past the image differ from it, by the taps outside.

use rayon::prelude::*;

use crate::ConvShape;

/// Which taps of the window lie inside, for every output row or column.
struct Axis {
    /// The range of taps that lie inside, `[first, end]`, for each class of positions; class 0 has
    /// all taps.
    classes: Vec<[usize; 2]>,
    /// The class of every position.
    class: Vec<usize>,
}

impl Axis {
    fn new(shape: &ConvShape, axis: usize) -> Self {
        let taps = shape.kernel[axis];
        let mut classes = vec![[0, taps]];
        let class = (0..shape.output()[axis])
            .map(|position| {
                let start = position * shape.stride[axis];
                let first = shape.padding[axis].saturating_sub(start).min(taps);
                let last = (shape.input[axis] + shape.padding[axis]).saturating_sub(start);
                let inside = [first, last.clamp(first, taps)];
                classes.iter().position(|&known| known == inside).unwrap_or_else(|| {
                    classes.push(inside);
                    classes.len() - 1
                })
            })
            .collect();
        Self { classes, class }
    }
}

/// The rows and columns of an output whose windows extend past the border.
pub(crate) struct Border {
    rows: Axis,
    columns: Axis,
    border_columns: Vec<usize>,
    kernel: [usize; 2],
}

impl Border {
    pub(crate) fn new(shape: &ConvShape) -> Self {
        let columns = Axis::new(shape, 1);
        let border_columns =
            (0..columns.class.len()).filter(|&column| columns.class[column] != 0).collect();
        Self { rows: Axis::new(shape, 0), columns, border_columns, kernel: shape.kernel }
    }

    /// Subtracts from every position the sum of the taps outside. `map` has `channels` channels, of
    /// which those from `first` on have the `taps` `[out, kh * kw]`. Only positions at the border
    /// are accessed.
    pub(crate) fn subtract_outside(
        &self,
        map: &mut [f32],
        channels: usize,
        first: usize,
        taps: &[f64],
    ) {
        let window = self.kernel[0] * self.kernel[1];
        let table: Vec<f32> =
            taps.chunks_exact(window).flat_map(|taps| self.outside(taps)).collect();
        let classes = self.classes();
        let plane = self.rows.class.len() * self.columns.class.len();
        map.par_chunks_exact_mut(plane).enumerate().for_each(|(index, plane)| {
            let Some(channel) = (index % channels).checked_sub(first) else { return };
            let Some(outside) = table.chunks_exact(classes).nth(channel) else { return };
            self.for_each(|position, class| plane[position] -= outside[class]);
        });
    }

    /// The adjoint: for every tap minus the sum of the gradients of the positions where it lies
    /// outside, `[out, kh * kw]`.
    pub(crate) fn outside_sums(
        &self,
        grad: &[f32],
        channels: usize,
        first: usize,
        outputs: usize,
    ) -> Vec<f64> {
        let window = self.kernel[0] * self.kernel[1];
        let plane = self.rows.class.len() * self.columns.class.len();
        let mut sums = vec![0.0; outputs * window];
        sums.par_chunks_exact_mut(window).enumerate().for_each(|(output, sums)| {
            let mut by_class = vec![0.0; self.classes()];
            for image in grad.chunks_exact(channels * plane) {
                let plane = &image[(first + output) * plane..][..plane];
                self.for_each(|position, class| by_class[class] += f64::from(plane[position]));
            }
            for (class, sum) in by_class.into_iter().enumerate() {
                self.for_each_outside(class, |tap| sums[tap] -= sum);
            }
        });
        sums
    }

    fn classes(&self) -> usize {
        self.rows.classes.len() * self.columns.classes.len()
    }

    /// Sum of the outside taps of every class.
    fn outside(&self, taps: &[f64]) -> Vec<f32> {
        (0..self.classes())
            .map(|class| {
                let mut sum = 0.0;
                self.for_each_outside(class, |tap| sum += taps[tap]);
                sum as f32
            })
            .collect()
    }

    fn for_each_outside(&self, class: usize, mut visit: impl FnMut(usize)) {
        let [top, bottom] = self.rows.classes[class / self.columns.classes.len()];
        let [left, right] = self.columns.classes[class % self.columns.classes.len()];
        for row in 0..self.kernel[0] {
            for column in 0..self.kernel[1] {
                if !((top..bottom).contains(&row) && (left..right).contains(&column)) {
                    visit(row * self.kernel[1] + column);
                }
            }
        }
    }

    /// Every position of the border with its class.
    #[inline(always)]
    fn for_each(&self, mut visit: impl FnMut(usize, usize)) {
        let width = self.columns.class.len();
        for (row, &row_class) in self.rows.class.iter().enumerate() {
            let class = row_class * self.columns.classes.len();
            if row_class == 0 {
                for &column in &self.border_columns {
                    visit(row * width + column, class + self.columns.class[column]);
                }
            } else {
                for (column, &column_class) in self.columns.class.iter().enumerate() {
                    visit(row * width + column, class + column_class);
                }
            }
        }
    }
}
