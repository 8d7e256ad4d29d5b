//! Training on ranks that `mpirun` starts: the same steps as in one process, and no way to end but
//! together. Not part of the suite, since it needs an MPI:
//!
//! ```text
//! cargo test --release --workspace --features mpi --test mpi -- --test-threads 1
//! ```

use std::path::Path;
use std::process::Command;

use dbb_training::run::directory::RunDir;
use dbb_training::run::progress::read_progress;

mod agreement;
#[path = "../support/calls.rs"]
mod calls;
mod failures;
#[allow(dead_code)] // this program uses a part
#[path = "../support/runs.rs"]
mod runs;
mod steps;

use runs::*;

/// The program as `ranks` processes on this machine, each with one thread.
fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string(), DBB]);
    command.env("DBB_MPI_TIMEOUT", "60");
    command
}

fn train(mut command: Command, config: &str, keys: &[&str], out: &Path) -> Command {
    command.args(["train", config, "--json", "--threads", "1", "--out"]).arg(out);
    command.args(TINY.iter().chain(keys).flat_map(|key| ["--set", key]));
    command
}

fn alone() -> Command {
    Command::new(DBB)
}

fn resume(mut command: Command, run: &Path) -> Command {
    command.arg("train").arg(run).args(["--resume", "--json", "--threads", "1"]);
    command
}
