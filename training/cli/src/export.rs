//! `dbb reparam` and `dbb export`.

use std::path::PathBuf;

use dbb_models::Form;
use dbb_models::weights::Dialect;

use crate::fold_blocks::BlockOptions;
use crate::format::{Format, check_extension};
use crate::int8::{Int8Args, compared_on};
use crate::options::{DataOptions, DeviceOptions, TargetOptions, dialect, form, given, precision};
use crate::output::Output;
use dbb_training::deploy::rounding::Precision;

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
    /// ONNX only: write the names of the classes to another file, one a line, in the order of the logits.
    #[arg(long, value_name = "FILE.txt")]
    labels: Option<PathBuf>,
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
    Format::Safetensors.check(&args.out, &args.target)?;
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
        labels: None,
        int8: None,
    };
    output.write(&args.target.load(&device)?, &args.target, &args.data)?.print(args.json)
}

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    args.refuse_contradictions()?;
    args.format.check(&args.out, &args.target)?;
    let check = |labels| check_extension("--labels", labels, &["txt"], "one name a line");
    args.labels.as_deref().map_or(Ok(()), check)?;
    let output = Output {
        path: &args.out,
        format: args.format,
        form: args.form,
        keys: args.keys,
        dtype: args.dtype.unwrap_or_default(),
        with_preprocess: args.with_preprocess,
        license: args.license.as_deref(),
        labels: args.labels.as_deref(),
        int8: args.int8.data()?.map(|data| (&args.int8, data)),
    };
    let target = args.target.open(&args.device)?;
    let data = match args.int8.data()? {
        Some(calibrate) => compared_on(&args.data, &target, calibrate),
        None => args.data.clone(),
    };
    output.write(&target, &args.target, &data)?.print(args.json)
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
            self.format == Format::Onnx || self.labels.is_none(),
            "--labels is for --format onnx; other files hold the names of the classes themselves"
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
            matches!(self.format, Format::Onnx | Format::Timm) || !int8,
            "--int8 is for --format onnx, and timm, whose card says what 8 bits cost; other formats hold \
             weights in floating point"
        );
        anyhow::ensure!(
            matches!(self.format, Format::Safetensors | Format::Timm)
                || self.dtype.unwrap_or_default() == Precision::F32,
            "--dtype is for --format safetensors and timm; burnpack and ONNX files hold f32"
        );
        Ok(())
    }
}
