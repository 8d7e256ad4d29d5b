//! `dbb lr-find`.

use std::path::PathBuf;

use dbb_models::BlockKind;
use serde::{Serialize, Serializer};

use crate::options::{DeviceOptions, block};
use crate::page::{check_page, write_page};
use crate::progress::Batches;
use dbb_training::config::Config;
use dbb_training::report::{LrRanges, lr_range_page};
use dbb_training::text::displayed;
use dbb_training::train::{RangeCurve, RangeTest};

/// Find a learning rate: train a few steps with a rate that rises, and see where the loss falls and
/// where it rises (a learning-rate range test; Smith, WACV 2017).
///
/// The network, the images, their order and the optimizer are those of a run of the configuration; its
/// epochs and its schedule have no effect. No run is left behind.
///
/// Example: dbb lr-find configs/quick/resnet20-base.toml --blocks base,dbb --out rates.html
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration (TOML).
    config: PathBuf,
    /// Test each of these blocks instead of the configuration's own.
    #[arg(long, value_delimiter = ',', value_parser = block())]
    blocks: Vec<BlockKind>,
    /// Override a key, for example --set train.batch_size=128.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Learning rate of the first step.
    #[arg(long, value_name = "LR", default_value_t = RangeTest::default().from)]
    from: f64,
    /// Learning rate of the last step.
    #[arg(long, value_name = "LR", default_value_t = RangeTest::default().to)]
    to: f64,
    /// Steps of the optimizer.
    #[arg(long, value_name = "N", default_value_t = RangeTest::default().steps)]
    steps: usize,
    /// Write a page with the curves.
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Result<'a> {
    #[serde(serialize_with = "displayed")]
    config: &'a PathBuf,
    /// The configuration's own rate.
    lr: f64,
    from: f64,
    to: f64,
    steps: usize,
    curves: Vec<Curve<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::page::displayed")]
    out: Option<&'a PathBuf>,
}

#[derive(Serialize)]
struct Curve<'a> {
    #[serde(serialize_with = "name")]
    block: BlockKind,
    #[serde(flatten)]
    curve: &'a RangeCurve,
}

fn name<S: Serializer>(block: &BlockKind, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(block.name())
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    args.out.as_deref().map_or(Ok(()), |out| check_page("--out", out))?;
    let test = RangeTest { from: args.from, to: args.to, steps: args.steps };
    test.check()?;
    let device = args.device.open()?;
    let config = Config::load(&args.config, &args.set)?;
    let blocks = match &args.blocks[..] {
        [] => vec![config.model.block],
        blocks => blocks.to_vec(),
    };
    for (index, block) in blocks.iter().enumerate() {
        anyhow::ensure!(!blocks[..index].contains(block), "--blocks names {block} twice");
    }
    let stop = crate::signals::stop()?;
    let mut curves = Vec::new();
    for &block in &blocks {
        let mut config = config.clone();
        config.model.block = block;
        let mut progress = Batches::new(test.steps);
        let curve = test.run(config, &device, &stop, |images| progress.add(images))?;
        drop(progress);
        curves.push((block, curve));
    }
    if let Some(path) = &args.out {
        let name = args.config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let ranges = LrRanges { name, lr: config.optim.lr, curves: &curves };
        write_page(path, &lr_range_page(&ranges))?;
    }
    let result = Result {
        config: &args.config,
        lr: config.optim.lr,
        from: test.from,
        to: test.to,
        steps: test.steps,
        curves: curves.iter().map(|(block, curve)| Curve { block: *block, curve }).collect(),
        out: args.out.as_ref(),
    };
    crate::print(args.json, &result, || text(&result))
}

fn text(result: &Result<'_>) -> String {
    let mut text = String::new();
    for Curve { block, curve } in &result.curves {
        text += &match curve.suggested {
            Some(lr) => format!("{block}: suggested learning rate {lr}, {}", curve.why),
            None => format!("{block}: no suggestion: {}", curve.why),
        };
        let last = curve.points.last().filter(|_| curve.diverged);
        text.extend(last.map(|last| format!("; training diverged at {:.2}", last.lr)));
        text.push('\n');
    }
    text += &format!("optim.lr is {} in the configuration\n", result.lr);
    if let Some(path) = result.out {
        text += &format!("written to {}", path.display());
    }
    text
}
