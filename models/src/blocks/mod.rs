//! The building blocks: batch norm as PyTorch defines it, the plain [`ConvBn`], the blocks that fold
//! into it, one file each, and [`ConvUnit`], the one type a backbone holds where any of them may
//! stand.

mod acb;
mod activation;
mod batch_norm;
mod block;
mod bn_pad;
mod branch_sum;
mod buffer;
mod conv_bn;
mod conv_spec;
mod dbb;
mod dbb_config;
mod epilogue;
mod mobileone;
mod orepa;
mod orepa_kernel;
mod pointwise;
mod qarepvgg;
mod repvgg;
mod squeeze_excite;
mod unit;

pub use acb::AsymmetricConvBlock;
pub use activation::Activation;
pub use batch_norm::{BatchNorm, NormConfig};
pub(crate) use block::{BlockTensors, Description, OfficialBlock, Port, constant};
pub use block::{ConvBlock, PlainConv, Positions};
pub use bn_pad::BnPad;
pub use branch_sum::{BranchMap, BranchSum, SumBranch};
pub use buffer::Buffer;
pub(crate) use buffer::is_buffer;
pub use conv_bn::ConvBn;
pub use conv_spec::ConvSpec;
pub use dbb::{AverageBranch, DiverseBranchBlock, PointwiseKxk};
pub use dbb_config::{Branch, DbbConfig};
pub use epilogue::Epilogue;
pub use mobileone::{MobileOneBlock, MobileOneConfig};
pub use orepa::{OrepaBlock, OrepaBranches, OrepaConfig, OrepaForm, OrepaProduct};
pub use pointwise::PointwiseConv;
pub use qarepvgg::QaRepVggBlock;
pub use repvgg::RepVggBlock;
pub use squeeze_excite::{Gate, SqueezeExcite};
pub(crate) use unit::Contents;
pub use unit::{Block, BlockKind, BlockOptions, ConvUnit};
