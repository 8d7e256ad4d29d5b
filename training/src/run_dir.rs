//! The paths of a run directory; nothing else knows them.
//!
//! ```text
//! config.toml          the resolved configuration
//! env.json             program, device, data
//! metrics.jsonl        one line per epoch
//! tensorboard/         event files, which only grow
//! checkpoints/00012/   after epoch 12: network.bpk, optimizer.bpk, state.json
//! export/deploy.safetensors
//! report.html          the run for people, rewritten after every epoch
//! ```
//!
//! Files are replaced whole; a checkpoint is written beside its place and renamed into it, so
//! that one with a number as its name is complete.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dbb_models::weights::write_atomically;

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Last,
    /// The one with the highest validation top-1.
    Best,
    /// The one after so many epochs.
    Epoch(usize),
}

impl std::str::FromStr for Which {
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

    /// The folder of TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// The run, or the comparison in this folder, for people.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
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

    fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The checkpoint after an epoch.
    pub fn checkpoint(&self, epoch: usize) -> PathBuf {
        self.checkpoints().join(format!("{epoch:05}"))
    }

    /// Epochs of the complete checkpoints, ascending.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn checkpoint_epochs(&self) -> io::Result<Vec<usize>> {
        let mut epochs = Vec::new();
        let folder = match fs::read_dir(self.checkpoints()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(epochs),
            folder => folder?,
        };
        for entry in folder {
            epochs.extend(entry?.file_name().to_str().and_then(|name| name.parse::<usize>().ok()));
        }
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Writes a checkpoint: `write` fills a folder, which then takes its place. Older ones are
    /// removed afterwards, but for those in `keep`.
    ///
    /// # Errors
    /// What the file system or `write` reports; earlier checkpoints are left as they were.
    pub fn save_checkpoint<E: From<io::Error>>(
        &self,
        epoch: usize,
        keep: &[usize],
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let partial = self.checkpoints().join(format!(".{epoch:05}.partial"));
        // What a killed process left behind.
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let place = self.checkpoint(epoch);
        let replaced = (|| {
            write(&partial)?;
            if place.exists() {
                fs::remove_dir_all(&place)?;
            }
            fs::rename(&partial, &place)?;
            Ok(())
        })();
        if replaced.is_err() {
            fs::remove_dir_all(&partial).ok();
            return replaced;
        }
        for old in self.checkpoint_epochs()? {
            if old != epoch && !keep.contains(&old) {
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
        write_atomically(path, text.as_bytes())
            .map_err(|e| io::Error::new(e.kind(), format!("cannot write {}: {e}", path.display())))
    }
}
