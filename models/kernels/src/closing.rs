//! The closing norms of a block's branches and the sum of their outputs.
//!
//! All statistics of a map are taken plane by plane, in two passes over a plane that is in cache
//! by then, and combined in the order of the images (Chan et al., 1979): means far from zero cost
//! no accuracy.

use pulp::Arch;
use rayon::prelude::*;

use crate::{BatchStatistics, Norm};

/// Some channels of a map: of each image's `channels` planes those from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct MapView<'a> {
    pub data: &'a [f32],
    pub channels: usize,
    pub first: usize,
}

impl<'a> MapView<'a> {
    pub fn plane(&self, image: usize, channel: usize, positions: usize) -> &'a [f32] {
        &self.data[((image * self.channels) + self.first + channel) * positions..][..positions]
    }
}

/// Mean and biased variance of `outputs` channels over the batch, in `f64`.
pub(crate) fn statistics(
    view: MapView,
    [batch, outputs, positions]: [usize; 3],
) -> (Vec<f64>, Vec<f64>) {
    (0..outputs)
        .into_par_iter()
        .map(|channel| {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for image in 0..batch {
                let plane = view.plane(image, channel, positions);
                let added = positions as f64;
                let shift = (sum(plane) / added) as f32;
                let [rest, squares_about] = spread_about(plane, shift);
                let rest = rest / added;
                let plane_mean = f64::from(shift) + rest;
                let plane_squares = squares_about - added * rest * rest;
                let total = count + added;
                let delta = plane_mean - mean;
                squares += plane_squares + delta * delta * count * added / total;
                mean += delta * added / total;
                count = total;
            }
            (mean, squares / count)
        })
        .unzip()
}

/// The norms of all branches over their maps, as the forward pass has found them.
#[derive(Clone, Debug)]
pub(crate) struct Closing<const B: usize> {
    mean: [Vec<f64>; B],
    inv_std: [Vec<f64>; B],
    relu: bool,
}

/// Gradients of scale and shift of one norm.
pub(crate) type NormGrad = [Vec<f32>; 2];

impl<const B: usize> Closing<B> {
    /// `y = act(sum of the normalised maps + residual)`.
    pub fn forward(
        maps: [MapView; B],
        norms: [Norm; B],
        residual: Option<&[f32]>,
        relu: bool,
        dims: [usize; 3],
        y: &mut [f32],
    ) -> (Self, [BatchStatistics; B]) {
        let [_, outputs, positions] = dims;
        let found = maps.map(|map| statistics(map, dims));
        let inv_std: [Vec<f64>; B] = std::array::from_fn(|branch| {
            found[branch].1.iter().map(|var| 1.0 / (var + norms[branch].epsilon).sqrt()).collect()
        });
        let scale: [Vec<f64>; B] = std::array::from_fn(|branch| {
            let gamma = norms[branch].gamma.iter();
            gamma
                .zip(&inv_std[branch])
                .map(|(&gamma, inv_std)| f64::from(gamma) * inv_std)
                .collect()
        });
        let shift: Vec<f32> = (0..outputs)
            .map(|channel| {
                let branch = |b: usize| {
                    f64::from(norms[b].beta[channel]) - scale[b][channel] * found[b].0[channel]
                };
                (0..B).map(branch).sum::<f64>() as f32
            })
            .collect();
        let arch = Arch::new();
        y.par_chunks_exact_mut(positions).enumerate().for_each(|(index, y)| {
            let (image, channel) = (index / outputs, index % outputs);
            let residual = residual.map(|residual| &residual[index * positions..][..positions]);
            let planes = maps.map(|map| map.plane(image, channel, positions));
            let scale = scale.each_ref().map(|scale| scale[channel] as f32);
            arch.dispatch(
                #[inline(always)]
                || sum_planes(planes, scale, shift[channel], residual, relu, y),
            );
        });
        let statistics = std::array::from_fn(|branch| BatchStatistics {
            mean: found[branch].0.iter().map(|&v| v as f32).collect(),
            var: found[branch].1.iter().map(|&v| v as f32).collect(),
        });
        let mean = found.map(|(mean, _)| mean);
        (Self { mean, inv_std, relu }, statistics)
    }

    /// Gradients of scale and shift, and what makes the gradients of the maps.
    pub fn backward(
        &self,
        maps: [MapView; B],
        norms: [Norm; B],
        y: &[f32],
        grad: &[f32],
        [batch, outputs, positions]: [usize; 3],
    ) -> ([NormGrad; B], Coefficients<B>) {
        let mut norm_grads = [(); B].map(|()| [vec![0.0; outputs], vec![0.0; outputs]]);
        let mut coefficients = [(); B].map(|()| vec![[0.0; 3]; outputs]);
        let count = (batch * positions) as f64;
        let sums: Vec<(f64, [f64; B])> = (0..outputs)
            .into_par_iter()
            .map_init(
                || vec![0.0; positions],
                |behind, channel| {
                    let (mut total, mut products) = (0.0, [0.0; B]);
                    for image in 0..batch {
                        let range = (image * outputs + channel) * positions..;
                        let grad = &grad[range.clone()][..positions];
                        let y = self.relu.then(|| &y[range][..positions]);
                        Arch::new().dispatch(
                            #[inline(always)]
                            || masked(grad, y, behind),
                        );
                        total += sum(behind);
                        for branch in 0..B {
                            let plane = maps[branch].plane(image, channel, positions);
                            let mean = self.mean[branch][channel] as f32;
                            products[branch] += dot_about(behind, plane, mean);
                        }
                    }
                    (total, products)
                },
            )
            .collect();
        for (channel, (total, products)) in sums.into_iter().enumerate() {
            for branch in 0..B {
                let inv_std = self.inv_std[branch][channel];
                // The products are about the rounded mean.
                let mean = self.mean[branch][channel];
                let product = products[branch] - total * (mean - f64::from(mean as f32));
                let scale = f64::from(norms[branch].gamma[channel]) * inv_std;
                let slope = -scale * inv_std * inv_std * product / count;
                norm_grads[branch][0][channel] = (product * inv_std) as f32;
                norm_grads[branch][1][channel] = total as f32;
                coefficients[branch][channel] = [scale, slope, -scale * total / count];
            }
        }
        let coefficients = Coefficients { coefficients, mean: self.mean.clone(), relu: self.relu };
        (norm_grads, coefficients)
    }
}

/// `y = act(sum of scale * plane + shift + residual)`, in one pass over memory.
#[inline(always)]
fn sum_planes<const B: usize>(
    planes: [&[f32]; B],
    scale: [f32; B],
    shift: f32,
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    match residual {
        Some(residual) => {
            for (y, &value) in y.iter_mut().zip(residual) {
                *y = shift + value;
            }
        }
        None => y.fill(shift),
    }
    for (plane, scale) in planes.into_iter().zip(scale) {
        for (y, &value) in y.iter_mut().zip(plane) {
            *y += scale * value;
        }
    }
    if relu {
        // Not `max`, which makes a number of what is none.
        for y in y {
            *y = if *y < 0.0 { 0.0 } else { *y };
        }
    }
}

/// What makes the gradient of a map from the gradient behind the activation.
pub(crate) struct Coefficients<const B: usize> {
    coefficients: [Vec<[f64; 3]>; B],
    mean: [Vec<f64>; B],
    relu: bool,
}

impl<const B: usize> Coefficients<B> {
    /// The gradient behind the activation: that of the residual.
    pub fn behind(&self, y: &[f32], grad: &[f32], behind: &mut [f32]) {
        Arch::new().dispatch(
            #[inline(always)]
            || masked(grad, self.relu.then_some(y), behind),
        );
    }

    /// Fills a plane with the gradient of a branch's map.
    pub fn fill(
        &self,
        branch: usize,
        channel: usize,
        behind: &[f32],
        map: &[f32],
        plane: &mut [f32],
    ) {
        let [scale, slope, constant] = self.coefficients[branch][channel].map(|v| v as f32);
        let mean = self.mean[branch][channel] as f32;
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((out, &grad), &value) in plane.iter_mut().zip(behind).zip(map) {
                    *out = scale * grad + slope * (value - mean) + constant;
                }
            },
        );
    }
}

impl Coefficients<1> {
    /// The gradient of the only branch's map, and that of the residual if it is wanted.
    pub fn gradient(
        &self,
        map: &[f32],
        y: &[f32],
        grad: &[f32],
        [outputs, positions]: [usize; 2],
        wants_residual: bool,
    ) -> (Vec<f32>, Option<Vec<f32>>) {
        let mut gradient = vec![0.0; map.len()];
        let mut residual = vec![0.0; if wants_residual { y.len() } else { 0 }];
        let mut residual_planes: Vec<&mut [f32]> = residual.chunks_exact_mut(positions).collect();
        residual_planes.resize_with(y.len() / positions, Default::default);
        gradient.par_chunks_exact_mut(positions).zip(residual_planes).enumerate().for_each_init(
            || vec![0.0; positions],
            |behind, (index, (gradient, residual))| {
                let plane = index * positions..(index + 1) * positions;
                let behind = if wants_residual { residual } else { &mut behind[..] };
                self.behind(&y[plane.clone()], &grad[plane.clone()], behind);
                self.fill(0, index % outputs, behind, &map[plane], gradient);
            },
        );
        (gradient, wants_residual.then_some(residual))
    }
}

/// `grad` where the output is positive, or everywhere.
#[inline(always)]
fn masked(grad: &[f32], y: Option<&[f32]>, behind: &mut [f32]) {
    match y {
        Some(y) => {
            for ((behind, &grad), &y) in behind.iter_mut().zip(grad).zip(y) {
                *behind = if y > 0.0 { grad } else { 0.0 };
            }
        }
        None => behind.copy_from_slice(grad),
    }
}

/// Independent partial sums, for vector registers; flushed to `f64` after `BLOCK` values.
const LANES: usize = 32;
const BLOCK: usize = 1024;

#[inline(always)]
fn reduce(values: &[f32], others: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let mut total = 0.0;
    for (values, others) in values.chunks(BLOCK).zip(others.chunks(BLOCK)) {
        let mut lanes = [0.0f32; LANES];
        let (values, values_rest) = values.as_chunks::<LANES>();
        let (others, others_rest) = others.as_chunks::<LANES>();
        for (values, others) in values.iter().zip(others) {
            for lane in 0..LANES {
                lanes[lane] += term(values[lane], others[lane]);
            }
        }
        for (lane, (&value, &other)) in lanes.iter_mut().zip(values_rest.iter().zip(others_rest)) {
            *lane += term(value, other);
        }
        total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
    }
    total
}

pub(crate) fn sum(values: &[f32]) -> f64 {
    Arch::new().dispatch(
        #[inline(always)]
        || reduce(values, values, |value, _| value),
    )
}

/// Sum of `value - mean` and of its square.
fn spread_about(values: &[f32], mean: f32) -> [f64; 2] {
    let arch = Arch::new();
    let rest = arch.dispatch(
        #[inline(always)]
        || reduce(values, values, |value, _| value - mean),
    );
    let squares = arch.dispatch(
        #[inline(always)]
        || reduce(values, values, |value, _| (value - mean) * (value - mean)),
    );
    [rest, squares]
}

/// Sum of `a (b - mean)`.
fn dot_about(a: &[f32], b: &[f32], mean: f32) -> f64 {
    Arch::new().dispatch(
        #[inline(always)]
        || reduce(a, b, |a, b| a * (b - mean)),
    )
}
