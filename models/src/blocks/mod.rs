//! The building blocks: batch norm as PyTorch defines it, the plain [`ConvBn`], the
//! [`DiverseBranchBlock`], the [`AsymmetricConvBlock`], and [`ConvUnit`], the one type a
//! backbone holds where any of them may stand.

mod acb;
mod activation;
mod batch_norm;
mod block;
mod bn_pad;
mod branch_sum;
mod conv_bn;
mod conv_spec;
mod dbb;
mod epilogue;
mod pointwise;
mod running_stat;
mod squeeze_excite;
mod unit;

pub use acb::AsymmetricConvBlock;
pub use activation::Activation;
pub use batch_norm::{BatchNorm, NormConfig};
pub use block::{ConvBlock, PlainBranch, Positions};
pub use bn_pad::BnPad;
pub(crate) use branch_sum::{BranchMap, BranchSum, SumBranch};
pub use conv_bn::ConvBn;
pub use conv_spec::ConvSpec;
pub use dbb::{AverageBranch, Branch, DbbConfig, DiverseBranchBlock, PointwiseKxk};
pub use epilogue::Epilogue;
pub use pointwise::PointwiseConv;
pub use running_stat::RunningStat;
pub use squeeze_excite::SqueezeExcite;
pub(crate) use unit::Contents;
pub use unit::{Block, BlockKind, BlockOptions, ConvUnit};
