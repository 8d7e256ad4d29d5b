//! `dbb compare`.

use std::path::PathBuf;

use dbb_models::BlockKind;

use crate::options::{DeviceOptions, block};
use crate::progress::Progress;
use crate::train::default_out;
use dbb_training::compare::{Arm, compare};
use dbb_training::config::Config;
use dbb_training::run::directory::RunDir;

/// Train several configurations with the same seeds, and compare their top-1.
///
/// A configuration is named after its file, or by the key `name`; --blocks puts the block into the
/// name. Its runs are in <name>-seed<seed>. Each is compared with the first of the same file, else of
/// the same architecture, else of all: in pairs of equal seeds where both train on the same images.
///
/// Example: dbb compare configs/quick/resnet20-base.toml --blocks base,dbb --seeds 3
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configurations (TOML).
    #[arg(required = true)]
    configs: Vec<PathBuf>,
    /// Train every configuration with each of these blocks instead of its own; the first is the
    /// baseline.
    #[arg(long, value_delimiter = ',', value_parser = block())]
    blocks: Vec<BlockKind>,
    /// Seeds per configuration, starting from its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    seeds: u16,
    /// Override a key in every configuration, for example --set train.epochs=3.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the runs and tables; by default runs/compare-<date>-<time>, in UTC. It may hold earlier
    /// runs of the same configurations with other seeds.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let recipes = args.configs.iter().map(|path| {
        let config = Config::load(path, &args.set)?;
        Ok((path.clone(), config))
    });
    let recipes = recipes.collect::<dbb_training::Result<Vec<_>>>()?;
    let arms = Arm::of(&recipes, &args.blocks)?;
    let out = args.out.clone().unwrap_or_else(|| default_out("compare".as_ref()));
    let stop = crate::signals::stop()?;
    let comparison = compare(&arms, args.seeds.into(), &out, &device, &stop, &mut Progress::new())?;
    comparison.write(&out)?;
    crate::print(args.json, &comparison, || {
        format!(
            "{}\ntables: {} (.json, .csv, .md)\nfolded weights: {}\nreport: {}",
            comparison.markdown(),
            out.join("compare").display(),
            out.join("*").join("export").join("deploy.safetensors").display(),
            RunDir::new(&out).report().display()
        )
    })
}
