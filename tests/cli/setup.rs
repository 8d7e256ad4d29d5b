//! Tiny runs and the folders they are in.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::calls::*;

/// Small enough for half a second, and yet predictions differ from image to image.
pub const TINY: [&str; 7] = [
    "data.limit_train=160",
    "data.limit_val=40",
    "data.size=8",
    "model.width=0.25",
    "train.epochs=1",
    "train.batch_size=16",
    "optim.lr=0.01",
];

/// A temporary folder.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path of letters").to_string()
    }

    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.at(name);
        fs::create_dir_all(Path::new(&path).parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("a file");
        path
    }
}

pub fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

/// `--set` before every key.
pub fn set<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    keys.iter().flat_map(|key| ["--set", key]).collect()
}

/// A tiny training with further keys, to `out`.
pub fn train(config: &str, keys: &[&str], out: &str) -> Call {
    dbb(&[&["train", config, "--out", out, "--json"], &set(&TINY)[..], &set(keys)].concat())
}

/// A run directory of a tiny training.
pub struct Run {
    pub folder: Folder,
    pub path: String,
    pub result: Value,
}

impl Run {
    pub fn new(config: &str, keys: &[&str]) -> Self {
        let folder = Folder::new();
        let path = folder.at("run");
        let result = train(config, keys, &path).succeeds().json();
        Self { folder, path, result }
    }

    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    pub fn deploy_weights(&self) -> String {
        self.file("export/deploy.safetensors")
    }

    pub fn network(&self) -> String {
        self.file("checkpoints/00001/network.bpk")
    }
}
