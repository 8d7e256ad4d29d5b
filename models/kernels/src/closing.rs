//! The closing norms of a block's branches and the sum of their outputs.

use std::borrow::Cow;

use crate::activation::{self, Activation};
use crate::arithmetic::to_f32;
use crate::branch_sum::Wanted;
use crate::buffer::{self, Buffer};
use crate::members::Batch;
use crate::norm::{self, Gate, Gradients, MAX_BRANCHES, Statistics, Sums, inverse_std};
use crate::{BatchStatistics, Norm};

/// The closing norms of all branches, with the statistics of the forward pass. A map may hold
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
    /// Batch, channels and positions of the output.
    dims: [usize; 3],
    activation: Activation,
    residual: bool,
    /// The activation's input, if its derivative needs it and it cannot be recomputed from the
    /// maps.
    before: Option<Buffer>,
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

/// Rounds the mean and the variance of every channel.
pub(crate) fn rounded(mean: &[f64], var: &[f64]) -> BatchStatistics {
    BatchStatistics { mean: to_f32(mean), var: to_f32(var) }
}

impl Closing {
    /// Computes `y = act(sum of the normalised maps + residual)` and returns the statistics of
    /// every branch.
    ///
    /// `found` holds the statistics that each norm uses, in the order of the norms: those of its
    /// map, or its constants.
    pub fn forward(
        maps: &[&[f32]],
        found: &[Statistics],
        norms: &[Norm],
        residual: Option<&[f32]>,
        activation: Activation,
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
        let shift = to_f32(&shift);
        let apart = residual.is_some() || norms.len() > MAX_BRANCHES;
        let mut before = (activation.needs_input() && apart).then(|| buffer::take(y.len()));
        match &mut before {
            Some(before) => {
                norm::apply(maps, &scale, &shift, residual, Activation::Identity, dims, before);
                activation::forward(activation, before, y);
            }
            None => norm::apply(maps, &scale, &shift, residual, activation, dims, y),
        }
        let statistics = mean
            .chunks_exact(channels)
            .zip(var.chunks_exact(channels))
            .map(|(mean, var)| rounded(mean, var))
            .collect();
        let residual = residual.is_some();
        (Self { mean, inv_std, scale, shift, dims, activation, residual, before }, statistics)
    }

    /// Computes the gradients of the maps, and of what else is `wanted`, from that of `y`, in two
    /// passes over the maps. Those of scale and shift are undefined unless parameters are wanted. The
    /// statistics were those of the batch `whole`.
    pub fn backward(
        &self,
        maps: &[&[f32]],
        norms: &[Norm],
        y: &[f32],
        grad: &[f32],
        wanted: Wanted,
        whole: Batch<'_>,
    ) -> ClosingGrad {
        let (activation, dims) = (self.activation, self.dims);
        let [_, channels, positions] = dims;
        let gate = match (activation, &self.before) {
            (Activation::Identity, _) => Gate::Open,
            (_, Some(before)) => Gate::Values(activation, before),
            (_, None) if self.residual || norms.len() > MAX_BRANCHES => Gate::Values(activation, y),
            _ => Gate::Affine { activation, scale: &self.scale, shift: &self.shift },
        };
        let gamma: Vec<f32> = norms.iter().flat_map(|norm| norm.gamma).copied().collect();
        let fixed: Vec<bool> = norms.iter().map(|norm| norm.fixed.is_some()).collect();
        let sums = match wanted.parameters || fixed.contains(&false) {
            true => norm::reduce(maps, &self.mean, grad, gate, dims),
            // Norms with constant statistics need no sums for the gradient of their input.
            false => Sums { gradient: vec![0.0; channels], products: vec![0.0; self.mean.len()] },
        };
        // Parameters have the gradients of this part; those of all parts are added elsewhere.
        let of_batch =
            if fixed.contains(&false) { whole.sums(&sums) } else { Cow::Borrowed(&sums) };
        let count = whole.images() * positions;
        let found = Gradients::new(&gamma, &self.mean, &self.inv_std, &fixed, &of_batch, count);
        let found = found.with_parameters_of(&sums, &self.inv_std);
        let mut map_grads: Vec<Buffer> = maps.iter().map(|map| buffer::take(map.len())).collect();
        let mut residual = wanted.residual.then(|| buffer::take(grad.len()));
        let mut slices: Vec<&mut [f32]> = map_grads.iter_mut().map(|map| &mut **map).collect();
        norm::backward_input(maps, &found, grad, gate, dims, &mut slices, residual.as_deref_mut());
        let norms = found
            .gamma
            .chunks_exact(channels)
            .map(|gamma| [gamma.to_vec(), found.beta.clone()])
            .collect();
        ClosingGrad { norms, maps: map_grads, residual }
    }

    /// The factor by which the norm of a branch multiplies each channel.
    pub fn scale(&self, branch: usize) -> &[f32] {
        let channels = self.shift.len();
        &self.scale[branch * channels..][..channels]
    }
}
