//! Tells the program the commit it is built from, where there is one: `DBB_COMMIT`, with `-dirty` after
//! it where the code was changed since.

use std::path::Path;
use std::process::Command;

/// The code that makes the program, from this folder.
const CODE: [&str; 5] = ["../../Cargo.lock", "../../models", "../../datasets", "../src", "src"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A package has no repository, or is unpacked within another one.
    if !Path::new("../../.git").exists() {
        return;
    }
    CODE.iter().for_each(|path| println!("cargo:rerun-if-changed={path}"));
    // What a commit or another branch changes.
    let paths = ["HEAD", "logs/HEAD", "index"].map(|name| git(&["rev-parse", "--git-path", name]));
    for path in paths.iter().flatten().filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return };
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changed = git(&[&status[..], &CODE].concat()).is_none_or(|text| !text.is_empty());
    println!("cargo:rustc-env=DBB_COMMIT={commit}{}", if changed { "-dirty" } else { "" });
}

/// What git prints; `None` where it fails.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
