//! `dbb compare-run`: a run of a comparison in a process of its own, started by `dbb compare`.

use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::options::DeviceOptions;
use dbb_training::compare::serve;
use dbb_training::run::directory::RunDir;

/// Train a run of a comparison; `dbb compare` starts this.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory.
    run: PathBuf,
    #[command(flatten)]
    device: DeviceOptions,
}

/// The commit that the program was built from, if it is known.
pub const COMMIT: Option<&str> = option_env!("DBB_COMMIT");

pub fn run(args: &Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let stop = crate::signals::stop()?;
    let orders = BufReader::new(io::stdin());
    Ok(serve(&RunDir::new(&args.run), &device, &stop, COMMIT, orders, io::stdout())?)
}

/// The command line of a process that trains in a run directory.
pub fn command(program: &Path, run: &Path, device: &str, threads: usize) -> Command {
    let mut command = Command::new(program);
    command.arg("compare-run").arg("--device").arg(device);
    command.arg("--threads").arg(threads.to_string()).arg("--").arg(run);
    command
}
