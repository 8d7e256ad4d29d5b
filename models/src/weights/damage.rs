//! Files whose content is not what their format demands.

use std::path::Path;

use super::error::WeightsError;

/// Tensors may share their bytes, but not so that they outgrow the file by more than this.
const LARGEST_EXPANSION: u64 = 4;

/// Refuses tensors that claim to be far larger than their file, before their bytes are copied.
pub(super) fn check_size(
    path: &Path,
    format: &'static str,
    length: u64,
    tensors: impl Iterator<Item = usize>,
) -> Result<(), WeightsError> {
    let claimed = tensors.fold(0u64, |sum, bytes| sum.saturating_add(bytes as u64));
    if claimed > length.saturating_mul(LARGEST_EXPANSION) {
        let detail = format!("its {length} bytes claim to hold {claimed} bytes of tensors");
        return Err(damaged(path, format, detail));
    }
    Ok(())
}

pub(super) fn damaged(
    path: &Path,
    format: &'static str,
    error: impl std::fmt::Display,
) -> WeightsError {
    WeightsError::Format { path: path.into(), format, detail: error.to_string() }
}
