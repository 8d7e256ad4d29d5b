//! The Asymmetric Convolution Block (Ding et al., ACNet, ICCV 2019).

use burn::module::Module;
use burn::tensor::Device;

use super::block::{BlockTensors, ConvBlock, Description, OfficialBlock, PlainConv, close};
use super::conv_bn::ConvBn;
use super::unit::Block;
use crate::error::ConfigError;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_sum::BranchSum;
use crate::layers::conv_spec::ConvSpec;
use crate::state_dict::StateDict;

/// A KxK, a Kx1 and a 1xK convolution over one input, each with batch norm, whose outputs are
/// added; equal in inference to one KxK convolution with bias.
#[derive(Module, Debug)]
pub struct AsymmetricConvBlock {
    /// The KxK convolution.
    pub square: ConvBn,
    /// The Kx1 convolution, the middle column of the window.
    pub vertical: ConvBn,
    /// The 1xK convolution, the middle row of the window.
    pub horizontal: ConvBn,
    #[module(skip)]
    spec: ConvSpec,
}

impl AsymmetricConvBlock {
    /// A block with fresh weights.
    ///
    /// # Errors
    /// An even or oblong kernel has no middle row and column.
    pub fn new(spec: &ConvSpec, device: &Device) -> Result<Self, ConfigError> {
        let size = spec.check_odd_square("an Asymmetric Convolution Block")?;
        let half = size / 2;
        let [ph, pw] = spec.padding;
        // A strip reads the middle of the window: its narrow axis needs `half` less padding.
        // What padding cannot give (a negative amount), the sum crops.
        let strip = |kernel, padding| {
            ConvBn::new(&ConvSpec { kernel_size: kernel, padding, ..spec.clone() }, device)
        };
        Ok(Self {
            square: ConvBn::new(spec, device)?,
            vertical: strip([size, 1], [ph, pw.saturating_sub(half)])?,
            horizontal: strip([1, size], [ph.saturating_sub(half), pw])?,
            spec: spec.clone(),
        })
    }
}

impl ConvBlock for AsymmetricConvBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn sum(&self) -> BranchSum<'_> {
        let branches = [&self.square, &self.vertical, &self.horizontal];
        BranchSum::new(self.spec(), branches.map(ConvBn::branch).into())
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        vec![&mut self.square.bn, &mut self.vertical.bn, &mut self.horizontal.bn]
    }

    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError> {
        close(&["vertical.bn.", "horizontal.bn."], own);
        plain.put("square.conv.weight", "square.bn.", own);
        Ok(())
    }

    fn official_names(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("square.conv.", "square_conv."),
            ("square.bn.", "square_bn."),
            ("vertical.conv.", "ver_conv."),
            ("vertical.bn.", "ver_bn."),
            ("horizontal.conv.", "hor_conv."),
            ("horizontal.bn.", "hor_bn."),
        ]
    }
}

impl OfficialBlock for AsymmetricConvBlock {
    const MARKS: &'static [&'static str] = &["square_conv"];
    const COMMON: &'static [&'static str] =
        &["square_bn", "ver_conv", "ver_bn", "hor_conv", "hor_bn"];

    fn describe(block: &BlockTensors<'_>) -> Result<Description, String> {
        Ok(Description {
            block: Block::Acb,
            kernel: block.kernel("square_conv.weight")?,
            groups: None,
            identity: Some(false),
            dtype: block.dtype("square_conv.weight"),
        })
    }

    fn folded_module(_: [usize; 2]) -> &'static str {
        "fused_conv"
    }
}
