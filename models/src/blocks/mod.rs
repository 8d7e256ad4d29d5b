//! The building blocks: the plain [`ConvBn`], the blocks that fold into it, one file each, and
//! [`ConvUnit`], the one type a backbone holds where any of them may stand. The layers that they are
//! made of, such as batch norm as PyTorch defines it, are named here, too.

mod acb;
mod block;
mod conv_bn;
mod dbb;
mod dbb_config;
mod mobileone;
mod orepa;
mod qarepvgg;
mod repvgg;
mod unit;

pub use crate::layers::activation::Activation;
pub use crate::layers::batch_norm::{BatchNorm, NormConfig};
pub use crate::layers::bn_pad::BnPad;
pub use crate::layers::branch_part::BranchPart;
pub use crate::layers::branch_sum::Positions;
pub use crate::layers::branch_sum::{BranchMap, BranchSum, SumBranch};
pub use crate::layers::buffer::Buffer;
pub(crate) use crate::layers::buffer::is_buffer;
pub use crate::layers::conv_spec::ConvSpec;
pub use crate::layers::epilogue::Epilogue;
pub use crate::layers::orepa_kernel::OrepaBranches;
pub use crate::layers::pointwise::PointwiseConv;
pub use crate::layers::squeeze_excite::{Gate, SqueezeExcite};
pub use acb::AsymmetricConvBlock;
pub(crate) use block::{BlockTensors, Description, OfficialBlock, Port, constant};
pub use block::{ConvBlock, PlainConv};
pub use conv_bn::ConvBn;
pub use dbb::{AverageBranch, DiverseBranchBlock, PointwiseKxk};
pub use dbb_config::{Branch, DbbConfig};
pub use mobileone::{MobileOneBlock, MobileOneConfig};
pub use orepa::{OrepaBlock, OrepaConfig, OrepaForm, OrepaProduct};
pub use qarepvgg::QaRepVggBlock;
pub use repvgg::RepVggBlock;
pub(crate) use unit::Contents;
pub use unit::{Block, BlockKind, BlockOptions, ConvUnit};
