//! `dbb summary`.

use dbb_models::summary::Summary;
use dbb_models::{Arch, BlockKind, ModelConfig};

use crate::options::{arch, block};

/// Parameters and operations of a network, layer by layer.
///
/// Example: dbb summary --arch resnet18 --block dbb
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architecture.
    #[arg(long, value_parser = arch())]
    arch: Arch,
    /// Block.
    #[arg(long, value_parser = block(), default_value = "dbb")]
    block: BlockKind,
    /// Width multiplier.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Height and width of the images; by default those of the paper.
    #[arg(long, visible_alias = "size", value_parser = clap::value_parser!(u16).range(1..))]
    res: Option<u16>,
    /// Classes; by default 1000, or 10 for the CIFAR networks.
    #[arg(long)]
    classes: Option<usize>,
    /// Channels of the images.
    #[arg(long, default_value_t = 3)]
    channels: usize,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let res = args.res.map_or(args.arch.default_resolution(), usize::from);
    let classes = args.classes.unwrap_or(args.arch.default_classes());
    let config = ModelConfig {
        width: args.width,
        in_channels: args.channels,
        ..ModelConfig::new(args.arch, args.block, classes)
    };
    let summary = Summary::new(&config, [res, res])?;
    crate::print(args.json, &summary, || text(&summary))
}

fn text(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{:<24} {:<7} {:>7} {:>6} {:>11} {:>9} {:>12} {:>12} {:>9}",
        "layer", "block", "kernel", "stride", "channels", "output", "train", "deploy", "MMAC"
    )];
    for layer in &summary.layers {
        lines.push(format!(
            "{:<24} {:<7} {:>7} {:>6} {:>11} {:>9} {:>12} {:>12} {:>9.2}",
            layer.name,
            layer.block,
            format!("{}x{}", layer.kernel[0], layer.kernel[1]),
            layer.stride[0],
            format!("{}->{}", layer.channels[0], layer.channels[1]),
            format!("{}x{}", layer.output[0], layer.output[1]),
            layer.params_train,
            layer.params_deploy,
            layer.macs_deploy as f64 / 1e6
        ));
    }
    lines.push(format!(
        "{} with {} blocks, width {}, {}x{}: {} learnable parameters in training, {} deployed, {:.1} MMAC deployed",
        summary.arch,
        summary.block,
        summary.width,
        summary.resolution[0],
        summary.resolution[1],
        summary.params_train,
        summary.params_deploy,
        summary.macs_deploy as f64 / 1e6
    ));
    lines.join("\n")
}
