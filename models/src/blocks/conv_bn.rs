//! The plain convolution with batch norm.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::block::{BlockTensors, ConvBlock, Description, OfficialBlock, PlainConv};
use crate::error::ConfigError;
use crate::implementation::LayerCount;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_sum::{BranchMap, BranchSum, SumBranch};
use crate::layers::conv_spec::ConvSpec;
use crate::layers::epilogue::Epilogue;
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

#[cfg(test)]
mod tests {
    use burn::nn::PaddingConfig2d;
    use burn::nn::conv::Conv2dConfig;
    use burn::tensor::Distribution;

    use super::*;

    fn block(change: impl Fn(Conv2dConfig) -> Conv2dConfig) -> ConvBn {
        let device = Device::default();
        let mut block = ConvBn::new(&ConvSpec::square([2, 3], 3, 1), &device).unwrap();
        let config = Conv2dConfig::new([2, 3], [3, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .with_bias(false);
        block.conv = change(config).init(&device);
        block
    }

    /// A convolution that a kernel cannot hold.
    #[test]
    fn any_convolution_is_computed() {
        let changes: [fn(Conv2dConfig) -> Conv2dConfig; 3] = [
            |config| config.with_dilation([2, 2]),
            |config| config.with_padding(PaddingConfig2d::Explicit(1, 1, 2, 1)),
            |config| config.with_padding(PaddingConfig2d::Same),
        ];
        for change in changes {
            let block = block(change).train();
            let device = Device::default().autodiff();
            let input = Tensor::random([2, 2, 5, 5], Distribution::Default, &device);
            let expected = block.bn.forward(block.conv.forward(input.clone()));
            let found = block.forward_then(input, Epilogue::default());
            found.into_data().assert_eq(&expected.into_data(), true);
        }
    }

    #[test]
    #[should_panic(expected = "a block's convolution has no dilation")]
    fn a_block_that_cannot_fold_says_why() {
        block(|config| config.with_dilation([2, 2])).spec();
    }
}
