//! What the commands work on: a run directory or a weights file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use dbb_datasets::{
    DataRef, ImageDataset, Loader, LoaderConfig, Pipeline, Preprocess, Split, open,
};
use dbb_models::Classifier;
use dbb_models::summary;
use dbb_models::weights::{self, KeyMap, LoadOptions, Metadata, WeightsFile};

use crate::config::{Config, OnBadSample};
use crate::data::{ClassMap, open_pair};
use crate::device;
use crate::error::{Error, Result};
use crate::inference::description::NetworkDescription;
use crate::inference::input::{self, InputOverrides};
use crate::inference::labels;
use crate::inference::probe::Probe;
use crate::memory::{Batches, Estimate};
use crate::run::directory::{CheckpointId, CheckpointSelector, RunDir};
use crate::run::progress::read_progress;

/// Images that forms of a network are compared on without data.
const RANDOM_IMAGES: usize = 32;

/// How a run or a weights file is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Which checkpoint of a run, the last by default; a weights file has none.
    pub checkpoint: Option<CheckpointSelector>,
    /// The description of the network, for a file that does not describe itself.
    pub network: NetworkDescription,
    /// Changes to its input.
    pub input: InputOverrides,
    /// Which weights are accepted.
    pub weights: LoadOptions,
}

/// Images of another size than a network's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeNote {
    /// Height and width of the images.
    pub size: [usize; 2],
    /// Height and width of the network's input.
    pub usual: [usize; 2],
    /// Whether `usual` comes from the file, rather than from the paper.
    pub is_known: bool,
}

/// A network and everything known about it.
pub struct LoadedModel {
    /// The network, on the inference device it was loaded to.
    pub network: Classifier,
    /// What it is.
    pub metadata: Metadata,
    /// The data of its own configuration, if it is a run.
    pub config: Option<Config>,
    /// The weights file.
    pub path: PathBuf,
    /// Changes to its input.
    pub input: InputOverrides,
}

/// The names of a network's tensors in the dialect of its metadata.
///
/// # Errors
/// If the architecture has no such dialect.
pub fn key_map(metadata: &Metadata, network: &Classifier) -> Result<KeyMap> {
    Ok(KeyMap::new(metadata.keys, &metadata.model, network)?)
}

impl LoadedModel {
    /// Loads a checkpoint of a run directory, or a weights file.
    ///
    /// # Errors
    /// A path that is neither; a damaged file; a description that contradicts the file, or that a
    /// foreign file lacks; weights that are NaN or infinite, unless they are accepted.
    pub fn load(path: &Path, options: &OpenOptions, device: &Device) -> Result<Self> {
        if !path.exists() {
            let text = format!(
                "{} does not exist; expected a run directory or a weights file",
                path.display()
            );
            return Err(Error::Unusable(text));
        }
        let (file, config) = match (path.is_dir(), options.checkpoint) {
            (true, which) => {
                let run = RunDir::new(path);
                let checkpoint = find_checkpoint(&run, which.unwrap_or_default())?;
                let config = Config::load_run(&run.config(), &[])?;
                (WeightsFile::read(&RunDir::weights(&checkpoint))?, Some(config))
            }
            (false, None) => (WeightsFile::read(path)?, None),
            (false, Some(_)) => return Err(Error::NoCheckpoints(path.into())),
        };
        let (network, metadata) = match file.metadata.clone() {
            Some(metadata) => {
                options.network.check_against(&metadata, &file.path)?;
                (weights::rebuild(&file, &metadata, options.weights, device)?, metadata)
            }
            None => {
                let model = options.network.model(&file.path)?;
                weights::adopt(&file, &model, options.weights, device)?
            }
        };
        Ok(Self { network, metadata, config, path: file.path, input: options.input.clone() })
    }

    /// How images become this network's input: as its file says, or else as published weights of
    /// its architecture expect for `dataset` or photographs; with the changes applied.
    ///
    /// # Errors
    /// If the file's description cannot be understood, or an override is out of range.
    pub fn preprocess(&self, dataset: Option<&ImageDataset>) -> Result<Preprocess> {
        let own = self.own_preprocess()?;
        let own = own.unwrap_or_else(|| input::usual(&self.metadata.model, dataset));
        self.input.apply(own)
    }

    /// How images become this network's input, as its file says; `None` if it does not.
    fn own_preprocess(&self) -> Result<Option<Preprocess>> {
        let refused = |text: String| {
            let file = self.path.display();
            Error::Unusable(format!("{file}: the preprocessing in this file {text}"))
        };
        let own: Option<Preprocess> = serde_json::from_value(self.metadata.preprocess.clone())
            .map_err(|e| refused(format!("cannot be understood: {e}")))?;
        if let Some(own) = &own {
            own.validate().map_err(|e| refused(format!("cannot be used: {e}")))?;
            let (channels, expected) = (own.channels, self.metadata.model.in_channels);
            if channels != expected {
                let text = format!("makes {channels} channels; the network takes {expected}");
                return Err(refused(text));
            }
        }
        Ok(own)
    }

    /// What to note if images of `size`, height and width, are not what the network was made for;
    /// `None` if its file says that they are.
    ///
    /// # Errors
    /// If the file's description of its input cannot be understood.
    pub fn size_note(&self, size: [usize; 2]) -> Result<Option<SizeNote>> {
        let of_paper = || [self.metadata.model.arch.default_resolution(); 2];
        let own = self.own_preprocess()?.map(|own| own.size.into());
        let usual = own.unwrap_or_else(of_paper);
        Ok((size != usual).then_some(SizeNote { size, usual, is_known: own.is_some() }))
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
                let (train, val) = open_pair(&own.data, own.seed)?;
                (own.data.source.clone(), if split == Split::Train { train } else { val })
            }
            (None, None) => return Err(Error::NoData(self.path.clone())),
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

    /// A loader over [such a split](Self::dataset).
    ///
    /// # Errors
    /// As [`dataset`](Self::dataset) and [`preprocess`](Self::preprocess).
    pub fn loader(
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
        let images = config.batch_size.min(dataset.len());
        self.check_images(images, pipeline.preprocess().shape())?;
        Ok(Loader::new(Arc::new(dataset), config, pipeline)?)
    }

    /// Refuses batches of `images` images of these channels, height and width, if they are too small for
    /// the network or their maps cannot fit into memory.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Model`].
    pub fn check_images(&self, images: usize, shape: [usize; 3]) -> Result<()> {
        let batches = Batches { images, shape, held: Batches::held(1) };
        let layers = summary::layers(&self.network, [shape[1], shape[2]])?;
        let lower = "--batch-size or --size";
        let estimate = Estimate::inference(&layers, &batches);
        estimate.check(&device::of(&self.network), "inference", lower)
    }

    /// What forms of the network are compared on: the validation images of a data set, or of the
    /// run's own if none is given, or else random images.
    ///
    /// # Errors
    /// As [`loader`](Self::loader).
    pub fn probe(&self, data: Option<&DataRef>, batch_size: usize) -> Result<Probe> {
        match data.is_none() && self.config.is_none() {
            true => Ok(Probe::Random(self.random_images(RANDOM_IMAGES, 0)?)),
            false => {
                let config = LoaderConfig { batch_size, ..LoaderConfig::default() };
                Ok(Probe::Data(self.loader(data, Split::Val, config)?))
            }
        }
    }

    /// Whether the classes of a data set are matched to the outputs by nothing but their order: the
    /// network names no classes, and no class map is given.
    pub fn is_matched_by_order(&self, dataset: &ImageDataset) -> bool {
        let known = labels::classes(&self.metadata.classes, self.metadata.model.num_classes);
        self.input.class_map.is_none() && dataset.classes() != known
    }

    /// Readable names of the classes, in the order of the logits: from the class map, or else from
    /// the file, or else their numbers.
    ///
    /// # Errors
    /// As [`ClassMap::read`], and an index that the network lacks.
    pub fn labels(&self) -> Result<Vec<String>> {
        let outputs = self.metadata.model.num_classes;
        let classes = labels::classes(&self.metadata.classes, outputs);
        let mut mapped = match &self.input.class_map {
            Some(path) => ClassMap::read(path)?.names(outputs)?,
            None => BTreeMap::new(),
        };
        let name = |index: usize| match (mapped.remove(&index), classes.get(index)) {
            (Some(names), _) => names,
            (None, Some(class)) => labels::label(class).to_string(),
            (None, None) => format!("class {index}"),
        };
        Ok((0..outputs).map(name).collect())
    }

    /// Random images of the network's input size, the same for the same `seed`, with values from -2
    /// to 2 like normalised images.
    ///
    /// # Errors
    /// As [`preprocess`](Self::preprocess) and [`check_images`](Self::check_images).
    pub fn random_images(&self, images: usize, seed: u64) -> Result<TensorData> {
        let (height, width) = self.preprocess(None)?.size;
        let channels = self.metadata.model.in_channels;
        self.check_images(images, [channels, height, width])?;
        let shape = [images, channels, height, width];
        let values = weights::random_values(shape.iter().product(), seed);
        Ok(TensorData::new(values, shape))
    }
}

fn find_checkpoint(run: &RunDir, which: CheckpointSelector) -> Result<PathBuf> {
    let refuse = |text: &str| Err(Error::Unusable(format!("{} {text}", run.root().display())));
    if !run.exists() {
        return refuse("is not a run directory (it has no config.toml)");
    }
    let marks = run.checkpoint_ids()?;
    let Some(&last) = marks.last() else { return refuse("has no checkpoint yet") };
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
        let there = there.join(", ");
        return refuse(&format!("has no checkpoint of epoch {}, only {there}", mark.epoch));
    }
    // Verifies every byte before it is used.
    read_progress(&run.checkpoint(mark))?;
    Ok(run.checkpoint(mark))
}
