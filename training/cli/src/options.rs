//! Options that several commands share.

use std::ffi::OsStr;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};
use dbb_datasets::{DataRef, Loader, LoaderConfig, Preprocess, Split};
use dbb_models::quantize::Granularity;
use dbb_models::weights::{Dialect, LoadOptions, WeightsFile};
use dbb_models::{Arch, BlockKind, Form};

use dbb_training::Error;
use dbb_training::deploy::rounding::Precision;
use dbb_training::inference::description::NetworkDescription;
use dbb_training::inference::input::InputOverrides;
use dbb_training::inference::loaded_model::{LoadedModel, OpenOptions};
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

/// Names of tensors; completions offer those of the dialects, and the help says whose they are.
pub fn dialect() -> impl TypedValueParser<Value = Dialect> {
    let help = |dialect| match dialect {
        Dialect::Native => "Names of this project",
        Dialect::Official => "Names of the paper's repository",
        Dialect::Torchvision => {
            "Names of torchvision; a folded network is written as convolutions with identity batch \
             norms, so that torchvision's own network loads it"
        }
        Dialect::Timm => {
            "Names of timm, with identity batch norms; its ResNets have torchvision's names"
        }
        Dialect::Akamaster => {
            "Names of akamaster's pytorch_resnet_cifar10, with identity batch norms"
        }
    };
    let values = Dialect::ALL.map(|value| PossibleValue::new(value.name()).help(help(value)));
    PossibleValuesParser::new(values).try_map(|name| name.parse())
}

/// The number type of weights; completions offer its names.
pub fn precision() -> impl TypedValueParser<Value = Precision> {
    one_of(Precision::ALL, Precision::name)
}

/// The form of a network; completions offer both.
pub fn form() -> impl TypedValueParser<Value = Form> {
    one_of(Form::ALL, Form::name)
}

/// What shares a scale in 8 bits; completions offer the names.
pub fn granularity() -> impl TypedValueParser<Value = Granularity> {
    one_of(Granularity::ALL, Granularity::name)
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
        command: &Command,
        arg: Option<&Arg>,
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

    /// Loads the target, and says if its input gets another size than it was made for.
    pub fn load(&self, device: &Device) -> dbb_training::Result<LoadedModel> {
        let options = OpenOptions {
            checkpoint: self.checkpoint,
            network: self.network.0.clone(),
            input: self.input.0.clone(),
            weights: self.weights(),
        };
        self.check_kind()?;
        LoadedModel::load(&self.target, &options, device)
    }

    /// Which weights are accepted.
    pub fn weights(&self) -> LoadOptions {
        LoadOptions { allow_nonfinite: self.allow_nonfinite }
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
        if !self.network.0.is_empty() || !self.target.is_file() {
            return Ok(None);
        }
        let file = WeightsFile::read(&self.target)?;
        Ok(file.metadata.is_none().then_some(file))
    }
}

/// What the network is: flags for the fields of a [`NetworkDescription`].
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions(pub NetworkDescription);

impl Args for NetworkOptions {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str, value: &'static str, what: &str, default: &str| {
            let help = format!("{what}, for a file that does not describe its network{default}");
            Arg::new(name).long(name).value_name(value).help(help)
        };
        command
            .arg(flag("arch", "ARCH", "Architecture", "").value_parser(arch()))
            .arg(flag("block", "BLOCK", "Block", " [default: base]").value_parser(block()))
            .arg(
                flag("width", "WIDTH", "Width multiplier", " [default: 1]")
                    .value_parser(value_parser!(f64)),
            )
            .arg(
                flag("classes", "CLASSES", "Number of classes", "")
                    .value_parser(value_parser!(usize)),
            )
            .arg(
                flag("channels", "CHANNELS", "Channels of the images", " [default: 3]")
                    .value_parser(value_parser!(usize)),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for NetworkOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(NetworkDescription {
            arch: given(matches, "arch"),
            block: given(matches, "block"),
            width: given(matches, "width"),
            classes: given(matches, "classes"),
            channels: given(matches, "channels"),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// How an image becomes the network's input, where it differs from what the file says: flags for
/// the fields of [`InputOverrides`].
#[derive(Clone, Debug, Default)]
pub struct InputOptions(pub InputOverrides);

impl Args for InputOptions {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &'static str, value: &'static str, help: &'static str| {
            Arg::new(name).long(name).value_name(value).help(help)
        };
        let pixels = || value_parser!(u64).range(1..=Preprocess::MAX_SIDE as u64);
        let numbers = |arg: Arg| arg.value_delimiter(',').value_parser(value_parser!(f32));
        let size = "Height and width of the network's input";
        let resize =
            "Short side that an image is resized to before the centre crop; at least --size";
        let mean = "Mean of each channel on the scale 0 to 1, for example 0.485,0.456,0.406";
        let std = "Standard deviation of each channel on the scale 0 to 1";
        let class_map = "Output of the network for each class of the data; predict names the \
                         outputs by it: TOML, or lines of class, tab, index";
        command
            .arg(flag("size", "PIXELS", size).value_parser(pixels()))
            .arg(flag("resize", "PIXELS", resize).value_parser(pixels()))
            .arg(numbers(flag("mean", "NUMBERS", mean)))
            .arg(numbers(flag("std", "NUMBERS", std)))
            .arg(
                flag("class_map", "FILE", class_map)
                    .long("class-map")
                    .value_parser(value_parser!(PathBuf)),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for InputOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let pixels = |name| given::<u64>(matches, name).map(|pixels| pixels as usize);
        let numbers = |name| Some(matches.get_many::<f32>(name)?.copied().collect());
        Ok(Self(InputOverrides {
            size: pixels("size"),
            resize: pixels("resize"),
            mean: numbers("mean"),
            std: numbers("std"),
            class_map: given(matches, "class_map"),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl InputOptions {
    /// The flags that are given, of those that say how images become the network's input.
    pub fn of_images(&self) -> Vec<&'static str> {
        let InputOverrides { size, resize, mean, std, class_map: _ } = &self.0;
        let flags = [
            ("--size", size.is_some()),
            ("--resize", resize.is_some()),
            ("--mean", mean.is_some()),
            ("--std", std.is_some()),
        ];
        flags.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
    }
}

/// The value of a flag, if it is given.
fn given<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
    matches.get_one(name).cloned()
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
        let probe = target.probe(self.data.as_ref(), self.batch_size as usize)?;
        match &probe {
            Probe::Data(loader) => announce_data(target, loader)?,
            Probe::Random(_) => announce_size(target, &target.preprocess(None)?)?,
        }
        Ok(probe)
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
        let loader = target.loader_over(dataset, config)?;
        announce_data(target, &loader)?;
        Ok(loader)
    }
}

/// Says on standard error what is assumed about the images of a loader.
fn announce_data(target: &LoadedModel, loader: &Loader) -> dbb_training::Result<()> {
    announce_size(target, loader.pipeline().preprocess())?;
    let dataset = loader.dataset();
    if let (true, Some(first)) = (target.is_matched_by_order(dataset), dataset.classes().first()) {
        crate::say(&format!(
            "note: {} does not name its classes; they are taken to be those of {} in their order, \
             output 0 for \"{first}\" (--class-map FILE assigns outputs to classes)",
            target.path.display(),
            dataset.describe()
        ));
    }
    Ok(())
}

/// Says on standard error that images have another size than a network was made for.
pub fn announce_size(target: &LoadedModel, preprocess: &Preprocess) -> dbb_training::Result<()> {
    let Some(note) = target.size_note(preprocess.size.into())? else { return Ok(()) };
    let file = target.path.display();
    let ([height, width], [own_height, own_width]) = (note.size, note.usual);
    crate::say(&match note.is_known {
        true => format!(
            "note: the input of {file} is {own_height}x{own_width}; it gets {height}x{width} instead"
        ),
        false => format!(
            "note: {file} does not say the size of its input; it gets {height}x{width}, where its \
             paper has {own_height}x{own_width}{}",
            if target.input.size.is_some() { "" } else { " (--size PIXELS sets it)" }
        ),
    });
    Ok(())
}
