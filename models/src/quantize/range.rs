//! The ranges of values, and the integers that stand for them.

use std::collections::BTreeMap;

use dbb_kernels::int8::Affine;
use serde::Serialize;

/// The ends of a range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Lower end.
    pub low: f32,
    /// Upper end.
    pub high: f32,
}

impl Range {
    /// A range without a value.
    pub(super) const EMPTY: Self = Self { low: f32::INFINITY, high: f32::NEG_INFINITY };

    /// The smallest range that holds this one and these values.
    pub(super) fn with(self, values: &[f32]) -> Self {
        values.iter().fold(self, |Self { low, high }, &value| Self {
            low: low.min(value),
            high: high.max(value),
        })
    }

    /// The smallest range that holds this one and zero.
    pub(super) fn with_zero(self) -> Self {
        Self { low: self.low.min(0.0), high: self.high.max(0.0) }
    }

    /// The integers from 0 to 255 that stand for the numbers of the range, extended to zero; zero is one
    /// of them. A range of nothing but zero has some scale.
    pub fn affine(self) -> Affine {
        let Self { low, high } = self.with_zero();
        let [low, high] = [low, high].map(f64::from);
        let scale = ((high - low) / 255.0) as f32;
        if scale < f32::MIN_POSITIVE {
            return Affine { scale: 1.0 / 255.0, zero_point: 0 };
        }
        let zero_point = (-low / f64::from(scale)).round_ties_even().clamp(0.0, 255.0) as u8;
        Affine { scale, zero_point }
    }
}

/// The range of every value of a network that is rounded to 8 bits, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Ranges(BTreeMap<String, Range>);

impl Ranges {
    pub(super) fn new(ranges: BTreeMap<String, Range>) -> Self {
        Self(ranges)
    }

    /// The range of a value.
    pub fn get(&self, name: &str) -> Option<Range> {
        self.0.get(name).copied()
    }

    /// The integers that stand for a value.
    ///
    /// # Panics
    /// If the calibration was that of another network or image size.
    pub(crate) fn affine(&self, name: &str) -> Affine {
        let range = self.get(name);
        range.unwrap_or_else(|| panic!("{name} was not calibrated")).affine()
    }
}

/// Ranges that cannot be determined.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RangeError {
    /// No image was seen.
    #[error("there is no image to calibrate on")]
    NoImages,
    /// A value is not finite.
    #[error("{name} is NaN or infinite for an image of the calibration")]
    NonFinite {
        /// Name of the value, that of its layer and what follows it.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affine(low: f32, high: f32) -> (f32, u8) {
        let Affine { scale, zero_point } = Range { low, high }.affine();
        (scale, zero_point)
    }

    #[test]
    fn zero_is_an_integer_of_every_range() {
        // 1 is 63.75 steps of 4 / 255 above the lower end.
        assert_eq!(affine(-1.0, 3.0), (4.0 / 255.0, 64));
        assert_eq!(affine(0.5, 2.55), (0.01, 0));
        assert_eq!(affine(-2.55, -1.0), (0.01, 255));
        assert_eq!(affine(0.0, 0.0), (1.0 / 255.0, 0));
    }

    #[test]
    fn a_range_grows_to_hold_values() {
        let range = Range::EMPTY.with(&[1.0, -2.0]).with(&[0.5]);
        assert_eq!(range, Range { low: -2.0, high: 1.0 });
    }
}
