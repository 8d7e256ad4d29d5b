//! What each branch of a block adds to the folded kernel.

use super::branch_sum::{BranchMap, BranchSum, SumBranch, closed};
use super::conv_spec::host;
use crate::algebra::{ConvParams, Kernel};

/// What a branch adds to the kernel of its block. The kernels of all parts add up to that of the
/// fold.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchPart {
    /// What the branch computes, as `model.dbb.branches` calls it: `kxk`, `1x1`, `1x1_kxk`,
    /// `1x1_avg`, and besides `avg`, `kx1`, `1xk`, `identity` and the branches of OREPA. Copies are
    /// numbered: `kxk`, `kxk 2`.
    pub name: String,
    /// Its kernel in the window of the block, all norms folded in.
    pub kernel: Kernel,
    /// What scales its output channels: `gamma` of its closing norm, or its row of OREPA's `vector`.
    /// `None` if nothing does.
    pub scales: Option<Vec<f64>>,
}

impl BranchSum<'_> {
    /// What each branch adds to the kernel of [`Self::equivalent`].
    pub fn parts(&self) -> Vec<BranchPart> {
        let mut parts: Vec<BranchPart> = Vec::new();
        for branch in &self.branches {
            let name = self.name(branch);
            let copies =
                1 + parts.iter().filter(|part| part.name.split(' ').next() == Some(name)).count();
            let params = ConvParams::without_bias(self.folded(branch).kernel);
            parts.push(BranchPart {
                name: if copies > 1 { format!("{name} {copies}") } else { name.into() },
                kernel: closed(params, self.outer).kernel,
                scales: branch.norm.map(|norm| host(norm.gamma.val())),
            });
        }
        parts
    }

    fn name(&self, branch: &SumBranch<'_>) -> &'static str {
        let of_size = |[height, width]: [usize; 2]| match [height, width] {
            [1, 1] => "1x1",
            _ if [height, width] == self.spec.kernel_size => "kxk",
            [_, 1] => "kx1",
            _ => "1xk",
        };
        match &branch.map {
            BranchMap::Conv(conv) => of_size(conv.kernel_size),
            BranchMap::Kernel(_) => of_size(self.spec.kernel_size),
            BranchMap::Identity => "identity",
            BranchMap::Average => "avg",
            BranchMap::PaddedConv(..) => "1x1_kxk",
            BranchMap::PaddedAverage(..) => "1x1_avg",
        }
    }
}
