//! The form of a block, and its branches in one channel.

use super::algebra::{Affine, ChannelNorm, Inner, Moments};
use super::dbb::{Dbb, PointwiseKxk};
use super::grid::Grid;
use crate::Norm;
use crate::norm::check_count;
use crate::shape::Geometry;

/// The form of a block: which branches it has, and where its parameters and moments lie.
pub(super) struct Form<'a> {
    pub block: &'a Dbb<'a>,
    pub grid: Grid,
    pub channels: usize,
    pub batch: usize,
    /// Internal channels of each channel.
    pub width: usize,
}

impl<'a> Form<'a> {
    pub(super) fn new(shape: &Geometry, block: &'a Dbb<'a>) -> Self {
        let channels = shape.out_channels;
        assert!(
            shape.in_channels == channels && shape.groups == channels,
            "a depthwise block has as many groups and inputs as outputs"
        );
        let grid = Grid::new(shape);
        check_count(shape.batch * grid.output());
        let mut width = 0;
        if let Some(branch) = &block.kxk {
            assert_eq!(branch.weight.len(), channels * grid.taps(), "weight of the KxK branch");
            branch.norm.check(channels);
        }
        if let Some(branch) = &block.pointwise_kxk {
            check_count(shape.batch * grid.input());
            let internal = branch.weight1.len();
            width = internal / channels;
            assert!(width > 0 && internal == width * channels, "internal channels");
            assert_eq!(branch.weight2.len(), internal * grid.taps(), "weight after the 1x1");
            branch.norm1.check(internal);
            branch.norm2.check(channels);
            let running = [branch.running_mean.len(), branch.running_var.len()];
            assert_eq!(running, [internal; 2], "running statistics");
        }
        if let Some(branch) = &block.average {
            branch.check(channels);
        }
        let form = Self { block, grid, channels, batch: shape.batch, width };
        assert!(form.branches() > 0, "a block has a branch");
        form
    }

    /// The closing norms of the branches that there are.
    pub(super) fn closing_norms(&self) -> impl Iterator<Item = &Norm<'a>> {
        let Dbb { kxk, pointwise_kxk, average } = self.block;
        let norms = [
            kxk.as_ref().map(|branch| &branch.norm),
            pointwise_kxk.as_ref().map(|branch| &branch.norm2),
            average.as_ref(),
        ];
        norms.into_iter().flatten()
    }

    pub(super) fn branches(&self) -> usize {
        self.closing_norms().count()
    }

    /// Length of a channel's record: shift, mean, variance, borders, first and second moments.
    pub(super) fn record(&self) -> usize {
        let taps = self.grid.taps();
        3 + self.width + taps * self.grid.classes() + taps * (taps + 1) / 2
    }

    pub(super) fn moments<'r>(&self, record: &'r [f64]) -> Moments<'r> {
        let (first, second) =
            record[3 + self.width..].split_at(self.grid.taps() * self.grid.classes());
        Moments { shift: record[0], mean: record[1], variance: record[2], first, second }
    }

    pub(super) fn borders<'r>(&self, record: &'r [f64]) -> &'r [f64] {
        &record[3..3 + self.width]
    }

    pub(super) fn outputs(&self) -> f64 {
        (self.batch * self.grid.output()) as f64
    }

    pub(super) fn inputs(&self) -> f64 {
        (self.batch * self.grid.input()) as f64
    }
}

/// Batch norm of one channel.
pub(super) fn channel_norm(norm: &Norm<'_>, channel: usize) -> ChannelNorm {
    let (gamma, beta) = (norm.gamma[channel].into(), norm.beta[channel].into());
    ChannelNorm { gamma, beta, epsilon: norm.epsilon }
}

/// The branches of one channel.
pub(super) struct Branches {
    pub kxk: Option<Affine>,
    pub pointwise_kxk: Option<Affine>,
    pub average: Option<Affine>,
    /// The inner norms of the 1x1-KxK branch.
    pub inner: Vec<Inner>,
    /// What the 1x1-KxK branch adds for each tap inside the input.
    pub inside: Vec<f64>,
}

impl Branches {
    pub(super) fn new(form: &Form<'_>) -> Self {
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
    pub(super) fn open(&mut self, form: &Form<'_>, channel: usize, moments: &Moments<'_>) {
        self.inner.clear();
        if let Some(branch) = &form.block.pointwise_kxk {
            self.inner.extend((channel * form.width..(channel + 1) * form.width).map(|j| {
                Inner::new(moments, branch.weight1[j].into(), channel_norm(&branch.norm1, j))
            }));
        }
    }

    /// Computes the branches of a channel, given its inner norms and their border values.
    pub(super) fn close(
        &mut self,
        form: &Form<'_>,
        channel: usize,
        moments: &Moments<'_>,
        borders: &[f64],
    ) {
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
    pub(super) fn affine(&self) -> impl Iterator<Item = &Affine> {
        [&self.kxk, &self.pointwise_kxk, &self.average].into_iter().flatten()
    }
}

/// Value of the padding of an inner channel: the image of zero under the running statistics as
/// this step leaves them.
pub(super) fn border(form: &Form<'_>, branch: &PointwiseKxk<'_>, j: usize, inner: &Inner) -> f64 {
    let inputs = form.inputs();
    let kept = |stat: f32, newest: f64| {
        (1.0 - branch.momentum) * f64::from(stat) + branch.momentum * newest
    };
    let mean = kept(branch.running_mean[j], inner.mean);
    let variance = kept(branch.running_var[j], inner.variance * inputs / (inputs - 1.0));
    let norm = channel_norm(&branch.norm1, j);
    norm.beta - norm.gamma * mean / (variance + norm.epsilon).sqrt()
}
