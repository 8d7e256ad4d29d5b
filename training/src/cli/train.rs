//! `dbb train`.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::options::{DeviceName, DeviceOptions};
use super::progress::Progress;
use crate::config::Config;
use crate::distributed;
use crate::engine::Trainer;
use crate::run_dir::RunDir;

/// Train a network from a config file.
///
/// Example: dbb train configs/quick/resnet20-dbb.toml --set train.epochs=5 --out runs/first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration (TOML); with --resume a run directory will do.
    config: PathBuf,
    /// Override a key, for example --set optim.lr=0.05.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Run directory; by default runs/<config name>-<time>.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on after the last checkpoint of the run, with the run's own configuration; with --force
    /// --set changes it.
    #[arg(long)]
    resume: bool,
    /// With --resume: accept a changed configuration or changed data, and list what has changed.
    #[arg(long, requires = "resume")]
    force: bool,
    #[command(flatten)]
    device: DeviceOptions,
    /// Train on several devices, each with its part of every batch, for example cuda:0,cuda:1.
    #[arg(long, value_name = "D,D", value_delimiter = ',', conflicts_with = "device")]
    #[arg(value_parser = DeviceName, hide_possible_values = true)]
    devices: Vec<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.resume && !args.set.is_empty() && !args.force {
        let text = "--resume goes on with the run's own configuration; add --force to change it with --set\n";
        return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, text).into());
    }
    let devices = match args.devices.is_empty() {
        true => vec![args.device.open()?],
        false => {
            args.device.set_threads();
            distributed::open(&args.devices)?
        }
    };
    let device = &devices[0];
    let mut trainer = if args.resume {
        let run = args.out.clone().unwrap_or_else(|| args.config.clone());
        Trainer::resume(RunDir::new(run), device, args.force, &args.set)?
    } else {
        let config = Config::load(&args.config, &args.set)?;
        let out = args.out.clone().unwrap_or_else(|| default_out(&args.config));
        Trainer::new(config, RunDir::new(out), device)?
    };
    trainer.train_on(&devices);
    trainer.stop_on(super::signals::stop()?);
    let result = trainer.fit(&mut Progress::new())?;
    let run = RunDir::new(&result.run_dir);
    super::print(args.json, &result, || {
        format!(
            "top-1 {:.2}% (best {:.2}%), top-5 {:.2}% of the folded network after {} epochs\n\
             {:.1} s, {:.0} images/s\n\
             run directory: {}\nfolded weights: {}\nreport: {}",
            result.top1,
            result.best_top1,
            result.top5,
            result.epochs,
            result.seconds,
            result.images_per_second,
            result.run_dir.display(),
            run.deploy_weights().display(),
            run.report().display()
        )
    })
}

/// `runs/<name>-<seconds since 1970>`, a folder that sorts by time.
pub fn default_out(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or_default().to_string_lossy();
    // A clock before 1970 is still a name.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Path::new("runs").join(format!("{name}-{time}"))
}
