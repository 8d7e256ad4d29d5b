//! The parts of a page.

use std::fs;
use std::path::{Path, PathBuf};

use super::part::Part;
use crate::error::{Error, Result};

const OPEN: &str = "<!-- dbb ";
const CLOSE: &str = "<!-- /dbb -->";

/// A page with its parts as the tables say.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// The page.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Its pictures and their text.
    pub pictures: Vec<(PathBuf, String)>,
    /// How many parts it has.
    pub parts: usize,
    /// The parts and pictures that are not what the files hold now: `line 12`, or the path of the picture.
    pub stale: Vec<String>,
}

/// Fills the parts of a Markdown page from the tables that they name, relative to the folder of the page.
/// Writes nothing.
///
/// # Errors
/// A page or a table that cannot be read, and a part that is no part or does not end, with its line.
pub fn fill(page: &Path) -> Result<Filled> {
    let old = fs::read_to_string(page).map_err(|error| {
        Error::Unusable(format!("cannot read the page {}: {error}", page.display()))
    })?;
    let folder = page.parent().unwrap_or(Path::new(""));
    let mut filled = Filled {
        path: page.into(),
        text: String::new(),
        pictures: Vec::new(),
        parts: 0,
        stale: Vec::new(),
    };
    let mut rest = old.as_str();
    while let Some(start) = rest.find(OPEN) {
        let line = old[..old.len() - rest.len() + start].matches('\n').count() + 1;
        let fault = |text: &str| Error::Unusable(format!("{}:{line}: {text}", page.display()));
        let (head, body) = rest[start..]
            .split_once("-->")
            .ok_or_else(|| fault("the comment does not end; expected \"-->\""))?;
        let no_end = || fault(&format!("the part does not end; expected {CLOSE} after it"));
        let (body, after) = body.split_once(CLOSE).ok_or_else(no_end)?;
        if body.contains(OPEN) {
            return Err(no_end());
        }
        let words: Vec<&str> = head[OPEN.len()..].split_whitespace().collect();
        let part = Part::read(&words, folder).map_err(|text| fault(&text))?;
        let own = part.fill().map_err(|error| fault(&error.to_string()))?;
        // What begins on a line of its own is a block; all else is within a line.
        let own_text = match body.starts_with(['\n', '\r']) {
            true => format!("\n\n{}\n\n", own.markdown.trim_end()),
            false => own.markdown,
        };
        if own_text != body {
            filled.stale.push(format!("line {line}"));
        }
        if let Some((path, svg)) = own.picture {
            if fs::read_to_string(&path).ok().as_ref() != Some(&svg) {
                filled.stale.push(path.display().to_string());
            }
            filled.pictures.push((path, svg));
        }
        filled.parts += 1;
        filled.text += &format!("{}{head}-->{own_text}{CLOSE}", &rest[..start]);
        rest = after;
    }
    filled.text += rest;
    Ok(filled)
}
