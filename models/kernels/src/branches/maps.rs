//! A sum of branches, computed from the maps that its norms read: one convolution with its
//! statistics for each kernel size, one pass for the sum of all norms, and one pass for the
//! gradients of all maps.

use super::opened::Opened;
use super::source::{InputGrad, MapGrads};
use super::{BranchGrad, BranchMap, BranchSum, SumGrad, SumStatistics, Wanted};
use crate::activation::Activation;
use crate::arithmetic::to_f64;
use crate::buffer::{self, Buffer};
use crate::closing::{Closing, ClosingGrad, rounded};
use crate::members::Batch;
use crate::norm::{self, Statistics};
use crate::{FixedStatistics, Norm};

/// What the backward pass needs.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    sources: Vec<Source>,
    closing: Closing,
    /// The sum and its norm.
    outer: Option<(Buffer, Closing)>,
}

/// A map that norms read, with the branches it holds.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// One, or several whose convolutions have the same geometry.
    pub branches: Vec<usize>,
    /// `None` if it is the input itself.
    pub map: Option<Buffer>,
    pub opened: Option<Opened>,
}

/// The parameters of the identity norm, `[channels]` each.
struct Identity {
    ones: Vec<f32>,
    zeros: Vec<f32>,
}

impl Identity {
    fn new(channels: usize) -> Self {
        Self { ones: vec![1.0; channels], zeros: vec![0.0; channels] }
    }

    fn norm(&self) -> Norm<'_> {
        let fixed = Some(FixedStatistics { mean: &self.zeros, var: &self.ones });
        Norm { gamma: &self.ones, beta: &self.zeros, epsilon: 0.0, fixed }
    }
}

impl BranchSum<'_> {
    pub(super) fn forward_maps(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        activation: Activation,
        y: &mut [f32],
        whole: Batch<'_>,
    ) -> (SumStatistics, Maps) {
        let dims = self.shape.output_dims();
        let mut statistics = SumStatistics::of(self);
        let source = |branches| self.source(x, branches, &mut statistics, whole);
        let (sources, mut found): (Vec<_>, Vec<_>) = self.sources().into_iter().map(source).unzip();
        whole.extend(found.iter_mut().flatten());
        let mut used = Vec::new();
        for (source, found) in sources.iter().zip(&found) {
            for (place, &index) in source.branches.iter().enumerate() {
                let of_branch = self.statistics_of(index, place, source, found.as_ref());
                if let Some(closing) = &mut statistics.branches[index].closing {
                    *closing = rounded(&of_branch.mean, &of_branch.var);
                    let constant = source.opened.iter().flat_map(|opened| &opened.constant);
                    closing.mean.iter_mut().zip(constant).for_each(|(mean, c)| *mean += *c as f32);
                }
                used.push(of_branch);
            }
        }
        let identity = Identity::new(self.shape.out_channels);
        let norms = self.norms(&sources, &identity);
        let maps = maps(&sources, x);
        let Some(outer) = self.outer else {
            let closing = Closing::forward(&maps, &used, &norms, residual, activation, dims, y).0;
            return (statistics, Maps { sources, closing, outer: None });
        };
        let mut sum = buffer::take(y.len());
        let plain = Activation::Identity;
        let (closing, _) = Closing::forward(&maps, &used, &norms, None, plain, dims, &mut sum);
        let found = match &outer.fixed {
            Some(fixed) => constants(fixed),
            None => {
                let mut found = norm::statistics(&sum, dims);
                whole.extend([&mut found]);
                found
            }
        };
        if let Some(statistics) = &mut statistics.outer {
            *statistics = rounded(&found.mean, &found.var);
        }
        let (outer, _) =
            Closing::forward(&[&sum], &[found], &[outer], residual, activation, dims, y);
        (statistics, Maps { sources, closing, outer: Some((sum, outer)) })
    }

    pub(super) fn backward_maps(
        &self,
        x: &[f32],
        y: &[f32],
        saved: &Maps,
        grad: &[f32],
        wanted: Wanted,
        whole: Batch<'_>,
    ) -> SumGrad {
        let parameters = wanted.parameters;
        let identity = Identity::new(self.shape.out_channels);
        let norms = self.norms(&saved.sources, &identity);
        let maps = maps(&saved.sources, x);
        let closing = &saved.closing;
        let mut outer_grad = None;
        let residual;
        let ClosingGrad { norms, maps, .. } = match (&saved.outer, self.outer) {
            (Some((sum, outer)), Some(norm)) => {
                let mut of_sum = outer.backward(&[sum], &[norm], y, grad, wanted, whole);
                outer_grad = of_sum.norms.pop();
                residual = of_sum.residual;
                let of_sum = of_sum.maps.remove(0);
                let wanted = Wanted { residual: false, ..wanted };
                closing.backward(&maps, &norms, &[], &of_sum, wanted, whole)
            }
            _ => {
                let mut found = closing.backward(&maps, &norms, y, grad, wanted, whole);
                residual = found.residual.take();
                found
            }
        };

        let mut grads = MapGrads {
            branches: vec![BranchGrad::default(); self.branches.len()],
            input: InputGrad::new(wanted.input, x.len()),
            parameters,
            whole,
        };
        let branches = &mut grads.branches;
        let order = saved.sources.iter().flat_map(|source| &source.branches);
        for (place, (&index, norm)) in order.zip(norms).enumerate() {
            // The gradient of the shift times the scale is the sum of the gradient of a map whose
            // norm uses constants.
            if let BranchMap::PaddedConv { opening, weight } = &self.branches[index].map
                && self.branches[index].is_fixed()
                && parameters
            {
                let sums = norm[1].iter().zip(closing.scale(place)).map(|(sum, scale)| sum * scale);
                let border = saved.sources.iter().find(|source| source.branches == [index]);
                if let Some(Opened { border, .. }) = border.and_then(|s| s.opened.as_ref()) {
                    let internal = opening.gamma.len() / self.shape.groups;
                    branches[index].weight = self.response_grad(
                        weight.len(),
                        internal,
                        border,
                        &sums.collect::<Vec<_>>(),
                    );
                }
            }
            branches[index].norm = self.branches[index].norm.map(|_| norm);
        }
        // An identity branch comes first: the gradient of its map becomes the gradient of the
        // input.
        let mut parts: Vec<_> = saved.sources.iter().zip(maps).collect();
        parts.sort_by_key(|(source, _)| source.map.is_some());
        for (source, map_grad) in parts {
            self.backward_source(x, source, map_grad, &mut grads);
        }
        SumGrad {
            input: grads.input.finish(),
            residual: residual.map(Buffer::into_vec),
            branches: grads.branches,
            outer: outer_grad,
        }
    }

    /// The branches of every map: branches whose convolutions have the same geometry share one.
    fn sources(&self) -> Vec<Vec<usize>> {
        let mut sources: Vec<Vec<usize>> = Vec::new();
        for (index, branch) in self.branches.iter().enumerate() {
            let same = |other: &Vec<usize>| match (&branch.map, &self.branches[other[0]].map) {
                (BranchMap::Conv { kernel: a, .. }, BranchMap::Conv { kernel: b, .. }) => {
                    a == b && self.shape.groups == 1
                }
                _ => false,
            };
            match sources.iter_mut().find(|other| same(other)) {
                Some(source) => source.push(index),
                None => sources.push(vec![index]),
            }
        }
        sources
    }

    /// The statistics that the norm of a branch uses for its part of the map.
    fn statistics_of(
        &self,
        index: usize,
        place: usize,
        source: &Source,
        found: Option<&Statistics>,
    ) -> Statistics {
        let channels = self.shape.out_channels;
        let mut constants = match (&self.branches[index].norm, found) {
            (Some(Norm { fixed: None, .. }), Some(found)) => {
                let part = place * channels..(place + 1) * channels;
                return Statistics {
                    mean: found.mean[part.clone()].to_vec(),
                    var: found.var[part].to_vec(),
                };
            }
            (Some(Norm { fixed: Some(fixed), .. }), _) => constants(fixed),
            _ => Statistics { mean: vec![0.0; channels], var: vec![1.0; channels] },
        };
        // The map does not contain the constant that the border value adds to every position.
        if let Some(opened) = &source.opened {
            constants.mean.iter_mut().zip(&opened.constant).for_each(|(mean, c)| *mean -= c);
        }
        constants
    }

    /// The norms in the order of the maps.
    fn norms<'n>(&'n self, sources: &[Source], identity: &'n Identity) -> Vec<Norm<'n>> {
        let norm = |&index: &usize| self.branches[index].norm.unwrap_or_else(|| identity.norm());
        sources.iter().flat_map(|source| &source.branches).map(norm).collect()
    }
}

/// All maps.
fn maps<'m>(sources: &'m [Source], x: &'m [f32]) -> Vec<&'m [f32]> {
    sources.iter().map(|source| source.map.as_deref().unwrap_or(x)).collect()
}

pub(super) fn constants(fixed: &FixedStatistics<'_>) -> Statistics {
    Statistics { mean: to_f64(fixed.mean), var: to_f64(fixed.var) }
}
