//! The keys of a configuration, their defaults and ranges.

use std::path::PathBuf;

use dbb_datasets::{
    Augment, CacheBudget, DataError, DataRef, ImageDataset, Preprocess, Split, open, open_pair,
};
use dbb_models::blocks::Activation;
use dbb_models::blocks::DbbConfig;
use dbb_models::{Arch, BlockKind, LayerBlocks, ModelConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ClassMap;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the configuration in comparisons: of its runs, their folders, and its rows in tables
    /// and reports. By default the name of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where initial weights, order of samples and augmentation come from.
    #[serde(default)]
    pub seed: u64,
    /// The network.
    pub model: ModelSection,
    /// The images.
    #[serde(default)]
    pub data: DataSection,
    /// Random changes of training images.
    #[serde(default)]
    pub augment: AugmentSection,
    /// How long and in which steps.
    pub train: TrainSection,
    /// The optimizer.
    pub optim: OptimSection,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: ScheduleSection,
}

/// Random changes of training images.
pub type AugmentSection = Augment;

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Architecture.
    pub arch: Arch,
    /// Block every KxK convolution becomes.
    #[serde(default = "dbb")]
    pub block: BlockKind,
    /// Multiplies the channels of every layer.
    #[serde(default = "one")]
    pub width: f64,
    /// Weights file to start from. By default weights are drawn from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Classes; must agree with the data. By default the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// Channels of the images, 1 or 3. By default the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_channels: Option<usize>,
    /// Nonlinearity of MobileNetV1, `relu` or `relu6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Other blocks for single layers, by pattern; the last match wins.
    #[serde(default, skip_serializing_if = "LayerBlocks::is_empty")]
    pub blocks: LayerBlocks,
    /// What a Diverse Branch Block is made of.
    #[serde(default)]
    pub dbb: DbbConfig,
}

/// The images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// `sample` (bundled), a folder whose layout is recognised, or `KIND:PATH` with KIND one of
    /// `folder`, `tar`, `idx`, `cifar10`, `cifar100`.
    pub source: String,
    /// Height and width of the network's input. By default the images', or 224.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Short side that validation images are resized to before the centre crop of `size`; at least
    /// `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<usize>,
    /// Mean per channel on the scale 0 to 1. By default that of the data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Deviation per channel on the scale 0 to 1. By default that of the data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// File that gives the classes of the data other indices: TOML (`n01440764 = 0`), or lines of
    /// class, tab, index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_map: Option<PathBuf>,
    /// Validate on this share of the training images, of every class, drawn by the seed and not
    /// trained on; the data set's own validation images stay unseen, to be measured at the end.
    /// Data without validation images needs it: class folders that are not below train/, for
    /// example.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_from_train: Option<f64>,
    /// Use that many training images only, balanced over the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Use that many validation images only, balanced over the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_val: Option<usize>,
    /// Threads that decode and transform, up to 256; 0 does it in the training thread.
    pub workers: usize,
    /// MiB of memory for training and validation images together that later epochs then need not
    /// read again; results are the same with any. 0 keeps none.
    pub cache_mb: usize,
    /// What an image that cannot be read does.
    pub on_bad_sample: OnBadSample,
    /// Most images that may be left out before the run ends with an error.
    pub max_bad_samples: usize,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            source: "sample".into(),
            size: None,
            resize: None,
            mean: None,
            std: None,
            class_map: None,
            val_from_train: None,
            limit_train: None,
            limit_val: None,
            workers: 1,
            cache_mb: 0,
            on_bad_sample: OnBadSample::Error,
            max_bad_samples: 100,
        }
    }
}

/// What an image that cannot be read does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBadSample {
    /// Ends the run with an error that names the file.
    Error,
    /// Is left out, named and counted.
    Skip,
}

/// How long and in which steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images in a step.
    pub batch_size: usize,
    /// Part of the target spread over all classes, 0 up to 1.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Batches whose gradients make one step of the optimizer.
    #[serde(default = "one_of")]
    pub accumulate: usize,
    /// Largest Euclidean norm of all gradients together; larger ones are scaled down to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Decay of a moving average of weights and running statistics, such as 0.999; the average is
    /// what is validated and exported. Left out, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Saves a checkpoint every so many optimizer steps, besides the ends of epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<usize>,
    /// Saves a checkpoint after so many minutes, besides the ends of epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_minutes: Option<f64>,
    /// Newest checkpoints that are kept, beside the best.
    #[serde(default = "one_of")]
    pub keep_last: usize,
    /// How often a loss or gradient that is no number may send the run back to its last
    /// checkpoint; 0 ends the run.
    #[serde(default)]
    pub rollbacks: usize,
    /// Multiplies the learning rate at every such return.
    #[serde(default = "half")]
    pub rollback_lr: f64,
    /// Layers that are not trained, by pattern, their batch norms included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
}

/// The optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimSection {
    /// Which one.
    #[serde(default)]
    pub kind: OptimKind,
    /// Highest learning rate.
    pub lr: f64,
    /// Momentum of SGD.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Nesterov's momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// Weight decay; added to the gradient by SGD, decoupled in AdamW.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// Which parameters decay.
    #[serde(default)]
    pub decay: DecayRule,
    /// Multiplies the learning rate of biases, those of batch norms included (2 in the paper).
    #[serde(default = "one")]
    pub bias_lr: f64,
}

/// Which optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimKind {
    /// Stochastic gradient descent as in PyTorch (no dampening).
    #[default]
    Sgd,
    /// Adam with decoupled weight decay; betas 0.9 and 0.999, epsilon 1e-8.
    AdamW,
}

/// Which parameters weight decay acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DecayRule {
    /// Everything.
    All,
    /// Kernels and the classifier's matrix: no batch norm, no bias.
    #[default]
    Weights,
    /// Everything but depthwise layers, as the DBB paper trains.
    Paper,
}

/// The learning rate over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSection {
    /// Its shape after the warm-up.
    pub kind: ScheduleKind,
    /// Epochs of linear warm-up from 0.
    pub warmup_epochs: f64,
    /// Lowest learning rate of the cosine.
    pub min_lr: f64,
    /// Epochs after which a step schedule multiplies by `gamma`.
    pub milestones: Vec<usize>,
    /// Factor of a step schedule.
    pub gamma: f64,
}

impl Default for ScheduleSection {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Cosine,
            warmup_epochs: 0.0,
            min_lr: 0.0,
            milestones: Vec::new(),
            gamma: 0.1,
        }
    }
}

/// Shape of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine from the highest to the lowest rate, every iteration.
    Cosine,
    /// Multiplied by `gamma` at every milestone.
    Step,
}

fn dbb() -> BlockKind {
    BlockKind::Dbb
}

fn one() -> f64 {
    1.0
}

fn one_of() -> usize {
    1
}

fn half() -> f64 {
    0.5
}

fn momentum() -> f64 {
    0.9
}

fn weight_decay() -> f64 {
    1e-4
}

impl DataSection {
    /// The data set meant by `source`.
    ///
    /// # Errors
    /// If the text names none.
    pub fn reference(&self) -> Result<DataRef, DataError> {
        self.source.parse()
    }

    /// The training and the validation images, class map and limits applied; `seed` draws
    /// `val_from_train`.
    ///
    /// # Errors
    /// As [`dbb_datasets::open_pair`], [`ImageDataset::split`] and [`ClassMap::apply`].
    pub fn open_pair(&self, seed: u64) -> crate::Result<(ImageDataset, ImageDataset)> {
        let (mut train, mut val) = match self.val_from_train {
            // The other split is not even looked for.
            Some(share) => open(&self.reference()?, Split::Train)?.split(share, seed)?,
            None => self.open_both()?,
        };
        if let Some(path) = &self.class_map {
            let map = ClassMap::read(path)?;
            let apply = |dataset| map.apply(dataset, &self.source, None, &[]);
            (train, val) = (apply(&train)?, apply(&val)?);
        }
        let limit = |dataset: ImageDataset, limit: Option<usize>| match limit {
            Some(n) => dataset.limit(n),
            None => dataset,
        };
        Ok((limit(train, self.limit_train), limit(val, self.limit_val)))
    }

    /// Both splits of the data set.
    fn open_both(&self) -> crate::Result<(ImageDataset, ImageDataset)> {
        let reference = self.reference()?;
        open_pair(&reference).map_err(|error| match error {
            DataError::Layout { .. } if open(&reference, Split::Train).is_ok() => {
                crate::Error::Unusable(format!(
                    "{} has images to train on and none to validate with; data.val_from_train = 0.1 \
                     validates on a tenth of them, which are not trained on",
                    self.source
                ))
            }
            error => error.into(),
        })
    }

    /// The memory for images that later epochs need not read again.
    pub fn cache(&self) -> CacheBudget {
        CacheBudget::new(self.cache_mb.saturating_mul(1 << 20))
    }

    /// How an image of a data set becomes the network's input.
    pub fn preprocess(&self, dataset: &ImageDataset, channels: Option<usize>) -> Preprocess {
        let mut preprocess = Preprocess::of(dataset);
        if let Some(channels) = channels {
            preprocess = preprocess.with_channels(channels, dataset);
        }
        if let Some(size) = self.size {
            preprocess = preprocess.with_size(size, dataset);
        }
        if self.resize.is_some() {
            preprocess.resize = self.resize;
        }
        preprocess.mean = self.mean.clone().unwrap_or(preprocess.mean);
        preprocess.std = self.std.clone().unwrap_or(preprocess.std);
        preprocess
    }
}

impl ModelSection {
    /// The network for data of the given classes and channels.
    pub fn resolve(&self, num_classes: usize, in_channels: usize) -> ModelConfig {
        ModelConfig {
            arch: self.arch,
            block: self.block,
            blocks: self.blocks.clone(),
            dbb: self.dbb.clone(),
            activation: self.activation,
            width: self.width,
            num_classes: self.num_classes.unwrap_or(num_classes),
            in_channels: self.in_channels.unwrap_or(in_channels),
        }
    }
}
