//! HTML pages that commands write where they are told.

use std::path::{Path, PathBuf};

use dbb_models::weights::write_atomically;
use serde::Serializer;

use crate::format::check_extension;

/// Refuses a path that is part of a run, or whose name promises something else than a page; `flag`
/// names it.
pub fn check_page(flag: &str, out: &Path) -> anyhow::Result<()> {
    check_extension(flag, out, &["html", "htm"], "an HTML page (--json prints the numbers)")
}

/// Writes a page, whole or not at all.
pub fn write_page(out: &Path, page: &str) -> anyhow::Result<()> {
    write_atomically(out, page.as_bytes())
        .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", out.display()))
}

/// Serialises the path of a page that may have been written.
pub fn displayed<S: Serializer>(out: &Option<&PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    match out {
        Some(path) => dbb_training::text::displayed(path, to),
        None => to.serialize_none(),
    }
}
