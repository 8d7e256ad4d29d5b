//! `dbb train --plan`, `train.memory_mb` and `train.batch_size = "auto"`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::calls::*;
use crate::setup::*;

fn plan(keys: &[&str]) -> Call {
    let command = ["train", QUICK_DBB, "--plan", "--json"];
    dbb(&[&command[..], &set(&[&TINY[..], keys].concat())].concat())
}

/// Bytes of the files below a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.path().is_dir() {
            true => bytes(&entry.path()),
            false => entry.metadata().expect("a file").len(),
        })
        .sum()
}

#[test]
fn a_plan_tells_steps_time_memory_and_disk() {
    let result = plan(&["train.epochs=3", "train.ema=0.9"]).succeeds().json();
    let parts = ["memory_mib", "disk_mib", "seconds"];
    assert!(parts.iter().all(|part| result[part].is_object()), "{result}");
    // 160 images in batches of 16.
    for (key, expected) in [
        ("batch_size", 16.0),
        ("epochs", 3.0),
        ("steps_per_epoch", 10.0),
        ("steps", 30.0),
        ("train_images", 160.0),
        ("val_images", 40.0),
    ] {
        assert_eq!(number(&result, key), expected, "{key} of {result}");
    }
    let lr = number(&result, "lr");
    assert!(close(number(&result, "lr_per_256"), 16.0 * lr, 1e-12), "{result}");
    let seconds = &result["seconds"];
    let (training, loader) = (number(seconds, "training"), number(seconds, "loader"));
    assert!(training > 0.0 && loader >= 0.0 && loader <= training, "{result}");
    let sum = training + number(seconds, "validation");
    assert!(close(number(seconds, "total"), sum, 1e-9), "{result}");
    assert!(close(30.0 * number(seconds, "step"), training, 1e-9), "{result}");

    // The run takes no more disk than that, and most of it.
    let run = Run::new(QUICK_DBB, &["train.epochs=3", "train.ema=0.9"]);
    let disk = &result["disk_mib"];
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let found = mib(bytes(Path::new(&run.path)));
    assert!(found <= number(disk, "total"), "{found} MiB against {disk}");
    let checkpoint = mib(bytes(&Path::new(&run.path).join("checkpoints/00003")));
    let told = number(disk, "checkpoint");
    // Names of many small tensors, manifest and progress beside their values.
    assert!(checkpoint >= told && checkpoint < told + 0.6, "{checkpoint} against {disk}");

    let text = dbb(&[&["train", QUICK_DBB, "--plan"], &set(&TINY)[..]].concat()).succeeds();
    for part in ["steps ", "per 256 images", "waiting for the loader", "MiB in training", "at most"]
    {
        assert!(text.stdout.contains(part), "no {part} in {}", text.all());
    }
}

#[test]
fn a_run_begins_with_its_plan() {
    let folder = Folder::new();
    let call = train(QUICK_DBB, &["train.epochs=2"], &folder.at("run")).succeeds();
    call.says(&[
        "20 steps, 2 times 10, with batches of 16",
        "MiB of memory",
        "left, from the first steps",
    ]);
}

/// The batch that is found is written out: the run is that of a configuration that names it, and
/// resumes with it.
#[test]
fn the_largest_batch_is_found_and_kept() {
    let auto = ["train.batch_size=auto", "train.memory_mb=42", "train.epochs=2"];
    let call = plan(&auto).succeeds();
    let found = number(&call.json(), "batch_size");
    assert!((2.0..=160.0).contains(&found), "{}", call.all());
    call.says(&[
        &format!("train.batch_size: {found} is the largest"),
        "optim.lr stays",
        "linear rule",
    ]);
    let more = plan(&[&auto[..], &["train.memory_mb=4000"]].concat()).succeeds().json();
    assert_eq!(number(&more, "batch_size"), 160.0, "all images");

    let folder = Folder::new();
    let (own, named) = (folder.at("auto"), folder.at("named"));
    train(QUICK_DBB, &auto, &own).succeeds().says(&["is the largest estimated to fit"]);
    let config = fs::read_to_string(format!("{own}/config.toml")).expect("a configuration");
    assert!(config.contains(&format!("batch_size = {found}\n")), "{config}");
    train(QUICK_DBB, &["train.epochs=2", &format!("train.batch_size={found}")], &named).succeeds();
    let weights =
        |run: &str| fs::read(format!("{run}/export/deploy.safetensors")).expect("weights");
    assert!(weights(&own) == weights(&named), "another run");

    // Resumed, with another limit, and with the configuration that it began with.
    dbb(&["train", &own, "--resume", "--set", "train.memory_mb=5000"]).succeeds();
    let number_of = format!("batch_size = {found}\n");
    let asking =
        folder.file("auto.toml", config.replace(&number_of, "batch_size = \"auto\"\n").as_bytes());
    dbb(&["train", &asking, "--out", &own, "--resume"]).succeeds();
    let after = fs::read_to_string(format!("{own}/config.toml")).expect("a configuration");
    assert!(after.contains(&format!("batch_size = {found}\n")), "{after}");
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let refused = |keys: &[&str], parts: &[&str]| {
        plan(keys).fails(1, parts);
        let folder = Folder::new();
        train(QUICK_DBB, keys, &folder.at("run")).fails(1, parts);
        assert!(!exists(&folder.at("run")), "a run is left behind");
    };
    refused(&["train.batch_size=auto"], &["train.batch_size", "auto needs train.memory_mb"]);
    refused(&["train.batch_size=all"], &["train.batch_size", "at least 2, or \"auto\""]);
    refused(&["train.batch_size=-8"], &["train.batch_size", "at least 2, or \"auto\""]);
    refused(&["train.batch_size=1"], &["train.batch_size", "at least 2"]);
    refused(&["train.memory_mb=0"], &["train.memory_mb", "at least 1"]);
    let tiny = ["train.batch_size=auto", "train.memory_mb=3"];
    refused(&tiny, &["batches of 2", "train.memory_mb allows 3", "raise train.memory_mb"]);
    let small = ["train.memory_mb=32", "train.batch_size=160", "data.size=64"];
    refused(&small, &["training needs about", "train.memory_mb allows 32", "(160) "]);
    let usage = ["train", QUICK_DBB, "--plan", "--out", "x"];
    dbb(&usage).fails(2, &["--plan", "--out"]);
    dbb(&["train", QUICK_DBB, "--plan", "--resume"]).fails(2, &["--plan", "--resume"]);
}

/// A forecast is an object whose numbers are finite.
#[test]
fn a_plan_of_accumulated_steps_counts_steps() {
    let result: Value = plan(&["train.accumulate=3", "train.epochs=1"]).succeeds().json();
    // Ten batches, the last step of one of them.
    assert_eq!(number(&result, "steps_per_epoch"), 4.0);
    let lr = number(&result, "lr");
    assert!(close(number(&result, "lr_per_256"), lr * 256.0 / 48.0, 1e-12), "{result}");
}
