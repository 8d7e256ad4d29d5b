//! The form of a block, and its branches in one channel.

use std::ops::Range;

use super::algebra::{Affine, AffineGrad, ChannelNorm, GradSums, Inner, Moments};
use super::grid::{Grid, INTERLEAVED};
use super::planes::{Planes, TargetPlanes};
use crate::arithmetic::add_scaled;
use crate::branch_sum::{Branch, BranchMap, BranchSum};
use crate::padded_norm::PaddedNorm;
use crate::shape::Geometry;
use crate::shared::Shared;
use crate::{InstructionSet, Norm};

/// The form of a block: which branches it has, and where its parameters and moments lie.
pub(super) struct Form<'a> {
    pub block: &'a BranchSum<'a>,
    pub grid: Grid,
    /// The grid of a single image, for sums over all images.
    pub single: Grid,
    pub channels: usize,
    pub batch: usize,
    /// Internal channels of each channel, of each branch.
    pub widths: Vec<usize>,
    /// Whether a norm uses the statistics of the batch.
    pub needs_moments: bool,
}

impl<'a> Form<'a> {
    pub(super) fn new(block: &'a BranchSum<'a>, shape: &Geometry) -> Self {
        let channels = shape.out_channels;
        let widths = block.branches.iter().map(|branch| match &branch.map {
            BranchMap::PaddedConv { opening, .. } => opening.gamma.len() / channels,
            _ => 0,
        });
        let widths = widths.collect();
        let of_batch = |norm: &Option<Norm>| norm.is_some_and(|norm| norm.fixed.is_none());
        let needs_moments = of_batch(&block.outer)
            || block.branches.iter().any(|branch| {
                of_batch(&branch.norm) || branch.opening().is_some_and(|norm| !norm.fixed)
            });
        let single = Grid::new(shape);
        let grid = match interleaves(shape) {
            true => Grid::interleaved(shape),
            false => single.clone(),
        };
        Self { block, grid, single, channels, batch: shape.batch, widths, needs_moments }
    }

    /// The images of a bundle: those whose planes share strips.
    pub(super) fn bundle(&self, index: usize) -> Range<usize> {
        let images = self.grid.images;
        index * images..self.batch.min((index + 1) * images)
    }

    pub(super) fn bundles(&self) -> usize {
        self.batch.div_ceil(self.grid.images)
    }

    pub(super) fn branches(&self) -> usize {
        self.block.branches.len()
    }

    fn width(&self) -> usize {
        self.widths.iter().sum()
    }

    /// Length of a channel's record: shift, mean, variance, borders, first and second moments.
    pub(super) fn record(&self) -> usize {
        let taps = self.grid.taps();
        3 + self.width() + taps * self.grid.classes() + taps * (taps + 1) / 2
    }

    pub(super) fn moments<'r>(&self, record: &'r [f64]) -> Moments<'r> {
        let (first, second) =
            record[3 + self.width()..].split_at(self.grid.taps() * self.grid.classes());
        Moments { shift: record[0], mean: record[1], variance: record[2], first, second }
    }

    /// The places of the first and the second moments in a record.
    pub(super) fn moments_mut<'r>(&self, record: &'r mut [f64]) -> (&'r mut [f64], &'r mut [f64]) {
        record[3 + self.width()..].split_at_mut(self.grid.taps() * self.grid.classes())
    }

    pub(super) fn borders<'r>(&self, record: &'r [f64]) -> &'r [f64] {
        &record[3..3 + self.width()]
    }

    pub(super) fn borders_mut<'r>(&self, record: &'r mut [f64]) -> &'r mut [f64] {
        &mut record[3..3 + self.width()]
    }

    /// The planes of a channel of the input in a bundle.
    pub(super) fn input<'x>(&self, x: &'x [f32], bundle: usize, channel: usize) -> Planes<'x> {
        Planes::new(x, [self.channels, self.grid.input()], self.bundle(bundle), channel)
    }

    /// The planes of a channel in a bundle of a map with the shape of the output.
    pub(super) fn output<'y>(&self, y: &'y [f32], bundle: usize, channel: usize) -> Planes<'y> {
        Planes::new(y, [self.channels, self.grid.output()], self.bundle(bundle), channel)
    }

    /// The planes of [`input`](Self::input) in a map that is written.
    ///
    /// # Safety
    /// Nothing else uses them as long as they live.
    pub(super) unsafe fn input_targets<'x>(
        &self,
        map: Shared<'x>,
        bundle: usize,
        channel: usize,
    ) -> TargetPlanes<'x> {
        let planes = [self.channels, self.grid.input()];
        // SAFETY: as the caller promises.
        unsafe { TargetPlanes::new(map, planes, self.bundle(bundle), channel) }
    }

    /// The planes of [`output`](Self::output) in a map that is written.
    ///
    /// # Safety
    /// Nothing else uses them as long as they live.
    pub(super) unsafe fn output_targets<'y>(
        &self,
        map: Shared<'y>,
        bundle: usize,
        channel: usize,
    ) -> TargetPlanes<'y> {
        let planes = [self.channels, self.grid.output()];
        // SAFETY: as the caller promises.
        unsafe { TargetPlanes::new(map, planes, self.bundle(bundle), channel) }
    }

    pub(super) fn outputs(&self) -> f64 {
        (self.batch * self.grid.output()) as f64
    }

    pub(super) fn inputs(&self) -> f64 {
        (self.batch * self.grid.input()) as f64
    }

    /// The taps of the window that a kernel of some size in its middle has, row by row.
    pub(super) fn places(&self, kernel: [usize; 2]) -> impl Iterator<Item = usize> + use<> {
        let window = [self.grid.rows.kernel, self.grid.cols.kernel];
        let [top, left] = [0, 1].map(|axis| (window[axis] - kernel[axis]) / 2);
        (0..kernel[0] * kernel[1])
            .map(move |tap| (top + tap / kernel[1]) * window[1] + left + tap % kernel[1])
    }
}

/// Whether images are interleaved: if rows are short, strips are at most half of a [group](super::group), and at most a
/// quarter of the lanes have no image. Measured with 16 images, forward and backward pass of a plain block together, the
/// time is 0.55 of before at 6x6 with AVX-512 and 0.65 with AVX2, 0.70 and 0.98 at 14x14, 1.0 and 1.2 at 28x28. With
/// half of the lanes unused nothing is gained at 6x6, and time is lost at 12x12. Without vectors it takes 1.3 to 2.4 times
/// as long; NEON has not been measured.
fn interleaves(shape: &Geometry) -> bool {
    /// Values of the strips of the input and of the gradient of the output.
    const VALUES: usize = 1 << 15;
    let longest_row = match InstructionSet::current() {
        InstructionSet::Avx512 => 28,
        InstructionSet::Avx2 => 14,
        // Miri runs portable code.
        InstructionSet::Portable | InstructionSet::Neon => 14 * usize::from(cfg!(test)),
    };
    let padded = [0, 1].map(|axis| shape.input[axis] + 2 * shape.padding[axis]);
    let [input, output] =
        [padded, shape.output()].map(|[height, width]| height.saturating_mul(width));
    let lanes = shape.batch.next_multiple_of(INTERLEAVED);
    shape.input[1] <= longest_row
        && input.saturating_add(output) <= VALUES / INTERLEAVED
        && 4 * shape.batch >= 3 * lanes
}

/// Whether a block can be computed from the moments of its windows.
pub(crate) fn serves(block: &BranchSum<'_>) -> bool {
    let padded_average =
        |branch: &Branch<'_>| matches!(branch.map, BranchMap::PaddedAverage { .. });
    block.shape.is_depthwise() && !block.branches.iter().any(padded_average)
}

/// A norm in one channel; without a norm, the identity.
fn channel_norm(norm: Option<&Norm<'_>>, channel: usize) -> ChannelNorm {
    match norm {
        Some(norm) => ChannelNorm {
            gamma: norm.gamma[channel].into(),
            beta: norm.beta[channel].into(),
            epsilon: norm.epsilon,
        },
        None => ChannelNorm { gamma: 1.0, beta: 0.0, epsilon: 0.0 },
    }
}

/// The mean and the variance that a norm uses as constants, if it does.
fn fixed_statistics(norm: Option<&Norm<'_>>, channel: usize) -> Option<[f64; 2]> {
    match norm {
        None => Some([0.0, 1.0]),
        Some(norm) => {
            norm.fixed.map(|fixed| [fixed.mean[channel].into(), fixed.var[channel].into()])
        }
    }
}

fn opening_norm(opening: &PaddedNorm<'_>, internal: usize) -> ChannelNorm {
    ChannelNorm {
        gamma: opening.gamma[internal].into(),
        beta: opening.beta[internal].into(),
        epsilon: opening.epsilon,
    }
}

/// A branch in one channel.
pub(super) struct ChannelBranch {
    pub affine: Affine,
    /// The norms between a 1x1 and the kernel.
    pub inner: Vec<Inner>,
    /// The constant that such a branch adds for each tap inside the input.
    inside: Vec<f64>,
    /// The constant that it adds everywhere and that is not part of `affine`: the response to the
    /// border values.
    constant: f64,
}

impl ChannelBranch {
    fn new(grid: &Grid) -> Self {
        let inside = vec![0.0; grid.taps()];
        Self { affine: Affine::new(grid), inner: Vec::new(), inside, constant: 0.0 }
    }

    /// Mean and variance of the branch's output over the batch.
    pub(super) fn statistics(&self) -> [f64; 2] {
        [self.affine.mean + self.constant, self.affine.variance]
    }

    /// The affine map with the closing norm, from its kernel.
    fn close(
        &mut self,
        grid: &Grid,
        moments: &Moments<'_>,
        norm: Option<&Norm<'_>>,
        channel: usize,
    ) {
        let epsilon = channel_norm(norm, channel).epsilon;
        self.affine.close(grid, moments, Some(&self.inside), epsilon);
        if let Some([mean, variance]) = fixed_statistics(norm, channel) {
            self.affine.fix(mean - self.constant, variance, epsilon);
        }
    }
}

/// The branches of one channel.
pub(super) struct Branches {
    pub all: Vec<ChannelBranch>,
    /// The sum of the normalised branches, and its norm.
    pub outer: Option<ChannelBranch>,
}

impl Branches {
    pub(super) fn new(form: &Form<'_>) -> Self {
        let all = (0..form.branches()).map(|_| ChannelBranch::new(&form.grid)).collect();
        Self { all, outer: form.block.outer.map(|_| ChannelBranch::new(&form.grid)) }
    }

    /// Computes the inner norms of a channel.
    pub(super) fn open(&mut self, form: &Form<'_>, channel: usize, moments: &Moments<'_>) {
        for ((branch, found), &width) in
            form.block.branches.iter().zip(&mut self.all).zip(&form.widths)
        {
            found.inner.clear();
            if let BranchMap::PaddedConv { opening, .. } = &branch.map {
                found.inner.extend((channel * width..(channel + 1) * width).map(|j| {
                    let running = [opening.running_mean[j], opening.running_var[j]];
                    let fixed = opening.fixed.then(|| running.map(f64::from));
                    Inner::new(moments, opening.weight[j].into(), opening_norm(opening, j), fixed)
                }));
            }
        }
    }

    /// Computes the border values of the inner channels of a channel.
    pub(super) fn set_borders(&self, form: &Form<'_>, channel: usize, borders: &mut [f64]) {
        let mut borders = borders.iter_mut();
        for ((branch, found), &width) in form.block.branches.iter().zip(&self.all).zip(&form.widths)
        {
            if let BranchMap::PaddedConv { opening, .. } = &branch.map {
                for ((i, inner), place) in found.inner.iter().enumerate().zip(borders.by_ref()) {
                    *place = border(form, opening, channel * width + i, inner);
                }
            }
        }
    }

    /// Computes the branches of a channel, given its inner norms and their border values.
    pub(super) fn close(
        &mut self,
        form: &Form<'_>,
        channel: usize,
        moments: &Moments<'_>,
        mut borders: &[f64],
    ) {
        let (grid, taps) = (&form.grid, form.grid.taps());
        for ((branch, found), &width) in
            form.block.branches.iter().zip(&mut self.all).zip(&form.widths)
        {
            let own;
            (own, borders) = borders.split_at(width);
            let kernel = &mut found.affine.kernel;
            kernel.fill(0.0);
            match &branch.map {
                BranchMap::Conv { weight, kernel: size } => {
                    let len = size[0] * size[1];
                    let weight = &weight[channel * len..][..len];
                    form.places(*size).zip(weight).for_each(|(tap, &w)| kernel[tap] = w.into());
                }
                BranchMap::Identity => kernel[taps / 2] = 1.0,
                BranchMap::Average => kernel.fill((taps as f64).recip()),
                BranchMap::PaddedConv { weight, .. } => {
                    found.inside.fill(0.0);
                    found.constant = 0.0;
                    let weights = weight[channel * width * taps..].chunks_exact(taps);
                    for ((inner, &border), weight) in found.inner.iter().zip(own).zip(weights) {
                        for (tap, &weight) in weight.iter().enumerate() {
                            let weight = f64::from(weight);
                            kernel[tap] += inner.scale * weight;
                            found.inside[tap] += (inner.shift - border) * weight;
                            found.constant += border * weight;
                        }
                    }
                }
                BranchMap::PaddedAverage { .. } => unreachable!("`serves` has excluded it"),
            }
            found.close(grid, moments, branch.norm.as_ref(), channel);
        }
        if let Some(outer) = &mut self.outer {
            outer.affine.kernel.fill(0.0);
            outer.inside.fill(0.0);
            outer.constant = 0.0;
            for (branch, found) in form.block.branches.iter().zip(&self.all) {
                let norm = channel_norm(branch.norm.as_ref(), channel);
                let scale = found.affine.scale(norm.gamma);
                add_scaled(scale, &found.affine.kernel, &mut outer.affine.kernel);
                add_scaled(scale, &found.inside, &mut outer.inside);
                outer.constant += norm.beta - scale * found.affine.mean;
            }
            outer.close(grid, moments, form.block.outer.as_ref(), channel);
        }
    }

    /// Kernel and biases (by class) of the block.
    pub(super) fn merge(
        &self,
        form: &Form<'_>,
        channel: usize,
        kernel: &mut [f64],
        bias: &mut [f64],
    ) {
        kernel.fill(0.0);
        bias.fill(0.0);
        if let Some(outer) = &self.outer {
            let norm = channel_norm(form.block.outer.as_ref(), channel);
            return outer.affine.add_to(norm, kernel, bias);
        }
        for (branch, found) in form.block.branches.iter().zip(&self.all) {
            found.affine.add_to(channel_norm(branch.norm.as_ref(), channel), kernel, bias);
        }
    }

    /// Statistics of the outer norm's input.
    pub(super) fn outer_statistics(&self) -> Option<[f64; 2]> {
        self.outer.as_ref().map(ChannelBranch::statistics)
    }

    /// Computes the gradients of the branches from the sums over the output gradient.
    pub(super) fn backward(
        &self,
        form: &Form<'_>,
        channel: usize,
        moments: &Moments<'_>,
        sums: &GradSums<'_>,
        grads: &mut ChannelGrads,
    ) {
        let (grid, outputs) = (&form.grid, form.outputs());
        let mut inner_sums = None;
        if let (Some(outer), Some(grad)) = (&self.outer, &mut grads.outer) {
            let gamma = channel_norm(form.block.outer.as_ref(), channel).gamma;
            outer.affine.backward(grid, moments, sums, gamma, outputs, grad);
            let tap = grad.kernel.iter().zip(&grad.inside);
            let tap: Vec<f64> = tap.map(|(sum, inside)| sum - moments.shift * inside).collect();
            inner_sums = Some((grad.by_class.clone(), tap));
        }
        let sums = match &inner_sums {
            Some((class, tap)) => &GradSums { class, tap },
            None => sums,
        };
        for ((branch, found), grad) in form.block.branches.iter().zip(&self.all).zip(&mut grads.all)
        {
            let gamma = channel_norm(branch.norm.as_ref(), channel).gamma;
            found.affine.backward(grid, moments, sums, gamma, outputs, grad);
        }
    }
}

/// The gradients of the branches of one channel.
pub(super) struct ChannelGrads {
    pub all: Vec<AffineGrad>,
    pub outer: Option<AffineGrad>,
}

impl ChannelGrads {
    pub(super) fn new(form: &Form<'_>) -> Self {
        let grad = AffineGrad::new(&form.grid);
        let outer = form.block.outer.map(|_| grad.clone());
        Self { all: vec![grad; form.branches()], outer }
    }
}

/// The border value of an inner channel.
fn border(form: &Form<'_>, opening: &PaddedNorm<'_>, j: usize, inner: &Inner) -> f64 {
    if opening.fixed {
        return inner.shift;
    }
    let inputs = form.inputs();
    opening.border(j, Some([inner.mean, inner.variance * inputs / (inputs - 1.0)]))
}
