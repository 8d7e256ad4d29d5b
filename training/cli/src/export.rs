//! `dbb reparam` and `dbb export`.

use std::path::PathBuf;

use clap::ValueEnum;
use dbb_models::onnx::write_onnx;
use dbb_models::weights::{Dialect, Metadata, write_burnpack, write_safetensors};
use dbb_models::{Arch, Classifier, Form};
use serde::Serialize;

use crate::fold_blocks::BlockOptions;
use crate::options::{DataOptions, DeviceOptions, TargetOptions, precision};
use dbb_training::deploy::fold::{FoldReport, fold};
use dbb_training::deploy::rounding::{Precision, Rounding};
use dbb_training::deploy::timm_folder;
use dbb_training::deploy::weights::ExportedWeights;
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::probe::Probe;

/// Fold every block of several branches into one convolution and write the weights.
///
/// A file that does not say what network it holds is folded block by block, by the names of the
/// papers' code, unless --arch says it; every other tensor of it stays as it is.
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
    #[arg(long, value_enum)]
    keys: Option<Keys>,
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
/// Example: dbb export runs/first --format safetensors --keys official --out official.safetensors
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
    /// Folded or in training form.
    #[arg(long, value_enum, default_value_t = FormOption::Deploy)]
    form: FormOption,
    /// Names of the tensors [default: native; timm in its own format].
    #[arg(long, value_enum)]
    keys: Option<Keys>,
    /// Number type of the weights [default: f32].
    #[arg(long, value_parser = precision())]
    dtype: Option<Precision>,
    /// Let the ONNX graph take pixels from 0 to 255 (uint8) and normalise them itself.
    #[arg(long)]
    with_preprocess: bool,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Keys {
    /// Paths of this project's modules.
    Native,
    /// Names of the paper's repository.
    Official,
    /// Names of torchvision; a folded network is written as convolutions with batch norms that
    /// change nothing, so that torchvision itself loads it.
    Torchvision,
    /// Names of timm, written likewise; its ResNets have torchvision's.
    Timm,
    /// Names of the best-known CIFAR ResNets (akamaster's), written likewise.
    Akamaster,
}

impl Keys {
    fn dialect(self, arch: Arch) -> Dialect {
        match self {
            Self::Native => Dialect::Native,
            Self::Official => Dialect::Official,
            // One name for both libraries' ResNets.
            Self::Timm if arch.name().starts_with("resnet") => Dialect::Torchvision,
            Self::Timm => Dialect::Timm,
            Self::Torchvision => Dialect::Torchvision,
            Self::Akamaster => Dialect::Akamaster,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Format {
    /// Read by PyTorch, Hugging Face and many others.
    Safetensors,
    /// Burn's own; native names only.
    Burnpack,
    /// Read by onnxruntime and many compilers; folded, native names only.
    Onnx,
    /// A folder that timm loads and the Hugging Face Hub takes, with classes and preprocessing;
    /// folded, timm's names only.
    Timm,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum FormOption {
    Deploy,
    Train,
}

#[derive(Serialize)]
struct Result {
    #[serde(flatten)]
    report: FoldReport,
    #[serde(flatten)]
    rounding: Option<Rounding>,
    out: PathBuf,
}

pub fn reparam(args: &ReparamArgs) -> anyhow::Result<()> {
    let device = args.device.open()?;
    if let Some(file) = args.target.unknown_network()? {
        anyhow::ensure!(
            args.keys.is_none_or(|keys| keys == Keys::Official)
                && args.data.data.is_none()
                && args.dtype.is_none(),
            "{} does not say what network it holds: its blocks are folded one by one, under the \
             names of the papers' code and in their own number type; --keys, --data and --dtype \
             need --arch and --classes",
            file.path.display()
        );
        return crate::fold_blocks::run(file, &args.blocks, &args.out, args.json);
    }
    args.blocks.refuse_for_networks()?;
    let target = args.target.load(&device)?;
    let probe = || args.data.probe(&target);
    let (deploy, report) = fold(&target.network, &probe()?)?;
    let keys = args.keys.unwrap_or(Keys::Native);
    let mut stored = stored(&target, &deploy, Form::Deploy, keys)?;
    let rounding = stored.round(args.dtype.unwrap_or_default(), probe)?;
    write_safetensors(&args.out, &stored.tensors, &stored.metadata)
        .map_err(dbb_training::Error::from)?;
    print(args.json, &Result { report, rounding, out: args.out.clone() })
}

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    args.refuse_contradictions()?;
    let target = args.target.open(&args.device)?;
    let probe = || args.data.probe(&target);
    let (network, report, form) = match args.form {
        FormOption::Deploy => {
            let (deploy, report) = fold(&target.network, &probe()?)?;
            (deploy, report, Form::Deploy)
        }
        FormOption::Train => {
            anyhow::ensure!(
                target.metadata.form == Form::Train,
                "{} is folded already; its training form cannot be had back",
                target.path.display()
            );
            (target.network.clone(), unfolded(&target), Form::Train)
        }
    };
    let rounding = write(args, &target, &network, form, probe)?;
    print(args.json, &Result { report, rounding, out: args.out.clone() })
}

impl ExportArgs {
    /// Options that a format cannot have.
    fn refuse_contradictions(&self) -> anyhow::Result<()> {
        let native = self.keys.is_none_or(|keys| keys == Keys::Native);
        let folded = self.form == FormOption::Deploy;
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
                || (folded && self.keys.is_none_or(|keys| keys == Keys::Timm)),
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

fn write(
    args: &ExportArgs,
    target: &LoadedModel,
    network: &Classifier,
    form: Form,
    probe: impl FnOnce() -> dbb_training::Result<Probe>,
) -> dbb_training::Result<Option<Rounding>> {
    let dtype = args.dtype.unwrap_or_default();
    let native = || Metadata { form, keys: Dialect::Native, ..target.metadata.clone() };
    match args.format {
        Format::Safetensors => {
            let mut stored = stored(target, network, form, args.keys.unwrap_or(Keys::Native))?;
            let rounding = stored.round(dtype, probe)?;
            write_safetensors(&args.out, &stored.tensors, &stored.metadata)?;
            Ok(rounding)
        }
        Format::Timm => {
            let config = timm_folder::Config::new(&target.metadata, &target.preprocess(None)?)?;
            let mut stored = stored(target, network, form, Keys::Timm)?;
            let rounding = stored.round(dtype, probe)?;
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
    keys: Keys,
) -> dbb_training::Result<ExportedWeights> {
    let keys = keys.dialect(target.metadata.model.arch);
    ExportedWeights::new(network, Metadata { form, keys, ..target.metadata.clone() })
}

/// The report of an export that folds nothing.
fn unfolded(target: &LoadedModel) -> FoldReport {
    let params = dbb_models::summary::learnable_params(&target.network);
    FoldReport {
        blocks_folded: 0,
        params_train: params,
        params_deploy: params,
        max_abs_diff: 0.0,
        max_rel_diff: 0.0,
        top1_agreement: 100.0,
        compared_on: "nothing (not folded)".into(),
    }
}

fn print(json: bool, result: &Result) -> anyhow::Result<()> {
    crate::print(json, result, || {
        let r = &result.report;
        let rounding = result.rounding.as_ref().map(rounding_text);
        format!(
            "{} blocks folded: {} parameters became {}\n\
             largest difference of logits {:.2e} ({:.2e} of the largest), top-1 agrees on {:.2}%, \
             compared on {}\n{}written to {}",
            r.blocks_folded,
            r.params_train,
            r.params_deploy,
            r.max_abs_diff,
            r.max_rel_diff,
            r.top1_agreement,
            r.compared_on,
            rounding.unwrap_or_default(),
            result.out.display()
        )
    })
}

fn rounding_text(rounding: &Rounding) -> String {
    let accuracy = match (rounding.top1, rounding.top1_dtype) {
        (Some(exact), Some(rounded)) => format!(": {exact:.2}% became {rounded:.2}%"),
        _ => String::new(),
    };
    format!(
        "weights in {}: logits differ by {:.2e} of the largest, top-1 agrees on {:.2}%{accuracy}\n",
        rounding.dtype, rounding.dtype_max_rel_diff, rounding.dtype_top1_agreement
    )
}
