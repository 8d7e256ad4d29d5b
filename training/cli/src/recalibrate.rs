//! `dbb recalibrate`.

use std::path::PathBuf;

use anyhow::ensure;
use dbb_datasets::{LoaderConfig, Split};
use dbb_models::Form;
use dbb_models::weights::{Dialect, Metadata, write_safetensors};
use serde::Serialize;

use crate::format::Format;
use crate::options::{DataOptions, DeviceOptions, TargetOptions};
use dbb_training::inference::evaluate::evaluate;
use dbb_training::inference::loaded_model::key_map;
use dbb_training::inference::recalibrate::recalibrate;
use dbb_training::text::{displayed, plural};

/// Replace the running statistics of all batch norms by averages over training images (precise batch
/// norm), and write the network, in training form, to another file.
///
/// Example: dbb recalibrate runs/first --batches 50 --out precise.safetensors
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    data: DataOptions,
    /// Batches of training images, in random order and without augmentation; at most one epoch.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    batches: u32,
    /// Seed of the order of the images.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Result {
    batches: usize,
    images: usize,
    n: usize,
    top1_before: f64,
    top1_after: f64,
    loss_before: f64,
    loss_after: f64,
    #[serde(serialize_with = "displayed")]
    out: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    Format::Safetensors.check(&args.out, &args.target)?;
    let target = args.target.open(&args.device)?;
    let batch_size = args.data.batch_size as usize;
    ensure!(batch_size > 1, "--batch-size is 1; batch statistics need at least 2 images");
    let val = args.data.loader(&target, Split::Val, None)?;
    // In the data set's order a batch could hold images of one class.
    let shuffled =
        LoaderConfig { batch_size, shuffle: true, seed: args.seed, ..LoaderConfig::default() };
    let train = target.loader(args.data.data.as_ref(), Split::Train, shuffled)?;

    let batches = train.epoch(0).take(args.batches as usize);
    let (network, seen) = recalibrate(&target.network, batches)?;
    let measure = |network| args.target.accept(evaluate(network, &val, |_, _| ())?);
    let (before, after) = (measure(&target.network)?.totals, measure(&network)?.totals);

    let metadata = Metadata { form: Form::Train, keys: Dialect::Native, ..target.metadata.clone() };
    let tensors = key_map(&metadata, &network)?.save(&network);
    write_safetensors(&args.out, &tensors, &metadata)?;
    let result = Result {
        batches: seen.batches,
        images: seen.images,
        n: after.images(),
        top1_before: before.top1(),
        top1_after: after.top1(),
        loss_before: before.loss(),
        loss_after: after.loss(),
        out: args.out.clone(),
    };
    crate::print(args.json, &result, || {
        format!(
            "statistics of {} ({}) of {}\n\
             top-1 {:.2}% before, {:.2}% after; loss {:.4} before, {:.4} after; on {}\n\
             written to {}",
            plural(result.batches, "batch"),
            plural(result.images, "image"),
            train.dataset().describe(),
            result.top1_before,
            result.top1_after,
            result.loss_before,
            result.loss_after,
            val.dataset().describe(),
            result.out.display()
        )
    })
}
