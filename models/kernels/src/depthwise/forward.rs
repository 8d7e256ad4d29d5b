//! The forward pass of a block: moments, algebra, one convolution.

use std::ops::Range;

use super::channels::{map_channels, plane_and_next, with_scratch};
use super::copy::{pad, unpitch};
use super::dbb::{Dbb, DbbSaved, DbbStats};
use super::form::{Branches, Form, border, channel_norm};
use super::second::SecondSums;
use super::sweep::{Base, class_sums, convolve};
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{BatchStatistics, ConvShape, instruction_set, norm};

pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    block: &Dbb<'_>,
    relu: bool,
    y: &mut [f32],
) -> (DbbStats, DbbSaved) {
    let arch = instruction_set::arch();
    let form = &Form::new(&Geometry::new(shape, x.len(), y.len()), block);
    let (grid, channels, batch) = (&form.grid, form.channels, form.batch);
    let (taps, classes) = (grid.taps(), grid.classes());
    let planes = Shared::new(y);
    let activation = [if relu { 0.0 } else { f32::NEG_INFINITY }, f32::INFINITY];

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
            let mut stats = DbbStats::default();
            for (channel, record) in range.clone().zip(records.chunks_exact_mut(form.record())) {
                let input = |image| plane_and_next(x, image, channel, channels, grid.input());
                // Moments.
                let first_row = &input(0)[0][..grid.cols.size];
                let shift = first_row.iter().sum::<f32>() / grid.cols.size as f32;
                summed.fill(0.0);
                pairs.reset();
                for image in 0..batch {
                    pad(arch, grid, input(image), shift, strips, Some(&mut *summed));
                    pairs.add(arch, grid, image, strips, mask);
                }
                let (first, second) = record[3 + form.width..].split_at_mut(taps * classes);
                let squares = pairs.finish(arch, grid, second) / form.inputs();
                let mean = summed.iter().map(|&v| f64::from(v)).sum::<f64>() / form.inputs();
                let outputs = form.outputs();
                let width = grid.cols.kernel;
                for y in 0..grid.rows.kernel {
                    for x in 0..width.min(grid.cols.stride) {
                        let (tap, count) = (y * width + x, (width - x).div_ceil(grid.cols.stride));
                        let strip = &summed[grid.offsets[tap]..];
                        class_sums(arch, grid, strip, count, row, &mut first[tap * classes..]);
                    }
                }
                first.iter_mut().for_each(|sum| *sum /= outputs);
                second.iter_mut().for_each(|sum| *sum /= outputs);
                let variance = norm::variance(squares - mean * mean);
                record[..3].copy_from_slice(&[shift.into(), f64::from(shift) + mean, variance]);

                // Algebra.
                branches.open(form, channel, &form.moments(record));
                if let Some(branch) = &block.pointwise_kxk {
                    for (i, inner) in branches.inner.iter().enumerate() {
                        record[3 + i] = border(form, branch, channel * form.width + i, inner);
                        stats.inner.push(inner.mean, inner.variance);
                    }
                }
                let moments = form.moments(record);
                branches.close(form, channel, &moments, form.borders(record));
                kernel.fill(0.0);
                bias.fill(0.0);
                for (affine, norm) in branches.affine().zip(form.closing_norms()) {
                    affine.add_to(channel_norm(norm, channel), &mut kernel, &mut bias);
                }
                stats.push_closing(form, channel, &branches, form.borders(record));

                // Convolution.
                to_f32(&kernel, &mut weights);
                grid.fill(|class| bias[class] as f32, bias_strip);
                // Backwards: the strips hold the last image, the cache the last ones.
                for image in (0..batch).rev() {
                    // SAFETY: this task alone has the channel, one image at a time.
                    let target =
                        unsafe { planes.plane_mut(image * channels + channel, grid.output()) };
                    if image + 1 < batch {
                        pad(arch, grid, [input(image)[0], target], shift, strips, None);
                    }
                    let base = Base { strip: bias_strip, scale: 1.0, constant: 0.0 };
                    let count = grid.positions();
                    convolve(arch, strips, &grid.offsets, [&weights], [base], [&mut *out], count);
                    unpitch(arch, grid, out, activation, target);
                }
            }
            (stats, records)
        })
    };

    let mut stats = DbbStats::default();
    let mut records = Vec::with_capacity(channels * form.record());
    for (part, record) in map_channels(channels, work) {
        stats.append(part);
        records.extend(record);
    }
    (stats, DbbSaved { records })
}

impl BatchStatistics {
    fn push(&mut self, mean: f64, variance: f64) {
        self.mean.push(mean as f32);
        self.var.push(variance as f32);
    }

    fn append(&mut self, other: Self) {
        self.mean.extend(other.mean);
        self.var.extend(other.var);
    }
}

impl DbbStats {
    fn push_closing(
        &mut self,
        form: &Form<'_>,
        channel: usize,
        branches: &Branches,
        borders: &[f64],
    ) {
        let taps = form.grid.taps();
        if let Some(affine) = &branches.kxk {
            self.kxk.push(affine.mean, affine.variance);
        }
        if let (Some(branch), Some(affine)) = (&form.block.pointwise_kxk, &branches.pointwise_kxk) {
            // The response to the border value is the same everywhere; only the mean sees it.
            let weights = branch.weight2[channel * form.width * taps..].chunks_exact(taps);
            let response = |(&border, weight): (&f64, &[f32])| {
                border * weight.iter().map(|&w| f64::from(w)).sum::<f64>()
            };
            let constant: f64 = borders.iter().zip(weights).map(response).sum();
            self.pointwise_kxk.push(affine.mean + constant, affine.variance);
        }
        if let Some(affine) = &branches.average {
            self.average.push(affine.mean, affine.variance);
        }
    }

    fn append(&mut self, other: Self) {
        self.kxk.append(other.kxk);
        self.inner.append(other.inner);
        self.pointwise_kxk.append(other.pointwise_kxk);
        self.average.append(other.average);
    }
}

fn to_f32(values: &[f64], target: &mut [f32]) {
    target.iter_mut().zip(values).for_each(|(t, &v)| *t = v as f32);
}
