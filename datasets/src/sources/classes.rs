//! Classes of the layouts.

use std::path::Path;

use crate::DataError;

/// Class names of a layout that stores none: "0", "1", ...
pub(super) fn numbered(classes: usize) -> Vec<String> {
    (0..classes).map(|class| class.to_string()).collect()
}

/// Checks that two splits have the same classes.
pub(crate) fn same_classes(path: &Path, train: &[String], val: &[String]) -> Result<(), DataError> {
    if train == val {
        return Ok(());
    }
    let only = |these: &[String], those: &[String]| {
        let mut names: Vec<String> = these.iter().filter(|n| !those.contains(n)).cloned().collect();
        names.sort();
        names
    };
    Err(DataError::Classes {
        path: path.to_owned(),
        only_train: only(train, val),
        only_val: only(val, train),
    })
}
