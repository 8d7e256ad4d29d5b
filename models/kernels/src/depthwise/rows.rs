//! How the gradients of the branches of a channel reach its input.

use super::form::{Branches, ChannelGrads, Form};
use super::grid::{Grid, SLACK};
use crate::arithmetic::add_scaled;

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

/// How the gradients of the branches' outputs are gathered at the input, phase by phase.
pub(super) struct InputSweeps {
    /// Length of the strip of one branch.
    pub pitch: usize,
    /// Of each phase: where the taps that write to it lie in the strips of all branches.
    pub phases: Vec<Vec<usize>>,
    /// The taps in the same order.
    taps: Vec<Vec<usize>>,
}

impl InputSweeps {
    pub(super) fn new(form: &Form<'_>) -> Self {
        let grid = &form.grid;
        let pitch = grid.margin() + grid.phase_len().max(grid.output_buffer()) + SLACK;
        let phase_of = |tap: usize| grid.offsets[tap] / grid.phase_len();
        let phases = grid.rows.stride * grid.cols.stride;
        let taps: Vec<Vec<usize>> = (0..phases)
            .map(|phase| (0..grid.taps()).filter(|&tap| phase_of(tap) == phase).collect())
            .collect();
        let offset = |branch: usize, tap: usize| {
            branch * pitch + grid.margin() - grid.offsets[tap] % grid.phase_len()
        };
        let phases = taps.iter().map(|taps| {
            let rows = 0..form.rows();
            rows.flat_map(|branch| taps.iter().map(move |&tap| offset(branch, tap))).collect()
        });
        Self { pitch, phases: phases.collect(), taps }
    }

    /// The kernels of all branches in the order of the sweeps.
    pub(super) fn weights(&self, rows: &[ErrorRow], weights: &mut Vec<f32>) {
        weights.clear();
        for taps in &self.taps {
            for row in rows {
                weights.extend(taps.iter().map(|&tap| row.kernel[tap] as f32));
            }
        }
    }
}
