//! Numbers in human-readable form.

use crate::text::{duration, thousands};

/// What a number measures, which decides how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Losses, rates, differences: four significant digits.
    Number,
    /// The same for positive numbers of several orders of magnitude, on a logarithmic axis.
    Logarithmic,
    /// Percent, two decimals.
    Percent,
    /// Differences of percentages, with their sign, two decimals.
    Points,
    /// Parameters and operations: all digits below a million, three significant ones above.
    Count,
    /// Seconds.
    Duration,
    /// Epochs, whole numbers.
    Epoch,
}

impl Quantity {
    /// A value with its unit.
    pub fn show(self, value: f64) -> String {
        if value.is_nan() {
            return "NaN".into();
        }
        if value.is_infinite() {
            return if value > 0.0 { "∞" } else { "−∞" }.into();
        }
        let text = match self {
            Self::Number | Self::Logarithmic => number(value),
            Self::Percent => format!("{value:.2} %"),
            Self::Points => format!("{value:+.2} points"),
            Self::Count => count(value),
            Self::Duration => duration(value),
            Self::Epoch => format!("{value:.0}"),
        };
        text.replace('-', "−")
    }

    /// Divisor and unit of an axis whose largest value is given.
    pub fn unit(self, largest: f64) -> (f64, &'static str) {
        match self {
            Self::Percent => (1.0, "%"),
            Self::Points => (1.0, "points"),
            Self::Count if largest >= 1e9 => (1e9, "G"),
            Self::Count if largest >= 1e6 => (1e6, "M"),
            Self::Count if largest >= 1e4 => (1e3, "thousands"),
            Self::Duration if largest >= 7200.0 => (3600.0, "h"),
            Self::Duration if largest >= 120.0 => (60.0, "min"),
            Self::Duration => (1.0, "s"),
            _ => (1.0, ""),
        }
    }
}

/// A difference with its sign.
pub fn signed(value: f64) -> String {
    format!("{value:+.2}").replace('-', "−")
}

fn number(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        0.0 => "0".into(),
        1e3..1e15 => thousands(value),
        1e-4..1e3 => {
            let decimals = (3.0 - magnitude.log10().floor()) as usize;
            let text = format!("{value:.decimals$}");
            // Learning rates are round numbers; measurements have all their digits.
            if magnitude < 0.1 { text.trim_end_matches('0').into() } else { text }
        }
        _ => format!("{value:.1e}"),
    }
}

fn count(value: f64) -> String {
    let (divisor, unit) = match value.abs() {
        1e12.. => return number(value),
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        _ => return thousands(value),
    };
    let scaled = value / divisor;
    let decimals = (2.0 - scaled.abs().log10().floor()).max(0.0) as usize;
    format!("{scaled:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        let cases = [
            (Quantity::Number, 0.0, "0"),
            (Quantity::Number, 0.43121, "0.4312"),
            (Quantity::Number, 0.05, "0.05"),
            (Quantity::Number, 533.27, "533.3"),
            (Quantity::Number, 100.0, "100.0"),
            (Quantity::Number, 1.39, "1.390"),
            (Quantity::Number, 5341.2, "5,341"),
            (Quantity::Number, 4.7e-7, "4.7e−7"),
            (Quantity::Number, f64::NAN, "NaN"),
            (Quantity::Number, f64::NEG_INFINITY, "−∞"),
            (Quantity::Percent, 84.5, "84.50 %"),
            (Quantity::Points, -0.834, "−0.83 points"),
            (Quantity::Count, 67562.0, "67,562"),
            (Quantity::Count, 999.0, "999"),
            (Quantity::Count, 11_173_962.0, "11.2 M"),
            (Quantity::Count, 1_819_066_368.0, "1.82 G"),
            (Quantity::Duration, 3.44, "3.4 s"),
            (Quantity::Duration, 59.97, "1 min 0 s"),
            (Quantity::Duration, 107.2, "1 min 47 s"),
            (Quantity::Duration, 7260.0, "2 h 1 min"),
            (Quantity::Duration, 90_000.0, "1 d 1 h"),
            (Quantity::Epoch, 12.0, "12"),
        ];
        for (quantity, value, text) in cases {
            assert_eq!(quantity.show(value), text);
        }
        assert_eq!((signed(-0.834), signed(0.5)), ("−0.83".into(), "+0.50".into()));
    }
}
