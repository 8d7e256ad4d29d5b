//! Training, evaluation, folding and comparison of the networks of [`dbb_models`] on the data of
//! [`dbb_datasets`]. The program `dbb` (crate `dbb-cli`) is a layer over this library, which prints
//! nothing: progress goes to an [`Observer`](train::observer::Observer).
//!
//! | to | look at |
//! |---|---|
//! | read and check a configuration | [`config`] |
//! | open its data, map classes to outputs | [`data`] |
//! | train or resume a run | [`train`] |
//! | find what a run wrote: checkpoints, metrics | [`run`] |
//! | load a run or a weights file; evaluate, predict, recalibrate | [`inference`] |
//! | see which classes a network confuses, and its worst mistakes | [`classification`] |
//! | fold with a measured difference, write weights for other programs | [`deploy`] |
//! | see what the branches of blocks have learnt | [`inspect`] |
//! | compare configurations over several seeds | [`compare`] |
//! | fill the tables and pictures of a page from their results | [`results`] |
//! | write `report.html` | [`report`] |
//! | open a device | [`device`] |
//! | measure speed | [`mod@bench`] |
//!
//! ```no_run
//! use dbb_training::{config::Config, run::directory::RunDir, train::{Trainer, observer::Silent}};
//!
//! # fn main() -> dbb_training::Result<()> {
//! let overrides = ["train.epochs=1".to_string()];
//! let config = Config::load("configs/quick/resnet20-dbb.toml".as_ref(), &overrides)?;
//! let device = dbb_training::device::open("flex")?;
//! let result = Trainer::new(config, RunDir::new("runs/first"), &device)?.fit(&mut Silent)?;
//! println!("{:.2} % after folding, weights in {}", result.top1_deploy, result.run_dir.display());
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
struct LibraryPage;

pub mod bench;
pub mod calendar;
pub mod cancel;
pub mod classification;
pub mod compare;
pub mod config;
pub mod data;
pub mod deploy;
pub mod device;
mod error;
pub mod inference;
pub mod inspect;
pub mod memory;
pub mod report;
pub mod results;
pub mod run;
mod statistics;
pub mod text;
pub mod train;

pub use error::{Error, Property, Result};
