//! `dbb train`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::calls::*;
use crate::setup::*;

/// Four processes of a launcher would train four runs in one directory.
#[cfg(not(feature = "mpi"))]
#[test]
fn a_launcher_is_refused_by_a_program_without_mpi() {
    let folder = Folder::new();
    let out = folder.at("run");
    let mut command = Command::new(DBB);
    command.args(["train", QUICK_DBB, "--out", &out]).env("OMPI_COMM_WORLD_SIZE", "4");
    call(&mut command).fails(1, &["OMPI_COMM_WORLD_SIZE is 4", "--features mpi"]);
    assert!(fs::metadata(&out).is_err(), "nothing is written");
}

/// They would do and write the same several times.
#[test]
fn commands_for_one_process_refuse_a_launcher() {
    let folder = Folder::new();
    let out = folder.at("out.html");
    for command in ["compare", "lr-find", "recalibrate", "reparam", "inspect"] {
        let mut started = Command::new(DBB);
        started.args([command, QUICK_DBB, "--out", &out]).env("OMPI_COMM_WORLD_SIZE", "4");
        let refused = format!("`dbb {command}` is for one process");
        call(&mut started).fails(1, &[&refused, "OMPI_COMM_WORLD_SIZE is 4"]);
        assert!(fs::metadata(&out).is_err(), "{command}: nothing is written");
    }
}

#[test]
fn train_prints_one_json_object_and_leaves_a_run_directory() {
    let folder = Folder::new();
    let out = folder.at("runs/first");
    let call = train(QUICK_DBB, &["train.epochs=2", "seed=7"], &out).succeeds();
    let result = call.json();
    let contract = [
        "run_dir",
        "epochs",
        "train_loss",
        "top1",
        "top5",
        "best_top1",
        "seconds",
        "images_per_second",
    ];
    assert_eq!(keys(&result), contract);
    assert_eq!((result["run_dir"].as_str(), number(&result, "epochs")), (Some(&*out), 2.0));
    for key in ["top1", "top5", "best_top1"] {
        assert!((0.0..=100.0).contains(&number(&result, key)), "{result}");
    }
    assert!(number(&result, "best_top1") >= number(&result, "top1"), "{result}");
    assert!(number(&result, "seconds") > 0.0 && number(&result, "images_per_second") > 0.0);
    for progress in ["41181 learnable parameters", "epoch 1/2", "epoch 2/2", "fold differs"] {
        assert!(call.stderr.contains(progress), "{}", call.all());
    }

    let names = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(format!("{out}/{path}")).expect("a folder");
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("text")).collect()
    };
    let files = [
        ".lock",
        "checkpoints",
        "config.toml",
        "env.json",
        "export",
        "metrics.jsonl",
        "report.html",
        "tensorboard",
    ];
    assert_eq!(names(""), files.map(String::from).into());
    assert!(names("checkpoints").contains("00002"), "{:?}", names("checkpoints"));
    let files = ["manifest.json", "network.bpk", "optimizer.bpk", "state.json"];
    assert_eq!(names("checkpoints/00002"), files.map(String::from).into());
    assert_eq!(names("export"), ["deploy.safetensors".to_string()].into());

    let metrics = fs::read_to_string(format!("{out}/metrics.jsonl")).expect("metrics");
    let records: Vec<Value> =
        metrics.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let epochs: Vec<_> = records.iter().map(|record| number(record, "epoch")).collect();
    assert_eq!(epochs, [1.0, 2.0], "{metrics}");
    for key in ["train_loss", "top1", "top5"] {
        assert_eq!(records[1][key], result[key], "{metrics}");
    }
    let env = fs::read_to_string(format!("{out}/env.json")).expect("env.json");
    let env: Value = serde_json::from_str(&env).expect("JSON");
    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    // The device by the name that opens it, the processor by its model where the system knows it.
    assert_eq!(env["device"], "flex");
    let cpu = env["cpu"].as_str().expect("a processor");
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    assert!(cpu == std::env::consts::ARCH || model.contains(cpu), "{cpu}");
    let threads = format!("<dt>threads</dt><dd>{}</dd>", number(&env, "threads"));
    for part in ["<dt>device</dt><dd>flex</dd>", &format!("<dt>cpu</dt><dd>{cpu}</dd>"), &threads] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }
    let top1 = format!("{:.2} %", number(&result, "top1"));
    let fingerprint = env["train_fingerprint"].as_str().expect("a fingerprint");
    for part in ["finished", "epoch 2 of 2", &top1, fingerprint, "41,181 in training"] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }

    // The configuration is resolved, holds the overrides, and is one again.
    let config = format!("{out}/config.toml");
    dbb(&["config", "check", &config]).succeeds();
    let config = json(&["config", "show", &config]);
    assert_eq!((number(&config, "seed"), number(&config["train"], "epochs")), (7.0, 2.0));
    let model = &config["model"];
    assert_eq!((number(model, "num_classes"), number(model, "in_channels")), (10.0, 1.0));
    assert_eq!((number(model, "width"), number(&config["data"], "limit_train")), (0.25, 160.0));
}

#[test]
fn a_new_run_leaves_an_existing_one_alone() {
    let run = Run::new(QUICK_BASE, &[]);
    let before = snapshot(&run.path);
    train(QUICK_DBB, &[], &run.path).fails(1, &[&run.path, "already holds a run", "--resume"]);
    assert!(before == snapshot(&run.path), "the run has changed");
}

#[test]
fn a_run_that_cannot_begin_leaves_nothing() {
    let folder = Folder::new();
    let weights = folder.file("weights.safetensors", b"not weights");
    let init = format!("model.init_from={weights}");
    train(QUICK_BASE, &[&init], &folder.at("deep/run")).fails(1, &[&weights]);
    assert!(!exists(&folder.at("deep")));
    // What was there before stays.
    let mine = folder.file("mine/notes.txt", b"mine");
    train(QUICK_BASE, &[&init], &folder.at("mine")).fails(1, &[&weights]);
    let entries = fs::read_dir(folder.at("mine")).expect("a folder");
    assert_eq!((entries.count(), exists(&mine)), (1, true));
}

#[test]
fn without_json_and_out_the_result_is_text_and_the_run_has_a_name() {
    let folder = Folder::new();
    let args = [&["train", QUICK_BASE][..], &set(&TINY)].concat();
    let call = call(Command::new(DBB).args(args).current_dir(&folder.0)).succeeds();
    for part in ["top-1", "run directory: runs/resnet20-base-", "export/deploy.safetensors"] {
        assert!(call.stdout.contains(part), "no {part:?}\n{}", call.all());
    }
    assert!(!call.stdout.contains("epoch 1/1"), "{}", call.all());
    let runs: Vec<_> = fs::read_dir(folder.at("runs")).expect("runs").collect();
    assert_eq!(runs.len(), 1);
}
