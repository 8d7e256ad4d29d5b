//! The target of a command: a run or a weights file.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use dbb_models::weights::{LoadOptions, WeightsFile};
use dbb_models::{Arch, BlockKind};

use super::device::DeviceOptions;
use super::input::InputOptions;
use super::values::{arch, block};
use dbb_training::Error;
use dbb_training::inference::description::NetworkDescription;
use dbb_training::inference::evaluate::Evaluation;
use dbb_training::inference::loaded_model::{LoadedModel, OpenOptions};
use dbb_training::run::directory::{CheckpointSelector, RunDir};

/// What to work on.
#[derive(Debug, Args)]
pub struct TargetOptions {
    /// Run directory or weights file (.safetensors, .bpk, .pth, .pt, .th).
    pub target: PathBuf,
    /// Checkpoint of a run: last, best or the number of an epoch [default: last].
    #[arg(long)]
    pub checkpoint: Option<CheckpointSelector>,
    #[command(flatten)]
    pub network: NetworkOptions,
    #[command(flatten)]
    pub input: InputOptions,
    /// Accept weights that are NaN or infinite. A fold must still agree with its training form.
    #[arg(long)]
    pub allow_nonfinite: bool,
}

impl TargetOptions {
    /// Opens the device and loads the target on it.
    pub fn open(&self, device: &DeviceOptions) -> dbb_training::Result<LoadedModel> {
        self.load(&device.open()?)
    }

    /// Loads the target.
    pub fn load(&self, device: &Device) -> dbb_training::Result<LoadedModel> {
        let options = OpenOptions {
            checkpoint: self.checkpoint,
            network: self.network.description(),
            input: self.input.overrides(),
            weights: self.weights(),
        };
        self.check_kind()?;
        LoadedModel::load(&self.target, &options, device)
    }

    /// Refuses to write over the weights file that is read.
    pub fn refuse_as_output(&self, out: &Path) -> anyhow::Result<()> {
        let [out_file, input] = [out, &self.target].map(Path::canonicalize);
        anyhow::ensure!(
            !matches!((out_file, input), (Ok(out), Ok(input)) if out == input),
            "{} is the input, which would be lost; write to another file",
            out.display()
        );
        Ok(())
    }

    /// Which weights are accepted.
    pub fn weights(&self) -> LoadOptions {
        LoadOptions { allow_nonfinite: self.allow_nonfinite }
    }

    /// The evaluation, if it means something or non-finite values are accepted.
    pub fn accept(&self, evaluation: Evaluation) -> dbb_training::Result<Evaluation> {
        if self.allow_nonfinite { Ok(evaluation) } else { evaluation.finite() }
    }

    /// Recognises arguments in the wrong order, which would look like damaged targets.
    fn check_kind(&self) -> dbb_training::Result<()> {
        let target = &self.target;
        let problem = if target.is_dir() && !RunDir::new(target).exists() {
            if dbb_datasets::is_data_set(target) {
                "a data set; name the run or the weights file first, and data with --data"
            } else if dbb_datasets::holds_images(target) {
                "a folder of images; name the run or the weights file first"
            } else {
                return Ok(());
            }
        } else if target.is_file() && dbb_datasets::is_image_name(target) {
            "an image; name the run or the weights file first"
        } else if target.extension().is_some_and(|extension| extension == "toml") {
            "a configuration, not a weights file; name the run that was trained with it, or its weights \
             file"
        } else {
            return Ok(());
        };
        Err(Error::Unusable(format!("{} is {problem}", target.display())))
    }

    /// The weights file, if neither it nor a flag describes its network.
    pub fn unknown_network(&self) -> dbb_training::Result<Option<WeightsFile>> {
        if !self.network.description().is_empty() || !self.target.is_file() {
            return Ok(None);
        }
        self.check_kind()?;
        let file = WeightsFile::read(&self.target)?;
        Ok(file.metadata.is_none().then_some(file))
    }
}

/// The description of the network, for a file that does not describe itself.
#[derive(Clone, Debug, Args)]
pub struct NetworkOptions {
    /// Architecture, for a file that does not describe its network.
    #[arg(long, value_parser = arch())]
    arch: Option<Arch>,
    /// Block, for a file that does not describe its network [default: base].
    #[arg(long, value_parser = block())]
    block: Option<BlockKind>,
    /// Width multiplier, for a file that does not describe its network [default: 1].
    #[arg(long)]
    width: Option<f64>,
    /// Number of classes, for a file that does not describe its network.
    #[arg(long)]
    classes: Option<usize>,
    /// Channels of the images, for a file that does not describe its network [default: 3].
    #[arg(long)]
    channels: Option<usize>,
}

impl NetworkOptions {
    fn description(&self) -> NetworkDescription {
        let Self { arch, block, width, classes, channels } = *self;
        NetworkDescription { arch, block, width, classes, channels }
    }
}
