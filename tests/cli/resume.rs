//! `dbb train --resume`: which run is meant, and what it would overwrite.

use std::fs;

use crate::calls::*;
use crate::setup::*;

/// The arguments that resume a run beside a configuration.
fn beside<'a>(config: &'a str, run: &'a Run, keys: &[&'a str]) -> Vec<&'a str> {
    [&["train", config, "--resume", "--out", &run.path][..], &set(keys)].concat()
}

#[test]
fn a_configuration_beside_a_run_is_compared_with_its_own() {
    let run = Run::new(QUICK_DBB, &[]);
    let before = snapshot(&run.path);
    dbb(&beside(&run.folder.at("none.toml"), &run, &[])).fails(1, &["cannot read", "none.toml"]);
    let parts = ["is not the configuration of the run in", &run.path, "--force --set KEY=VALUE"];
    // Another block, and the keys that the run was given.
    let block = "model.block is \"dbb\" in the run, \"base\" in the file";
    let epochs = "train.epochs is 1 in the run";
    dbb(&beside(QUICK_BASE, &run, &[])).fails(1, &[&parts[..], &[block, epochs]].concat());
    dbb(&beside(QUICK_DBB, &run, &[])).fails(1, &[&parts[..], &["model.width is 0.25"]].concat());
    let other = run.folder.at("other");
    fs::create_dir(&other).expect("a folder");
    dbb(&beside(&other, &run, &[])).fails(1, &["are two folders", &other, &run.path]);
    assert!(before == snapshot(&run.path), "the run has changed");

    // Its own, by file or as the folder, resumes.
    dbb(&beside(&run.file("config.toml"), &run, &[])).succeeds();
    dbb(&beside(&run.path, &run, &[])).succeeds();
}

#[test]
fn what_does_not_change_results_may_change() {
    let run = Run::new(QUICK_DBB, &[]);
    let resume = ["train", &run.path, "--resume", "--set"];
    dbb(&[&resume[..], &["data.workers=2"]].concat()).succeeds();
    let config = fs::read_to_string(run.file("config.toml")).expect("a configuration");
    assert!(config.contains("workers = 2"), "{config}");
    dbb(&[&resume[..], &["optim.lr=0.1"]].concat()).fails(2, &["--force", "optim.lr"]);
    let file = run.folder.file("w.toml", config.replace("workers = 2", "workers = 1").as_bytes());
    dbb(&beside(&file, &run, &[])).succeeds();
}

#[test]
fn a_checkpoint_of_another_network_is_told_in_a_sentence() {
    let run = Run::new(QUICK_DBB, &[]);
    let resume = ["train", &run.path, "--resume", "--force", "--set", "model.width=1"];
    let call = dbb(&resume);
    assert!(call.stderr.len() < 1000, "{}", call.all());
    let says = ["its network is another one than the configuration's", "the first tensor"];
    call.fails(1, &says);
}

#[test]
fn results_without_a_checkpoint_are_not_overwritten() {
    let run = Run::new(QUICK_DBB, &[]);
    fs::remove_dir_all(run.file("checkpoints")).expect("the checkpoints");
    let files = || {
        let mut files = snapshot(&run.path);
        // It names the process.
        files.retain(|path, _| !path.ends_with(".lock"));
        files
    };
    let before = files();
    let parts = ["has no checkpoint to resume from", "it holds", "overwrite", &run.path];
    dbb(&["train", &run.path, "--resume"]).fails(1, &parts);
    let other = ["is not the configuration of the run in", &run.path];
    dbb(&["train", QUICK_DBB, "--resume", "--out", &run.path]).fails(1, &other);
    // An empty folder for checkpoints is all that has been made.
    fs::remove_dir(run.file("checkpoints")).expect("an empty folder");
    assert!(before == files(), "the run has changed");
}
