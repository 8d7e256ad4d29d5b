//! Range checks that the sections share.

use std::fmt::Display;

use dbb_datasets::DataError;

/// A value that cannot be used.
pub(super) struct Fault {
    /// Its key.
    pub key: String,
    /// The value and what was expected.
    pub text: String,
}

/// The range `0.0..1.0`.
pub(super) const FROM_0_BELOW_1: &str = "at least 0 and below 1";

/// The same without 0.
pub(super) const ABOVE_0_BELOW_1: &str = "above 0 and below 1";

/// Refuses a value that is out of its range.
pub(super) fn require(
    holds: bool,
    key: &str,
    value: &dyn Display,
    expected: &str,
) -> Result<(), Fault> {
    let fault = || Fault {
        key: key.to_string(),
        text: format!("{value} is out of range; expected {expected}"),
    };
    holds.then_some(()).ok_or_else(fault)
}

/// Refuses a value that is not a finite number above 0.
pub(super) fn require_positive(key: &str, value: f64) -> Result<(), Fault> {
    require(value > 0.0 && value.is_finite(), key, &value, "a number above 0")
}

/// A fault of the preprocessing or the augmentation, by its key.
pub(super) fn setting(error: DataError) -> Fault {
    match &error {
        DataError::Setting { name, value, expected } => Fault {
            key: name.replace("preprocess.", "data."),
            text: format!("{value} is out of range; expected {expected}"),
        },
        _ => Fault { key: "data".into(), text: error.to_string() },
    }
}
