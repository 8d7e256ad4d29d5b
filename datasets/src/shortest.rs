//! 32-bit floats in text formats of 64-bit ones.

use serde::{Serialize, Serializer};

/// Serialises 32-bit floats as 64-bit ones that read as they do: 0.08, not 0.07999999821186066.
///
/// # Errors
///
/// As the serializer.
pub fn serialize<T: Shortest, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.shortest().serialize(serializer)
}

/// A 32-bit float, or several.
pub trait Shortest {
    /// The same of 64-bit floats.
    type Wide: Serialize;

    /// The floats whose shortest decimals are the same.
    fn shortest(&self) -> Self::Wide;
}

impl Shortest for f32 {
    type Wide = f64;

    fn shortest(&self) -> f64 {
        // The text of a float is one.
        self.to_string().parse().unwrap_or(f64::from(*self))
    }
}

impl Shortest for (f32, f32) {
    type Wide = (f64, f64);

    fn shortest(&self) -> (f64, f64) {
        (self.0.shortest(), self.1.shortest())
    }
}

impl Shortest for Option<Vec<f32>> {
    type Wide = Option<Vec<f64>>;

    fn shortest(&self) -> Self::Wide {
        self.as_ref().map(|values| values.iter().map(f32::shortest).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_keep_their_decimals_and_their_value() {
        for value in [0.08, 4.0 / 3.0, 1e-30, f32::MAX, 0.1, -2.5] {
            let wide = value.shortest();
            assert_eq!((wide.to_string(), wide as f32), (value.to_string(), value));
        }
    }
}
