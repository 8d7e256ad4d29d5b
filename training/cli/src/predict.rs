//! `dbb predict`.

use std::path::PathBuf;

use serde::Serialize;

use crate::options::{DeviceOptions, TargetOptions, announce_size};
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::predict::{
    Answer, Choice, answers, answers_to_tensor, image_files, loader, tensor_input,
};
use dbb_training::{Error, Result as LibResult};

/// Classify images and show the most probable classes of each.
///
/// Example: dbb predict runs/first photo.jpg --top 3
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetOptions,
    /// Images, folders of images (and folders below them), or safetensors files with a network's input
    /// [n, channels, height, width], used as it is.
    #[arg(required = true, value_name = "IMAGE")]
    inputs: Vec<PathBuf>,
    /// Classes to show.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Images in a batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Result {
    predictions: Vec<Prediction>,
    /// Why inputs have no prediction.
    failed: Vec<String>,
}

#[derive(Serialize)]
struct Prediction {
    input: String,
    top: Vec<Labelled>,
}

#[derive(Serialize)]
struct Labelled {
    #[serde(flatten)]
    choice: Choice,
    label: String,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let target = args.target.open(&args.device)?;
    let labels = target.labels()?;
    let mut result = Result::default();
    let mut non_finite = Vec::new();
    let mut add = |input: String, answer: Answer| {
        if !answer.is_finite && !args.target.allow_nonfinite {
            non_finite.push(input);
            return;
        }
        let label = |choice: Choice| Labelled { label: labels[choice.index].clone(), choice };
        let top = answer.top.into_iter().map(label).collect();
        result.predictions.push(Prediction { input, top });
    };
    let (tensors, others): (Vec<_>, Vec<_>) = args
        .inputs
        .iter()
        .partition(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    let flags = args.target.input.of_images();
    anyhow::ensure!(
        !others.is_empty() || flags.is_empty(),
        "tensors are a network's input as it is; leave {} out, which images need",
        flags.join(", ")
    );
    let mut failed = Vec::new();
    let mut files = Vec::new();
    for path in others {
        match image_files(path) {
            Ok(found) => files.extend(found),
            Err(error) => failed.push(error.to_string()),
        }
    }
    if !files.is_empty() {
        failed.extend(predict_files(&target, files, args, &mut add)?);
    }
    for path in tensors {
        let input = match tensor_input(path, target.metadata.model.in_channels) {
            Ok(input) => input,
            Err(error) => {
                failed.push(error.to_string());
                continue;
            }
        };
        let batch = args.batch_size as usize;
        let found = answers_to_tensor(&target.network, input, batch, args.top.into());
        for (index, answer) in found.into_iter().enumerate() {
            add(format!("{}[{index}]", path.display()), answer);
        }
    }
    let meaningless =
        non_finite.iter().map(|input| format!("{input}: the network computes NaN or infinity"));
    failed.extend(meaningless);
    result.failed = failed;
    for reason in &result.failed {
        crate::say(&format!("skipped: {reason}"));
    }
    if args.json || !result.predictions.is_empty() {
        crate::print(args.json, &result, || table(&result))?;
    }
    if let Some(first) = non_finite.first() {
        let text = format!(
            "the network computes NaN or infinity for {} of {} inputs, the first of them {first}",
            non_finite.len(),
            non_finite.len() + result.predictions.len()
        );
        return Err(Error::NonFiniteOutput(text).into());
    }
    if result.failed.is_empty() {
        return Ok(());
    }
    let (failed, used) = (result.failed.len(), result.predictions.len());
    let text = format!("inputs that could not be used: {failed}; images classified: {used}");
    Err(Error::Unusable(text).into())
}

/// Predictions of image files; returns why some have none.
fn predict_files(
    target: &LoadedModel,
    files: Vec<PathBuf>,
    args: &Args,
    add: &mut impl FnMut(String, Answer),
) -> LibResult<Vec<String>> {
    let device = dbb_training::network_device(&target.network);
    let preprocess = target.preprocess(None)?;
    announce_size(target, &preprocess)?;
    let images = loader(files.clone(), preprocess, args.batch_size as usize)?;
    let mut failed = Vec::new();
    for batch in images.epoch(0) {
        let batch = batch?;
        failed.extend(batch.skipped.iter().map(ToString::to_string));
        if batch.is_empty() {
            continue;
        }
        let (input, _) = batch.to_tensors(&device);
        let found = answers(target.network.forward(input), args.top.into());
        for (&index, answer) in batch.indices.iter().zip(found) {
            add(files[index].display().to_string(), answer);
        }
    }
    Ok(failed)
}

fn table(result: &Result) -> String {
    let mut text = String::new();
    for Prediction { input, top } in &result.predictions {
        text += &format!("{input}\n");
        for Labelled { label, choice } in top {
            text += &format!("  {:6.2}%  {label}\n", 100.0 * choice.probability);
        }
    }
    text
}
