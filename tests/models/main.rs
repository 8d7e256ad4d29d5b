//! The library `dbb-models` against the papers' own code, `f64` references and other readers of
//! its files.

mod architectures;
mod batch_norm;
mod block_fold;
mod checkpoints;
mod config_errors;
mod derive;
mod equivalence;
mod family;
mod onnx;
mod parity;
mod parts;
mod quantize;
#[path = "../support/mod.rs"]
mod support;
mod torchvision;
mod warm_start;
mod weights_files;
