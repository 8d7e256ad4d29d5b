//! The backward pass of a block: sums over the output gradient, algebra per channel, and the
//! convolutions that carry the gradients of the branches' outputs to the input.

use std::ops::Range;

use pulp::Arch;

use super::Saved;
use super::algebra::GradSums;
use super::channels::{map_channels, with_scratch};
use super::convolve::{Base, Convolve};
use super::copy::{crop, pad, pitch, sum_len, unpitch};
use super::form::{Branches, ChannelGrads, Form};
use super::grid::SLACK;
use super::group::Group;
use super::planes::Planes;
use super::rows::{ErrorRow, InputSweeps};
use super::sums::{Sums, add_dots, class_sums};
use crate::activation::Activation;
use crate::branch_sum::{BranchGrad, BranchMap, BranchSum, SumGrad, Wanted};
use crate::buffer::{self, Buffer};
use crate::instruction_set;
use crate::padded_norm::PaddedNormGrad;
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::shared::Shared;

/// Branches whose gradients are computed in one sweep.
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
    let _span = profile::work(Work::Depthwise);
    let form = &Form::new(block, &Geometry::new(&block.shape, x.len(), dy.len()));
    assert_eq!(saved.records.len(), form.channels * form.record(), "saved state");
    let mut dx = buffer::take(x.len());
    let mut d_residual = wanted.residual.then(|| buffer::take(dy.len()));
    let gate = match (saved.activation, &saved.before) {
        (Activation::Identity, _) => None,
        (activation, Some(before)) => Some((activation, &**before)),
        (activation, None) => Some((activation, y)),
    };
    let pass = Pass {
        arch: instruction_set::arch(),
        form,
        x,
        dy,
        gate,
        records: &saved.records,
        group: Group::new(&form.grid, form.bundles(), form.grid.output_buffer()),
        dx: Shared::new(&mut dx),
        d_residual: d_residual.as_deref_mut().map(Shared::new),
        sweeps: InputSweeps::new(form),
        offsets: form.grid.offsets.iter().copied().chain([form.grid.strips_buffer()]).collect(),
    };
    let mut grads = empty(form);
    for part in map_channels(form.channels, |range| pass.channels(range)) {
        append(&mut grads, part);
    }
    grads.input = wanted.input.then(|| dx.into_vec());
    SumGrad { residual: d_residual.map(Buffer::into_vec), ..grads }
}

/// What all channels share.
struct Pass<'a> {
    arch: Arch,
    form: &'a Form<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    /// The activation and the values that its derivative needs.
    gate: Option<(Activation, &'a [f32])>,
    records: &'a [f64],
    group: Group,
    dx: Shared<'a>,
    d_residual: Option<Shared<'a>>,
    sweeps: InputSweeps,
    /// Where the taps lie in [`Scratch::source`], with the gradient of the output as one more.
    offsets: Vec<usize>,
}

/// Strips that a task reuses from channel to channel.
struct Scratch<'a> {
    /// Of a group of bundles, the strips of the input, and behind them that of the gradient of the output.
    source: &'a mut [f32],
    /// The gradients of the outputs of the branches.
    errors: &'a mut [f32],
    /// What is added to these, a strip for each branch.
    constants: &'a mut [f32],
    /// The gradient of the input.
    out: &'a mut [f32],
    /// The sum over all images of the planes of the gradient of the output.
    summed: &'a mut [f32],
    row: &'a mut [f32],
}

/// How the gradient of the input of a channel is computed: by the kernels of the branches from the
/// gradients of their outputs, plus `slope * (x - shift) + constant`.
struct InputGrad<'a> {
    /// Of each branch, the weights of the values under [`Pass::offsets`].
    error_weights: &'a [f32],
    /// In the order of [`InputSweeps`].
    input_weights: &'a [f32],
    shift: f32,
    slope: f32,
    constant: f32,
}

impl Pass<'_> {
    /// The gradients of the parameters of some channels.
    fn channels(&self, range: Range<usize>) -> SumGrad {
        let (form, grid, count) = (self.form, &self.form.grid, self.form.rows());
        let output = grid.output_buffer();
        let lengths = [
            self.group.buffer(),
            count * self.sweeps.pitch,
            count * output,
            grid.lead + grid.strips_len() + SLACK,
            sum_len(grid.output()),
            self.form.single.output_buffer(),
        ];
        with_scratch(lengths, |[source, errors, constants, out, summed, row]| {
            let out = &mut out[grid.lead..];
            let scratch = &mut Scratch { source, errors, constants, out, summed, row };
            let mut dots = Sums::new(grid.taps());
            let mut class = vec![0.0; grid.classes()];
            let mut branches = Branches::new(form);
            let mut channel_grads = ChannelGrads::new(form);
            let mut rows = vec![ErrorRow::new(grid); count];
            let (mut error_weights, mut input_weights) = (Vec::new(), Vec::new());
            let mut grads = empty(form);
            for channel in range {
                let record = &self.records[channel * form.record()..][..form.record()];
                let moments = form.moments(record);
                let shift = moments.shift as f32;
                self.sum_output_grad(channel, shift, scratch, &mut dots, &mut class);
                let sums = GradSums { class: &class, tap: &dots.total };

                branches.open(form, channel, &moments);
                branches.close(form, channel, &moments, form.borders(record));
                branches.backward(form, channel, &moments, &sums, &mut channel_grads);
                let [mean, variance] =
                    push(&mut grads, form, channel, &branches, &channel_grads, record);

                branches.error_rows(form, &channel_grads, &mut rows);
                error_weights.clear();
                for (row, strip) in rows.iter().zip(scratch.constants.chunks_exact_mut(output)) {
                    error_weights.extend(row.window.iter().chain([&row.scale]).map(|&w| w as f32));
                    grid.fill(|class| row.constant[class] as f32, strip);
                }
                self.sweeps.weights(&rows, &mut input_weights);
                let slope = 2.0 * variance / form.inputs();
                let constant = mean / form.inputs() + slope * (moments.shift - moments.mean);
                let (slope, constant) = (slope as f32, constant as f32);
                let (error_weights, input_weights) = (&error_weights[..], &input_weights[..]);
                let found = InputGrad { error_weights, input_weights, shift, slope, constant };
                self.write_input_grad(channel, &found, scratch);
            }
            grads
        })
    }

    /// Sums the gradient of the output of a channel, by itself in each class and times the value
    /// under each tap. The source then holds the last group.
    fn sum_output_grad(
        &self,
        channel: usize,
        shift: f32,
        Scratch { source, summed, row, .. }: &mut Scratch<'_>,
        dots: &mut Sums,
        class: &mut [f64],
    ) {
        let (arch, form, grid) = (self.arch, self.form, &self.form.grid);
        summed.fill(0.0);
        dots.reset();
        for bundles in self.group.ranges() {
            for bundle in bundles.clone() {
                let source = self.group.of(source, bundle);
                let (strips, gradient) = source.split_at_mut(grid.strips_buffer());
                let (dy, gate) = self.gradient(bundle, channel);
                pad(arch, grid, form.input(self.x, bundle, channel), shift, strips, None);
                pitch(arch, grid, dy, gate, gradient, Some(&mut *summed));
            }
            for bundle in bundles {
                let source = self.group.of(source, bundle);
                let (strips, gradient) = source.split_at(grid.strips_buffer());
                if let Some(map) = self.d_residual {
                    // SAFETY: this task alone has the channel, one bundle at a time.
                    let mut targets = unsafe { form.output_targets(map, bundle, channel) };
                    unpitch(arch, grid, gradient, Activation::Identity, &mut targets);
                }
                add_dots(arch, strips, &grid.offsets, gradient, grid.sweep(), dots);
            }
        }
        dots.flush();
        let single = &form.single;
        class_sums(arch, single, (summed, single.cols.output), 1, row, class);
    }

    /// The planes of the gradient of the output of a channel in a bundle, and what the activation's derivative
    /// needs.
    fn gradient(
        &self,
        bundle: usize,
        channel: usize,
    ) -> (Planes<'_>, Option<(Activation, Planes<'_>)>) {
        let planes = |map| self.form.output(map, bundle, channel);
        (planes(self.dy), self.gate.map(|(activation, values)| (activation, planes(values))))
    }

    /// Writes the gradient of the input of a channel.
    fn write_input_grad(&self, channel: usize, found: &InputGrad<'_>, scratch: &mut Scratch<'_>) {
        let (arch, form, grid) = (self.arch, self.form, &self.form.grid);
        // SAFETY: this task alone has the channel, one bundle at a time.
        let targets = |bundle| unsafe { form.input_targets(self.dx, bundle, channel) };
        // Backwards: the source holds the last group, and the cache the last ones.
        for bundles in self.group.ranges().rev() {
            if bundles.end < form.bundles() {
                for bundle in bundles.clone().rev() {
                    let source = self.group.of(scratch.source, bundle);
                    let (strips, gradient) = source.split_at_mut(grid.strips_buffer());
                    let (dy, gate) = self.gradient(bundle, channel);
                    let gate = gate.map(|(activation, values)| (activation, values.alone()));
                    let mut targets = targets(bundle);
                    let input = form.input(self.x, bundle, channel).before(&mut targets);
                    pad(arch, grid, input, found.shift, strips, None);
                    pitch(arch, grid, dy.alone(), gate, gradient, None);
                }
            }
            for bundle in bundles.rev() {
                for first in (0..form.rows()).step_by(SWEPT) {
                    match form.rows() - first {
                        1 => self.sweep_errors::<1>(bundle, first, found, scratch),
                        2 => self.sweep_errors::<2>(bundle, first, found, scratch),
                        _ => self.sweep_errors::<SWEPT>(bundle, first, found, scratch),
                    }
                }
                self.sweep_input(bundle, found, scratch);
                crop(arch, grid, scratch.out, &mut targets(bundle));
            }
        }
    }

    /// Computes the gradient of the input of a bundle in strips.
    fn sweep_input(
        &self,
        bundle: usize,
        found: &InputGrad<'_>,
        Scratch { source, errors, out, .. }: &mut Scratch<'_>,
    ) {
        let grid = &self.form.grid;
        let source = self.group.of(source, bundle);
        let [first, count] = grid.used();
        let mut weights = found.input_weights;
        for (phase, offsets) in self.sweeps.phases.iter().enumerate() {
            let start = phase * grid.phase_len() + first;
            let own;
            (own, weights) = weights.split_at(offsets.len());
            let strip = &source[start..];
            Convolve {
                source: &errors[first..],
                offsets,
                weights: [own],
                bases: [Base { strip, scale: found.slope, constant: found.constant }],
                outs: [&mut out[start..]],
                count,
            }
            .run(self.arch);
        }
    }

    /// Computes the gradients of the outputs of `N` branches, from `first` on.
    fn sweep_errors<const N: usize>(
        &self,
        bundle: usize,
        first: usize,
        found: &InputGrad<'_>,
        Scratch { source, errors, constants, .. }: &mut Scratch<'_>,
    ) {
        let (grid, pitch, taps) = (&self.form.grid, self.sweeps.pitch, self.offsets.len());
        let source = self.group.of(source, bundle);
        let errors = &mut errors[first * pitch..];
        let mut rest = errors.chunks_exact_mut(pitch);
        Convolve::<N> {
            source,
            offsets: &self.offsets,
            weights: std::array::from_fn(|i| &found.error_weights[(first + i) * taps..][..taps]),
            bases: std::array::from_fn(|i| Base {
                strip: &constants[(first + i) * grid.output_buffer()..],
                scale: 1.0,
                constant: 0.0,
            }),
            outs: std::array::from_fn(|_| {
                &mut rest.next().expect("a strip for each branch")[grid.margin()..]
            }),
            count: grid.sweep(),
        }
        .run(self.arch);
        for error in errors.chunks_exact_mut(pitch).take(N) {
            grid.clear_gaps(&mut error[grid.margin()..]);
        }
    }
}

/// Empty gradients, to which channels are appended.
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

/// Appends the gradients of the next channel and returns the gradients of the mean and the variance
/// of its input.
fn push(
    grads: &mut SumGrad,
    form: &Form<'_>,
    channel: usize,
    branches: &Branches,
    found: &ChannelGrads,
    record: &[f64],
) -> [f64; 2] {
    let (taps, moments) = (form.grid.taps(), form.moments(record));
    let mut borders = form.borders(record);
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
                // Batch statistics remove the constant response to the border values.
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
                        inner.backward(&moments, scale, shift);
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

/// Appends the gradients of further channels.
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
