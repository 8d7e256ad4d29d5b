//! How the gradients of the branches of a channel reach its input.

use super::form::{Branches, ChannelGrads, Form, add_scaled};
use super::grid::Grid;

/// The gradient of the output of a branch: `scale * g + window . phi + constant`, which `kernel`
/// carries to the input.
#[derive(Clone)]
pub(super) struct ErrorRow {
    pub kernel: Vec<f64>,
    pub window: Vec<f64>,
    pub scale: f64,
    /// By class.
    pub constant: Vec<f64>,
}

impl ErrorRow {
    pub(super) fn new(grid: &Grid) -> Self {
        let (taps, classes) = (grid.taps(), grid.classes());
        Self {
            kernel: vec![0.0; taps],
            window: vec![0.0; taps],
            scale: 0.0,
            constant: vec![0.0; classes],
        }
    }

    fn reset(&mut self) {
        for values in [&mut self.kernel, &mut self.window, &mut self.constant] {
            values.fill(0.0);
        }
        self.scale = 0.0;
    }
}

impl Form<'_> {
    /// Rows of [`Branches::error_rows`].
    pub(super) fn rows(&self) -> usize {
        let branches = self.block.branches;
        let fixed = branches.iter().filter(|branch| branch.is_fixed()).count();
        branches.len() - fixed + fixed.min(1)
    }
}

impl Branches {
    /// How the gradients of the branches' outputs follow from input and output gradient, and the
    /// kernels that carry them to the input. Branches with constant statistics share one row.
    pub(super) fn error_rows(&self, form: &Form<'_>, grads: &ChannelGrads, rows: &mut [ErrorRow]) {
        let outer = self.outer.as_ref().zip(grads.outer.as_ref());
        let (mut used, mut shared) = (0, None);
        for (found, grad) in self.all.iter().zip(&grads.all) {
            let affine = &found.affine;
            if affine.is_fixed() {
                let index = *shared.get_or_insert_with(|| {
                    rows[used].reset();
                    rows[used].scale = 1.0;
                    used += 1;
                    used - 1
                });
                add_scaled(grad.scale, &affine.kernel, &mut rows[index].kernel);
                continue;
            }
            let row = &mut rows[used];
            row.reset();
            row.kernel.copy_from_slice(&affine.kernel);
            add_scaled(grad.slope, &affine.kernel, &mut row.window);
            row.constant.copy_from_slice(&grad.constant);
            row.scale = grad.scale;
            used += 1;
        }
        debug_assert_eq!(used, form.rows(), "rows of the form");
        if let Some((outer, grad)) = outer {
            for row in &mut rows[..used] {
                add_scaled(row.scale * grad.slope, &outer.affine.kernel, &mut row.window);
                add_scaled(row.scale, &grad.constant, &mut row.constant);
                row.scale *= grad.scale;
            }
        }
    }
}
