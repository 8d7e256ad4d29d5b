//! The forward pass of a block: moments, algebra, one convolution.

use std::ops::Range;

use super::Saved;
use super::channels::{map_channels, plane_and_next, with_scratch};
use super::copy::{pad, unpitch};
use super::form::{Branches, Form};
use super::second::SecondSums;
use super::sweep::{Base, class_sums, convolve};
use crate::activation::Activation;
use crate::branches::{BranchSum, SumStatistics};
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
/// The sums are taken in `f32` over at most 4096 positions and about a value near the channel's
/// mean, so that a mean far from zero costs no digits; all else is `f64`. Where that value, the mean
/// of a few, proves to be far off, the moments of the channel are taken again. A branch whose
/// variance is a fraction `f` of what its weights could make of the input's loses `log10(1 / f)`
/// digits of the seven.
pub(crate) fn forward(
    block: &BranchSum<'_>,
    x: &[f32],
    residual: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) -> (SumStatistics, Saved) {
    let arch = instruction_set::arch();
    let form = &Form::new(block, &Geometry::new(&block.shape, x.len(), y.len()));
    let (grid, channels, batch) = (&form.grid, form.channels, form.batch);
    let (taps, classes) = (grid.taps(), grid.classes());
    let mut before = activation.needs_input().then(|| buffer::take(y.len()));
    let planes = Shared::new(y);
    let before_planes = before.as_deref_mut().map(Shared::new);

    let work = |range: Range<usize>| {
        let output = grid.output_buffer();
        let lengths = [
            grid.lead + grid.strips_buffer(),
            grid.lead + grid.strips_len(),
            output,
            output,
            output,
            output,
        ];
        with_scratch(lengths, |[strips, summed, mask, bias_strip, out, row]| {
            let (strips, summed) = (&mut strips[grid.lead..], &mut summed[grid.lead..]);
            grid.fill(|_| 1.0, mask);

            let mut pairs = SecondSums::new(grid, batch);
            let mut branches = Branches::new(form);
            let (mut kernel, mut bias) = (vec![0.0; taps], vec![0.0; classes]);
            let mut weights = vec![0.0_f32; taps];
            let mut records = vec![0.0; range.len() * form.record()];
            let mut stats = SumStatistics::of(block);
            for (channel, record) in range.clone().zip(records.chunks_exact_mut(form.record())) {
                let input = |image| plane_and_next(x, image, channel, channels, grid.input());
                // Moments.
                let mut shift = shift::guess([batch, grid.input()], |image| input(image)[0]);
                if form.needs_moments {
                    let (first, second) = form.moments_mut(record);
                    let mut about = |shift: f32| {
                        summed.fill(0.0);
                        pairs.reset();
                        for image in 0..batch {
                            pad(arch, grid, input(image), shift, strips, Some(&mut *summed));
                            pairs.add(arch, grid, image, strips, mask);
                        }
                        let squares = pairs.finish(arch, grid, second) / form.inputs();
                        let sum: f64 = summed.iter().map(|&v| f64::from(v)).sum();
                        let mean = sum / form.inputs();
                        (mean, norm::variance(squares - mean * mean))
                    };
                    let (mut mean, mut variance) = about(shift);
                    if shift::is_far(mean, variance) {
                        shift = (f64::from(shift) + mean) as f32;
                        (mean, variance) = about(shift);
                    }
                    let outputs = form.outputs();
                    let width = grid.cols.kernel;
                    for y in 0..grid.rows.kernel {
                        for x in 0..width.min(grid.cols.stride) {
                            let (tap, count) =
                                (y * width + x, (width - x).div_ceil(grid.cols.stride));
                            let strip = &summed[grid.offsets[tap]..];
                            class_sums(arch, grid, strip, count, row, &mut first[tap * classes..]);
                        }
                    }
                    first.iter_mut().for_each(|sum| *sum /= outputs);
                    second.iter_mut().for_each(|sum| *sum /= outputs);
                    record[1..3].copy_from_slice(&[f64::from(shift) + mean, variance]);
                }
                record[0] = shift.into();

                // Algebra.
                branches.open(form, channel, &form.moments(record));
                branches.set_borders(form, channel, form.borders_mut(record));
                branches.close(form, channel, &form.moments(record), form.borders(record));
                branches.merge(form, channel, &mut kernel, &mut bias);
                stats.push(&branches);

                // Convolution.
                to_f32(&kernel, &mut weights);
                grid.fill(|class| bias[class] as f32, bias_strip);
                // Backwards: the strips hold the last image, the cache the last ones.
                for image in (0..batch).rev() {
                    // SAFETY: this task alone has the channel, one image at a time.
                    let target =
                        unsafe { planes.plane_mut(image * channels + channel, grid.output()) };
                    // Without moments the strips hold nothing yet.
                    if image + 1 < batch || !form.needs_moments {
                        pad(arch, grid, [input(image)[0], target], shift, strips, None);
                    }
                    let base = Base { strip: bias_strip, scale: 1.0, constant: 0.0 };
                    let count = grid.positions();
                    convolve(arch, strips, &grid.offsets, [&weights], [base], [&mut *out], count);
                    if residual.is_none() && before_planes.is_none() {
                        unpitch(arch, grid, out, activation, target);
                        continue;
                    }
                    unpitch(arch, grid, out, Activation::Identity, target);
                    let plane = image * channels + channel;
                    if let Some(residual) = residual {
                        let residual = &residual[plane * grid.output()..][..grid.output()];
                        target.iter_mut().zip(residual).for_each(|(y, residual)| *y += residual);
                    }
                    if let Some(before) = before_planes {
                        // SAFETY: as above.
                        let before = unsafe { before.plane_mut(plane, grid.output()) };
                        before.copy_from_slice(target);
                    }
                    activation::forward_plane(activation, target);
                }
            }
            (stats, records)
        })
    };

    let mut stats = SumStatistics::of(block);
    let mut records = Vec::with_capacity(channels * form.record());
    for (mut part, record) in map_channels(channels, work) {
        stats.all_mut().zip(part.all_mut()).for_each(|(to, from)| to.append(from));
        records.extend(record);
    }
    (stats, Saved { records, activation, before })
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

fn to_f32(values: &[f64], target: &mut [f32]) {
    target.iter_mut().zip(values).for_each(|(t, &v)| *t = v as f32);
}
