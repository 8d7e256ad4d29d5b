//! The plain convolution with batch norm.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::batch_norm::BatchNorm;
use super::block::{ConvBlock, PlainBranch, Positions};
use super::branch_sum::{BranchMap, BranchSum, SumBranch};
use super::conv_spec::{ConvSpec, host_conv, weights};
use super::epilogue::Epilogue;
use crate::algebra::{ConvParams, fuse_conv_bn};
use crate::cpu_ops;
use crate::error::ConfigError;
use crate::implementation::LayerCount;

/// A convolution without bias, followed by batch norm: the baseline of every comparison and
/// the first two branches of a Diverse Branch Block.
#[derive(Module, Debug)]
pub struct ConvBn {
    /// The convolution.
    pub conv: Conv2d,
    /// The norm of its output.
    pub bn: BatchNorm,
}

impl ConvBn {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// A geometry that is impossible.
    pub fn new(spec: &ConvSpec, device: &Device) -> Result<Self, ConfigError> {
        spec.check()?;
        Ok(Self { conv: spec.init_conv(device), bn: BatchNorm::new(spec.channels[1], device) })
    }

    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// The block as a branch of another.
    pub(crate) fn branch(&self) -> SumBranch<'_> {
        SumBranch { map: BranchMap::Conv(&self.conv), norm: &self.bn }
    }
}

impl ConvBlock for ConvBn {
    fn spec(&self) -> ConvSpec {
        ConvSpec::of(&self.conv)
    }

    fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        let output = ConvSpec::find(&self.conv).and_then(|spec| {
            let sum = BranchSum { spec, branches: vec![self.branch()] };
            cpu_ops::branch_sum(&sum, &input, &epilogue)
        });
        output.unwrap_or_else(|| {
            LayerCount::plain(|| epilogue.forward(self.bn.forward(self.conv.forward(input))))
        })
    }

    /// Transform I.
    fn equivalent(&self) -> ConvParams {
        fuse_conv_bn(&host_conv(&self.conv), &self.bn.stats())
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        vec![&mut self.bn]
    }

    fn macs(&self, positions: Positions) -> usize {
        weights(&self.conv.weight) * positions.output
    }

    fn plain_branch(&self) -> Result<PlainBranch, ConfigError> {
        Ok(PlainBranch { epsilon: self.bn.epsilon, path: "", closing_norms: &[] })
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}
