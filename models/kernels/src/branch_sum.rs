//! A block as a sum of branches: what it is made of, its statistics and its gradients.

use crate::conv_norm::{BatchStatistics, Norm};
use crate::padded_norm::{PaddedNorm, PaddedNormGrad};
use crate::shape::{ConvShape, Geometry};

/// A sum of branches over one input.
#[derive(Clone, Copy, Debug)]
pub struct BranchSum<'a> {
    /// The geometry of the largest kernel, which contains the kernels of all branches.
    pub shape: ConvShape,
    /// At least one.
    pub branches: &'a [Branch<'a>],
    /// A norm of the sum.
    pub outer: Option<Norm<'a>>,
}

/// A linear map of the input and its closing norm. Without a norm the map is added unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Branch<'a> {
    /// The map.
    pub map: BranchMap<'a>,
    /// Its norm.
    pub norm: Option<Norm<'a>>,
}

/// A linear map of the input of a block.
#[derive(Clone, Copy, Debug)]
pub enum BranchMap<'a> {
    /// A convolution.
    Conv {
        /// `[out, in / groups, height, width]`.
        weight: &'a [f32],
        /// Height and width. The kernel lies in the middle of the window, which is larger by an
        /// even number. If the margin exceeds the padding, the convolution does not read the edge
        /// of the input.
        kernel: [usize; 2],
    },
    /// The input itself; the block must keep its shape.
    Identity,
    /// The mean over the window, in which padding counts as zero; the block must keep the number of
    /// channels.
    Average,
    /// 1x1 convolution, batch norm padded with its output for zero, convolution with the window.
    PaddedConv {
        /// The 1x1 convolution and its norm.
        opening: PaddedNorm<'a>,
        /// `[out, internal / groups, height, width]`.
        weight: &'a [f32],
    },
    /// 1x1 convolution, batch norm padded with its output for zero, mean over the window.
    PaddedAverage {
        /// The 1x1 convolution and its norm.
        opening: PaddedNorm<'a>,
    },
}

/// The batch statistics of the norms of a sum. A norm that uses constants has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SumStatistics {
    /// Of each branch.
    pub branches: Vec<BranchStatistics>,
    /// Of the norm of the sum.
    pub outer: Option<BatchStatistics>,
}

/// The batch statistics of the norms of a branch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BranchStatistics {
    /// Of the norm behind the 1x1 convolution.
    pub opening: Option<BatchStatistics>,
    /// Of the closing norm.
    pub closing: Option<BatchStatistics>,
}

/// The gradients of a sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SumGrad {
    /// Of the input, if it was wanted.
    pub input: Option<Vec<f32>>,
    /// Of the residual, if it was wanted.
    pub residual: Option<Vec<f32>>,
    /// Of the branches.
    pub branches: Vec<BranchGrad>,
    /// Of scale and shift of the norm of the sum.
    pub outer: Option<[Vec<f32>; 2]>,
}

/// The gradients of a branch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BranchGrad {
    /// Of the weight; empty where there is none. Where the parameters are not wanted it may be empty,
    /// too.
    pub weight: Vec<f32>,
    /// Of the 1x1 convolution and its norm.
    pub opening: Option<PaddedNormGrad>,
    /// Of scale and shift of the closing norm.
    pub norm: Option<[Vec<f32>; 2]>,
}

/// The gradients that a backward pass has to compute. Others may be there where they cost nothing.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of the input.
    pub input: bool,
    /// Of the residual.
    pub residual: bool,
    /// Of weights, scales and shifts.
    pub parameters: bool,
}

impl BranchSum<'_> {
    /// # Panics
    /// If a length does not match the shape, there is no branch, or a norm that uses the statistics
    /// of the batch has only one value per channel.
    pub(crate) fn check(&self, x: &[f32], y: &[f32], residual: Option<&[f32]>) {
        let shape = &Geometry::new(&self.shape, x.len(), y.len()).with_residual(residual);
        let (window, outputs) = (shape.window(), shape.out_channels);
        let count = shape.batch * shape.output_positions();
        let opening_count = shape.batch * shape.input_positions();
        assert!(!self.branches.is_empty(), "a sum has a branch");
        self.outer.iter().for_each(|norm| norm.check(outputs, count));
        for branch in self.branches {
            branch.norm.iter().for_each(|norm| norm.check(outputs, count));
            let keeps_channels = shape.in_channels == outputs;
            match &branch.map {
                BranchMap::Conv { weight, kernel } => {
                    let fits = |axis: usize| {
                        let (of, window) = (kernel[axis], shape.kernel[axis]);
                        (1..=window).contains(&of) && (window - of).is_multiple_of(2)
                    };
                    assert!(fits(0) && fits(1), "a kernel in the middle of the window");
                    let len = shape.weight_len() / window * kernel[0] * kernel[1];
                    assert_eq!(weight.len(), len, "values of a weight");
                }
                BranchMap::Identity => {
                    let centred = [0, 1].map(|axis| 2 * shape.padding[axis] + 1);
                    assert!(
                        keeps_channels && shape.stride == [1, 1] && shape.kernel == centred,
                        "an identity where the block keeps the shape of its input"
                    );
                }
                BranchMap::Average => assert!(keeps_channels, "an average of the input itself"),
                BranchMap::PaddedConv { opening, weight } => {
                    let internal = opening.gamma.len();
                    assert!(internal.is_multiple_of(shape.groups), "groups divide channels");
                    opening.check([shape.in_channels, internal], shape.groups, opening_count);
                    let len = outputs * (internal / shape.groups) * window;
                    assert_eq!(weight.len(), len, "values of a weight");
                }
                BranchMap::PaddedAverage { opening } => {
                    opening.check([shape.in_channels, outputs], shape.groups, opening_count);
                }
            }
        }
    }
}

impl<'a> Branch<'a> {
    /// The opening norm.
    pub(crate) fn opening(&self) -> Option<&PaddedNorm<'a>> {
        match &self.map {
            BranchMap::PaddedConv { opening, .. } | BranchMap::PaddedAverage { opening } => {
                Some(opening)
            }
            _ => None,
        }
    }

    /// Whether the closing norm, if there is one, uses constants.
    pub(crate) fn is_fixed(&self) -> bool {
        self.norm.is_none_or(|norm| norm.fixed.is_some())
    }
}

impl SumStatistics {
    /// Empty statistics of the norms that use those of the batch.
    pub(crate) fn of(sum: &BranchSum<'_>) -> Self {
        let batch = |norm: &Option<Norm<'_>>| {
            norm.is_some_and(|norm| norm.fixed.is_none()).then(BatchStatistics::default)
        };
        let branches = sum.branches.iter().map(|branch| BranchStatistics {
            opening: branch.opening().and_then(|norm| (!norm.fixed).then(Default::default)),
            closing: batch(&branch.norm),
        });
        Self { branches: branches.collect(), outer: batch(&sum.outer) }
    }

    /// All statistics, in a fixed order.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut BatchStatistics> {
        self.branches
            .iter_mut()
            .flat_map(|branch| [&mut branch.opening, &mut branch.closing])
            .chain([&mut self.outer])
            .flatten()
    }
}
