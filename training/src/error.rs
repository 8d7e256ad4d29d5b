//! The errors of the training library.

use std::io;
use std::path::{Path, PathBuf};

use dbb_datasets::DataError;
use dbb_models::ConfigError;
use dbb_models::weights::WeightsError;

use crate::config::ConfigFileError;
use crate::device::DeviceError;

/// An error of the training library. [`Error::is_failed_check`] tells a wrong result from a user
/// error.
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
    /// A new run in a directory that holds one.
    #[error("{} already holds a run", .0.display())]
    RunExists(PathBuf),
    /// No run to resume.
    #[error("{} holds no run to resume (no config.toml)", .0.display())]
    NoRun(PathBuf),
    /// A run to resume without its checkpoints.
    #[error(
        "{} has no checkpoint to resume from (checkpoints/ is empty), but it holds {}, which a restart \
         would overwrite; restore its checkpoints, or start a new run in another directory",
        run.display(), results.join(" and ")
    )]
    NoCheckpoint {
        /// The run directory.
        run: PathBuf,
        /// What is there.
        results: Vec<String>,
    },
    /// A run to resume, given with a configuration that is not its own.
    #[error(
        "{} is not the configuration of the run in {}: {}",
        config.display(), run.display(), differences.join("; ")
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
        /// The number of that process, as it wrote it.
        owner: String,
    },
    /// A checkpoint of another run than the one to resume.
    #[error(
        "cannot resume from {}: {}; undo the change, or accept it",
        path.display(), changes.join("; ")
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// What has changed, a sentence each.
        changes: Vec<String>,
    },
    /// A checkpoint within an epoch, whose other batches are of other images.
    #[error(
        "cannot resume from {} after {batches} batches of an epoch: {}; hint: end the epoch with the \
         run's own configuration and data, or remove the checkpoint to resume from the one before",
        path.display(), changes.join("; ")
    )]
    Batches {
        /// The checkpoint.
        path: PathBuf,
        /// What has changed, a sentence each.
        changes: Vec<String>,
        /// Batches of the epoch that have been trained on.
        batches: usize,
    },
    /// A configuration of a comparison that cannot be trained.
    #[error("{name}: {error}; nothing was trained")]
    Arm {
        /// Its name in the comparison.
        name: String,
        /// Why.
        error: Box<Error>,
    },
    /// A file that does not describe its network, and no sufficient description of it.
    #[error("{} does not describe its network; its {missing} must be given", file.display())]
    Undescribed {
        /// The file.
        file: PathBuf,
        /// What is missing first.
        missing: Property,
    },
    /// Nothing to fold in a file that does not describe its network.
    #[error(
        "{} does not describe its network and has no block under the names of the papers' code \
         (such as dbb_origin, square_conv, rbr_dense, rbr_conv or weight_orepa_origin)",
        .0.display()
    )]
    NoBlocks(PathBuf),
    /// A description that contradicts a file.
    #[error("the {property} {given} contradicts {}, which holds {own}", file.display())]
    Contradiction {
        /// The file.
        file: PathBuf,
        /// In what.
        property: Property,
        /// What was given.
        given: String,
        /// What the file says.
        own: String,
    },
    /// A checkpoint was chosen of a target that is not a run.
    #[error("{} is a weights file; only a run directory has checkpoints to choose from", .0.display())]
    NoCheckpoints(PathBuf),
    /// A weights file to evaluate without data.
    #[error("{}: a weights file has no data of its own", .0.display())]
    NoData(PathBuf),
    /// Data with classes that the network does not know.
    #[error("{0}")]
    Classes(String),
    /// Too many images that cannot be read.
    #[error(
        "{count} images could not be read, more than data.max_bad_samples = {most} allows; the last \
         one: {last}"
    )]
    BadSamples {
        /// Images skipped.
        count: usize,
        /// What is allowed.
        most: usize,
        /// The last reason.
        last: String,
    },
    /// The work needs more memory than is available.
    #[error("{what} needs about {needed}, and {limit}; lower {lower}")]
    Memory {
        /// What needs the memory.
        what: &'static str,
        /// How much, and for what.
        needed: String,
        /// What is available or allowed.
        limit: String,
        /// What would need less.
        lower: String,
    },
    /// A comparison in a folder that holds the tables of another one.
    #[error(
        "{} already holds a comparison of {others}, and this one is of {own}", folder.display()
    )]
    OtherComparison {
        /// The folder.
        folder: PathBuf,
        /// Names of the arms there.
        others: String,
        /// Names of the arms of this comparison.
        own: String,
    },
    /// A comparison that is started again with something else.
    #[error("{} belongs to a comparison that is not this one: {}", folder.display(), changes.join("; "))]
    OtherPlan {
        /// The folder of the comparison or of one of its runs.
        folder: PathBuf,
        /// What has changed, a sentence each.
        changes: Vec<String>,
    },
    /// Runs of a comparison that have ended with an error.
    #[error("{}", failures.join("; "))]
    Runs {
        /// Arm, seed and error of each.
        failures: Vec<String>,
        /// Whether their results are wrong, rather than something in the user's hands.
        is_failed_check: bool,
    },
    /// A comparison that was stopped by a signal, after its runs were saved.
    #[error(
        "stopped by signal {signal}; {finished} of {planned} runs in {} are finished, and those under way \
         are saved",
        folder.display()
    )]
    Stopped {
        /// The signal's number.
        signal: usize,
        /// The folder of the comparison.
        folder: PathBuf,
        /// Runs that are finished.
        finished: usize,
        /// Runs planned.
        planned: usize,
    },
    /// What another rank reports.
    #[error("{rank}: {text}")]
    Rank {
        /// The rank and its machine.
        rank: String,
        /// Its error.
        text: String,
    },
    /// Ranks that would train different runs.
    #[error("{rank} would not train the same run as rank 0: {}", differences.join("; "))]
    RanksDiffer {
        /// The rank and its machine.
        rank: String,
        /// What differs, a sentence each.
        differences: Vec<String>,
    },
    /// A launcher started several processes that cannot train together.
    #[error("{0}")]
    Launcher(String),
    /// Pages that are not what their tables give.
    #[error("{}", .0.join("; "))]
    Stale(Vec<String>),
    /// Stopped by a signal before anything was trained.
    #[error("stopped by signal {signal}; nothing was trained")]
    NotBegun {
        /// The signal's number.
        signal: usize,
    },
    /// Stopped by a signal, after the run was saved.
    #[error("stopped by signal {signal}; the run is saved in {}", checkpoint.display())]
    Interrupted {
        /// The signal's number.
        signal: usize,
        /// The run directory.
        run: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// A non-finite loss or gradient.
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
        /// Which checkpoint there is.
        kept: String,
    },
    /// A non-finite output or loss of a network that is evaluated.
    #[error("{0}; nothing computed from it means anything")]
    NonFiniteOutput(String),
    /// A measurement with a non-finite loss.
    #[error("the loss is {loss} at step {step}; steps with a non-finite loss are not timed")]
    BenchLoss {
        /// The loss.
        loss: f64,
        /// Step, warm-up included, from 1.
        step: usize,
    },
    /// A run does not start as the function of its weights file.
    #[error(
        "the network does not start as that of model.init_from: logits differ by {differences} \
         of the largest logit; at most {tolerance:.0e} is accepted, and nothing was trained"
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
    /// Whether the program worked and the result is wrong (exit code 3), rather than a user
    /// error (exit code 1).
    pub fn is_failed_check(&self) -> bool {
        if let Self::Arm { error, .. } = self {
            return error.is_failed_check();
        }
        matches!(
            self,
            Self::NonFinite { .. }
                | Self::NonFiniteOutput(_)
                | Self::BenchLoss { .. }
                | Self::Fold { .. }
                | Self::BlockFold { .. }
                | Self::Start { .. }
                | Self::Runs { is_failed_check: true, .. }
                | Self::Stale(_)
                | Self::Weights(WeightsError::Overflow { .. } | WeightsError::NonFinite { .. })
        )
    }
}

/// The result of the training library.
pub type Result<T> = std::result::Result<T, Error>;

/// A property that the description of a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Architecture.
    Arch,
    /// Block.
    Block,
    /// Width multiplier.
    Width,
    /// Number of classes.
    Classes,
    /// Channels of the images.
    Channels,
}

impl std::fmt::Display for Property {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Arch => "architecture",
            Self::Block => "block",
            Self::Width => "width",
            Self::Classes => "number of classes",
            Self::Channels => "number of channels",
        })
    }
}

/// The error of a file or folder that cannot be written, with its path.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
}
