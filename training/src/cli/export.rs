//! `dbb reparam` and `dbb export`.

use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use clap::ValueEnum;
use dbb_datasets::Split;
use dbb_models::onnx::write_onnx;
use dbb_models::weights::{Dialect, Metadata, as_conv_bn, write_burnpack, write_safetensors};
use dbb_models::{Arch, Classifier, Form};
use serde::Serialize;

use super::fold_blocks::BlockOptions;
use super::options::{DataOptions, DeviceOptions, TargetOptions};
use crate::fold::{FoldReport, fold};
use crate::target::{Target, key_map};

/// Images that a fold is compared on without data.
const RANDOM_IMAGES: usize = 32;

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
    /// File to write.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Folded or in training form.
    #[arg(long, value_enum, default_value_t = FormOption::Deploy)]
    form: FormOption,
    /// Names of the tensors.
    #[arg(long, value_enum, default_value_t = Keys::Native)]
    keys: Keys,
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
    out: PathBuf,
}

pub fn reparam(args: &ReparamArgs) -> anyhow::Result<()> {
    let device = args.device.open()?;
    if let Some(file) = args.target.unknown_network()? {
        anyhow::ensure!(
            args.keys.is_none_or(|keys| keys == Keys::Official) && args.data.data.is_none(),
            "{} does not say what network it holds: its blocks are folded one by one, under the \
             names of the papers' code; --keys and --data need --arch and --classes",
            file.path.display()
        );
        return super::fold_blocks::run(file, &args.blocks, &args.out, args.json);
    }
    args.blocks.refuse_for_networks()?;
    let target = args.target.load(&device)?;
    let (deploy, report) = measured_fold(&target, &args.data)?;
    let keys = args.keys.unwrap_or(Keys::Native);
    write(&target, &deploy, Form::Deploy, keys, Format::Safetensors, false, &args.out)?;
    print(args.json, report, &args.out)
}

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let target = args.target.load(&device)?;
    anyhow::ensure!(
        args.format != Format::Burnpack || args.keys == Keys::Native,
        "burnpack holds native names only; leave --keys out or export safetensors"
    );
    anyhow::ensure!(
        args.format == Format::Onnx || !args.with_preprocess,
        "--with-preprocess is for --format onnx: weights alone compute nothing"
    );
    anyhow::ensure!(
        args.format != Format::Onnx
            || (args.form == FormOption::Deploy && args.keys == Keys::Native),
        "an ONNX file holds the folded network in native names; leave --form and --keys out"
    );
    let (network, report, form) = match args.form {
        FormOption::Deploy => {
            let (deploy, report) = measured_fold(&target, &args.data)?;
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
    let format = args.format;
    write(&target, &network, form, args.keys, format, args.with_preprocess, &args.out)?;
    print(args.json, report, &args.out)
}

fn measured_fold(target: &Target, data: &DataOptions) -> crate::Result<(Classifier, FoldReport)> {
    if data.data.is_none() && target.config.is_none() {
        let images = target.random_images(RANDOM_IMAGES, 0);
        let on = "seeded random input".to_string();
        return fold(&target.network, std::iter::once(Ok(images)), on);
    }
    let loader = target.loader(data.data.as_ref(), Split::Val, data.batch_size as usize)?;
    let on = loader.dataset().describe();
    let batches = loader.epoch(0).filter_map(|batch| match batch {
        Ok(batch) if batch.is_empty() => None,
        Ok(batch) => Some(Ok(TensorData::new(batch.images, batch.shape))),
        Err(error) => Some(Err(error.into())),
    });
    fold(&target.network, batches, on)
}

/// The report of an export that folds nothing.
fn unfolded(target: &Target) -> FoldReport {
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

fn write(
    target: &Target,
    network: &Classifier,
    form: Form,
    keys: Keys,
    format: Format,
    with_preprocess: bool,
    out: &Path,
) -> crate::Result<()> {
    let keys = keys.dialect(target.metadata.model.arch);
    let metadata = Metadata { form, keys, ..target.metadata.clone() };
    match format {
        Format::Safetensors if metadata.keys.is_plain() && form == Form::Deploy => {
            let device = crate::network_device(network);
            let (plain, model) = as_conv_bn(network, &metadata.model, &device)?;
            let metadata = Metadata { model, form: Form::Train, ..metadata };
            let tensors = key_map(&metadata, &plain)?.save(&plain);
            write_safetensors(out, &tensors, &metadata)?;
        }
        Format::Safetensors => {
            let tensors = key_map(&metadata, network)?.save(network);
            write_safetensors(out, &tensors, &metadata)?;
        }
        Format::Burnpack => write_burnpack(out, network, &metadata)?,
        Format::Onnx => {
            write_onnx(out, network, &metadata, &target.onnx_input(with_preprocess)?)?;
        }
    }
    Ok(())
}

fn print(json: bool, report: FoldReport, out: &Path) -> anyhow::Result<()> {
    let result = Result { report, out: out.into() };
    super::print(json, &result, || {
        let r = &result.report;
        format!(
            "{} blocks folded: {} parameters became {}\n\
             largest difference of logits {:.2e} ({:.2e} of the largest), top-1 agrees on {:.2}%, \
             compared on {}\nwritten to {}",
            r.blocks_folded,
            r.params_train,
            r.params_deploy,
            r.max_abs_diff,
            r.max_rel_diff,
            r.top1_agreement,
            r.compared_on,
            out.display()
        )
    })
}
