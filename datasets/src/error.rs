//! The one error type of the crate.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{Layout, sources::files::extensions};

/// What can go wrong from the name of a data set to a batch.
///
/// Every message says what failed, where, and what was expected, so that it can be shown to a user
/// as it is.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The text does not name a data set.
    #[error(
        "`{text}` is not a data set: {reason}; write `sample`, a folder, or KIND:PATH with KIND one of {}",
        Layout::names()
    )]
    Reference {
        /// The text as written.
        text: String,
        /// Why it is refused.
        reason: String,
    },

    /// The text does not name a split.
    #[error("`{text}` is not a split: write `train` or `val` (`test` means `val`)")]
    Split {
        /// The text as written.
        text: String,
    },

    /// The folder has none of the known layouts, or not the files of the layout asked for.
    #[error("no {wanted} found in {}: looked for {looked_for}", path.display())]
    Layout {
        /// The folder searched.
        path: PathBuf,
        /// What was wanted, e.g. `data set` or `IDX train images`.
        wanted: String,
        /// The names looked for.
        looked_for: String,
    },

    /// The operating system refused to read a file or a folder.
    #[error("cannot read {}: {source}; check that it exists and is readable", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },

    /// A well-known data set is not there.
    #[error("{} does not exist; {origin}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// Where it comes from.
        origin: &'static str,
    },

    /// A file was read but is not what it should be.
    #[error("{} is damaged: {reason}; replace or remove the file", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What was expected and what was found, with the record where the file holds many.
        reason: String,
    },

    /// An image is larger than what is read.
    #[error("{} is too large: {reason}; scale it down or remove it", path.display())]
    TooLarge {
        /// The image file.
        path: PathBuf,
        /// Its size and the limit.
        reason: String,
    },

    /// A file or folder that cannot be part of a data set.
    #[error("{} cannot be used: {reason}", path.display())]
    Entry {
        /// The file or folder; what is not UTF-8 in its name is shown as U+FFFD.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },

    /// The two splits of a data set have different classes.
    #[error(
        "train and val of {} have different classes: only in train: {}; only in val: {}; give both the same class folders",
        path.display(), list(only_train), list(only_val)
    )]
    Classes {
        /// The data set.
        path: PathBuf,
        /// Classes of the training split alone, sorted.
        only_train: Vec<String>,
        /// Classes of the validation split alone, sorted.
        only_val: Vec<String>,
    },

    /// A class folder holds no image.
    #[error(
        "class folder {} holds no image ({}); add images or remove the folder from both splits",
        path.display(), extensions(0)
    )]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
    },

    /// A value given by the caller is outside its range.
    #[error("{name} is {value}, expected {expected}")]
    Setting {
        /// The struct and its field, such as `augment.pad_crop`.
        name: &'static str,
        /// Its value.
        value: String,
        /// The range it has to be in.
        expected: String,
    },

    /// Code run to build a batch panicked: a bug here or in a decoder, not in the data's layout.
    #[error("building batch {batch} of epoch {epoch} panicked: {message}; please report this")]
    Panic {
        /// The epoch.
        epoch: u64,
        /// The batch within the epoch, from 0.
        batch: usize,
        /// The text of the panic.
        message: String,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn entry(path: &Path, reason: &str) -> Self {
        Self::Entry { path: path.to_owned(), reason: reason.to_owned() }
    }

    pub(crate) fn too_large(path: &Path, reason: impl Into<String>) -> Self {
        Self::TooLarge { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn layout(path: &Path, wanted: &str, looked_for: &str) -> Self {
        let (wanted, looked_for) = (wanted.to_owned(), looked_for.to_owned());
        Self::Layout { path: path.to_owned(), wanted, looked_for }
    }

    pub(crate) fn setting(
        name: &'static str,
        value: impl std::fmt::Debug,
        expected: impl Into<String>,
    ) -> Self {
        Self::Setting { name, value: format!("{value:?}"), expected: expected.into() }
    }
}

/// Names joined by commas: the first ten, then a count, since there may be thousands.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 10;
    match names.len() {
        0 => "none".to_owned(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_cross_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<DataError>();
    }

    #[test]
    fn a_long_class_difference_is_cut() {
        let names: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        let error = DataError::Classes { path: "data".into(), only_train: names, only_val: vec![] };
        let text = error.to_string();
        assert!(text.contains("8, 9 and 2 more; only in val: none"), "{text}");
    }
}
