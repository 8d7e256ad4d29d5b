//! The Asymmetric Convolution Block (Ding et al., ACNet, ICCV 2019).

use burn::module::Module;
use burn::tensor::{Device, Tensor, s};

use super::batch_norm::BatchNorm;
use super::block::{ConvBlock, PlainBranch, Positions};
use super::branch_sum::BranchSum;
use super::conv_bn::ConvBn;
use super::conv_spec::ConvSpec;
use super::epilogue::Epilogue;
use crate::algebra::{ConvParams, embed_kernel, sum_branches};
use crate::cpu_ops;
use crate::error::ConfigError;

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
        spec.check()?;
        let [kh, kw] = spec.kernel_size;
        if kh != kw || kh % 2 == 0 {
            let block = "an Asymmetric Convolution Block";
            return Err(ConfigError::Kernel { block, kernel: spec.kernel_size });
        }
        let half = kh / 2;
        let [ph, pw] = spec.padding;
        // A strip reads the middle of the window: its narrow axis needs `half` less padding.
        // What padding cannot give (a negative amount), `forward` crops.
        let strip = |kernel, padding| {
            ConvBn::new(&ConvSpec { kernel_size: kernel, padding, ..spec.clone() }, device)
        };
        Ok(Self {
            square: ConvBn::new(spec, device)?,
            vertical: strip([kh, 1], [ph, pw.saturating_sub(half)])?,
            horizontal: strip([1, kw], [ph.saturating_sub(half), pw])?,
            spec: spec.clone(),
        })
    }

    /// `[batch, in, height, width]` to `[batch, out, height', width']`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    fn branches(&self) -> [&ConvBn; 3] {
        [&self.square, &self.vertical, &self.horizontal]
    }
}

impl ConvBlock for AsymmetricConvBlock {
    fn spec(&self) -> ConvSpec {
        self.spec.clone()
    }

    fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        let branches = self.branches().map(ConvBn::branch).into();
        let sum = BranchSum { spec: self.spec(), branches };
        if let Some(output) = cpu_ops::branch_sum(&sum, &input, &epilogue) {
            return output;
        }
        let [_, _, height, width] = input.dims();
        let [top, left] =
            self.spec.padding.map(|p| (self.spec.kernel_size[0] / 2).saturating_sub(p));
        let vertical = if left > 0 {
            input.clone().slice(s![.., .., .., left..width - left])
        } else {
            input.clone()
        };
        let horizontal = if top > 0 {
            input.clone().slice(s![.., .., top..height - top, ..])
        } else {
            input.clone()
        };
        // Each adds what came before it, the last applies the activation.
        let then = |residual| Epilogue { residual, activation: None };
        let sum = self.square.forward_then(input, then(epilogue.residual));
        let sum = self.vertical.forward_then(vertical, then(Some(sum)));
        let last = Epilogue { residual: Some(sum), activation: epilogue.activation };
        self.horizontal.forward_then(horizontal, last)
    }

    /// Transforms I, VI and II.
    fn equivalent(&self) -> ConvParams {
        let branches = self.branches().map(|branch| {
            let branch = branch.equivalent();
            ConvParams { kernel: embed_kernel(&branch.kernel, self.spec.kernel_size), ..branch }
        });
        sum_branches(&branches)
    }

    fn norms_mut(&mut self) -> Vec<&mut BatchNorm> {
        vec![&mut self.square.bn, &mut self.vertical.bn, &mut self.horizontal.bn]
    }

    fn macs(&self, positions: Positions) -> usize {
        self.branches().iter().map(|branch| branch.macs(positions)).sum()
    }

    fn plain_branch(&self) -> Result<PlainBranch, ConfigError> {
        let closing_norms = &["vertical.bn.", "horizontal.bn."];
        Ok(PlainBranch { epsilon: self.square.bn.epsilon, path: "square.", closing_norms })
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
