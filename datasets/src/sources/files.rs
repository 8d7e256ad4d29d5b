//! What folders hold: images and class folders, by name.

use std::{
    ffi::{OsStr, OsString},
    fs::FileType,
    path::{Path, PathBuf},
};

use crate::DataError;

/// Extensions of images, in any case.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff"];

/// The extensions of images from the given one on, for messages: `.jpg, .jpeg` and so on.
pub(crate) fn extensions(from: usize) -> String {
    EXTENSIONS[from..]
        .iter()
        .map(|extension| format!(".{extension}"))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(super) const NOT_UTF8: &str = "its name is not UTF-8; rename it";

/// Names of the class folders of a split, sorted.
///
/// They become text in weights files and reports, where names that are not UTF-8 could become
/// equal.
pub(super) fn class_folders(split: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for (name, kind) in entries(split)? {
        let path = split.join(&name);
        if !kind.map_err(|e| DataError::io(&path, e))?.is_dir() {
            continue;
        }
        if path.is_symlink() && holds(&path, split)? {
            let reason = "it links to a folder that holds it; remove the link";
            return Err(DataError::entry(&path, reason));
        }
        names.push(name.into_string().map_err(|_| DataError::entry(&path, NOT_UTF8))?);
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a folder is, or is above, another one, once links are followed.
fn holds(folder: &Path, other: &Path) -> Result<bool, DataError> {
    let real = |path: &Path| path.canonicalize().map_err(|e| DataError::io(path, e));
    Ok(real(other)?.starts_with(real(folder)?))
}

/// Names of the image files in a class folder, sorted, including broken links.
pub(super) fn image_files(class: &Path) -> Result<Vec<OsString>, DataError> {
    let names = entries(class)?.into_iter().filter_map(|(name, kind)| {
        (is_image_name(Path::new(&name)) && kind.map_or(true, |kind| kind.is_file()))
            .then_some(name)
    });
    let mut names: Vec<OsString> = names.collect();
    names.sort_unstable();
    Ok(names)
}

/// The image files in a folder and in those below it, by path; links to folders are not followed.
///
/// # Errors
///
/// [`DataError::Io`] if a folder cannot be read.
pub fn image_files_below(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files: Vec<_> = image_files(folder)?.iter().map(|name| folder.join(name)).collect();
    for (name, kind) in entries(folder)? {
        let path = folder.join(name);
        if !path.is_symlink() && kind.is_ok_and(|kind| kind.is_dir()) {
            files.extend(image_files_below(&path)?);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// What a folder holds, links followed; hidden entries are left out.
fn entries(folder: &Path) -> Result<Vec<(OsString, std::io::Result<FileType>)>, DataError> {
    let error = |e| DataError::io(folder, e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => entry.path().metadata().map(|m| m.file_type()),
            kind => kind,
        };
        found.push((name, kind));
    }
    Ok(found)
}

/// Whether a folder holds files named like images.
pub fn holds_images(folder: &Path) -> bool {
    image_files(folder).is_ok_and(|images| !images.is_empty())
}

/// Whether a file is named like an image, by its extension.
pub fn is_image_name(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|found| EXTENSIONS.iter().any(|e| found.eq_ignore_ascii_case(e)))
}
