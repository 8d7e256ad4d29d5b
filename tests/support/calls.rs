//! Calls of the program and what they print and leave.

// Each test program uses its part.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub const DBB: &str = env!("CARGO_BIN_EXE_dbb");
pub const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
pub const QUICK_BASE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/quick/resnet20-base.toml");
pub const QUICK_DBB: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/quick/resnet20-dbb.toml");

/// A call of the program and what came of it.
pub struct Call {
    pub text: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn call(command: &mut Command) -> Call {
    let output = command.output().expect("the program starts");
    Call::new(command, output)
}

/// Calls the program in the root of the repository.
pub fn dbb(args: &[&str]) -> Call {
    call(Command::new(DBB).args(args).current_dir(REPOSITORY))
}

impl Call {
    pub fn new(command: &Command, output: Output) -> Self {
        Self {
            text: format!("{command:?}"),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Everything about it, for messages.
    pub fn all(&self) -> String {
        let Self { text, code, stdout, stderr } = self;
        format!("{text}\nexit code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.all());
        self
    }

    /// The one JSON object on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.all());
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.all()));
        assert!(value.is_object(), "{}", self.all());
        value
    }

    /// A failure with this exit code and a message that contains each of `parts`.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.all());
        assert!(!self.stderr.contains("panicked"), "{}", self.all());
        assert!(self.stdout.is_empty(), "{}", self.all());
        let message = self.stderr.lines().any(|line| line.starts_with("error: "));
        assert!(message, "{}", self.all());
        self.says(parts);
    }

    /// Standard error contains each of `parts`.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?}\n{}", self.all());
        }
    }
}

/// Calls `dbb` and reads its JSON.
#[track_caller]
pub fn json(args: &[&str]) -> Value {
    dbb(&[args, &["--json"]].concat()).succeeds().json()
}

pub fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

pub fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("{key} is not a number in {object}"))
}

pub fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

/// Every file below a folder with its content.
pub fn snapshot(folder: impl AsRef<Path>) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        }
        files.insert(path.clone(), fs::read(&path).unwrap_or_default());
    }
    files
}
