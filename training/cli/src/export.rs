//! `dbb reparam` and `dbb export`.

use std::path::PathBuf;

use dbb_models::onnx::write_onnx;
use dbb_models::weights::{Dialect, Metadata, write_burnpack, write_safetensors};
use dbb_models::{Classifier, Form};

use crate::fold_blocks::BlockOptions;
use crate::format::Format;
use crate::options::{DataOptions, DeviceOptions, TargetOptions, dialect, form, given, precision};
use crate::written::Written;
use dbb_training::deploy::fold::fold;
use dbb_training::deploy::rounding::{Precision, Rounding};
use dbb_training::deploy::timm_folder;
use dbb_training::deploy::weights::ExportedWeights;
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::probe::Probe;

/// Fold every multi-branch block into one convolution and write the weights.
///
/// A file that does not describe its network is folded block by block, by the names of the papers'
/// code, unless --arch is given; its other tensors are copied.
///
/// Example: dbb reparam runs/first --out deploy.safetensors
#[derive(Debug, clap::Args)]
pub struct ReparamArgs {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    data: DataOptions,
    /// File to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Names of the tensors [default: native].
    #[arg(long, value_parser = dialect())]
    keys: Option<Dialect>,
    /// Number type of the weights [default: f32].
    #[arg(long, value_parser = precision())]
    dtype: Option<Precision>,
    #[command(flatten)]
    blocks: BlockOptions,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Write weights for other programs, folded unless --form train.
///
/// Example: dbb export runs/first --format onnx --out network.onnx
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    data: DataOptions,
    /// Format of the file.
    #[arg(long, value_enum)]
    format: Format,
    /// File or, for timm, folder to write.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Form of the network.
    #[arg(long, value_parser = form(), default_value_t = Form::Deploy)]
    form: Form,
    /// Names of the tensors [default: native; timm in its own format].
    #[arg(long, value_parser = dialect())]
    keys: Option<Dialect>,
    /// Number type of the weights [default: f32].
    #[arg(long, value_parser = precision())]
    dtype: Option<Precision>,
    /// ONNX only: let the graph take pixels from 0 to 255 (uint8) and normalise them itself.
    #[arg(long)]
    with_preprocess: bool,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn reparam(args: &ReparamArgs) -> anyhow::Result<()> {
    Format::Safetensors.check(&args.out)?;
    let device = args.device.open()?;
    if let Some(file) = args.target.unknown_network()? {
        let mut flags = given([
            ("--keys", args.keys.is_some_and(|keys| keys != Dialect::Official)),
            ("--data", args.data.data.is_some()),
            ("--dtype", args.dtype.is_some()),
            ("--class-map", args.target.input.class_map.is_some()),
        ]);
        flags.extend(args.target.input.of_images());
        anyhow::ensure!(
            flags.is_empty(),
            "{} does not describe its network: its blocks are folded one by one, under the names of \
             the papers' code and in their own number type; to use {}, give --arch and --classes",
            file.path.display(),
            flags.join(", ")
        );
        let weights = args.target.weights();
        return crate::fold_blocks::run(file, &args.blocks, weights, &args.out, args.json);
    }
    args.blocks.refuse_for_networks()?;
    let target = args.target.load(&device)?;
    let dtype = args.dtype.unwrap_or_default();
    refuse_unused(&args.target, &args.data, &target, true, &[])?;
    let probe = args.data.probe(&target)?;
    let (deploy, report) = fold(&target.network, &probe)?;
    let keys = args.keys.unwrap_or(Dialect::Native);
    let mut stored = stored(&target, &deploy, Form::Deploy, keys)?;
    let rounding = round(&mut stored, dtype, Some(&probe))?;
    write_safetensors(&args.out, &stored.tensors, &stored.metadata)
        .map_err(dbb_training::Error::from)?;
    Written::folded(report, rounding, &args.out).print(args.json)
}

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    args.refuse_contradictions()?;
    args.format.check(&args.out)?;
    let target = args.target.open(&args.device)?;
    let dtype = args.dtype.unwrap_or_default();
    let compares = args.form == Form::Deploy || dtype != Precision::F32;
    let kept: &[&str] = match args.format {
        Format::Timm => &["--size", "--resize", "--mean", "--std"],
        Format::Onnx if args.with_preprocess => &["--size", "--mean", "--std"],
        Format::Onnx => &["--size"],
        Format::Safetensors | Format::Burnpack => &[],
    };
    refuse_unused(&args.target, &args.data, &target, compares, kept)?;
    let probe = compares.then(|| args.data.probe(&target)).transpose()?;
    let written = match (args.form, &probe) {
        (Form::Deploy, Some(probe)) => {
            let (deploy, report) = fold(&target.network, probe)?;
            let rounding = write(args, &target, &deploy, Some(probe))?;
            Written::folded(report, rounding, &args.out)
        }
        _ => {
            anyhow::ensure!(
                target.metadata.form == Form::Train,
                "{} is folded already; the training form cannot be restored from it",
                target.path.display()
            );
            let rounding = write(args, &target, &target.network, probe.as_ref())?;
            Written::unfolded(&target.network, rounding, &args.out)
        }
    };
    written.print(args.json)
}

/// Refuses flags without effect: where no image is read, those of images that the
/// format does not keep.
fn refuse_unused(
    options: &TargetOptions,
    data: &DataOptions,
    target: &LoadedModel,
    compares: bool,
    kept: &[&str],
) -> anyhow::Result<()> {
    anyhow::ensure!(
        compares || data.data.is_none(),
        "nothing is folded or rounded, so that there is nothing to compare on data; leave --data out"
    );
    if compares && (data.data.is_some() || target.config.is_some()) {
        return Ok(());
    }
    let mut unused = options.input.of_images();
    // The size of random images.
    unused.retain(|flag| !(kept.contains(flag) || compares && *flag == "--size"));
    if options.input.class_map.is_some() {
        unused.push("--class-map");
    }
    let reason = if compares { "no image is read without --data" } else { "no image is read" };
    anyhow::ensure!(unused.is_empty(), "{reason}; leave {} out", unused.join(", "));
    Ok(())
}

/// Rounds weights to `dtype`, measured on `probe`.
fn round(
    stored: &mut ExportedWeights,
    dtype: Precision,
    probe: Option<&Probe>,
) -> dbb_training::Result<Option<Rounding>> {
    match probe {
        Some(probe) if dtype != Precision::F32 => stored.round(dtype, probe).map(Some),
        _ => Ok(None),
    }
}

impl ExportArgs {
    /// Refuses options that a format does not have.
    fn refuse_contradictions(&self) -> anyhow::Result<()> {
        let native = self.keys.is_none_or(|keys| keys == Dialect::Native);
        let folded = self.form == Form::Deploy;
        anyhow::ensure!(
            self.format != Format::Burnpack || native,
            "burnpack holds native names only; leave --keys out or export safetensors"
        );
        anyhow::ensure!(
            self.format == Format::Onnx || !self.with_preprocess,
            "--with-preprocess is for --format onnx: weights alone compute nothing"
        );
        anyhow::ensure!(
            self.format != Format::Onnx || (folded && native),
            "an ONNX file holds the folded network in native names; leave --form and --keys out"
        );
        anyhow::ensure!(
            self.format != Format::Timm
                || (folded && self.keys.is_none_or(|keys| keys == Dialect::Timm)),
            "timm's folder holds the folded network in timm's names; leave --form and --keys out"
        );
        anyhow::ensure!(
            matches!(self.format, Format::Safetensors | Format::Timm)
                || self.dtype.unwrap_or_default() == Precision::F32,
            "--dtype is for --format safetensors and timm; burnpack and ONNX files hold f32"
        );
        Ok(())
    }
}

/// Writes a network in the form of `args`.
fn write(
    args: &ExportArgs,
    target: &LoadedModel,
    network: &Classifier,
    probe: Option<&Probe>,
) -> dbb_training::Result<Option<Rounding>> {
    let (form, dtype) = (args.form, args.dtype.unwrap_or_default());
    let native = || Metadata { form, keys: Dialect::Native, ..target.metadata.clone() };
    match args.format {
        Format::Safetensors => {
            let mut stored = stored(target, network, form, args.keys.unwrap_or(Dialect::Native))?;
            let rounding = round(&mut stored, dtype, probe)?;
            write_safetensors(&args.out, &stored.tensors, &stored.metadata)?;
            Ok(rounding)
        }
        Format::Timm => {
            let config = timm_folder::Config::new(&target.metadata, &target.preprocess(None)?)?;
            let mut stored = stored(target, network, form, Dialect::Timm)?;
            let rounding = round(&mut stored, dtype, probe)?;
            config.write(&args.out, &stored)?;
            Ok(rounding)
        }
        Format::Burnpack => {
            write_burnpack(&args.out, network, &native())?;
            Ok(None)
        }
        Format::Onnx => {
            let input = target.onnx_input(args.with_preprocess)?;
            write_onnx(&args.out, network, &native(), &input)?;
            Ok(None)
        }
    }
}

fn stored(
    target: &LoadedModel,
    network: &Classifier,
    form: Form,
    keys: Dialect,
) -> dbb_training::Result<ExportedWeights> {
    ExportedWeights::new(network, Metadata { form, keys, ..target.metadata.clone() })
}
