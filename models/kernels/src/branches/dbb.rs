//! The four branches of a dense Diverse Branch Block as a sum.

use super::{BranchGrad, BranchMap, BranchStatistics, BranchSum, SumGrad, SumStatistics, Wanted};
use crate::ConvNorm;
use crate::dense::{DenseBlock, DenseSaved, DenseStatistics};

impl<'a> BranchSum<'a> {
    /// The dense block that the sum is: KxK, 1x1, 1x1 and KxK, 1x1 and average, every norm with the
    /// statistics of the batch.
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

    pub(super) fn statistics_of_dense(&self, found: DenseStatistics) -> SumStatistics {
        let DenseStatistics { kxk, pointwise, pointwise_kxk, average } = found;
        let ([opening, second], [average_opening, average]) = (pointwise_kxk, average);
        let branch = |opening, closing| BranchStatistics { opening, closing: Some(closing) };
        let branches = vec![
            branch(None, kxk),
            branch(None, pointwise),
            branch(Some(opening), second),
            branch(Some(average_opening), average),
        ];
        SumStatistics { branches, outer: None }
    }

    pub(super) fn backward_dense(
        &self,
        x: &[f32],
        y: &[f32],
        saved: &DenseSaved,
        grad: &[f32],
        wanted: Wanted,
    ) -> SumGrad {
        let block = self.as_dense_dbb().expect("what the forward pass of this sum has saved");
        let found = block.backward(x, y, saved, grad, [wanted.input, wanted.residual]);
        let branch = |weight, opening, norm| BranchGrad { weight, opening, norm: Some(norm) };
        let (opening, second) = found.pointwise_kxk;
        let (average_opening, average) = found.average;
        let branches = vec![
            branch(found.kxk.weight, None, found.kxk.norm),
            branch(found.pointwise.weight, None, found.pointwise.norm),
            branch(second.weight, Some(opening), second.norm),
            branch(Vec::new(), Some(average_opening), average),
        ];
        SumGrad { input: found.input, residual: found.residual, branches, outer: None }
    }
}
