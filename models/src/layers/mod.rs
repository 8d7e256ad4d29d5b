//! The layers that blocks are made of, and a block as the sum of its branches.

pub(crate) mod activation;
pub(crate) mod batch_norm;
pub(crate) mod bn_pad;
pub(crate) mod branch_part;
pub(crate) mod branch_sum;
pub(crate) mod buffer;
pub(crate) mod conv_spec;
pub(crate) mod epilogue;
pub(crate) mod feature_map;
pub(crate) mod orepa_kernel;
pub(crate) mod pointwise;
pub(crate) mod squeeze_excite;
