//! A sum of branches over one input in training: each branch a linear map of the input, closed by
//! a batch norm of its own, and behind the sum an optional norm, a residual and an activation.
//!
//! Diverse Branch Blocks with any of their branches, asymmetric convolutions (ACNet), RepVGG,
//! MobileOne and QARepVGG are such sums. A norm uses the statistics of the batch, or constants.
//! Three algorithms compute them, with the results of the definition:
//!
//! - a depthwise sum is one convolution, whose statistics follow from the moments of the values
//!   under the window (see [`crate::depthwise`]);
//! - the four branches of a dense Diverse Branch Block share their opening moments (see
//!   [`dense`](crate::dense));
//! - every other sum is computed by the maps that its norms read: `maps.rs`.

mod dbb;
mod maps;
mod opened;
mod source;
// The definitions take too long under Miri, which runs every kind of branch in `tests::buffers`.
#[cfg(all(test, not(miri)))]
mod tests;
mod window;

pub use crate::branch_sum::{
    Branch, BranchGrad, BranchMap, BranchStatistics, BranchSum, SumGrad, SumStatistics, Wanted,
};
use crate::dense::DenseSaved;
use crate::members::{Batch, Members};
use crate::{Activation, depthwise};
use maps::Maps;

/// What the backward pass needs besides input and output.
#[derive(Clone, Debug)]
pub struct SumSaved(Saved);

#[derive(Clone, Debug)]
enum Saved {
    Depthwise(depthwise::Saved),
    Dense(Box<DenseSaved>),
    Maps(Box<Maps>),
}

impl BranchSum<'_> {
    /// `y = act(norm(sum of the branches of x) + residual)`; `x` is `[batch, in, height, width]`,
    /// `y` and `residual` `[batch, out, height', width']`.
    ///
    /// # Panics
    /// If a length does not match the shape, there is no branch, or a norm that uses the statistics
    /// of the batch has only one value per channel.
    pub fn forward(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        activation: Activation,
        y: &mut [f32],
    ) -> (SumStatistics, SumSaved) {
        self.check(x, y, residual);
        let (statistics, saved) = if depthwise::serves(self) {
            let (statistics, saved) = depthwise::forward(self, x, residual, activation, y);
            (statistics, Saved::Depthwise(saved))
        } else if let Some(block) = self.as_dense_dbb() {
            let (statistics, saved) = block.forward(x, residual, activation, y);
            (statistics, Saved::Dense(Box::new(saved)))
        } else {
            let whole = Batch::new(self.shape.batch, None);
            let (statistics, saved) = self.forward_maps(x, residual, activation, y, whole);
            (statistics, Saved::Maps(Box::new(saved)))
        };
        (statistics, SumSaved(saved))
    }

    /// The same for a part of a batch that is spread over members of a group: norms take the
    /// statistics of the whole. Every sum is computed by its maps, with one sum over the members for
    /// each opening norm, one for all closing norms, and one for the norm of the sum.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_in_group(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        activation: Activation,
        y: &mut [f32],
        members: &dyn Members,
    ) -> (SumStatistics, SumSaved) {
        self.check(x, y, residual);
        let whole = Batch::new(self.shape.batch, Some(members));
        let (statistics, saved) = self.forward_maps(x, residual, activation, y, whole);
        (statistics, SumSaved(Saved::Maps(Box::new(saved))))
    }

    /// The backward pass of [`forward_in_group`](Self::forward_in_group), with as many sums. The
    /// gradient of the input is that of the losses of all members; those of the parameters are of
    /// this part, and their sums over the members that of the batch.
    ///
    /// # Panics
    /// If a length does not fit the shape, or another forward pass was saved.
    pub fn backward_in_group(
        &self,
        x: &[f32],
        y: &[f32],
        saved: &SumSaved,
        grad: &[f32],
        wanted: Wanted,
        members: &dyn Members,
    ) -> SumGrad {
        self.check(x, y, None);
        assert_eq!(grad.len(), y.len(), "length of the output's gradient");
        let Saved::Maps(saved) = &saved.0 else { panic!("a forward pass of a group") };
        let whole = Batch::new(self.shape.batch, Some(members));
        self.backward_maps(x, y, saved, grad, wanted, whole)
    }

    /// Computes the gradients from that of `y`. Statistics of norms that use constants, and border
    /// values, have no gradient.
    ///
    /// # Panics
    /// If a length does not fit the shape.
    pub fn backward(
        &self,
        x: &[f32],
        y: &[f32],
        saved: &SumSaved,
        grad: &[f32],
        wanted: Wanted,
    ) -> SumGrad {
        self.check(x, y, None);
        assert_eq!(grad.len(), y.len(), "length of the output's gradient");
        match &saved.0 {
            Saved::Depthwise(saved) => depthwise::backward(self, x, y, saved, grad, wanted),
            Saved::Dense(saved) => {
                let block = self.as_dense_dbb().expect("what the forward pass has computed");
                block.backward(x, y, saved, grad, wanted)
            }
            Saved::Maps(saved) => {
                let whole = Batch::new(self.shape.batch, None);
                self.backward_maps(x, y, saved, grad, wanted, whole)
            }
        }
    }
}
