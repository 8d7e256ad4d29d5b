//! `dbb reparam` and `dbb export`.

use std::path::{Path, PathBuf};

use dbb_datasets::DataRef;
use dbb_models::onnx::{Description, write_onnx, write_onnx_int8};
use dbb_models::summary::{learnable_params, macs};
use dbb_models::weights::{Dialect, Metadata, write_burnpack, write_safetensors};
use dbb_models::{Classifier, Form};

use crate::fold_blocks::BlockOptions;
use crate::format::Format;
use crate::int8::{Int8Args, compared_on};
use crate::options::{DataOptions, DeviceOptions, TargetOptions, dialect, form, given, precision};
use crate::written::Written;
use dbb_training::deploy::fold::{FoldReport, fold};
use dbb_training::deploy::model_card::{Accuracy, ModelCard, UNKNOWN_LICENSE};
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
    /// timm only: license of the weights for the model card, by the identifier of the Hugging Face Hub,
    /// such as apache-2.0 [default: unknown].
    #[arg(long, value_name = "ID", value_parser = license)]
    license: Option<String>,
    #[command(flatten)]
    int8: Int8Args,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

fn license(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    match !text.is_empty() && text.chars().all(allowed) {
        true => Ok(text.to_string()),
        false => {
            Err("expected an identifier of small letters, digits, - and ., such as mit".into())
        }
    }
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
    let output = Output {
        path: &args.out,
        format: Format::Safetensors,
        form: Form::Deploy,
        keys: args.keys,
        dtype: args.dtype.unwrap_or_default(),
        with_preprocess: false,
        license: None,
        int8: None,
    };
    output.write(&args.target.load(&device)?, &args.target, &args.data)?.print(args.json)
}

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    args.refuse_contradictions()?;
    args.format.check(&args.out)?;
    let output = Output {
        path: &args.out,
        format: args.format,
        form: args.form,
        keys: args.keys,
        dtype: args.dtype.unwrap_or_default(),
        with_preprocess: args.with_preprocess,
        license: args.license.as_deref(),
        int8: args.int8.data()?.map(|data| (&args.int8, data)),
    };
    let target = args.target.open(&args.device)?;
    match output.int8 {
        Some((_, calibrate)) => {
            let data = compared_on(&args.data, &target, calibrate);
            output.write(&target, &args.target, &data)?.print(args.json)
        }
        None => output.write(&target, &args.target, &args.data)?.print(args.json),
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
            self.format == Format::Timm || self.license.is_none(),
            "--license is for --format timm, whose folder has a model card"
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
        let int8 = self.int8.data()?.is_some();
        anyhow::ensure!(
            self.format == Format::Onnx || !int8,
            "--int8 is for --format onnx: other formats hold weights without ranges"
        );
        anyhow::ensure!(
            matches!(self.format, Format::Safetensors | Format::Timm)
                || self.dtype.unwrap_or_default() == Precision::F32,
            "--dtype is for --format safetensors and timm; burnpack and ONNX files hold f32"
        );
        Ok(())
    }
}

/// What is written of a network, and where.
struct Output<'a> {
    path: &'a Path,
    format: Format,
    form: Form,
    keys: Option<Dialect>,
    dtype: Precision,
    with_preprocess: bool,
    license: Option<&'a str>,
    int8: Option<(&'a Int8Args, &'a DataRef)>,
}

impl Output<'_> {
    /// Folds, rounds and writes the network of a target, as requested.
    fn write(
        &self,
        target: &LoadedModel,
        options: &TargetOptions,
        data: &DataOptions,
    ) -> anyhow::Result<Written> {
        let compares = self.form == Form::Deploy || self.dtype != Precision::F32;
        self.refuse_unused(target, options, data, compares)?;
        let probe = compares.then(|| data.probe(target)).transpose()?;
        if let (Form::Deploy, Some(probe)) = (self.form, &probe) {
            let (deploy, report) = fold(&target.network, probe)?;
            if let Some((int8, data)) = self.int8 {
                let (network, int8) = int8.run(&deploy, target, data, probe)?;
                let description = Description::of(&target.metadata);
                let input = target.onnx_input(self.with_preprocess)?;
                write_onnx_int8(self.path, &network, &description, &input)?;
                return Ok(Written {
                    int8: Some(int8),
                    ..Written::folded(report, None, self.path)
                });
            }
            let rounding = self.store(target, &deploy, Some(probe), Some(&report))?;
            return Ok(Written::folded(report, rounding, self.path));
        }
        anyhow::ensure!(
            target.metadata.form == Form::Train,
            "{} is folded already; the training form cannot be restored from it",
            target.path.display()
        );
        let rounding = self.store(target, &target.network, probe.as_ref(), None)?;
        Ok(Written::unfolded(&target.network, rounding, self.path))
    }

    /// Refuses flags without effect: where no image is read, those of images that the format does not
    /// store.
    fn refuse_unused(
        &self,
        target: &LoadedModel,
        options: &TargetOptions,
        data: &DataOptions,
        compares: bool,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            compares || data.data.is_none(),
            "nothing is folded or rounded, so there is nothing to compare on data; leave --data out"
        );
        if compares && (data.data.is_some() || target.config.is_some()) {
            return Ok(());
        }
        let stored: &[&str] = match self.format {
            Format::Timm => &["--size", "--resize", "--mean", "--std"],
            Format::Onnx if self.with_preprocess => &["--size", "--mean", "--std"],
            Format::Onnx => &["--size"],
            Format::Safetensors | Format::Burnpack => &[],
        };
        let mut unused = options.input.of_images();
        // Random images have a size as well.
        unused.retain(|flag| !(stored.contains(flag) || compares && *flag == "--size"));
        if options.input.class_map.is_some() {
            unused.push("--class-map");
        }
        let reason = if compares { "no image is read without --data" } else { "no image is read" };
        anyhow::ensure!(unused.is_empty(), "{reason}; leave {} out", unused.join(", "));
        Ok(())
    }

    /// Writes a network, with the measured difference of its fold if it is folded, and measures on
    /// `probe` what rounding changes.
    fn store(
        &self,
        target: &LoadedModel,
        network: &Classifier,
        probe: Option<&Probe>,
        fold: Option<&FoldReport>,
    ) -> dbb_training::Result<Option<Rounding>> {
        let metadata = |keys| Metadata { form: self.form, keys, ..target.metadata.clone() };
        let weights = |keys| -> dbb_training::Result<_> {
            let mut weights = ExportedWeights::new(network, metadata(keys))?;
            let rounded = probe.filter(|_| self.dtype != Precision::F32);
            let rounding = rounded.map(|probe| weights.round(self.dtype, probe)).transpose()?;
            Ok((weights, rounding))
        };
        let native = Dialect::Native;
        match self.format {
            Format::Safetensors => {
                let (weights, rounding) = weights(self.keys.unwrap_or(native))?;
                write_safetensors(self.path, &weights.tensors, &weights.metadata)?;
                Ok(rounding)
            }
            Format::Timm => {
                let input = target.preprocess(None)?.shape();
                let config = timm_folder::Config::new(&target.metadata, &target.preprocess(None)?)?;
                let (weights, rounding) = weights(Dialect::Timm)?;
                let accuracy = probe.map(|probe| Accuracy::measure(network, probe)).transpose()?;
                let card = ModelCard {
                    metadata: &target.metadata,
                    architecture: config.architecture(),
                    fold,
                    params: learnable_params(network),
                    macs: macs(network, [input[1], input[2]])?,
                    input,
                    accuracy: accuracy.flatten(),
                    config: target.config.as_ref(),
                    license: self.license.unwrap_or(UNKNOWN_LICENSE),
                };
                if !config.write(self.path, &weights, &card.text())? {
                    crate::say(&format!(
                        "note: {} is kept; remove it to have a new model card",
                        self.path.join("README.md").display()
                    ));
                }
                Ok(rounding)
            }
            Format::Burnpack => {
                write_burnpack(self.path, network, &metadata(native))?;
                Ok(None)
            }
            Format::Onnx => {
                let input = target.onnx_input(self.with_preprocess)?;
                write_onnx(self.path, network, &metadata(native), &input)?;
                Ok(None)
            }
        }
    }
}
