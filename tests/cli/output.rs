//! Output that cannot be written, or that is not read.

use std::fs;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::process::{Command, Stdio};

use crate::calls::*;
use crate::setup::*;
use crate::stored::*;

#[test]
fn an_output_below_a_file_is_refused() {
    let run = Run::new(QUICK_BASE, &[]);
    let file = run.folder.file("file", b"content");
    let below = format!("{file}/out");
    let error = ["cannot write", &*below];
    train(QUICK_BASE, &[], &below).fails(1, &error);
    let compare = ["compare", QUICK_BASE, "--out", &below];
    dbb(&[&compare[..], &set(&TINY)].concat()).fails(1, &error);
    dbb(&["reparam", &run.path, "--out", &below]).fails(1, &error);
    dbb(&["export", &run.path, "--format", "burnpack", "--out", &below]).fails(1, &error);
    let table = format!("{below}.csv");
    dbb(&["eval", &run.path, "--predictions", &table]).fails(1, &error);
    let table = run.folder.at("folder.csv");
    fs::create_dir(&table).expect("a folder");
    dbb(&["eval", &run.path, "--predictions", &table]).fails(1, &["cannot write", &table]);
    assert_eq!(fs::read(&file).expect("the file"), b"content");
}

#[test]
fn what_a_run_reads_back_or_reports_is_not_overwritten() {
    let run = Run::new(QUICK_BASE, &[]);
    let before = snapshot(&run.folder.0);
    let belongs = "belongs to the run in";
    for name in [
        "config.toml",
        "env.json",
        "metrics.jsonl",
        "report.html",
        ".lock",
        "checkpoints/new.safetensors",
        "export/../config.toml",
    ] {
        let out = run.file(name);
        dbb(&["reparam", &run.path, "--out", &out]).fails(1, &[&out, belongs, "another file"]);
        dbb(&["eval", &run.path, "--predictions", &out]).fails(1, &[&out, belongs]);
        let recalibrate = ["recalibrate", &run.path, "--batches", "1", "--out", &out];
        dbb(&recalibrate).fails(1, &[&out, belongs]);
    }
    let network = run.network();
    let export = ["export", &run.path, "--format", "burnpack", "--out"];
    dbb(&[&export[..], &[&network]].concat()).fails(1, &[&network, belongs]);
    assert!(before == snapshot(&run.folder.0), "the run has changed");

    // Exported weights are the user's; so is what only lies in the folder.
    for name in ["export/deploy.safetensors", "mine.safetensors"] {
        dbb(&["reparam", &run.path, "--out", &run.file(name)]).succeeds();
    }
}

#[test]
fn a_name_of_another_kind_of_file_is_refused() {
    let run = Run::new(QUICK_BASE, &[]);
    for name in ["recipe.toml", "table.csv", "notes.md", "photo.JPG", "train.tar"] {
        let out = run.folder.file(name, b"mine");
        let says = [&*out, "has the extension of another format", "ending of weights"];
        dbb(&["reparam", &run.path, "--out", &out]).fails(1, &says);
        assert_eq!(fs::read(&out).expect("the file"), b"mine");
    }
}

#[cfg(unix)]
#[test]
fn an_output_that_is_a_device_is_not_replaced() {
    let run = Run::new(QUICK_BASE, &[]);
    for (command, flag, name) in
        [("reparam", "--out", "device"), ("eval", "--predictions", "device.csv")]
    {
        let device = run.folder.at(name);
        std::os::unix::fs::symlink("/dev/null", &device).expect("a link");
        dbb(&[command, &run.path, flag, &device]).fails(1, &["cannot write", &device]);
        assert!(fs::symlink_metadata(&device).expect("the link").is_symlink());
    }
}

/// A call that may write files of at most so many KiB, as on a disk that fills up.
#[cfg(unix)]
fn on_a_full_disk(args: &[&str]) -> Call {
    // Shells count in units of 512 or 1024 bytes.
    let limit = r#"trap "" XFSZ; ulimit -f 60; exec "$@""#;
    let shell = ["-c", limit, "sh", DBB];
    call(Command::new("sh").args(shell).args(args).current_dir(REPOSITORY))
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.file("old.safetensors", b"old");
    let before = snapshot(&run.folder.0);
    on_a_full_disk(&["reparam", &run.path, "--out", &out]).fails(1, &["cannot write", &out]);
    assert!(before == snapshot(&run.folder.0), "something was written");

    let new = run.folder.at("new");
    let args = [&["train", QUICK_DBB, "--out", &new][..], &set(&TINY)].concat();
    on_a_full_disk(&args).fails(1, &["cannot write", &new, "network.bpk"]);
    let left = snapshot(&new);
    let unfinished = |path: &str| path.contains("partial") || path.contains("00001");
    assert_eq!(left.keys().find(|path| unfinished(&path.to_string_lossy())), None);
    // With room again a new run can start.
    dbb(&["train", &new, "--resume"]).succeeds();
    assert!(tensors(&format!("{new}/export/deploy.safetensors")) == tensors(&run.deploy_weights()));
}

/// They are shown with a replacement character, as in messages.
#[cfg(target_os = "linux")]
#[test]
fn results_show_paths_that_are_not_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::new();
    let odd = folder.0.path().join(OsStr::from_bytes(b"nu\xff"));
    let (run, file, out) = (odd.join("run"), odd.join("a.toml"), odd.join("out.safetensors"));
    fs::create_dir(&odd).expect("a folder");
    fs::copy(QUICK_BASE, &file).expect("a copy");
    let shown = |key: &str, command: &mut Command| {
        let result = call(command.current_dir(REPOSITORY).arg("--json")).succeeds().json();
        assert!(result[key].as_str().expect("a path").contains("nu\u{fffd}/"), "{result}");
    };
    shown("config", Command::new(DBB).args(["config", "check"]).arg(&file));
    let mut train = Command::new(DBB);
    shown("run_dir", train.args(["train", QUICK_BASE, "--out"]).arg(&run).args(set(&TINY)));
    shown("out", Command::new(DBB).arg("reparam").arg(&run).arg("--out").arg(&out));
    let mut recalibrate = Command::new(DBB);
    recalibrate.arg("recalibrate").arg(&run).args(["--batches", "1", "--out"]).arg(&out);
    shown("out", &mut recalibrate);
    let mut compare = Command::new(DBB);
    compare.args(["compare", QUICK_BASE, "--json", "--out"]).arg(odd.join("cmp")).args(set(&TINY));
    let result = call(compare.current_dir(REPOSITORY)).succeeds().json();
    let path = result["rows"][0]["run_dir"].as_str().expect("a path");
    assert!(path.contains("nu\u{fffd}/cmp"), "{result}");
}

#[test]
fn output_need_not_be_read() {
    let folder = Folder::new();
    let out = folder.at("run");
    let train = [&["train", QUICK_BASE, "--out", &out][..], &set(&TINY)].concat();
    for args in [&["summary", "--arch", "resnet152"][..], &["completions", "zsh"], &train] {
        let mut command = Command::new(DBB);
        command.args(args).current_dir(REPOSITORY).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        drop((child.stdout.take(), child.stderr.take()));
        let status = child.wait().expect("the program ends");
        assert_eq!(status.code(), Some(0), "{command:?}");
    }
    assert!(exists(&format!("{out}/export/deploy.safetensors")));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = || File::options().write(true).open("/dev/full").expect("the device");
    let mut command = Command::new(DBB);
    command.args(["summary", "--arch", "resnet20", "--json"]);
    call_with(command.stdout(full()).stderr(Stdio::null()), 1);
    // Nothing can be said, yet the exit code is right.
    let mut command = Command::new(DBB);
    call_with(command.args(["eval", "nowhere"]).stderr(full()), 1);
}

#[cfg(target_os = "linux")]
fn call_with(command: &mut Command, code: i32) {
    let status = command.status().expect("the program starts");
    assert_eq!(status.code(), Some(code), "{command:?}");
}
