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
    /// A run to resume whose checkpoints are gone.
    #[error(
        "{} has no checkpoint to resume from (checkpoints/ is empty), but it holds {}, which starting \
         again would overwrite; put its checkpoints back, or train anew to another --out",
        run.display(), results.join(" and ")
    )]
    NoCheckpoint {
        /// The run directory.
        run: PathBuf,
        /// What is there.
        results: Vec<String>,
    },
    /// A run to resume beside another configuration than its own.
    #[error(
        "{} is not the configuration of the run in {}: {}; leave it out (`dbb train {} --resume`), or \
         change the run with --force --set KEY=VALUE",
        config.display(), run.display(), differences.join("; "), run.display()
    )]
    OtherConfig {
        /// The file.
        config: PathBuf,
        /// The run directory.
        run: PathBuf,
        /// What differs, a sentence each.
        differences: Vec<String>,
    },
    /// A checkpoint that is damaged or does not fit.
    #[error("cannot use the checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process trains in the run directory.
    #[error(
        "{} is in use by another process (process {owner}); wait for it, or end it first",
        path.display()
    )]
    Locked {
        /// The run directory.
        path: PathBuf,
        /// Its process number, as it wrote it.
        owner: String,
    },
    /// A checkpoint of another run than the one that is to go on.
    #[error(
        "cannot resume from {}: {}; hint: undo the change, or accept it with --force",
        path.display(), changes.join("; ")
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// What has changed, a sentence each.
        changes: Vec<String>,
    },
    /// A configuration of a comparison that cannot be trained.
    #[error("{name}: {error}; nothing was trained")]
    Arm {
        /// Its name in the comparison.
        name: String,
        /// Why.
        error: Box<Error>,
    },
    /// Too many images that cannot be read.
    #[error(
        "{count} images could not be read, more than data.max_bad_samples = {most} allows; the last \
         one: {last}"
    )]
    BadSamples {
        /// Images left out.
        count: usize,
        /// What is allowed.
        most: usize,
        /// The last reason.
        last: String,
    },
    /// What is asked for needs more memory than there is.
    #[error("{what} needs about {needed}, and {available} MiB are available; lower {lower}")]
    Memory {
        /// What needs the memory.
        what: &'static str,
        /// How much, and for what.
        needed: String,
        /// What there is, in MiB.
        available: String,
        /// What would need less.
        lower: String,
    },
    /// Asked to stop by a signal; the run is saved.
    #[error("stopped by signal {signal}; {saved}")]
    Interrupted {
        /// The signal's number.
        signal: usize,
        /// What is saved, and how to go on.
        saved: String,
    },
    /// The loss or a gradient is no number any more.
    #[error(
        "the {what} is {value} at epoch {epoch}, step {step} (batch {batch} of the epoch{layer}); \
         {kept}; hint: lower optim.lr, raise schedule.warmup_epochs or set train.clip_norm"
    )]
    NonFinite {
        /// `loss`, `gradient` or `validation loss`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Epoch, from 1.
        epoch: usize,
        /// Step within the run, from 1.
        step: usize,
        /// Batch within the epoch, from 1.
        batch: usize,
        /// The first layer at fault, after a separator; empty if there is none.
        layer: String,
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
    /// A run does not start as the network of its weights file.
    #[error(
        "the network does not start as the one of model.init_from: logits differ by {differences} \
         of the largest; at most {tolerance:.0e} is accepted, and nothing was trained"
    )]
    Start {
        /// Largest differences relative to the largest logit, and in which mode.
        differences: String,
        /// What is accepted.
        tolerance: f64,
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
        if let Self::Arm { error, .. } = self {
            return error.is_failed_check();
        }
        matches!(
            self,
            Self::NonFinite { .. }
                | Self::BenchLoss { .. }
                | Self::Fold { .. }
                | Self::BlockFold { .. }
                | Self::Start { .. }
                | Self::Weights(WeightsError::Overflow { .. })
        )
    }
}

/// The result of the training library.
pub type Result<T> = std::result::Result<T, Error>;
