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
    dbb(&["train", QUICK_DBB, "--resume", "--out", &run.path]).fails(1, &[]);
    // An empty folder for checkpoints is all that has been made.
    fs::remove_dir(run.file("checkpoints")).expect("an empty folder");
    assert!(before == files(), "the run has changed");
}
