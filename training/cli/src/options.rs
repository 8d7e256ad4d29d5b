//! Options that several commands share.

use std::ffi::OsStr;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use dbb_datasets::{DataRef, Loader, Split};
use dbb_models::weights::WeightsFile;
use dbb_models::{Arch, BlockKind};

use dbb_training::deploy::probe::Probe;
use dbb_training::deploy::rounding::Precision;
use dbb_training::inference::input::InputFlags;
use dbb_training::inference::loaded_model::{LoadedModel, ModelFlags};
use dbb_training::run::directory::CheckpointSelector;

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
    /// Threads of the CPU backends; by default one per core. Results are equal bit for bit with
    /// equal threads and instruction set.
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
    /// Architecture, for a file that does not describe its network.
    #[arg(long, value_parser = arch())]
    pub arch: Option<Arch>,
    /// Block, for a file that does not describe its network [default: base].
    #[arg(long, value_parser = block())]
    pub block: Option<BlockKind>,
    /// Width multiplier, for a file that does not describe its network [default: 1].
    #[arg(long)]
    pub width: Option<f64>,
    /// Number of classes, for a file that does not describe its network.
    #[arg(long)]
    pub classes: Option<usize>,
    /// Channels of the images, for a file that does not describe its network [default: 3].
    #[arg(long)]
    pub channels: Option<usize>,
    #[command(flatten)]
    pub input: InputOptions,
}

/// How an image becomes the network's input, where it differs from what the file says.
#[derive(Debug, Args)]
pub struct InputOptions {
    /// Height and width of the network's input.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    pub size: Option<u16>,
    /// Short side that an image is resized to before the centre crop.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    pub resize: Option<u16>,
    /// Mean of each channel on the scale 0 to 1, for example 0.485,0.456,0.406.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel on the scale 0 to 1.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// Output of the network for each class of the data: TOML, or lines of class, tab, index.
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
        let target = LoadedModel::load(&self.target, self.checkpoint, &flags, device)?;
        Ok(LoadedModel { input: self.input.flags(), ..target })
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

    /// A loader over a split for a target, in the data set's order.
    pub fn loader(&self, target: &LoadedModel, split: Split) -> dbb_training::Result<Loader> {
        target.loader(self.data.as_ref(), split, self.batch_size as usize)
    }
}
