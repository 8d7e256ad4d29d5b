//! Reading and writing weights.
//!
//! A [`WeightsFile`] is a state dict, tensors by key, and, in files of this project, the
//! [`Metadata`] to rebuild the network. [`Dialect`] translates keys between the paths of our
//! modules and the names of other code bases.
//!
//! | file | read | written |
//! |---|---|---|
//! | safetensors | all dialects | all dialects |
//! | burnpack | native | native |
//! | PyTorch `.pth` (zip and legacy pickle; no code is run) | all dialects | - |
//!
//! Files of this project carry a SHA-256 of their tensors, so that damage is noticed. A network takes
//! no weights that are NaN or infinite unless [`LoadOptions`] allow it.

mod as_block;
mod atomic;
mod block_find;
mod block_fold;
mod damage;
mod digest;
mod dtype;
mod error;
mod finite;
mod format;
mod key_map;
mod load;
mod metadata;
mod pytorch;

pub use crate::dialects::Dialect;
pub use crate::state_dict::StateDict;
pub use as_block::as_block;
pub(crate) use as_block::conv_bn;
pub use atomic::write_atomically;
pub use block_find::unmarked_blocks;
pub use block_fold::{
    BlockFold, FoldedBlock, fold_difference, has_folded_blocks, is_constant, random_values,
    relative,
};
pub use dtype::with_dtype;
pub use error::{Lookalike, WeightsError};
pub use format::{WeightsFile, write_burnpack, write_foreign, write_safetensors};
pub use key_map::KeyMap;
pub use load::{LoadOptions, adopt, rebuild};
pub use metadata::Metadata;
