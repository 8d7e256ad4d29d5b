//! What can end a run.

use std::io;
use std::path::PathBuf;

use dbb_datasets::DataError;
use dbb_models::ConfigError;
use dbb_models::weights::WeightsError;

use crate::config::ConfigFileError;
use crate::device::DeviceError;

/// An error of the training library. [`Error::is_failed_check`] tells a result that is wrong
/// from an input that can be mended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file.
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    /// The network it describes.
    #[error(transparent)]
    Model(#[from] ConfigError),
    /// The images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A weights file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The file system.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Configuration and data disagree, or a target lacks something.
    #[error("{0}")]
    Unusable(String),
    /// A new run where there is one.
    #[error("{} already holds a run; give another --out (`dbb train --resume` goes on with a run)", .0.display())]
    RunExists(PathBuf),
    /// A checkpoint that cannot be resumed.
    #[error("cannot resume from {}: {reason}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The loss is no number any more.
    #[error(
        "the loss is {loss} at epoch {epoch}, step {step}; {kept}; hint: lower optim.lr or raise \
         schedule.warmup_epochs"
    )]
    NonFiniteLoss {
        /// The loss.
        loss: f64,
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the run, from 1.
        step: usize,
        /// What is left to go on with.
        kept: String,
    },
    /// A measurement whose loss is no number.
    #[error("the loss is {loss} at step {step}; the time of such steps says nothing about others")]
    BenchLoss {
        /// The loss.
        loss: f64,
        /// Step, warm-up included, from 1.
        step: usize,
    },
    /// A folded block is not the same function.
    #[error(
        "the folded block {name} differs from its training form by {max_rel_diff:.2e} of the \
         largest output; at most {tolerance:.0e} is accepted, and nothing was written"
    )]
    BlockFold {
        /// Name of the block.
        name: String,
        /// Largest difference relative to the largest output.
        max_rel_diff: f64,
        /// What is accepted.
        tolerance: f64,
    },
    /// The folded network is not the same function.
    #[error(
        "the folded network differs from its training form by {max_rel_diff:.2e} of the largest \
         logit; at most {tolerance:.0e} is accepted, and nothing was written"
    )]
    Fold {
        /// Largest difference relative to the largest logit.
        max_rel_diff: f64,
        /// What is accepted.
        tolerance: f64,
    },
}

impl Error {
    /// Whether the program worked and the result is wrong (exit code 3), rather than an input
    /// that the user can mend (exit code 1).
    pub fn is_failed_check(&self) -> bool {
        matches!(
            self,
            Self::NonFiniteLoss { .. }
                | Self::BenchLoss { .. }
                | Self::Fold { .. }
                | Self::BlockFold { .. }
                | Self::Weights(WeightsError::Overflow { .. })
        )
    }
}

/// The result of the training library.
pub type Result<T> = std::result::Result<T, Error>;
