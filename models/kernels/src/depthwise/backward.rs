//! The backward pass of a block: sums of the output gradient, algebra, and the gradients of the
//! branches' outputs gathered at the input.

use std::ops::Range;

use pulp::Arch;

use super::Saved;
use super::algebra::{GradSums, Moments};
use super::channels::{map_channels, plane_and_next, with_scratch};
use super::copy::{crop, pad, pitch, unpitch};
use super::form::{Branches, ChannelGrads, Form};
use super::grid::{Grid, SLACK};
use super::rows::ErrorRow;
use super::sweep::{Base, Sums, add_dots, class_sums, convolve};
use crate::activation::Activation;
use crate::branches::{BranchGrad, BranchMap, BranchSum, SumGrad, Wanted};
use crate::buffer::{self, Buffer};
use crate::dense::PaddedNormGrad;
use crate::instruction_set;
use crate::shape::Geometry;
use crate::shared::Shared;

/// Branches whose gradients are swept at once.
const SWEPT: usize = 3;

/// The backward pass of [`forward`](super::forward()). The border value of an opening norm is a
/// constant, as in the definition.
///
/// Cost: input, output gradient and output are read twice. Per output `k*k` multiply-adds for
/// the sums and `k*k + 1` for each branch, per input `k*k` for each branch and square of the
/// stride. All branches with constant statistics count as one.
pub(crate) fn backward(
    block: &BranchSum<'_>,
    x: &[f32],
    y: &[f32],
    saved: &Saved,
    dy: &[f32],
    wanted: Wanted,
) -> SumGrad {
    let arch = instruction_set::arch();
    let form = &Form::new(block, &Geometry::new(&block.shape, x.len(), dy.len()));
    let (grid, channels, batch) = (&form.grid, form.channels, form.batch);
    let (taps, classes) = (grid.taps(), grid.classes());
    assert_eq!(saved.records.len(), channels * form.record(), "saved state");
    let mut dx = buffer::take(x.len());
    let mut d_residual = wanted.residual.then(|| buffer::take(dy.len()));
    let gate = match (saved.activation, &saved.before) {
        (Activation::Identity, _) => None,
        (activation, Some(before)) => Some((activation, &**before)),
        (activation, None) => Some((activation, y)),
    };
    let planes = Shared::new(&mut dx);
    let residual_planes = d_residual.as_deref_mut().map(Shared::new);
    let sweeps = &InputSweeps::new(form);

    let work = |range: Range<usize>| {
        let count = form.rows();
        let output = grid.output_buffer();
        let lengths = [
            grid.lead + grid.strips_buffer() + output,
            count * sweeps.pitch,
            count * output,
            grid.lead + grid.strips_len() + SLACK,
            output,
            output,
        ];
        with_scratch(lengths, |[source, errors, constants, out, summed, row]| {
            let (source, out) = (&mut source[grid.lead..], &mut out[grid.lead..]);
            // The input's strips, and behind them the gradient of the output as one more tap.
            let mut offsets = grid.offsets.clone();
            offsets.push(grid.strips_buffer());

            let mut dots = Sums::new(taps);
            let mut class = vec![0.0; classes];
            let mut branches = Branches::new(form);
            let mut channel_grads = ChannelGrads::new(form);
            let mut rows = vec![ErrorRow::new(grid); count];
            let mut weights = vec![0.0_f32; count * (taps + 1)];
            let mut input_weights = Vec::new();
            let mut grads = empty(form);
            for channel in range {
                let record = &saved.records[channel * form.record()..][..form.record()];
                let moments = form.moments(record);
                let input = |image| plane_and_next(x, image, channel, channels, grid.input());
                let output =
                    |data, image| plane_and_next(data, image, channel, channels, grid.output());
                let shift = moments.shift as f32;

                // Sums of the output gradient.
                summed.fill(0.0);
                dots.reset();
                for image in 0..batch {
                    let (strips, gradient) = source.split_at_mut(grid.strips_buffer());
                    let gate = gate.map(|(kind, values)| (kind, output(values, image)));
                    pad(arch, grid, input(image), shift, strips, None);
                    pitch(arch, grid, output(dy, image), gate, gradient, Some(&mut *summed));
                    if let Some(planes) = residual_planes {
                        let plane = image * channels + channel;
                        // SAFETY: this task alone has the channel, one image at a time.
                        let target = unsafe { planes.plane_mut(plane, grid.output()) };
                        unpitch(arch, grid, gradient, Activation::Identity, target);
                    }
                    add_dots(arch, strips, &grid.offsets, gradient, grid.positions(), &mut dots);
                }
                dots.flush();
                class_sums(arch, grid, summed, 1, row, &mut class);
                let sums = GradSums { class: &class, tap: &dots.total };

                // Algebra.
                branches.open(form, channel, &moments);
                branches.close(form, channel, &moments, form.borders(record));
                branches.backward(form, channel, &moments, &sums, &mut channel_grads);
                let borders = form.borders(record);
                let [mean, variance] =
                    push(&mut grads, form, channel, &branches, &channel_grads, &moments, borders);

                // Gradients of the branches' outputs, and from these that of the input.
                branches.error_rows(form, &channel_grads, &mut rows);
                for (i, row) in rows.iter().enumerate() {
                    let weights = &mut weights[i * (taps + 1)..][..taps + 1];
                    weights.iter_mut().zip(&row.window).for_each(|(w, k)| *w = *k as f32);
                    weights[taps] = row.scale as f32;
                    let strip = &mut constants[i * grid.output_buffer()..][..grid.output_buffer()];
                    grid.fill(|class| row.constant[class] as f32, strip);
                }
                sweeps.weights(&rows, &mut input_weights);
                let slope = 2.0 * variance / form.inputs();
                let constant = mean / form.inputs() + slope * (moments.shift - moments.mean);
                for image in (0..batch).rev() {
                    // SAFETY: this task alone has the channel, one image at a time.
                    let target =
                        unsafe { planes.plane_mut(image * channels + channel, grid.input()) };
                    if image + 1 < batch {
                        let (strips, gradient) = source.split_at_mut(grid.strips_buffer());
                        let [dy, _] = output(dy, image);
                        let gate =
                            gate.map(|(kind, values)| (kind, [output(values, image)[0], &[]]));
                        pad(arch, grid, [input(image)[0], target], shift, strips, None);
                        pitch(arch, grid, [dy, &[]], gate, gradient, None);
                    }
                    let errors_of = ErrorSweep {
                        arch,
                        grid,
                        source,
                        offsets: &offsets,
                        weights: &weights,
                        constants,
                    };
                    for first in (0..count).step_by(SWEPT) {
                        let errors = &mut errors[first * sweeps.pitch..];
                        match count - first {
                            1 => errors_of.run::<1>(first, errors, sweeps.pitch),
                            2 => errors_of.run::<2>(first, errors, sweeps.pitch),
                            _ => errors_of.run::<SWEPT>(first, errors, sweeps.pitch),
                        }
                    }
                    let mut weights = &input_weights[..];
                    for (phase, offsets) in sweeps.phases.iter().enumerate() {
                        let start = phase * grid.phase_len();
                        let base = Base {
                            strip: &source[start + grid.used_positions()[0]..],
                            scale: slope as f32,
                            constant: constant as f32,
                        };
                        let (own, rest) = weights.split_at(offsets.len());
                        let [first, count] = grid.used_positions();
                        let target = &mut out[start + first..];
                        convolve(arch, &errors[first..], offsets, [own], [base], [target], count);
                        weights = rest;
                    }
                    crop(arch, grid, out, target);
                }
            }
            grads
        })
    };

    let mut grads = empty(form);
    for part in map_channels(channels, work) {
        append(&mut grads, part);
    }
    grads.input = wanted.input.then(|| dx.into_vec());
    SumGrad { residual: d_residual.map(Buffer::into_vec), ..grads }
}

/// How the gradients of the branches' outputs follow from the input and the output gradient.
struct ErrorSweep<'a> {
    arch: Arch,
    grid: &'a Grid,
    source: &'a [f32],
    offsets: &'a [usize],
    /// Of each branch.
    weights: &'a [f32],
    /// A strip for each branch.
    constants: &'a [f32],
}

impl ErrorSweep<'_> {
    /// Fills the strips of `N` branches from the `first` on, `pitch` apart.
    fn run<const N: usize>(&self, first: usize, errors: &mut [f32], pitch: usize) {
        let (grid, taps) = (self.grid, self.offsets.len());
        let weights = std::array::from_fn(|i| &self.weights[(first + i) * taps..][..taps]);
        let bases = std::array::from_fn(|i| Base {
            strip: &self.constants[(first + i) * grid.output_buffer()..],
            scale: 1.0,
            constant: 0.0,
        });
        let mut rest = errors.chunks_exact_mut(pitch);
        let outs: [&mut [f32]; N] = std::array::from_fn(|_| {
            &mut rest.next().expect("a strip for each branch")[grid.margin()..]
        });
        convolve(self.arch, self.source, self.offsets, weights, bases, outs, grid.positions());
        for error in errors.chunks_exact_mut(pitch).take(N) {
            grid.clear_gaps(&mut error[grid.margin()..]);
        }
    }
}

/// How the gradients of the branches' outputs are gathered at the input, phase by phase.
struct InputSweeps {
    /// Length of the strip of one branch.
    pitch: usize,
    /// Of each phase: where the taps that write to it lie in the strips of all branches.
    phases: Vec<Vec<usize>>,
    /// The taps in the same order.
    taps: Vec<Vec<usize>>,
}

impl InputSweeps {
    fn new(form: &Form<'_>) -> Self {
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
    fn weights(&self, rows: &[ErrorRow], weights: &mut Vec<f32>) {
        weights.clear();
        for taps in &self.taps {
            for row in rows {
                weights.extend(taps.iter().map(|&tap| row.kernel[tap] as f32));
            }
        }
    }
}

/// Gradients of the parameters of no channel.
fn empty(form: &Form<'_>) -> SumGrad {
    let pair = || [Vec::new(), Vec::new()];
    let branches = form.block.branches.iter().map(|branch| BranchGrad {
        weight: Vec::new(),
        opening: branch.opening().map(|_| PaddedNormGrad {
            weight: Vec::new(),
            gamma: Vec::new(),
            beta: Vec::new(),
        }),
        norm: branch.norm.map(|_| pair()),
    });
    let outer = form.block.outer.map(|_| pair());
    SumGrad { branches: branches.collect(), outer, ..SumGrad::default() }
}

/// Adds the gradients of the next channel and returns those of its input's mean and variance.
fn push(
    grads: &mut SumGrad,
    form: &Form<'_>,
    channel: usize,
    branches: &Branches,
    found: &ChannelGrads,
    moments: &Moments<'_>,
    mut borders: &[f64],
) -> [f64; 2] {
    let taps = form.grid.taps();
    let mut input = [0.0; 2];
    let all = grads.branches.iter_mut().zip(form.block.branches);
    for ((((to, branch), closed), grad), &width) in
        all.zip(&branches.all).zip(&found.all).zip(&form.widths)
    {
        let own;
        (own, borders) = borders.split_at(width);
        if let Some([gamma, beta]) = &mut to.norm {
            gamma.push(grad.gamma as f32);
            beta.push(grad.beta as f32);
        }
        match &branch.map {
            BranchMap::Conv { kernel, .. } => {
                to.weight.extend(form.places(*kernel).map(|tap| grad.kernel[tap] as f32));
            }
            BranchMap::PaddedConv { weight, .. } => {
                // The response to the border values vanishes behind the statistics of the batch.
                let constant = match closed.affine.is_fixed() {
                    true => grad.scale * grad.beta,
                    false => 0.0,
                };
                let weights = weight[channel * width * taps..].chunks_exact(taps);
                for ((inner, &border), weight) in closed.inner.iter().zip(own).zip(weights) {
                    let (mut scale, mut shift) = (0.0, 0.0);
                    for ((&w, &kernel), &inside) in
                        weight.iter().zip(&grad.kernel).zip(&grad.inside)
                    {
                        scale += f64::from(w) * kernel;
                        shift += f64::from(w) * inside;
                        let through = inner.scale * kernel + (inner.shift - border) * inside;
                        to.weight.push((through + border * constant) as f32);
                    }
                    let [weight, gamma, beta, mean, variance] =
                        inner.backward(moments, scale, shift);
                    if let Some(opening) = &mut to.opening {
                        opening.weight.push(weight as f32);
                        opening.gamma.push(gamma as f32);
                        opening.beta.push(beta as f32);
                    }
                    input[0] += mean;
                    input[1] += variance;
                }
            }
            _ => {}
        }
    }
    if let (Some([gamma, beta]), Some(grad)) = (&mut grads.outer, &found.outer) {
        gamma.push(grad.gamma as f32);
        beta.push(grad.beta as f32);
    }
    input
}

/// Adds the gradients of further channels.
fn append(grads: &mut SumGrad, other: SumGrad) {
    fn pair(to: &mut Option<[Vec<f32>; 2]>, from: Option<[Vec<f32>; 2]>) {
        let values = to.iter_mut().flatten().zip(from.into_iter().flatten());
        values.for_each(|(to, from)| to.extend(from));
    }
    for (to, from) in grads.branches.iter_mut().zip(other.branches) {
        to.weight.extend(from.weight);
        if let (Some(to), Some(from)) = (&mut to.opening, from.opening) {
            to.weight.extend(from.weight);
            to.gamma.extend(from.gamma);
            to.beta.extend(from.beta);
        }
        pair(&mut to.norm, from.norm);
    }
    pair(&mut grads.outer, other.outer);
}
