//! The closing norms of a block's branches and the sum of their outputs.

use crate::buffer::{self, Buffer};
use crate::norm::{self, Gate, Gradients, Statistics, inverse_std};
use crate::{BatchStatistics, Norm};

/// The norms of all branches over their maps, as the forward pass has found them. A map may hold
/// several branches, image by image; branches are in the order in which the maps hold them.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    /// `[branches, channels]`.
    mean: Vec<f64>,
    /// `[branches, channels]`.
    inv_std: Vec<f64>,
    /// `[branches, channels]`.
    scale: Vec<f32>,
    /// Of all branches together, `[channels]`.
    shift: Vec<f32>,
    relu: bool,
    residual: bool,
}

/// Gradients of a sum of norms.
pub(crate) struct ClosingGrad {
    /// Of scale and shift of each branch.
    pub norms: Vec<[Vec<f32>; 2]>,
    /// Of each map.
    pub maps: Vec<Buffer>,
    /// Of the residual, if it was wanted.
    pub residual: Option<Buffer>,
}

/// The statistics of every map.
pub(crate) fn statistics(maps: &[&[f32]], [batch, _, positions]: [usize; 3]) -> Vec<Statistics> {
    let of =
        |map: &&[f32]| norm::statistics(map, [batch, map.len() / (batch * positions), positions]);
    maps.iter().map(of).collect()
}

impl Closing {
    /// `y = act(sum of the normalised maps + residual)` from the statistics of the maps; and those
    /// of every branch.
    pub fn forward(
        maps: &[&[f32]],
        found: &[Statistics],
        norms: &[Norm],
        residual: Option<&[f32]>,
        relu: bool,
        dims: [usize; 3],
        y: &mut [f32],
    ) -> (Self, Vec<BatchStatistics>) {
        let channels = dims[1];
        let mean: Vec<f64> = found.iter().flat_map(|found| &found.mean).copied().collect();
        let var: Vec<f64> = found.iter().flat_map(|found| &found.var).copied().collect();
        let (mut inv_std, mut scale) = (Vec::new(), Vec::new());
        let mut shift = vec![0.0; channels];
        for (branch, norm) in norms.iter().enumerate() {
            for (channel, shift) in shift.iter_mut().enumerate() {
                let index = branch * channels + channel;
                let inverse = inverse_std(var[index], norm.epsilon);
                let factor = f64::from(norm.gamma[channel]) * inverse;
                *shift += f64::from(norm.beta[channel]) - factor * mean[index];
                inv_std.push(inverse);
                scale.push(factor as f32);
            }
        }
        let shift: Vec<f32> = shift.into_iter().map(|value| value as f32).collect();
        norm::apply(maps, &scale, &shift, residual, relu, dims, y);
        let rounded = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        let statistics = mean
            .chunks_exact(channels)
            .zip(var.chunks_exact(channels))
            .map(|(mean, var)| BatchStatistics { mean: rounded(mean), var: rounded(var) })
            .collect();
        let residual = residual.is_some();
        (Self { mean, inv_std, scale, shift, relu, residual }, statistics)
    }

    /// The gradients of everything from that of `y`; two passes over the maps.
    pub fn backward(
        &self,
        maps: &[&[f32]],
        norms: &[Norm],
        y: &[f32],
        grad: &[f32],
        dims: [usize; 3],
        wants_residual: bool,
    ) -> ClosingGrad {
        let [batch, channels, positions] = dims;
        let gate = match (self.relu, self.residual) {
            (false, _) => Gate::Open,
            (true, false) => Gate::Affine { scale: &self.scale, shift: &self.shift },
            (true, true) => Gate::Output(y),
        };
        let gamma: Vec<f32> = norms.iter().flat_map(|norm| norm.gamma).copied().collect();
        let sums = norm::reduce(maps, &self.mean, grad, gate, dims);
        let found = Gradients::new(&gamma, &self.mean, &self.inv_std, &sums, batch * positions);
        let mut map_grads: Vec<Buffer> = maps.iter().map(|map| buffer::take(map.len())).collect();
        let mut residual = wants_residual.then(|| buffer::take(grad.len()));
        let mut slices: Vec<&mut [f32]> = map_grads.iter_mut().map(|map| &mut **map).collect();
        norm::backward_input(maps, &found, grad, gate, dims, &mut slices, residual.as_deref_mut());
        let norms = found
            .gamma
            .chunks_exact(channels)
            .map(|gamma| [gamma.to_vec(), found.beta.clone()])
            .collect();
        ClosingGrad { norms, maps: map_grads, residual }
    }
}
