//! From a trained network to a file for inference: the fold and its measured difference, rounded
//! weights, and the folders that other programs read.

pub mod fold;
pub mod int8;
pub mod model_card;
pub mod rounding;
pub mod timm_folder;
pub mod weights;
