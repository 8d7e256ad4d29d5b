//! What every block in training form offers.

use burn::tensor::Tensor;

use super::batch_norm::BatchNorm;
use super::conv_spec::ConvSpec;
use super::epilogue::Epilogue;
use crate::algebra::ConvParams;
use crate::error::ConfigError;

/// A block in training form: in inference it is equal to one convolution with bias.
///
/// To add a block, implement this trait and `new` in a file of its own, and name the block in the
/// list in `blocks/unit.rs`.
pub trait ConvBlock {
    /// The geometry of the convolution that the block folds into.
    fn spec(&self) -> ConvSpec;

    /// `[batch, in, height, width]` to `[batch, out, height', width']`, then the epilogue.
    fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4>;

    /// The equivalent kernel and bias, in `f64` on the host.
    fn equivalent(&self) -> ConvParams;

    /// Every batch norm.
    fn norms_mut(&mut self) -> Vec<&mut BatchNorm>;

    /// Multiply-accumulate operations of the convolutions of all branches, as the block defines
    /// them, for one image whose map has so many positions before and after the stride.
    fn macs(&self, positions: Positions) -> usize;

    /// The branch that can take over a plain convolution with its batch norm, so that the block
    /// starts as that convolution.
    ///
    /// # Errors
    /// If the block was configured without such a branch.
    fn plain_branch(&self) -> Result<PlainBranch, ConfigError>;

    /// Native and official beginnings of a tensor's path within the block; the first match counts.
    fn official_names(&self) -> Vec<(&'static str, &'static str)>;
}

/// Positions of a map before and after the stride of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Of the input.
    pub input: usize,
    /// Of the output.
    pub output: usize,
}

/// The branch of a block that can take over a plain convolution with its batch norm.
#[derive(Clone, Copy, Debug)]
pub struct PlainBranch {
    /// Epsilon of its batch norm.
    pub epsilon: f64,
    /// Its path in the block, with the last dot.
    pub path: &'static str,
    /// Paths of the closing norms of the other branches, present or not; with scale and shift 0
    /// in them the block is its plain branch.
    pub closing_norms: &'static [&'static str],
}
