//! The depthwise Diverse Branch Block in its training form, as one convolution.
//!
//! Source: Ding et al., Diverse Branch Block (CVPR 2021), section 3.3, in the form of the paper's
//! code for depthwise layers: KxK; 1x1 to an internal width, batch norm padded with its image of
//! zero, KxK; average pool; each closed by a batch norm, and the three added. Every branch is
//! affine in the input values under the kernel, so that all batch statistics follow from the
//! moments of these values and the block is one depthwise convolution whose bias depends on
//! the border alone. The statistics, outputs and gradients are those of the definition.

use pulp::Arch;

use super::algebra::{Affine, AffineGrad, ChannelNorm, GradSums, Inner, Moments};
use super::channels::{Planes, map_channels, plane_and_next, with_scratch};
use super::copy::{crop, pad, pitch, unpitch};
use super::grid::{Grid, SLACK};
use super::second::SecondSums;
use super::sweep::{Base, Sums, add_dots, class_sums, convolve};
use crate::ConvShape;

/// Parameters of a batch norm.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Scale, `[channels]`.
    pub gamma: &'a [f32],
    /// Shift, `[channels]`.
    pub beta: &'a [f32],
    /// Added to the variance, inside the square root.
    pub epsilon: f64,
}

/// The branch KxK convolution, batch norm.
#[derive(Clone, Copy, Debug)]
pub struct Kxk<'a> {
    /// `[channels, 1, k, k]`.
    pub weight: &'a [f32],
    /// The closing norm.
    pub norm: Norm<'a>,
}

/// The branch 1x1 convolution, padded batch norm, KxK convolution, batch norm. The internal
/// channels are a multiple `m >= 1` of the channels; channel `c` owns `c * m .. c * m + m`.
#[derive(Clone, Copy, Debug)]
pub struct PointwiseKxk<'a> {
    /// Effective weight of the 1x1 convolution, an identity included, `[internal, 1, 1, 1]`.
    pub weight1: &'a [f32],
    /// The inner norm, `[internal]`.
    pub norm1: Norm<'a>,
    /// Running mean of the inner norm before this step, `[internal]`.
    pub running_mean: &'a [f32],
    /// Running variance of the inner norm before this step, `[internal]`.
    pub running_var: &'a [f32],
    /// Weight of this batch in the running statistics that the border value is made from.
    pub momentum: f64,
    /// `[channels, m, k, k]`.
    pub weight2: &'a [f32],
    /// The closing norm, `[channels]`.
    pub norm2: Norm<'a>,
}

/// The branches of a block, at least one.
#[derive(Clone, Copy, Debug)]
pub struct Dbb<'a> {
    /// KxK convolution, batch norm.
    pub kxk: Option<Kxk<'a>>,
    /// 1x1, padded batch norm, KxK, batch norm.
    pub pointwise_kxk: Option<PointwiseKxk<'a>>,
    /// Average pool (padding counted as zeros), batch norm.
    pub average: Option<Norm<'a>>,
}

/// Batch statistics of a norm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchStats {
    /// Mean, `[channels]`.
    pub mean: Vec<f32>,
    /// Biased variance, `[channels]`.
    pub variance: Vec<f32>,
}

/// Batch statistics of the norms of a block; those of absent branches are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DbbStats {
    /// Of the KxK branch.
    pub kxk: BatchStats,
    /// Of the inner norm of the 1x1-KxK branch, over all positions of the input.
    pub inner: BatchStats,
    /// Of the closing norm of the 1x1-KxK branch.
    pub pointwise_kxk: BatchStats,
    /// Of the average branch.
    pub average: BatchStats,
}

/// What the backward pass needs of the forward pass beside its inputs: moments of each channel,
/// about 1 KB for 3x3 and 8 KB for 5x5.
#[derive(Clone, Debug)]
pub struct DbbSaved {
    records: Vec<f64>,
}

/// Gradients of a block's parameters; those of absent branches are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DbbGrads {
    /// `[channels, 1, k, k]`.
    pub kxk_weight: Vec<f32>,
    /// `[channels]`.
    pub kxk_gamma: Vec<f32>,
    /// `[channels]`.
    pub kxk_beta: Vec<f32>,
    /// `[internal, 1, 1, 1]`.
    pub weight1: Vec<f32>,
    /// `[internal]`.
    pub gamma1: Vec<f32>,
    /// `[internal]`.
    pub beta1: Vec<f32>,
    /// `[channels, m, k, k]`.
    pub weight2: Vec<f32>,
    /// `[channels]`.
    pub gamma2: Vec<f32>,
    /// `[channels]`.
    pub beta2: Vec<f32>,
    /// `[channels]`.
    pub average_gamma: Vec<f32>,
    /// `[channels]`.
    pub average_beta: Vec<f32>,
}

/// Forward pass of a depthwise block in training. `y` is `[batch, channels, height', width']`;
/// with `relu`, negative outputs are 0.
///
/// Cost: the input is read twice, the second time from the cache unless the channel is larger;
/// `k*k (k*k + 1) / 2` multiply-adds per output for the moments, `k*k` for the convolution.
///
/// # Panics
/// If a length does not fit the shape, the shape is not depthwise or there is no branch.
pub fn dbb_forward(
    shape: &ConvShape,
    x: &[f32],
    block: &Dbb<'_>,
    relu: bool,
    y: &mut [f32],
) -> (DbbStats, DbbSaved) {
    forward_on(Arch::new(), shape, x, block, relu, y)
}

/// Backward pass: the gradient of the input and of all parameters from that of the output.
/// With a ReLU `y` is the output, which tells where it let pass; without, `None`. The border
/// value of the 1x1-KxK branch is a constant, as in the definition.
///
/// Cost: input and output gradient are read twice.
///
/// # Panics
/// As [`dbb_forward`].
pub fn dbb_backward(
    shape: &ConvShape,
    x: &[f32],
    y: Option<&[f32]>,
    dy: &[f32],
    block: &Dbb<'_>,
    saved: &DbbSaved,
    dx: &mut [f32],
) -> DbbGrads {
    backward_on(Arch::new(), shape, x, y, dy, block, saved, dx)
}

/// The form of a block: which branches it has, and where its parameters and moments lie.
struct Form<'a> {
    block: &'a Dbb<'a>,
    grid: Grid,
    channels: usize,
    batch: usize,
    /// Internal channels of each channel.
    width: usize,
}

impl<'a> Form<'a> {
    fn new(shape: &ConvShape, block: &'a Dbb<'a>) -> Self {
        let channels = shape.out_channels;
        assert!(
            shape.in_channels == channels && shape.groups == channels,
            "a depthwise block has as many groups and inputs as outputs"
        );
        assert!(shape.batch > 0 && shape.input_len() > 0 && shape.output_len() > 0, "empty");
        let grid = Grid::new(shape);
        let norm = |norm: &Norm<'_>, len: usize| {
            assert!(norm.gamma.len() == len && norm.beta.len() == len, "parameters of a norm");
        };
        let mut width = 0;
        if let Some(branch) = &block.kxk {
            assert_eq!(branch.weight.len(), channels * grid.taps(), "weight of the KxK branch");
            norm(&branch.norm, channels);
        }
        if let Some(branch) = &block.pointwise_kxk {
            let internal = branch.weight1.len();
            width = internal / channels;
            assert!(width > 0 && internal == width * channels, "internal channels");
            assert_eq!(branch.weight2.len(), internal * grid.taps(), "weight after the 1x1");
            norm(&branch.norm1, internal);
            norm(&branch.norm2, channels);
            let running = [branch.running_mean.len(), branch.running_var.len()];
            assert_eq!(running, [internal; 2], "running statistics");
        }
        if let Some(branch) = &block.average {
            norm(branch, channels);
        }
        let form = Self { block, grid, channels, batch: shape.batch, width };
        assert!(form.branches() > 0, "a block has a branch");
        form
    }

    /// The closing norms of the branches that there are.
    fn closing_norms(&self) -> impl Iterator<Item = &Norm<'a>> {
        let Dbb { kxk, pointwise_kxk, average } = self.block;
        let norms = [
            kxk.as_ref().map(|branch| &branch.norm),
            pointwise_kxk.as_ref().map(|branch| &branch.norm2),
            average.as_ref(),
        ];
        norms.into_iter().flatten()
    }

    fn branches(&self) -> usize {
        self.closing_norms().count()
    }

    /// Length of a channel's record: shift, mean, variance, borders, first and second moments.
    fn record(&self) -> usize {
        let taps = self.grid.taps();
        3 + self.width + taps * self.grid.classes() + taps * (taps + 1) / 2
    }

    fn moments<'r>(&self, record: &'r [f64]) -> Moments<'r> {
        let (first, second) =
            record[3 + self.width..].split_at(self.grid.taps() * self.grid.classes());
        Moments { shift: record[0], mean: record[1], variance: record[2], first, second }
    }

    fn borders<'r>(&self, record: &'r [f64]) -> &'r [f64] {
        &record[3..3 + self.width]
    }

    fn outputs(&self) -> f64 {
        (self.batch * self.grid.output()) as f64
    }

    fn inputs(&self) -> f64 {
        (self.batch * self.grid.input()) as f64
    }
}

/// Batch norm of one channel.
fn channel_norm(norm: &Norm<'_>, channel: usize) -> ChannelNorm {
    let (gamma, beta) = (norm.gamma[channel].into(), norm.beta[channel].into());
    ChannelNorm { gamma, beta, epsilon: norm.epsilon }
}

/// The branches of one channel.
struct Branches {
    kxk: Option<Affine>,
    pointwise_kxk: Option<Affine>,
    average: Option<Affine>,
    /// The inner norms of the 1x1-KxK branch.
    inner: Vec<Inner>,
    /// What the 1x1-KxK branch adds for each tap inside the input.
    inside: Vec<f64>,
}

impl Branches {
    fn new(form: &Form<'_>) -> Self {
        let affine = Affine::new(&form.grid);
        Self {
            kxk: form.block.kxk.map(|_| affine.clone()),
            pointwise_kxk: form.block.pointwise_kxk.map(|_| affine.clone()),
            average: form.block.average.map(|_| affine),
            inner: Vec::with_capacity(form.width),
            inside: vec![0.0; form.grid.taps()],
        }
    }

    /// Computes the inner norms of a channel.
    fn open(&mut self, form: &Form<'_>, channel: usize, moments: &Moments<'_>) {
        self.inner.clear();
        if let Some(branch) = &form.block.pointwise_kxk {
            self.inner.extend((channel * form.width..(channel + 1) * form.width).map(|j| {
                Inner::new(moments, branch.weight1[j].into(), channel_norm(&branch.norm1, j))
            }));
        }
    }

    /// Computes the branches of a channel, given its inner norms and their border values.
    fn close(&mut self, form: &Form<'_>, channel: usize, moments: &Moments<'_>, borders: &[f64]) {
        let (grid, taps) = (&form.grid, form.grid.taps());
        if let (Some(branch), Some(affine)) = (&form.block.kxk, &mut self.kxk) {
            let weight = &branch.weight[channel * taps..][..taps];
            affine.kernel.iter_mut().zip(weight).for_each(|(k, &w)| *k = w.into());
            affine.close(grid, moments, None, branch.norm.epsilon);
        }
        if let (Some(branch), Some(affine)) = (&form.block.pointwise_kxk, &mut self.pointwise_kxk) {
            affine.kernel.fill(0.0);
            self.inside.fill(0.0);
            let weights = branch.weight2[channel * form.width * taps..].chunks_exact(taps);
            for ((inner, &border), weight) in self.inner.iter().zip(borders).zip(weights) {
                for (tap, &weight) in weight.iter().enumerate() {
                    let weight = f64::from(weight);
                    affine.kernel[tap] += inner.scale * weight;
                    self.inside[tap] += (inner.shift - border) * weight;
                }
            }
            affine.close(grid, moments, Some(&self.inside), branch.norm2.epsilon);
        }
        if let (Some(norm), Some(affine)) = (&form.block.average, &mut self.average) {
            affine.kernel.fill((taps as f64).recip());
            affine.close(grid, moments, None, norm.epsilon);
        }
    }

    /// The branches that there are, in the order of [`Form::closing_norms`].
    fn affine(&self) -> impl Iterator<Item = &Affine> {
        [&self.kxk, &self.pointwise_kxk, &self.average].into_iter().flatten()
    }
}

/// Value of the padding of an inner channel: the image of zero under the running statistics as
/// this step leaves them.
fn border(form: &Form<'_>, branch: &PointwiseKxk<'_>, j: usize, inner: &Inner) -> f64 {
    let inputs = form.inputs();
    let kept = |stat: f32, newest: f64| {
        (1.0 - branch.momentum) * f64::from(stat) + branch.momentum * newest
    };
    let mean = kept(branch.running_mean[j], inner.mean);
    let variance = kept(branch.running_var[j], inner.variance * inputs / (inputs - 1.0));
    let norm = channel_norm(&branch.norm1, j);
    norm.beta - norm.gamma * mean / (variance + norm.epsilon).sqrt()
}

fn to_f32(values: &[f64], target: &mut [f32]) {
    target.iter_mut().zip(values).for_each(|(t, &v)| *t = v as f32);
}

pub(super) fn forward_on(
    arch: Arch,
    shape: &ConvShape,
    x: &[f32],
    block: &Dbb<'_>,
    relu: bool,
    y: &mut [f32],
) -> (DbbStats, DbbSaved) {
    let form = &Form::new(shape, block);
    assert_eq!(x.len(), shape.input_len(), "input");
    assert_eq!(y.len(), shape.output_len(), "output");
    let (grid, channels, batch) = (&form.grid, form.channels, form.batch);
    let (taps, classes) = (grid.taps(), grid.classes());
    let planes = &Planes::new(y, channels, grid.output());
    let activation = [if relu { 0.0 } else { f32::NEG_INFINITY }, f32::INFINITY];

    let work = |range: std::ops::Range<usize>| {
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
                let variance = (squares - mean * mean).max(0.0);
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
                    let target = unsafe { planes.plane(image, channel) };
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

impl BatchStats {
    fn push(&mut self, mean: f64, variance: f64) {
        self.mean.push(mean as f32);
        self.variance.push(variance as f32);
    }

    fn append(&mut self, other: Self) {
        self.mean.extend(other.mean);
        self.variance.extend(other.variance);
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

#[allow(clippy::too_many_arguments)]
pub(super) fn backward_on(
    arch: Arch,
    shape: &ConvShape,
    x: &[f32],
    y: Option<&[f32]>,
    dy: &[f32],
    block: &Dbb<'_>,
    saved: &DbbSaved,
    dx: &mut [f32],
) -> DbbGrads {
    let form = &Form::new(shape, block);
    let (grid, channels, batch) = (&form.grid, form.channels, form.batch);
    let (taps, classes) = (grid.taps(), grid.classes());
    assert_eq!(x.len(), shape.input_len(), "input");
    assert_eq!(dy.len(), shape.output_len(), "gradient of the output");
    assert!(y.is_none_or(|y| y.len() == dy.len()), "output");
    assert_eq!(dx.len(), x.len(), "gradient of the input");
    assert_eq!(saved.records.len(), channels * form.record(), "saved state");
    let planes = &Planes::new(dx, channels, grid.input());
    let sweeps = &InputSweeps::new(form);

    let work = |range: std::ops::Range<usize>| {
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
                    let target = unsafe { planes.plane(image, channel) };
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
