//! The plain convolution with batch norm.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::batch_norm::BatchNorm;
use super::block::{BlockTensors, ConvBlock, Description, OfficialBlock, PlainConv};
use super::branch_sum::{BranchMap, BranchSum, SumBranch};
use super::conv_spec::ConvSpec;
use super::epilogue::Epilogue;
use crate::error::ConfigError;
use crate::implementation::LayerCount;
use crate::state_dict::StateDict;

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
        SumBranch { map: BranchMap::Conv(&self.conv), norm: Some(&self.bn) }
    }
}

impl ConvBlock for ConvBn {
    fn spec(&self) -> ConvSpec {
        ConvSpec::of(&self.conv)
    }

    fn sum(&self) -> BranchSum<'_> {
        BranchSum::new(self.spec(), vec![self.branch()])
    }

    fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        match ConvSpec::find(&self.conv) {
            Some(_) => self.sum().forward_then(input, epilogue),
            None => {
                LayerCount::plain(|| epilogue.forward(self.bn.forward(self.conv.forward(input))))
            }
        }
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        vec![&mut self.bn]
    }

    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError> {
        plain.put("conv.weight", "bn.", own);
        Ok(())
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

impl OfficialBlock for ConvBn {
    /// A plain convolution is no block of several branches to fold.
    const MARKS: &'static [&'static str] = &[];

    fn describe(_: &BlockTensors<'_>) -> Result<Description, String> {
        Err("it is a plain convolution".into())
    }

    fn folded_module(_: [usize; 2]) -> &'static str {
        "conv"
    }
}
