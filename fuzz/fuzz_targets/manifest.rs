//! The manifest of a checkpoint: only the genuine one is accepted.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use dbb_training::run::manifest::verify;
use libfuzzer_sys::fuzz_target;

static FILES: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(dbb_fuzz::checkpoint);

fuzz_target!(|bytes: &[u8]| {
    let folder = dbb_fuzz::folder(&*FILES);
    fs::write(folder.path().join("manifest.json"), bytes).expect("another manifest");
    assert_eq!(verify(folder.path()).is_ok(), bytes == FILES["manifest.json"]);
});
