//! The four branches of a dense Diverse Branch Block as a sum.

use super::{BranchMap, BranchSum};
use crate::ConvNorm;
use crate::dense::DenseBlock;

impl<'a> BranchSum<'a> {
    /// The sum as a dense block, if it is one: KxK, 1x1, 1x1-KxK and 1x1-average branches, in which
    /// every norm uses the statistics of the batch.
    pub(super) fn as_dense_dbb(&self) -> Option<DenseBlock<'a>> {
        let shape = self.shape;
        let [kxk, pointwise, second, average] = self.branches else { return None };
        let (
            BranchMap::Conv { weight: kxk_weight, kernel },
            BranchMap::Conv { weight: pointwise_weight, kernel: [1, 1] },
            BranchMap::PaddedConv { opening, weight: second_weight },
            BranchMap::PaddedAverage { opening: average_opening },
        ) = (kxk.map, pointwise.map, second.map, average.map)
        else {
            return None;
        };
        let fixed = self.branches.iter().any(|branch| branch.is_fixed())
            || opening.fixed
            || average_opening.fixed;
        let centred = kernel == shape.kernel
            && [0, 1].iter().all(|&axis| 2 * shape.padding[axis] + 1 == kernel[axis]);
        if fixed || !centred || shape.groups > 1 || self.outer.is_some() {
            return None;
        }
        let conv = |weight, norm| Some(ConvNorm { weight, norm: norm? });
        Some(DenseBlock {
            shape,
            kxk: conv(kxk_weight, kxk.norm)?,
            pointwise: conv(pointwise_weight, pointwise.norm)?,
            pointwise_kxk: (opening, conv(second_weight, second.norm)?),
            average: (average_opening, average.norm?),
        })
    }
}
