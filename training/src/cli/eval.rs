//! `dbb eval`.

use std::path::PathBuf;

use burn::tensor::activation::softmax;
use dbb_datasets::Split;
use dbb_models::weights::write_atomically;
use dbb_models::{Form, Reparameterize};
use serde::Serialize;

use super::options::{DataOptions, DeviceOptions, TargetOptions};
use crate::evaluate::evaluate;

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
    /// Fold the network first.
    #[arg(long)]
    deploy: bool,
    /// Write index, label, prediction and its probability of every image as CSV.
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Result {
    n: usize,
    top1: f64,
    top5: f64,
    loss: f64,
    skipped: usize,
    form: Form,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let target = args.target.load(&device)?;
    let batch_size = args.data.batch_size as usize;
    let loader = target.loader(args.data.data.as_ref(), args.split, batch_size)?;
    let (network, form) = match args.deploy {
        true => (target.network.reparameterize(), Form::Deploy),
        false => (target.network.clone(), target.metadata.form),
    };
    let mut csv = String::from("index,label,prediction,probability\n");
    let evaluation = evaluate(&network, &loader, |batch, logits| {
        if args.predictions.is_none() {
            return;
        }
        let [_, classes] = logits.dims();
        let probabilities: Vec<f32> = softmax(logits.clone(), 1).into_data().iter().collect();
        for (i, row) in probabilities.chunks(classes).enumerate() {
            let best = (1..classes).fold(0, |best, c| if row[c] > row[best] { c } else { best });
            let (index, label) = (batch.indices[i], batch.labels[i]);
            csv += &format!("{index},{label},{best},{:.6}\n", row[best]);
        }
    })?;
    if let Some(path) = &args.predictions {
        write_atomically(path, csv.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
    }
    for reason in &evaluation.skipped {
        super::say(&format!("left out: {reason}"));
    }
    let totals = &evaluation.totals;
    let result = Result {
        n: totals.images(),
        top1: totals.top1(),
        top5: totals.top5(),
        loss: totals.loss(),
        skipped: evaluation.skipped.len(),
        form,
    };
    super::print(args.json, &result, || {
        format!(
            "{} ({} form) on {}: top-1 {:.2}%, top-5 {:.2}%, loss {:.4}, {} images{}",
            target.metadata.model.arch,
            form,
            loader.dataset().describe(),
            result.top1,
            result.top5,
            result.loss,
            result.n,
            if result.skipped > 0 {
                format!(", {} left out", result.skipped)
            } else {
                String::new()
            }
        )
    })
}
