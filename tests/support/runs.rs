//! Tiny runs of the program, and what they leave.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dbb_training::run::directory::{CheckpointId, RunDir};
use serde_json::Value;
use tempfile::TempDir;

pub use crate::calls::*;

/// A tenth of a second per epoch.
pub const TINY: [&str; 6] = [
    "data.limit_train=64",
    "data.limit_val=40",
    "data.size=8",
    "model.width=0.25",
    "train.batch_size=16",
    "optim.lr=0.02",
];

/// Everything that a run can remember: random crops, mixed images, accumulation over batches that
/// do not divide the epoch, averages, clipping.
pub const FULL: [&str; 10] = [
    "data.limit_train=150",
    "data.workers=2",
    "augment.pad_crop=1",
    "augment.hflip=true",
    "augment.mixup=0.2",
    "augment.cutmix=1.0",
    "train.accumulate=3",
    "train.clip_norm=1",
    "train.ema=0.9",
    "train.label_smoothing=0.1",
];

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The command that trains the tiny configuration with further keys, to `out`.
pub fn training(keys: &[&str], out: &Path) -> Command {
    let mut command = Command::new(DBB);
    command.args(["train", QUICK_DBB, "--json", "--out"]).arg(out);
    command.args(TINY.iter().chain(keys).flat_map(|key| ["--set", key]));
    command
}

pub fn resuming(run: &Path) -> Command {
    let mut command = Command::new(DBB);
    command.arg("train").arg(run).args(["--resume", "--json"]);
    command
}

#[track_caller]
pub fn succeeds(command: &mut Command) -> Value {
    call(command).succeeds().json()
}

#[track_caller]
pub fn fails(command: &mut Command, code: i32, parts: &[&str]) {
    call(command).fails(code, parts);
}

pub fn eval(target: &Path, args: &[&str]) -> Value {
    succeeds(Command::new(DBB).arg("eval").arg(target).arg("--json").args(args))
}

/// The folded weights of a run.
pub fn weights(run: &Path) -> Vec<u8> {
    fs::read(RunDir::new(run).deploy_weights()).expect("the folded weights")
}

/// The lines of `metrics.jsonl` without what a clock decides.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(RunDir::new(run).metrics()).expect("metrics");
    let record = |line| {
        let mut record: Value = serde_json::from_str(line).expect("a JSON line");
        without_clock(&mut record);
        record
    };
    text.lines().map(record).collect()
}

pub fn epochs(run: &Path) -> Vec<f64> {
    metrics(run).iter().map(|record| number(record, "epoch")).collect()
}

/// The checkpoint after an epoch.
pub fn after(epoch: usize) -> CheckpointId {
    CheckpointId { epoch, batch: 0 }
}

/// Names of the checkpoints that are there.
pub fn checkpoints(run: &Path) -> Vec<String> {
    let marks = RunDir::new(run).checkpoint_ids().expect("checkpoints");
    marks.iter().map(CheckpointId::to_string).collect()
}

/// The newest checkpoint.
pub fn newest(run: &Path) -> PathBuf {
    let run = RunDir::new(run);
    run.checkpoint(*run.checkpoint_ids().expect("checkpoints").last().expect("a checkpoint"))
}

/// Every byte of the newest checkpoint but for what a clock decides, and the hashes of that.
pub fn state(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let strip = |bytes: Vec<u8>| {
        let mut progress: Value = serde_json::from_slice(&bytes).expect("the progress");
        without_clock(&mut progress);
        progress.to_string().into_bytes()
    };
    snapshot(newest(run))
        .into_iter()
        .filter_map(|(path, bytes)| {
            let name = path.file_name()?.to_str()?.to_string();
            match name.as_str() {
                "manifest.json" => None,
                "state.json" => Some((name, strip(bytes))),
                _ => Some((name, bytes)),
            }
        })
        .collect()
}

fn without_clock(value: &mut Value) {
    match value {
        Value::Object(table) => {
            table.retain(|key, _| !key.ends_with("seconds") && key != "images_per_second");
            table.values_mut().for_each(without_clock);
        }
        Value::Array(items) => items.iter_mut().for_each(without_clock),
        _ => {}
    }
}
