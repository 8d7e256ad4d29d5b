//! The command line itself: help, devices, completions, wrong usage.

use std::process::Command;

use serde_json::Value;

use crate::calls::*;

#[test]
fn devices_says_what_is_there_and_how_to_get_the_rest() {
    let result = json(&["devices"]);
    let devices = result["devices"].as_array().expect("devices");
    let kind = |device: &Value| device["kind"].as_str().expect("a kind").to_string();
    let kinds: Vec<_> = devices.iter().map(kind).collect();
    let all = ["flex", "ndarray", "wgpu", "cuda", "rocm", "metal", "vulkan", "cpu"];
    assert_eq!(kinds, all);
    let text = dbb(&["devices"]).succeeds().stdout;
    let absent: Vec<_> = devices.iter().filter(|device| device["compiled"] == false).collect();
    for device in absent {
        let feature = format!("--features {}", kind(device));
        assert!(text.contains(&feature), "{text}");
        let eval = ["eval", "somewhere", "--device", &kind(device)];
        dbb(&eval).fails(1, &[&kind(device), "not compiled", &feature]);
    }
    let train = ["train", QUICK_DBB, "--device"];
    dbb(&[&train[..], &["tpu"]].concat()).fails(1, &["unknown device \"tpu\"", "flex"]);
    dbb(&[&train[..], &["cuda:first"]].concat()).fails(1, &["unknown device \"cuda:first\""]);
}

#[test]
fn every_command_explains_itself() {
    let version = dbb(&["--version"]).succeeds();
    assert_eq!(version.stdout.trim(), concat!("dbb ", env!("CARGO_PKG_VERSION")));
    let commands =
        ["train", "eval", "reparam", "export", "compare", "summary", "bench", "config", "devices"];
    let overview = dbb(&["--help"]).succeeds().stdout;
    for command in commands {
        assert!(overview.contains(&format!("\n  {command} ")), "{overview}");
        let help = dbb(&[command, "--help"]).succeeds();
        for part in [format!("Usage: dbb {command}"), format!("Example: dbb {command}")] {
            assert!(help.stdout.contains(&part), "no {part:?}\n{}", help.all());
        }
        assert!(help.stderr.is_empty(), "{}", help.all());
    }
    for action in ["check", "show"] {
        let help = dbb(&["config", action, "--help"]).succeeds();
        assert!(help.stdout.contains(&format!("Usage: dbb config {action}")), "{}", help.all());
    }
}

/// `--res` and `--size`, `--batch` and `--batch-size`: either word works in every command.
#[test]
fn sizes_have_two_names() {
    let summary = ["summary", "--arch", "resnet20"];
    let sized = |flag| json(&[&summary[..], &[flag, "16"]].concat());
    assert_eq!(sized("--res"), sized("--size"));
    assert_eq!(sized("--size")["resolution"][0], 16);
    let nowhere = ["eval", "nowhere", "--res", "16", "--batch", "2"];
    dbb(&nowhere).fails(1, &["nowhere does not exist"]);
    dbb(&["predict", "nowhere", "x.png", "--batch", "2"]).fails(1, &["nowhere does not exist"]);
    let bench = ["bench", "loader", "--size", "8", "--steps", "1", "--batch-size"];
    json(&[&bench[..], &["4"]].concat());
    dbb(&[&bench[..], &["0"]].concat()).fails(2, &["--batch"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    dbb(&["frobnicate"]).fails(2, &["frobnicate", "Usage"]);
    dbb(&["train"]).fails(2, &["<CONFIG>"]);
    dbb(&["train", QUICK_DBB, "--threads", "0"]).fails(2, &["--threads"]);
    dbb(&["train", QUICK_DBB, "--resume", "--set", "seed=1"]).fails(2, &["--set", "--resume"]);
    dbb(&["eval", "run", "--checkpoint", "newest"]).fails(2, &["newest", "last, best"]);
    dbb(&["eval", "run", "--split", "dev"]).fails(2, &["dev", "train", "val"]);
    dbb(&["eval", "run", "--arch", "resnet19"]).fails(2, &["resnet19", "resnet18", "resnet20"]);
    dbb(&["eval", "run", "--data", "idx:"]).fails(2, &["idx:", "the path is empty"]);
    dbb(&["reparam", "run"]).fails(2, &["--out"]);
    dbb(&["export", "run", "--format", "tar", "--out", "x"]).fails(2, &["tar", "safetensors"]);
    dbb(&["compare", QUICK_DBB, "--blocks", "base,dbd"]).fails(2, &["dbd", "base, dbb, acb"]);
    dbb(&["compare", QUICK_DBB, "--seeds", "0"]).fails(2, &["--seeds"]);
    dbb(&["summary"]).fails(2, &["--arch"]);
    dbb(&["bench"]).fails(2, &["<WHAT>"]);
    dbb(&["bench", "train"]).fails(2, &["--arch"]);
    dbb(&["bench", "infer", "--arch", "resnet19"]).fails(2, &["resnet19", "resnet18"]);
    dbb(&["bench", "loader", "--batch", "0"]).fails(2, &["--batch"]);
    dbb(&["bench", "train", "--arch", "resnet20", "--steps", "0"]).fails(2, &["--steps"]);
    let slow = ["bench", "train", "--arch", "resnet20", "--impl", "slow"];
    dbb(&slow).fails(2, &["slow", "possible values: fast, plain"]);
    dbb(&["compare", QUICK_DBB, "--seeds", "100000000000"]).fails(2, &["--seeds"]);
}

#[test]
fn threads_beyond_all_use_are_refused() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [256.max(4 * cores) + 1, 60_000] {
        let (threads, text) = (threads.to_string(), format!("{threads} threads were asked for"));
        dbb(&["bench", "train", "--arch", "resnet20", "--threads", &threads])
            .fails(1, &[&text, "are accepted"]);
    }
}

#[test]
fn an_instruction_set_that_does_not_exist_is_refused() {
    for args in [
        &["train", QUICK_DBB][..],
        &["bench", "train", "--arch", "resnet20"],
        &["inspect", "runs/first"],
    ] {
        let mut command = Command::new(DBB);
        let named = command.args(args).env("DBB_INSTRUCTION_SET", "foo");
        call(named).fails(1, &["`foo`", "DBB_INSTRUCTION_SET takes one of", "portable"]);
    }
}

#[test]
fn devices_that_cannot_train_together_are_told() {
    dbb(&["train", QUICK_DBB, "--devices", "flex,ndarray"])
        .fails(1, &["cannot train together", "hint: name several as --devices cuda:0,cuda:1"]);
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = dbb(&["completions", shell]).succeeds().stdout;
        for word in ["train", "reparam", "predictions", "schema"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    // Values come from the lists that the options are read with.
    let bash = dbb(&["completions", "bash"]).succeeds().stdout;
    for values in [
        "compgen -W \"resnet18 resnet34 resnet50",
        "mobilenet_v1 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small repvgg_a0",
        "compgen -W \"base dbb acb repvgg mobileone orepa qarepvgg\"",
        "compgen -W \"flex ndarray wgpu cuda rocm metal vulkan cpu\"",
    ] {
        assert!(bash.contains(values), "no {values:?}");
    }
    for option in ["--arch", "--block", "--blocks", "--device", "--devices"] {
        let option = format!("                {option})\n");
        let cases: Vec<&str> = bash.split(&option).skip(1).map(str::trim_start).collect();
        assert!(!cases.is_empty(), "no {option}");
        assert!(cases.iter().all(|case| case.starts_with("COMPREPLY=($(compgen -W")), "{option}");
    }
    // A device may have a number.
    let numbered = ["eval", "somewhere", "--device", "cuda:1"];
    dbb(&numbered).fails(1, &["cuda:1"]);
    dbb(&["completions", "cmd"]).fails(2, &["possible values"]);
}
