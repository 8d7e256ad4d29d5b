//! The paths of a run directory; nothing else knows them.
//!
//! ```text
//! config.toml               the resolved configuration
//! env.json                  program, device, threads, instruction set, data
//! metrics.jsonl             one line per epoch
//! tensorboard/              event files, which only grow
//! checkpoints/00012/        after epoch 12: network.bpk, optimizer.bpk, state.json, with train.ema
//!                           ema.bpk, and manifest.json with the size and hash of each
//! checkpoints/00012+00340/  after 340 batches of the epoch that follows
//! export/deploy.safetensors the folded weights after the last epoch
//! report.html               the report of the run, rewritten after every epoch
//! result.json               of a comparison: the row of the run in its tables
//! predictions.csv           of a comparison, on request: the prediction for every validation image
//! .lock                     held by the process that trains
//! ```
//!
//! Files are replaced whole; a checkpoint is written beside its place and renamed into it, so
//! that one with a mark as its name is complete.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dbb_models::weights::write_atomically;
use serde::{Deserialize, Serialize};

use crate::error::cannot_write;
use crate::run::manifest;
use crate::text::plural;

/// How far a run has come: the name of a checkpoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CheckpointId {
    /// Epochs done and validated.
    pub epoch: usize,
    /// Batches of the next epoch that have been trained on.
    pub batch: usize,
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:05}", self.epoch)?;
        match self.batch {
            0 => Ok(()),
            batch => write!(f, "+{batch:05}"),
        }
    }
}

impl FromStr for CheckpointId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, batch) = text.split_once('+').unwrap_or((text, "0"));
        Ok(Self { epoch: epoch.parse()?, batch: batch.parse()? })
    }
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointSelector {
    /// The newest.
    #[default]
    Last,
    /// The one with the highest validation top-1.
    Best,
    /// The one after so many epochs.
    Epoch(usize),
}

impl FromStr for CheckpointSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(Self::Last),
            "best" => Ok(Self::Best),
            _ => text
                .parse()
                .map(Self::Epoch)
                .map_err(|_| "expected last, best or the number of an epoch".to_string()),
        }
    }
}

/// Suffix of what is being written.
pub(super) const PARTIAL: &str = ".partial";

/// Suffix of a checkpoint while another one takes its place.
pub(super) const REPLACED: &str = ".replaced";

/// A run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// The run directory at a path, whether it exists or not.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a run.
    pub fn exists(&self) -> bool {
        self.config().is_file()
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Program, device and data.
    pub fn env(&self) -> PathBuf {
        self.root.join("env.json")
    }

    /// One line per epoch.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// The report of the run, or of the comparison in this folder.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The row of the run in the tables of its comparison.
    pub fn result(&self) -> PathBuf {
        self.root.join("result.json")
    }

    /// The prediction for every validation image, in a comparison that was asked for them.
    pub fn predictions(&self) -> PathBuf {
        self.root.join("predictions.csv")
    }

    /// The folded weights after the last epoch.
    pub fn deploy_weights(&self) -> PathBuf {
        self.root.join("export").join("deploy.safetensors")
    }

    /// The network of a checkpoint.
    pub fn network(checkpoint: &Path) -> PathBuf {
        checkpoint.join("network.bpk")
    }

    /// The optimizer of a checkpoint.
    pub fn optimizer(checkpoint: &Path) -> PathBuf {
        checkpoint.join("optimizer.bpk")
    }

    /// The progress of a checkpoint.
    pub fn state(checkpoint: &Path) -> PathBuf {
        checkpoint.join("state.json")
    }

    /// The average of the network of a checkpoint, with `train.ema`.
    pub fn ema(checkpoint: &Path) -> PathBuf {
        checkpoint.join("ema.bpk")
    }

    /// The weights of a checkpoint that are evaluated and exported: the average if there is one.
    pub fn weights(checkpoint: &Path) -> PathBuf {
        let ema = Self::ema(checkpoint);
        if ema.is_file() { ema } else { Self::network(checkpoint) }
    }

    /// What the run has produced, in words: epochs, folded weights. Empty before its first epoch.
    ///
    /// # Errors
    /// If the metrics are there and cannot be read.
    pub fn results(&self) -> io::Result<Vec<String>> {
        let metrics = match fs::read_to_string(self.metrics()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let mut results = Vec::new();
        let epochs = metrics.lines().count();
        if epochs > 0 {
            results.push(format!("the metrics of {} (metrics.jsonl)", plural(epochs, "epoch")));
        }
        if self.deploy_weights().exists() {
            results.push("folded weights (export/deploy.safetensors)".to_string());
        }
        Ok(results)
    }

    /// The run that a file belongs to: one that the program reads back or reports the run in,
    /// including every file among checkpoints and events. Exported weights belong to no run.
    pub fn owner(path: &Path) -> Option<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        let path = folder.join(path.file_name()?);
        let owns = |run: &Self| {
            let files = [
                run.config(),
                run.env(),
                run.metrics(),
                run.report(),
                run.result(),
                run.predictions(),
                run.lock_file(),
            ];
            let folders = [run.checkpoints(), run.tensorboard()];
            files.contains(&path) || folders.iter().any(|folder| path.starts_with(folder))
        };
        folder.ancestors().map(Self::new).find(|run| run.exists() && owns(run))
    }

    pub(super) fn lock_file(&self) -> PathBuf {
        self.root.join(".lock")
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The folder of a checkpoint, whether it exists or not.
    pub fn checkpoint(&self, mark: CheckpointId) -> PathBuf {
        self.checkpoints().join(mark.to_string())
    }

    /// The checkpoints that are there, ascending; each is complete.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn checkpoint_ids(&self) -> io::Result<Vec<CheckpointId>> {
        let mut marks = Vec::new();
        let folder = match fs::read_dir(self.checkpoints()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(marks),
            folder => folder?,
        };
        for entry in folder {
            marks.extend(
                entry?.file_name().to_str().and_then(|name| name.parse::<CheckpointId>().ok()),
            );
        }
        marks.sort_unstable();
        Ok(marks)
    }

    /// Writes a checkpoint: `write` fills a folder, which gets a manifest, reaches the disk and
    /// then takes its place. Older ones are removed afterwards, but for those in `keep`.
    ///
    /// # Errors
    /// What the file system or `write` reports; earlier checkpoints are left as they were.
    pub fn save_checkpoint<E: From<io::Error>>(
        &self,
        mark: CheckpointId,
        keep: &[CheckpointId],
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let place = self.checkpoint(mark);
        let neighbour = |suffix: &str| self.checkpoints().join(format!(".{mark}{suffix}"));
        let (partial, replaced) = (neighbour(PARTIAL), neighbour(REPLACED));
        let fail = |error: io::Error| {
            let text = format!("cannot write the checkpoint {}: {error}", place.display());
            E::from(io::Error::new(error.kind(), text))
        };
        // Not its parents: a run whose folder is gone has lost its configuration, too.
        fs::create_dir(&partial).map_err(fail)?;
        let saved = write(&partial).and_then(|()| {
            manifest::write(&partial)
                .and_then(|()| {
                    if place.exists() {
                        fs::rename(&place, &replaced)?;
                    }
                    fs::rename(&partial, &place).inspect_err(|_| {
                        // The earlier one, if there was one, returns to its place.
                        fs::rename(&replaced, &place).ok();
                    })?;
                    manifest::sync_folder(&self.checkpoints());
                    if replaced.exists() {
                        fs::remove_dir_all(&replaced)?;
                    }
                    Ok(())
                })
                .map_err(fail)
        });
        if saved.is_err() {
            fs::remove_dir_all(&partial).ok();
            return saved;
        }
        for old in self.checkpoint_ids()? {
            if old != mark && !keep.contains(&old) {
                fs::remove_dir_all(self.checkpoint(old))?;
            }
        }
        Ok(())
    }

    /// Replaces a text file of the run.
    ///
    /// # Errors
    /// What the file system reports, with the path.
    pub fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        // A folder that is gone must not come back without its configuration.
        fs::metadata(&self.root)
            .and_then(|_| write_atomically(path, text.as_bytes()))
            .map_err(|error| cannot_write(path, &error))
    }
}
