//! Blocks with parameters drawn at random.

use crate::branches::{Branch, BranchMap, BranchSum, SumGrad, SumSaved, SumStatistics, Wanted};
use crate::dense::{DenseBlock, PaddedNorm};
use crate::testing::{positive, random};
use crate::{Activation, ConvNorm, ConvShape, Norm};

const EPSILON: f64 = 1e-5;

/// A small shape of as many outputs as inputs.
pub const SHAPE: ConvShape = ConvShape {
    batch: 2,
    in_channels: 4,
    out_channels: 4,
    input: [3, 5],
    kernel: [3, 3],
    stride: [1, 1],
    padding: [1, 1],
    groups: 1,
};

/// Parameters of a block of these channels, of every kind.
pub struct Parameters {
    pub shape: ConvShape,
    pub weight: Vec<f32>,
    pub pointwise: Vec<f32>,
    /// Scale, shift, running mean and running variance, of the channels before and after a branch.
    pub norm: [Vec<f32>; 4],
}

impl Parameters {
    pub fn new(shape: &ConvShape) -> Self {
        let channels = shape.out_channels;
        Self {
            shape: *shape,
            weight: random(1, shape.weight_len()),
            pointwise: random(2, channels * shape.in_channels / shape.groups),
            norm: [
                positive(3, channels),
                random(4, channels),
                random(5, channels),
                positive(6, channels),
            ],
        }
    }

    /// For shapes that have no length.
    pub fn none(shape: &ConvShape) -> Self {
        Self { shape: *shape, weight: vec![], pointwise: vec![], norm: [(); 4].map(|()| vec![]) }
    }

    pub fn norm(&self) -> Norm<'_> {
        Norm { gamma: &self.norm[0], beta: &self.norm[1], epsilon: EPSILON, fixed: None }
    }

    pub fn conv_norm(&self) -> ConvNorm<'_> {
        ConvNorm { weight: &self.weight, norm: self.norm() }
    }

    fn opening(&self) -> PaddedNorm<'_> {
        PaddedNorm {
            weight: &self.pointwise,
            gamma: &self.norm[0],
            beta: &self.norm[1],
            running_mean: &self.norm[2],
            running_var: &self.norm[3],
            momentum: 0.1,
            epsilon: EPSILON,
            fixed: false,
        }
    }

    pub fn dense(&self) -> DenseBlock<'_> {
        let opening = self.opening();
        DenseBlock {
            shape: self.shape,
            kxk: self.conv_norm(),
            pointwise: ConvNorm { weight: &self.pointwise, norm: self.norm() },
            pointwise_kxk: (opening, self.conv_norm()),
            average: (opening, self.norm()),
        }
    }

    /// KxK, 1x1 and KxK, average.
    pub fn branches(&self) -> [Branch<'_>; 3] {
        let weight = &self.weight;
        [
            BranchMap::Conv { weight, kernel: self.shape.kernel },
            BranchMap::PaddedConv { opening: self.opening(), weight },
            BranchMap::Average,
        ]
        .map(|map| Branch { map, norm: Some(self.norm()) })
    }

    /// The sum of the first branches.
    pub fn forward(&self, count: usize, x: &[f32], y: &mut [f32]) -> (SumStatistics, SumSaved) {
        let branches = &self.branches()[..count];
        let sum = BranchSum { shape: self.shape, branches, outer: None };
        sum.forward(x, None, Activation::Identity, y)
    }

    pub fn backward(
        &self,
        count: usize,
        x: &[f32],
        y: &[f32],
        saved: &SumSaved,
        dy: &[f32],
    ) -> SumGrad {
        let branches = &self.branches()[..count];
        let sum = BranchSum { shape: self.shape, branches, outer: None };
        sum.backward(x, y, saved, dy, WANTED)
    }
}

pub const WANTED: Wanted = Wanted { input: true, residual: false, parameters: true };
