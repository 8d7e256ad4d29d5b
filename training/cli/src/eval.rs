//! `dbb eval`.

use std::path::PathBuf;

use burn::tensor::activation::softmax;
use clap::ValueEnum;
use dbb_datasets::{DataError, Loader, Split, open};
use dbb_models::quantize::{Granularity, int8_weights};
use dbb_models::weights::write_atomically;
use dbb_models::{Classifier, Form, Reparameterize};
use serde::Serialize;

use crate::options::{DataOptions, DeviceOptions, TargetOptions};
use crate::progress::Batches;
use dbb_training::Error;
use dbb_training::inference::evaluate::evaluate;

/// Measure top-1, top-5 and loss of a run or a weights file.
///
/// Example: dbb eval runs/first --deploy
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    data: DataOptions,
    /// Split: train or val.
    #[arg(long, default_value = "val")]
    split: Split,
    /// Use that many images only, balanced over the classes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Fold the network first.
    #[arg(long)]
    deploy: bool,
    /// Round the weights of the folded network to 8 bits and measure that, too: one scale for
    /// every layer or for every output channel.
    #[arg(long, value_enum, value_name = "SCALES")]
    weights_int8: Option<Int8>,
    /// Write index, label, prediction and its probability of every image as CSV, and its file
    /// where it has one of its own.
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Int8 {
    PerTensor,
    PerChannel,
}

impl From<Int8> for Granularity {
    fn from(int8: Int8) -> Self {
        match int8 {
            Int8::PerTensor => Self::PerTensor,
            Int8::PerChannel => Self::PerChannel,
        }
    }
}

#[derive(Serialize)]
struct Result {
    n: usize,
    top1: f64,
    top5: f64,
    loss: f64,
    skipped: usize,
    form: Form,
    #[serde(flatten)]
    int8: Option<Rounded>,
}

/// The same of the network with rounded weights.
#[derive(Serialize)]
struct Rounded {
    weights_int8: Int8,
    top1_int8: f64,
    top5_int8: f64,
    loss_int8: f64,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let target = args.target.open(&args.device)?;
    let loader = args.data.loader(&target, args.split, args.limit);
    let loader = loader.map_err(|error| args.name_other_split(error))?;
    let (network, form) = match args.deploy || args.weights_int8.is_some() {
        true => (target.network.reparameterize(), Form::Deploy),
        false => (target.network.clone(), target.metadata.form),
    };
    let dataset = loader.dataset();
    let mut csv = String::from("index,label,prediction,probability");
    csv += if dataset.file(0).is_some() { ",file\n" } else { "\n" };
    let mut progress = Batches::new(loader.batches_per_epoch());
    let evaluation = evaluate(&network, &loader, |batch, logits| {
        progress.add(batch.len());
        if args.predictions.is_none() {
            return;
        }
        let [_, classes] = logits.dims();
        let probabilities: Vec<f32> = softmax(logits.clone(), 1).into_data().iter().collect();
        for (i, row) in probabilities.chunks(classes).enumerate() {
            let best = (1..classes).fold(0, |best, c| if row[c] > row[best] { c } else { best });
            let (index, label) = (batch.indices[i], batch.labels[i]);
            csv += &format!("{index},{label},{best},{:.6}", row[best]);
            if let Some(file) = dataset.file(index) {
                csv += &format!(",\"{}\"", file.to_string_lossy().replace('"', "\"\""));
            }
            csv.push('\n');
        }
    })?;
    drop(progress);
    if let Some(path) = &args.predictions {
        write_atomically(path, csv.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
    }
    for reason in &evaluation.skipped {
        crate::say(&format!("left out: {reason}"));
    }
    let int8 = args.weights_int8.map(|int8| rounded(&network, &loader, int8)).transpose()?;
    let totals = &evaluation.totals;
    let result = Result {
        n: totals.images(),
        top1: totals.top1(),
        top5: totals.top5(),
        loss: totals.loss(),
        skipped: evaluation.skipped.len(),
        form,
        int8,
    };
    crate::print(args.json, &result, || {
        let rounded = result.int8.as_ref().map(Rounded::text);
        format!(
            "{} ({} form) on {}: top-1 {:.2}%, top-5 {:.2}%, loss {:.4}, {}{}{}",
            target.metadata.model.arch,
            form,
            dataset.describe(),
            result.top1,
            result.top5,
            result.loss,
            crate::count(result.n, "image"),
            if result.skipped > 0 {
                format!(", {} left out", result.skipped)
            } else {
                String::new()
            },
            rounded.unwrap_or_default()
        )
    })
}

impl Args {
    /// Says of data without validation images what can be measured.
    fn name_other_split(&self, error: Error) -> Error {
        match (&error, &self.data.data) {
            (Error::Data(DataError::Layout { .. }), Some(data))
                if self.split == Split::Val && open(data, Split::Train).is_ok() =>
            {
                let text = "has images to train on only; --split train measures on them";
                Error::Unusable(format!("{data} {text}"))
            }
            _ => error,
        }
    }
}

fn rounded(network: &Classifier, loader: &Loader, int8: Int8) -> dbb_training::Result<Rounded> {
    let network = int8_weights(network, int8.into());
    let mut progress = Batches::new(loader.batches_per_epoch());
    let totals = evaluate(&network, loader, |batch, _| progress.add(batch.len()))?.totals;
    Ok(Rounded {
        weights_int8: int8,
        top1_int8: totals.top1(),
        top5_int8: totals.top5(),
        loss_int8: totals.loss(),
    })
}

impl Rounded {
    fn text(&self) -> String {
        let scales = match self.weights_int8 {
            Int8::PerTensor => "layer",
            Int8::PerChannel => "output channel",
        };
        format!(
            "\nweights in 8 bits, one scale per {scales}: top-1 {:.2}%, top-5 {:.2}%, loss {:.4}",
            self.top1_int8, self.top5_int8, self.loss_int8
        )
    }
}
