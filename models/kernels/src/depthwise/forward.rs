//! The forward pass of a block: moments, algebra, one convolution.

use std::ops::Range;

use pulp::Arch;

use super::Saved;
use super::channels::{map_channels, with_scratch};
use super::convolve::{Base, Convolve};
use super::copy::{pad, sum_len, unpitch};
use super::form::{Branches, Form};
use super::group::Group;
use super::planes::Planes;
use super::second::SecondSums;
use super::sums::{class_sums, total};
use crate::activation::Activation;
use crate::branch_sum::{BranchSum, SumStatistics};
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{BatchStatistics, activation, buffer, instruction_set, norm, shift};

/// The forward pass of a sum of depthwise branches that [`serves`](super::serves) allows.
///
/// Cost: the input is read twice, the second time from the cache unless the channel is larger.
/// Per output `k*k` multiply-adds for the convolution, and for the moments, where a norm needs
/// them, 13 with a 3x3 kernel of stride 1 and padding 1, else `k*k (k*k + 1) / 2`. Each channel is
/// the work of one task.
///
/// Sums are in `f32` over at most 4096 positions, of values less a shift near the channel's mean,
/// so that a mean far from zero costs no accuracy; everything else is in `f64`. If the shift,
/// estimated from a few values, turns out to be far from the mean, the moments of the channel are
/// computed again. A branch whose variance is a fraction `f` of the largest that its weights allow
/// loses `log10(1 / f)` of the seven digits.
pub(crate) fn forward(
    block: &BranchSum<'_>,
    x: &[f32],
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) -> (SumStatistics, Saved) {
    let _span = profile::work(Work::Depthwise);
    let form = &Form::new(block, &Geometry::new(&block.shape, x.len(), y.len()));
    let mut before = activation.needs_input().then(|| buffer::take(y.len()));
    let pass = Pass {
        arch: instruction_set::arch(),
        form,
        x,
        residual,
        activation,
        y: Shared::new(y),
        group: Group::new(&form.grid, form.bundles(), 0),
        before: before.as_deref_mut().map(Shared::new),
    };
    let mut stats = SumStatistics::of(block);
    let mut records = Vec::with_capacity(form.channels * form.record());
    for (mut part, record) in map_channels(form.channels, |range| pass.channels(range)) {
        stats.all_mut().zip(part.all_mut()).for_each(|(to, from)| to.append(from));
        records.extend(record);
    }
    (stats, Saved { records, activation, before })
}

/// What all channels share.
struct Pass<'a> {
    arch: Arch,
    form: &'a Form<'a>,
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    activation: Activation,
    y: Shared<'a>,
    group: Group,
    before: Option<Shared<'a>>,
}

/// Strips that a task reuses from channel to channel.
struct Scratch<'a> {
    /// Of a group of bundles.
    strips: &'a mut [f32],
    /// The sum of the planes of all images.
    summed: &'a mut [f32],
    /// The same in strips.
    summed_strips: &'a mut [f32],
    /// 1 at the outputs, 0 between their rows.
    mask: &'a mut [f32],
    bias: &'a mut [f32],
    out: &'a mut [f32],
    row: &'a mut [f32],
}

impl Pass<'_> {
    /// The statistics and the records of some channels.
    fn channels(&self, range: Range<usize>) -> (SumStatistics, Vec<f64>) {
        let (form, grid, single) = (self.form, &self.form.grid, &self.form.single);
        let (output, summed_strips) = (grid.output_buffer(), single.lead + single.strips_len());
        let (buffer, summed) = (self.group.buffer(), sum_len(grid.input()));
        let row = single.output_buffer();
        let lengths = [buffer, summed, summed_strips, output, output, output, row];
        with_scratch(lengths, |[strips, summed, summed_strips, mask, bias, out, row]| {
            grid.fill(|_| 1.0, mask);
            let summed_strips = &mut summed_strips[single.lead..];
            let scratch = &mut Scratch { strips, summed, summed_strips, mask, bias, out, row };
            let mut pairs = SecondSums::new(grid, form.bundles());
            let mut branches = Branches::new(form);
            let (mut kernel, mut bias) = (vec![0.0; grid.taps()], vec![0.0; grid.classes()]);
            let mut weights = vec![0.0_f32; grid.taps()];
            let mut records = vec![0.0; range.len() * form.record()];
            let mut stats = SumStatistics::of(form.block);
            for (channel, record) in range.zip(records.chunks_exact_mut(form.record())) {
                self.measure(channel, &mut pairs, scratch, record);
                branches.open(form, channel, &form.moments(record));
                branches.set_borders(form, channel, form.borders_mut(record));
                branches.close(form, channel, &form.moments(record), form.borders(record));
                branches.merge(form, channel, &mut kernel, &mut bias);
                stats.push(&branches);
                weights.iter_mut().zip(&kernel).for_each(|(to, &from)| *to = from as f32);
                grid.fill(|class| bias[class] as f32, scratch.bias);
                self.convolve(channel, record[0] as f32, &weights, scratch);
            }
            (stats, records)
        })
    }

    /// Chooses the shift of a channel and, where a norm needs them, finds its moments. The strips
    /// then hold the last group of images.
    fn measure(
        &self,
        channel: usize,
        pairs: &mut SecondSums,
        scratch: &mut Scratch<'_>,
        record: &mut [f64],
    ) {
        let (arch, form, grid) = (self.arch, self.form, &self.form.grid);
        let input = |bundle| form.input(self.x, bundle, channel);
        let Scratch { strips, summed, summed_strips, mask, row, .. } = scratch;
        let dims = [form.batch, grid.input()];
        let mut shift =
            shift::guess(dims, |image| input(image / grid.images).plane(image % grid.images));
        if !form.needs_moments {
            record[0] = shift.into();
            return;
        }
        let (first, second) = form.moments_mut(record);
        let mut about = |shift: f32| {
            summed.fill(0.0);
            pairs.reset();
            for bundles in self.group.ranges() {
                for bundle in bundles.clone() {
                    let strips = self.group.of(strips, bundle);
                    pad(arch, grid, input(bundle), shift, strips, Some(&mut *summed));
                }
                for bundle in bundles {
                    pairs.add(arch, grid, bundle, self.group.of(strips, bundle), mask);
                }
            }
            let squares = pairs.finish(arch, grid, second) / form.inputs();
            let mean = total(&summed[..grid.input()]) / form.inputs();
            (mean, norm::variance(squares - mean * mean))
        };
        let (mut mean, mut variance) = about(shift);
        if shift::is_far(mean, variance) {
            shift = (f64::from(shift) + mean) as f32;
            (mean, variance) = about(shift);
        }
        let single = &form.single;
        let summed = Planes::one(&summed[..single.input()]);
        pad(arch, single, summed, 0.0, summed_strips, None);
        let (width, stride) = (single.cols.kernel, single.cols.stride);
        for y in 0..single.rows.kernel {
            for x in 0..width.min(stride) {
                let (tap, count) = (y * width + x, (width - x).div_ceil(stride));
                let sums = &mut first[tap * single.classes()..];
                let strip = (&summed_strips[single.offsets[tap]..], single.pitch());
                class_sums(arch, single, strip, count, row, sums);
            }
        }
        first.iter_mut().for_each(|sum| *sum /= form.outputs());
        second.iter_mut().for_each(|sum| *sum /= form.outputs());
        record[..3].copy_from_slice(&[shift.into(), f64::from(shift) + mean, variance]);
    }

    /// Writes the outputs of a channel.
    fn convolve(&self, channel: usize, shift: f32, weights: &[f32], scratch: &mut Scratch<'_>) {
        let (arch, form, grid) = (self.arch, self.form, &self.form.grid);
        let Scratch { strips, bias, out, .. } = scratch;
        // Backwards: the strips hold the last group, and the cache the last ones.
        for bundles in self.group.ranges().rev() {
            // Without moments the strips hold no bundle yet.
            if bundles.end < form.bundles() || !form.needs_moments {
                for bundle in bundles.clone().rev() {
                    let strips = self.group.of(strips, bundle);
                    let input = form.input(self.x, bundle, channel);
                    // SAFETY: this task alone has the channel, and writes it later.
                    let mut targets = unsafe { form.output_targets(self.y, bundle, channel) };
                    pad(arch, grid, input.before(&mut targets), shift, strips, None);
                }
            }
            for bundle in bundles.rev() {
                Convolve {
                    source: self.group.of(strips, bundle),
                    offsets: &grid.offsets,
                    weights: [weights],
                    bases: [Base { strip: bias, scale: 1.0, constant: 0.0 }],
                    outs: [&mut **out],
                    count: grid.sweep(),
                }
                .run(arch);
                self.write(bundle, channel, out);
            }
        }
    }

    /// Writes the outputs of a channel in a bundle from their strip.
    fn write(&self, bundle: usize, channel: usize, out: &[f32]) {
        let (arch, form, grid) = (self.arch, self.form, &self.form.grid);
        // SAFETY: this task alone has the channel, one bundle at a time.
        let mut targets = unsafe { form.output_targets(self.y, bundle, channel) };
        if self.residual.is_none() && self.before.is_none() {
            return unpitch(arch, grid, out, self.activation, &mut targets);
        }
        unpitch(arch, grid, out, Activation::Identity, &mut targets);
        let residual = self.residual.map(|residual| form.output(residual, bundle, channel));
        // SAFETY: as above.
        let mut before =
            self.before.map(|map| unsafe { form.output_targets(map, bundle, channel) });
        for image in 0..targets.count() {
            let target = targets.plane_mut(image);
            if let Some(residual) = residual {
                let residual = residual.plane(image);
                target.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
            }
            if let Some(before) = &mut before {
                before.plane_mut(image).copy_from_slice(target);
            }
            activation::forward_plane(self.activation, target);
        }
    }
}

impl BatchStatistics {
    fn push(&mut self, [mean, variance]: [f64; 2]) {
        self.mean.push(mean as f32);
        self.var.push(variance as f32);
    }

    fn append(&mut self, other: &mut Self) {
        self.mean.append(&mut other.mean);
        self.var.append(&mut other.var);
    }
}

impl SumStatistics {
    /// Adds those of the next channel.
    fn push(&mut self, branches: &Branches) {
        for (to, branch) in self.branches.iter_mut().zip(&branches.all) {
            if let Some(opening) = &mut to.opening {
                branch.inner.iter().for_each(|inner| opening.push([inner.mean, inner.variance]));
            }
            if let Some(closing) = &mut to.closing {
                closing.push(branch.statistics());
            }
        }
        if let (Some(outer), Some(found)) = (&mut self.outer, branches.outer_statistics()) {
            outer.push(found);
        }
    }
}
