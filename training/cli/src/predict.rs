//! `dbb predict`.

use std::path::PathBuf;

use anyhow::Context;
use burn::tensor::{Tensor, TensorData};
use dbb_models::Reparameterize;
use serde::Serialize;

use crate::options::{CalibrationOptions, DeviceOptions, TargetOptions, announce_size};
use crate::progress::Batches;
use dbb_training::Error;
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::predict::{
    Answer, Choice, answers, answers_to_tensor, image_files, loader, tensor_input,
};
use dbb_training::text::plural;

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
    /// Classes to show, at most all of them [default: 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    top: Option<u16>,
    /// Images in a batch.
    #[arg(long, visible_alias = "batch", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,
    #[command(flatten)]
    calibration: CalibrationOptions,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Classes to show by default, if the network has that many.
const DEFAULT_TOP: usize = 5;

#[derive(Default, Serialize)]
struct Result {
    predictions: Vec<Prediction>,
    /// How many there are; where they are printed as they come, they are not kept.
    #[serde(skip)]
    predicted: usize,
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
    let calibrate = args.calibration.data()?;
    let target = args.target.open(&args.device)?;
    let top = args.top(&target)?;
    let folded = calibrate.map(|_| target.network.reparameterize());
    let int8 = folded.as_ref().zip(calibrate).map(|(folded, data)| {
        args.calibration.calibrate(folded, &target, data).map(|calibrated| calibrated.network)
    });
    let int8 = int8.transpose()?;
    let forward = |images: Tensor<4>| match &int8 {
        Some(int8) => int8.forward(images),
        None => target.network.forward(images),
    };
    let mut output = Output {
        json: args.json,
        allow_nonfinite: args.target.allow_nonfinite,
        labels: target.labels()?,
        result: Result::default(),
        non_finite: Vec::new(),
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
    let mut files = Vec::new();
    for path in others {
        match image_files(path) {
            Ok(found) => files.extend(found),
            Err(error) => output.skipped(error.to_string()),
        }
    }
    if !files.is_empty() {
        predict_files(&target, &forward, files, args, top, &mut output)?;
    }
    for path in tensors {
        let batch = args.batch_size as usize;
        let checked = |input: TensorData| -> anyhow::Result<TensorData> {
            let [images, channels, height, width] = input.shape().dims();
            let checked = target.check_images(batch.min(images), [channels, height, width]);
            checked.with_context(|| path.display().to_string())?;
            Ok(input)
        };
        let input = tensor_input(path, target.metadata.model.in_channels);
        let input = match input.map_err(anyhow::Error::from).and_then(checked) {
            Ok(input) => input,
            Err(error) => {
                output.skipped(format!("{error:#}"));
                continue;
            }
        };
        let device = dbb_training::device::of(&target.network);
        let found = answers_to_tensor(&forward, &device, input, batch, top);
        for (index, answer) in found.into_iter().enumerate() {
            output.add(format!("{}[{index}]", path.display()), answer)?;
        }
    }
    let non_finite = std::mem::take(&mut output.non_finite);
    for input in &non_finite {
        output.skipped(format!("{input}: the network computes NaN or infinity"));
    }
    let result = &output.result;
    if args.json {
        crate::print(true, result, String::new)?;
    }
    if let Some(first) = non_finite.first() {
        let text = format!(
            "the network computes NaN or infinity for {} of {} inputs, the first of them {first}",
            non_finite.len(),
            non_finite.len() + result.predicted
        );
        return Err(Error::NonFiniteOutput(text).into());
    }
    if result.failed.is_empty() {
        return Ok(());
    }
    let (failed, used) = (result.failed.len(), result.predicted);
    let text = format!("inputs that could not be used: {failed}; images classified: {used}");
    Err(Error::Unusable(text).into())
}

impl Args {
    /// How many classes to show.
    fn top(&self, target: &LoadedModel) -> anyhow::Result<usize> {
        let classes = target.metadata.model.num_classes;
        let top = self.top.map_or(DEFAULT_TOP.min(classes), usize::from);
        anyhow::ensure!(
            top <= classes,
            "--top is {top}, but the network has {}",
            plural(classes, "class")
        );
        Ok(top)
    }
}

/// Where predictions go: text as they come, or one JSON object at the end.
struct Output {
    json: bool,
    allow_nonfinite: bool,
    labels: Vec<String>,
    result: Result,
    /// Inputs for which the network computes NaN or infinity.
    non_finite: Vec<String>,
}

impl Output {
    fn add(&mut self, input: String, answer: Answer) -> anyhow::Result<()> {
        if !answer.is_finite && !self.allow_nonfinite {
            self.non_finite.push(input);
            return Ok(());
        }
        let label = |choice: Choice| Labelled { label: self.labels[choice.index].clone(), choice };
        let prediction = Prediction { input, top: answer.top.into_iter().map(label).collect() };
        self.result.predicted += 1;
        if self.json {
            self.result.predictions.push(prediction);
        } else {
            crate::print_text(&prediction.text())?;
        }
        Ok(())
    }

    fn skipped(&mut self, reason: String) {
        crate::say(&format!("skipped: {reason}"));
        self.result.failed.push(reason);
    }
}

fn predict_files(
    target: &LoadedModel,
    forward: &impl Fn(Tensor<4>) -> Tensor<2>,
    files: Vec<PathBuf>,
    args: &Args,
    top: usize,
    output: &mut Output,
) -> anyhow::Result<()> {
    let device = dbb_training::device::of(&target.network);
    let (preprocess, batch_size) = (target.preprocess(None)?, args.batch_size as usize);
    announce_size(target, &preprocess)?;
    preprocess.validate()?;
    target.check_images(batch_size.min(files.len()), preprocess.shape())?;
    let images = loader(files.clone(), preprocess, batch_size)?;
    let mut progress = Batches::new(images.batches_per_epoch());
    for batch in images.epoch(0) {
        let batch = batch?;
        let found = match batch.is_empty() {
            true => Vec::new(),
            false => answers(forward(batch.to_tensors(&device).0), top),
        };
        progress.suspend(|| -> anyhow::Result<()> {
            batch.skipped.iter().for_each(|reason| output.skipped(reason.to_string()));
            for (&index, answer) in batch.indices.iter().zip(found) {
                output.add(files[index].display().to_string(), answer)?;
            }
            Ok(())
        })?;
        progress.add(batch.len());
    }
    Ok(())
}

impl Prediction {
    fn text(&self) -> String {
        let choice = |Labelled { label, choice }: &Labelled| {
            format!("\n  {:6.2}%  {label}", 100.0 * choice.probability)
        };
        self.top.iter().map(choice).fold(self.input.clone(), |text, line| text + &line)
    }
}
