//! The backward pass of a block: sums of the output gradient, algebra, and the gradients of the
//! branches' outputs gathered at the input.

use std::ops::Range;

use pulp::Arch;

use super::algebra::{AffineGrad, GradSums, Moments};
use super::channels::{map_channels, plane_and_next, with_scratch};
use super::copy::{crop, pad, pitch};
use super::dbb::{Dbb, DbbGrads, DbbSaved};
use super::form::{Branches, Form};
use super::grid::{Grid, SLACK};
use super::sweep::{Base, Sums, add_dots, class_sums, convolve};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{ConvShape, instruction_set};

pub(super) fn backward(
    shape: &ConvShape,
    x: &[f32],
    y: Option<&[f32]>,
    dy: &[f32],
    block: &Dbb<'_>,
    saved: &DbbSaved,
    dx: &mut [f32],
) -> DbbGrads {
    let arch = instruction_set::arch();
    let form = &Form::new(&Geometry::new(shape, x.len(), dy.len()), block);
    let (grid, channels, batch) = (&form.grid, form.channels, form.batch);
    let (taps, classes) = (grid.taps(), grid.classes());
    assert!(y.is_none_or(|y| y.len() == dy.len()), "output");
    assert_eq!(dx.len(), x.len(), "gradient of the input");
    assert_eq!(saved.records.len(), channels * form.record(), "saved state");
    let planes = Shared::new(dx);
    let sweeps = &InputSweeps::new(form);

    let work = |range: Range<usize>| {
        let count = form.branches();
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
            let mut affine_grads = vec![AffineGrad::new(grid); count];
            let mut weights = vec![0.0_f32; count * (taps + 1)];
            let mut input_weights = Vec::new();
            let mut grads = DbbGrads::default();
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
                    let (dy, y) = (output(dy, image), y.map(|y| output(y, image)));
                    pad(arch, grid, input(image), shift, strips, None);
                    pitch(arch, grid, dy, y, gradient, Some(&mut *summed));
                    add_dots(arch, strips, &grid.offsets, gradient, grid.positions(), &mut dots);
                }
                dots.flush();
                class_sums(arch, grid, summed, 1, row, &mut class);
                let sums = GradSums { class: &class, tap: &dots.total };

                // Algebra.
                branches.open(form, channel, &moments);
                branches.close(form, channel, &moments, form.borders(record));
                let closing = branches.affine().zip(form.closing_norms()).zip(&mut affine_grads);
                for ((affine, norm), grad) in closing {
                    let gamma = norm.gamma[channel].into();
                    affine.backward(grid, &moments, &sums, gamma, form.outputs(), grad);
                }
                let [mean, variance] = grads.push(
                    form,
                    channel,
                    &branches,
                    &affine_grads,
                    &moments,
                    form.borders(record),
                );

                // Gradients of the branches' outputs, and from these that of the input.
                for (i, (affine, grad)) in branches.affine().zip(&affine_grads).enumerate() {
                    let weights = &mut weights[i * (taps + 1)..][..taps + 1];
                    weights
                        .iter_mut()
                        .zip(&affine.kernel)
                        .for_each(|(w, k)| *w = (grad.slope * k) as f32);
                    weights[taps] = grad.scale as f32;
                    let strip = &mut constants[i * grid.output_buffer()..][..grid.output_buffer()];
                    grid.fill(|class| grad.constant[class] as f32, strip);
                }
                sweeps.weights(&branches, &mut input_weights);
                let slope = 2.0 * variance / form.inputs();
                let constant = mean / form.inputs() + slope * (moments.shift - moments.mean);
                for image in (0..batch).rev() {
                    // SAFETY: this task alone has the channel, one image at a time.
                    let target =
                        unsafe { planes.plane_mut(image * channels + channel, grid.input()) };
                    if image + 1 < batch {
                        let (strips, gradient) = source.split_at_mut(grid.strips_buffer());
                        let [dy, _] = output(dy, image);
                        let y = y.map(|y| [output(y, image)[0], &[]]);
                        pad(arch, grid, [input(image)[0], target], shift, strips, None);
                        pitch(arch, grid, [dy, &[]], y, gradient, None);
                    }
                    let errors_of = ErrorSweep {
                        arch,
                        grid,
                        source,
                        offsets: &offsets,
                        weights: &weights,
                        constants,
                    };
                    match count {
                        1 => errors_of.run::<1>(errors, sweeps.pitch),
                        2 => errors_of.run::<2>(errors, sweeps.pitch),
                        _ => errors_of.run::<3>(errors, sweeps.pitch),
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

    let mut grads = DbbGrads::default();
    for part in map_channels(channels, work) {
        grads.append(part);
    }
    grads
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
    /// Fills the strips of `N` branches, `pitch` apart.
    fn run<const N: usize>(&self, errors: &mut [f32], pitch: usize) {
        let grid = self.grid;
        let weights =
            std::array::from_fn(|i| &self.weights[i * self.offsets.len()..][..self.offsets.len()]);
        let bases = std::array::from_fn(|i| Base {
            strip: &self.constants[i * grid.output_buffer()..],
            scale: 1.0,
            constant: 0.0,
        });
        let mut rest = errors.chunks_exact_mut(pitch);
        let outs: [&mut [f32]; N] = std::array::from_fn(|_| {
            &mut rest.next().expect("a strip for each branch")[grid.margin()..]
        });
        convolve(self.arch, self.source, self.offsets, weights, bases, outs, grid.positions());
        for error in errors.chunks_exact_mut(pitch) {
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
            let branches = 0..form.branches();
            branches.flat_map(|branch| taps.iter().map(move |&tap| offset(branch, tap))).collect()
        });
        Self { pitch, phases: phases.collect(), taps }
    }

    /// The kernels of all branches in the order of the sweeps.
    fn weights(&self, branches: &Branches, weights: &mut Vec<f32>) {
        weights.clear();
        for taps in &self.taps {
            for affine in branches.affine() {
                weights.extend(taps.iter().map(|&tap| affine.kernel[tap] as f32));
            }
        }
    }
}

impl DbbGrads {
    /// Adds the gradients of a channel and returns those of its input's mean and variance.
    fn push(
        &mut self,
        form: &Form<'_>,
        channel: usize,
        branches: &Branches,
        closing: &[AffineGrad],
        moments: &Moments<'_>,
        borders: &[f64],
    ) -> [f64; 2] {
        let (block, taps) = (form.block, form.grid.taps());
        let mut closing = closing.iter();
        let mut input = [0.0; 2];
        if let Some(grad) = block.kxk.and_then(|_| closing.next()) {
            self.kxk_weight.extend(grad.kernel.iter().map(|&g| g as f32));
            self.kxk_gamma.push(grad.gamma as f32);
            self.kxk_beta.push(grad.beta as f32);
        }
        if let (Some(branch), Some(grad)) =
            (&block.pointwise_kxk, block.pointwise_kxk.and_then(|_| closing.next()))
        {
            self.gamma2.push(grad.gamma as f32);
            self.beta2.push(grad.beta as f32);
            let weights = branch.weight2[channel * form.width * taps..].chunks_exact(taps);
            for ((inner, &border), weight) in branches.inner.iter().zip(borders).zip(weights) {
                let (mut scale, mut shift) = (0.0, 0.0);
                for ((&w, &kernel), &inside) in weight.iter().zip(&grad.kernel).zip(&grad.inside) {
                    scale += f64::from(w) * kernel;
                    shift += f64::from(w) * inside;
                    let w = inner.scale * kernel + (inner.shift - border) * inside;
                    self.weight2.push(w as f32);
                }
                let [weight, gamma, beta, mean, variance] = inner.backward(moments, scale, shift);
                self.weight1.push(weight as f32);
                self.gamma1.push(gamma as f32);
                self.beta1.push(beta as f32);
                input[0] += mean;
                input[1] += variance;
            }
        }
        if let Some(grad) = block.average.and_then(|_| closing.next()) {
            self.average_gamma.push(grad.gamma as f32);
            self.average_beta.push(grad.beta as f32);
        }
        input
    }

    fn append(&mut self, other: Self) {
        self.kxk_weight.extend(other.kxk_weight);
        self.kxk_gamma.extend(other.kxk_gamma);
        self.kxk_beta.extend(other.kxk_beta);
        self.weight1.extend(other.weight1);
        self.gamma1.extend(other.gamma1);
        self.beta1.extend(other.beta1);
        self.weight2.extend(other.weight2);
        self.gamma2.extend(other.gamma2);
        self.beta2.extend(other.beta2);
        self.average_gamma.extend(other.average_gamma);
        self.average_beta.extend(other.average_beta);
    }
}
