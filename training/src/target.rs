//! What the commands work on: a run directory or a weights file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use dbb_datasets::{
    DataRef, ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess, Split, open,
};
use dbb_models::weights::{self, KeyMap, Metadata, WeightsFile};
use dbb_models::{Arch, BlockKind, Classifier, ModelConfig};

use crate::checkpoint::read_progress;
use crate::config::{Config, OnBadSample};
use crate::error::{Error, Result};
use crate::run_dir::{RunDir, Which};

/// What flags say of a network; needed for files that do not say it themselves.
#[derive(Clone, Debug, Default)]
pub struct ModelFlags {
    /// Architecture.
    pub arch: Option<Arch>,
    /// Block.
    pub block: Option<BlockKind>,
    /// Width multiplier.
    pub width: Option<f64>,
    /// Classes.
    pub classes: Option<usize>,
    /// Channels of the images.
    pub channels: Option<usize>,
}

/// A network with everything known about it.
pub struct Target {
    /// The network, on the inference device it was loaded to.
    pub network: Classifier,
    /// What it is.
    pub metadata: Metadata,
    /// The data of its own configuration, if it is a run.
    pub config: Option<Config>,
    /// The weights file.
    pub path: PathBuf,
}

/// The names of a network's tensors in the dialect of its metadata.
///
/// # Errors
/// If the architecture has no such dialect.
pub fn key_map(metadata: &Metadata, network: &Classifier) -> Result<KeyMap> {
    Ok(KeyMap::new(metadata.keys, &metadata.model, network)?)
}

impl Target {
    /// Loads a run directory (`which` of its checkpoints) or a weights file.
    ///
    /// # Errors
    /// A path that is neither; a damaged file; flags that contradict the file; flags that are
    /// missing for a foreign file.
    pub fn load(path: &Path, which: Which, flags: &ModelFlags, device: &Device) -> Result<Self> {
        if !path.exists() {
            let text = format!(
                "{} does not exist; expected a run directory or a weights file",
                path.display()
            );
            return Err(Error::Unusable(text));
        }
        let (file, config) = if path.is_dir() {
            let run = RunDir::new(path);
            let checkpoint = find_checkpoint(&run, which)?;
            let config = Config::load(&run.config(), &[])?;
            (WeightsFile::read(&RunDir::network(&checkpoint))?, Some(config))
        } else {
            (WeightsFile::read(path)?, None)
        };
        let (network, metadata) = match file.metadata.clone() {
            Some(metadata) => {
                flags.check_against(&metadata, &file.path)?;
                (weights::rebuild(&file, &metadata, device)?, metadata)
            }
            None => {
                let model = flags.model(&file.path)?;
                weights::adopt(&file, &model, device)?
            }
        };
        Ok(Self { network, metadata, config, path: file.path })
    }

    /// How images become this network's input: as its file says, else as `dataset` has it.
    ///
    /// # Errors
    /// If the file's description cannot be understood.
    pub fn preprocess(&self, dataset: &ImageDataset) -> Result<Preprocess> {
        if self.metadata.preprocess.is_null() {
            let mut preprocess = Preprocess::of(dataset);
            let channels = self.metadata.model.in_channels;
            let (mean, std) = dataset.normalization().for_channels(channels);
            preprocess = Preprocess { channels, mean, std, ..preprocess };
            return Ok(preprocess);
        }
        serde_json::from_value(self.metadata.preprocess.clone()).map_err(|e| {
            Error::Unusable(format!(
                "{}: its preprocessing is not understood: {e}",
                self.path.display()
            ))
        })
    }

    /// A loader over a split of a data set, or of the run's own if none is named.
    ///
    /// # Errors
    /// If there is no data set, or its classes are not the network's.
    pub fn loader(
        &self,
        data: Option<&DataRef>,
        split: Split,
        batch_size: usize,
    ) -> Result<Loader> {
        let own = self.config.as_ref().map(|config| &config.data);
        let (reference, dataset) = match (data, own) {
            (Some(reference), _) => (reference.clone(), open(reference, split)?),
            (None, Some(own)) => {
                let (train, val) = own.open_pair()?;
                (own.reference()?, if split == Split::Train { train } else { val })
            }
            (None, None) => {
                let text = "a weights file has no data of its own; name it with --data";
                return Err(Error::Unusable(text.into()));
            }
        };
        self.check_classes(&dataset, &reference)?;
        let skip = own.is_some_and(|own| own.on_bad_sample == OnBadSample::Skip);
        let config = LoaderConfig {
            batch_size,
            workers: 1,
            skip_unreadable: skip,
            ..LoaderConfig::default()
        };
        let pipeline = Pipeline::eval(self.preprocess(&dataset)?)?;
        Ok(Loader::new(Arc::new(dataset), config, pipeline)?)
    }

    fn check_classes(&self, dataset: &ImageDataset, reference: &DataRef) -> Result<()> {
        let (own, data) = (&self.metadata.classes, dataset.classes());
        let classes = self.metadata.model.num_classes;
        if classes != data.len() {
            return Err(Error::Unusable(format!(
                "the network has {classes} classes, {reference} has {}",
                data.len()
            )));
        }
        match own.iter().zip(data).find(|(own, data)| own != data) {
            Some((own, data)) => Err(Error::Unusable(format!(
                "the network was trained on other classes than {reference} has: \"{own}\" against \
                 \"{data}\" at the same place"
            ))),
            None => Ok(()),
        }
    }

    /// Random images of the network's input size, equal for equal `seed`, values from -2 to 2 as
    /// normalised images have them.
    pub fn random_images(&self, images: usize, seed: u64) -> TensorData {
        let (height, width) = serde_json::from_value(self.metadata.preprocess.clone())
            .map(|preprocess: Preprocess| preprocess.size)
            .unwrap_or_else(|_| {
                let side = self.metadata.model.arch.default_resolution();
                (side, side)
            });
        let shape = [images, self.metadata.model.in_channels, height, width];
        let values = weights::random_values(shape.iter().product(), seed);
        TensorData::new(values, shape)
    }
}

impl ModelFlags {
    /// The network the flags describe, for a file that does not describe itself.
    fn model(&self, file: &Path) -> Result<ModelConfig> {
        let missing = |flag: &str| {
            Error::Unusable(format!(
                "{} does not say what network it holds; give --arch, --block, --width and --classes \
                 ({flag} is missing)",
                file.display()
            ))
        };
        let arch = self.arch.ok_or_else(|| missing("--arch"))?;
        let classes = self.classes.ok_or_else(|| missing("--classes"))?;
        Ok(ModelConfig {
            width: self.width.unwrap_or(1.0),
            in_channels: self.channels.unwrap_or(3),
            ..ModelConfig::new(arch, self.block.unwrap_or(BlockKind::Base), classes)
        })
    }

    /// The file knows better; a flag that contradicts it is a mistake.
    fn check_against(&self, metadata: &Metadata, file: &Path) -> Result<()> {
        let model = &metadata.model;
        let contradiction = |flag: &str, given: String, own: String| {
            Err(Error::Unusable(format!(
                "{flag} {given} contradicts {}, which holds {own}; leave the flag out",
                file.display()
            )))
        };
        match self {
            Self { arch: Some(arch), .. } if *arch != model.arch => {
                contradiction("--arch", arch.to_string(), model.arch.to_string())
            }
            Self { block: Some(block), .. } if *block != model.block => {
                contradiction("--block", block.to_string(), model.block.to_string())
            }
            Self { width: Some(width), .. } if *width != model.width => {
                contradiction("--width", width.to_string(), model.width.to_string())
            }
            Self { classes: Some(n), .. } if *n != model.num_classes => {
                contradiction("--classes", n.to_string(), model.num_classes.to_string())
            }
            Self { channels: Some(n), .. } if *n != model.in_channels => {
                contradiction("--channels", n.to_string(), model.in_channels.to_string())
            }
            _ => Ok(()),
        }
    }
}

fn find_checkpoint(run: &RunDir, which: Which) -> Result<PathBuf> {
    if !run.exists() {
        let text = format!("{} is no run directory (it has no config.toml)", run.root().display());
        return Err(Error::Unusable(text));
    }
    let epochs = run.checkpoint_epochs()?;
    let Some(&last) = epochs.last() else {
        let text = format!("{} has no checkpoint yet", run.root().display());
        return Err(Error::Unusable(text));
    };
    let epoch = match which {
        Which::Last => last,
        Which::Best => read_progress(&run.checkpoint(last))?.best_epoch,
        Which::Epoch(epoch) => epoch,
    };
    if !epochs.contains(&epoch) {
        let text =
            format!("{} has no checkpoint of epoch {epoch}, only {epochs:?}", run.root().display());
        return Err(Error::Unusable(text));
    }
    Ok(run.checkpoint(epoch))
}
