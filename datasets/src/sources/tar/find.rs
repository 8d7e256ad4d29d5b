//! Which archives a data set consists of.

use std::path::{Path, PathBuf};

use crate::{DataError, Split};

/// The archives of a split, sorted: the path itself, or those of a folder.
pub(super) fn archives(path: &Path, split: Split) -> Result<Vec<PathBuf>, DataError> {
    if path.is_file() {
        return Ok(if is_archive(path) { vec![path.to_owned()] } else { Vec::new() });
    }
    let list = |folder: &Path, start: &str| -> Result<Vec<PathBuf>, DataError> {
        let error = |e| DataError::io(folder, e);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let name = path.file_stem().map(|stem| stem.as_encoded_bytes()).unwrap_or_default();
            // `train.tar`, `train-000000.tar`, `train_0.tar`, but not `trained.tar`.
            let rest = name.strip_prefix(start.as_bytes());
            let fits = rest.is_some_and(|rest| match rest {
                _ if start.is_empty() => !name.starts_with(b"."),
                [] => true,
                [first, ..] => !first.is_ascii_alphanumeric(),
            });
            if fits && is_archive(&path) {
                found.push(path);
            }
        }
        found.sort_unstable();
        Ok(found)
    };
    for name in split.names() {
        let folder = path.join(name);
        let inside = if folder.is_dir() { list(&folder, "")? } else { Vec::new() };
        let found = if inside.is_empty() { list(path, name)? } else { inside };
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

pub(super) fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "tar")
}
