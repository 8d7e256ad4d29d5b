//! What the commands work on: a run directory or a weights file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use dbb_datasets::{
    DataRef, ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess, Split, open,
};
use dbb_models::onnx;
use dbb_models::summary;
use dbb_models::weights::{self, KeyMap, Metadata, WeightsFile};
use dbb_models::{Arch, BlockKind, Classifier, ModelConfig};

use crate::config::{ClassMap, Config, OnBadSample};
use crate::error::{Error, Result};
use crate::inference::input::{self, InputFlags};
use crate::inference::labels;
use crate::inference::probe::Probe;
use crate::memory::{Batches, Estimate};
use crate::run::directory::{CheckpointId, CheckpointSelector, RunDir};
use crate::run::progress::read_progress;

/// Images that forms of a network are compared on without data.
const RANDOM_IMAGES: usize = 32;

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
pub struct LoadedModel {
    /// The network, on the inference device it was loaded to.
    pub network: Classifier,
    /// What it is.
    pub metadata: Metadata,
    /// The data of its own configuration, if it is a run.
    pub config: Option<Config>,
    /// The weights file.
    pub path: PathBuf,
    /// What flags change of its input.
    pub input: InputFlags,
}

/// The names of a network's tensors in the dialect of its metadata.
///
/// # Errors
/// If the architecture has no such dialect.
pub fn key_map(metadata: &Metadata, network: &Classifier) -> Result<KeyMap> {
    Ok(KeyMap::new(metadata.keys, &metadata.model, network)?)
}

impl LoadedModel {
    /// Loads a run directory (`which` of its checkpoints) or a weights file.
    ///
    /// # Errors
    /// A path that is neither; a damaged file; flags that contradict the file; flags that are
    /// missing for a foreign file.
    pub fn load(
        path: &Path,
        which: CheckpointSelector,
        flags: &ModelFlags,
        device: &Device,
    ) -> Result<Self> {
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
            (WeightsFile::read(&RunDir::weights(&checkpoint))?, Some(config))
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
        Ok(Self { network, metadata, config, path: file.path, input: InputFlags::default() })
    }

    /// How images become this network's input: as its file says, else as published weights of its
    /// architecture expect `dataset`, or a photograph; with the changes of the flags.
    ///
    /// # Errors
    /// If the file's description cannot be understood.
    pub fn preprocess(&self, dataset: Option<&ImageDataset>) -> Result<Preprocess> {
        let own = &self.metadata.preprocess;
        let preprocess = match own.is_null() {
            true => Ok(input::usual(&self.metadata.model, dataset)),
            false => serde_json::from_value(own.clone()),
        };
        preprocess.map(|preprocess| self.input.change(preprocess)).map_err(|e| {
            Error::Unusable(format!(
                "{}: its preprocessing is not understood: {e}",
                self.path.display()
            ))
        })
    }

    /// A split of a data set, or of the run's own if none is named, with the classes of the
    /// network.
    ///
    /// # Errors
    /// If there is no data set, or it has classes that the network does not know.
    pub fn dataset(&self, data: Option<&DataRef>, split: Split) -> Result<ImageDataset> {
        let (name, dataset) = match (data, &self.config) {
            (Some(reference), _) => (reference.to_string(), open(reference, split)?),
            (None, Some(own)) => {
                let (train, val) = own.data.open_pair(own.seed)?;
                (own.data.source.clone(), if split == Split::Train { train } else { val })
            }
            (None, None) => {
                let text = "a weights file has no data of its own; name it with --data";
                return Err(Error::Unusable(text.into()));
            }
        };
        let (named, outputs) = (&self.metadata.classes, self.metadata.model.num_classes);
        match &self.input.class_map {
            Some(path) => {
                let names = labels::classes(named, outputs);
                ClassMap::read(path)?.apply(&dataset, &name, Some(outputs), &names)
            }
            None => labels::align(dataset, &name, named, outputs),
        }
    }

    /// A loader over [such a split](Self::dataset), in the data set's order.
    ///
    /// # Errors
    /// As [`dataset`](Self::dataset) and [`preprocess`](Self::preprocess).
    pub fn loader(
        &self,
        data: Option<&DataRef>,
        split: Split,
        batch_size: usize,
    ) -> Result<Loader> {
        let config = LoaderConfig { batch_size, ..LoaderConfig::default() };
        self.loader_with(data, split, config)
    }

    /// The same in the order of `config`.
    ///
    /// # Errors
    /// As [`loader`](Self::loader).
    pub fn loader_with(
        &self,
        data: Option<&DataRef>,
        split: Split,
        config: LoaderConfig,
    ) -> Result<Loader> {
        self.loader_over(self.dataset(data, split)?, config)
    }

    /// The same over a data set that has the classes of the network.
    ///
    /// # Errors
    /// As [`preprocess`](Self::preprocess).
    pub fn loader_over(&self, dataset: ImageDataset, config: LoaderConfig) -> Result<Loader> {
        let own = self.config.as_ref().map(|config| &config.data);
        let skip_unreadable = own.is_some_and(|own| own.on_bad_sample == OnBadSample::Skip);
        let config = LoaderConfig { workers: 1, skip_unreadable, ..config };
        let pipeline = Pipeline::eval(self.preprocess(Some(&dataset))?)?;
        self.check_memory(pipeline.preprocess(), config.batch_size.min(dataset.len()))?;
        Ok(Loader::new(Arc::new(dataset), config, pipeline)?)
    }

    /// Refuses batches of so many images whose maps cannot fit into memory.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn check_memory(&self, preprocess: &Preprocess, images: usize) -> Result<()> {
        let shape = preprocess.shape();
        let batches = Batches { images, shape, held: Batches::held(1) };
        let layers = summary::layers(&self.network, [shape[1], shape[2]]);
        let lower = "--batch-size or --size";
        let estimate = Estimate::inference(&layers, &batches);
        estimate.check(&crate::network_device(&self.network), "inference", lower)
    }

    /// What forms of the network are compared on: the validation images of a data set, or of the
    /// run's own if none is named, else random ones.
    ///
    /// # Errors
    /// As [`loader`](Self::loader).
    pub fn probe(&self, data: Option<&DataRef>, batch_size: usize) -> Result<Probe> {
        match data.is_none() && self.config.is_none() {
            true => Ok(Probe::Random(self.random_images(RANDOM_IMAGES, 0))),
            false => Ok(Probe::Data(self.loader(data, Split::Val, batch_size)?)),
        }
    }

    /// What people call the classes, in order of the logits: by number where nothing is known.
    pub fn labels(&self) -> Vec<String> {
        let outputs = self.metadata.model.num_classes;
        let classes = labels::classes(&self.metadata.classes, outputs);
        let name = |index: usize| match classes.get(index) {
            Some(class) => labels::label(class).to_string(),
            None => format!("class {index}"),
        };
        (0..outputs).map(name).collect()
    }

    /// Height and width of the network's input: as its file says, else as its paper has it.
    pub fn input_size(&self) -> [usize; 2] {
        let side = self.metadata.model.arch.default_resolution();
        self.preprocess(None).map_or([side; 2], |known| known.size.into())
    }

    /// The images an ONNX graph of the network takes: normalised, or pixels that it normalises.
    ///
    /// # Errors
    /// As [`preprocess`](Self::preprocess).
    pub fn onnx_input(&self, with_preprocess: bool) -> Result<onnx::Input> {
        let normalization = match with_preprocess {
            true => {
                let Preprocess { mean, std, .. } = self.preprocess(None)?;
                Some(onnx::Normalization { mean, std })
            }
            false => None,
        };
        Ok(onnx::Input { size: self.input_size(), normalization })
    }

    /// Random images of the network's input size, equal for equal `seed`, values from -2 to 2 as
    /// normalised images have them.
    pub fn random_images(&self, images: usize, seed: u64) -> TensorData {
        let [height, width] = self.input_size();
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

fn find_checkpoint(run: &RunDir, which: CheckpointSelector) -> Result<PathBuf> {
    if !run.exists() {
        let text = format!("{} is no run directory (it has no config.toml)", run.root().display());
        return Err(Error::Unusable(text));
    }
    let marks = run.checkpoint_ids()?;
    let Some(&last) = marks.last() else {
        let text = format!("{} has no checkpoint yet", run.root().display());
        return Err(Error::Unusable(text));
    };
    let mark = match which {
        CheckpointSelector::Last => last,
        CheckpointSelector::Best => match read_progress(&run.checkpoint(last))?.best_epoch {
            0 => last,
            epoch => CheckpointId { epoch, batch: 0 },
        },
        CheckpointSelector::Epoch(epoch) => CheckpointId { epoch, batch: 0 },
    };
    if !marks.contains(&mark) {
        let there: Vec<String> = marks.iter().map(CheckpointId::to_string).collect();
        let text = format!(
            "{} has no checkpoint of epoch {}, only {}",
            run.root().display(),
            mark.epoch,
            there.join(", ")
        );
        return Err(Error::Unusable(text));
    }
    // Every byte is checked before it is used.
    read_progress(&run.checkpoint(mark))?;
    Ok(run.checkpoint(mark))
}
