//! Options that several commands share.

use std::ffi::OsStr;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use dbb_datasets::{DataRef, Loader, LoaderConfig, Split};
use dbb_models::weights::WeightsFile;
use dbb_models::{Arch, BlockKind};

use dbb_training::Error;
use dbb_training::deploy::rounding::Precision;
use dbb_training::inference::input::InputFlags;
use dbb_training::inference::loaded_model::{LoadedModel, ModelFlags};
use dbb_training::inference::probe::Probe;
use dbb_training::run::directory::{CheckpointSelector, RunDir};

/// An architecture; completions offer its names.
pub fn arch() -> impl TypedValueParser<Value = Arch> {
    one_of(Arch::ALL, Arch::name)
}

/// A block; completions offer its names.
pub fn block() -> impl TypedValueParser<Value = BlockKind> {
    one_of(BlockKind::ALL, BlockKind::name)
}

/// The number type of weights; completions offer its names.
pub fn precision() -> impl TypedValueParser<Value = Precision> {
    one_of(Precision::ALL, Precision::name)
}

/// One of these values by its name.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(values.map(name)).try_map(move |text| {
        let value = values.into_iter().find(|&value| name(value) == text);
        // The parser lets no other text through.
        value.ok_or_else(|| format!("no value is called {text}"))
    })
}

/// The name of a device; completions offer the kinds, and a number may follow.
#[derive(Clone, Debug)]
pub struct DeviceName;

impl TypedValueParser for DeviceName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(dbb_training::device::kinds().map(PossibleValue::new)))
    }
}

/// Where to compute.
#[derive(Debug, Args)]
pub struct DeviceOptions {
    /// Device: flex, ndarray, wgpu, cuda:N, rocm:N, metal, vulkan or cpu (see `dbb devices`).
    #[arg(long, default_value = "flex", value_parser = DeviceName, hide_possible_values = true)]
    pub device: String,
    /// Threads of the CPU backends; by default one per core. Results are equal to the bit with equal
    /// threads and instruction set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

impl DeviceOptions {
    /// Starts the threads.
    pub fn start_threads(&self) -> dbb_training::Result<()> {
        Ok(dbb_training::device::start_threads(self.threads.map(usize::from))?)
    }

    /// Starts the threads and opens the device.
    pub fn open(&self) -> dbb_training::Result<Device> {
        self.start_threads()?;
        Ok(dbb_training::device::open(&self.device)?)
    }
}

/// What to work on.
#[derive(Debug, Args)]
pub struct TargetOptions {
    /// Run directory or weights file (.safetensors, .bpk, .pth).
    pub target: PathBuf,
    /// Checkpoint of a run: last, best or the number of an epoch.
    #[arg(long, default_value = "last")]
    pub checkpoint: CheckpointSelector,
    /// Architecture, for files that do not say it.
    #[arg(long, value_parser = arch())]
    pub arch: Option<Arch>,
    /// Block, for files that do not say it.
    #[arg(long, value_parser = block())]
    pub block: Option<BlockKind>,
    /// Width multiplier, for files that do not say it.
    #[arg(long)]
    pub width: Option<f64>,
    /// Number of classes, for files that do not say it.
    #[arg(long)]
    pub classes: Option<usize>,
    /// Channels of the images, for files that do not say it.
    #[arg(long)]
    pub channels: Option<usize>,
    #[command(flatten)]
    pub input: InputOptions,
}

/// What the network's input is made of, instead of what its file says.
#[derive(Debug, Args)]
pub struct InputOptions {
    /// Height and width of the network's input.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    pub size: Option<u16>,
    /// Short side of an image before the middle is cut out.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    pub resize: Option<u16>,
    /// Mean of each channel on the scale 0 to 1, for example 0.485,0.456,0.406.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel on the scale 0 to 1.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// Which output of the network each class of the data is: TOML, or lines of class, tab, index.
    #[arg(long, value_name = "FILE")]
    pub class_map: Option<PathBuf>,
}

impl InputOptions {
    fn flags(&self) -> InputFlags {
        InputFlags {
            size: self.size.map(usize::from),
            resize: self.resize.map(usize::from),
            mean: self.mean.clone(),
            std: self.std.clone(),
            class_map: self.class_map.clone(),
        }
    }
}

impl TargetOptions {
    /// Opens the device and loads the target on it.
    pub fn open(&self, device: &DeviceOptions) -> dbb_training::Result<LoadedModel> {
        self.load(&device.open()?)
    }

    /// Loads the target.
    pub fn load(&self, device: &Device) -> dbb_training::Result<LoadedModel> {
        let flags = ModelFlags {
            arch: self.arch,
            block: self.block,
            width: self.width,
            classes: self.classes,
            channels: self.channels,
        };
        self.check_kind()?;
        let target = LoadedModel::load(&self.target, self.checkpoint, &flags, device)?;
        Ok(LoadedModel { input: self.input.flags(), ..target })
    }

    /// Tells arguments that have changed places from targets that are damaged.
    fn check_kind(&self) -> dbb_training::Result<()> {
        let target = self.target.display();
        let text = if self.target.is_dir() && !RunDir::new(&self.target).exists() {
            match dbb_datasets::is_data_set(&self.target) {
                true => format!(
                    "{target} is a data set; name the run or the weights file first, and data with --data"
                ),
                false if dbb_datasets::holds_images(&self.target) => {
                    format!(
                        "{target} is a folder of images; name the run or the weights file first"
                    )
                }
                false => return Ok(()),
            }
        } else if self.target.is_file() && dbb_datasets::is_image_name(&self.target) {
            format!("{target} is an image; name the run or the weights file first")
        } else if self.target.extension().is_some_and(|extension| extension == "toml") {
            format!(
                "{target} is a configuration and no weights file; name the run that was trained with it, or its weights file"
            )
        } else {
            return Ok(());
        };
        Err(Error::Unusable(text))
    }

    /// The weights file, if neither it nor a flag says what network it holds.
    pub fn unknown_network(&self) -> dbb_training::Result<Option<WeightsFile>> {
        let described = self.arch.is_some()
            || self.block.is_some()
            || self.width.is_some()
            || self.classes.is_some()
            || self.channels.is_some();
        if described || !self.target.is_file() {
            return Ok(None);
        }
        let file = WeightsFile::read(&self.target)?;
        Ok(file.metadata.is_none().then_some(file))
    }
}

/// Which images.
#[derive(Debug, Args)]
pub struct DataOptions {
    /// Data: sample, a folder, or KIND:PATH with KIND folder, tar, idx, cifar10 or cifar100; by
    /// default the run's own.
    #[arg(long)]
    pub data: Option<DataRef>,
    /// Images in a batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
}

impl DataOptions {
    /// What forms of a target are compared on.
    pub fn probe(&self, target: &LoadedModel) -> dbb_training::Result<Probe> {
        target.probe(self.data.as_ref(), self.batch_size as usize)
    }

    /// A loader over a split for a target, or over `limit` images of it, in the data set's order.
    pub fn loader(
        &self,
        target: &LoadedModel,
        split: Split,
        limit: Option<u32>,
    ) -> dbb_training::Result<Loader> {
        if let Some(DataRef::Folder { path, .. }) = &self.data
            && RunDir::new(path).exists()
        {
            let path = path.display();
            let text = format!("--data {path} is a run directory; name the folder of its images");
            return Err(Error::Unusable(text));
        }
        let dataset = target.dataset(self.data.as_ref(), split)?;
        let dataset = match limit {
            Some(limit) => dataset.limit(limit as usize),
            None => dataset,
        };
        let config = LoaderConfig { batch_size: self.batch_size as usize, ..Default::default() };
        target.loader_over(dataset, config)
    }
}
