//! Numbers as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// What a number counts; decides how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Losses, rates, differences: four significant digits.
    Number,
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
            Self::Number => number(value),
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

/// `1 run`, `2 runs`.
pub fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn number(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        0.0 => "0".into(),
        1e3..1e15 => grouped(value),
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
        _ => return grouped(value),
    };
    let scaled = value / divisor;
    let decimals = (2.0 - scaled.abs().log10().floor()).max(0.0) as usize;
    format!("{scaled:.decimals$} {unit}")
}

/// A whole number with commas between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    // Rounded first, so that 59.97 s is a minute.
    let tenths = (seconds * 10.0).round() / 10.0;
    if tenths < 60.0 {
        return format!("{tenths:.1} s");
    }
    let whole = seconds.round() as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", whole % 60),
        (0, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A moment in universal time, `2026-01-31 12:05:30 UTC`.
pub fn utc(time: SystemTime) -> String {
    // A clock before 1970 is shown as that year's first second.
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, minutes) = (seconds / 86400, seconds / 60 % 1440);
    let seconds = seconds % 60;
    // Days to date in the Gregorian calendar, years from March on so that the leap day is last
    // (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{seconds:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
        assert_eq!((plural(1, "run"), plural(0, "run")), ("1 run".into(), "0 runs".into()));
    }

    #[test]
    fn moments_are_in_universal_time() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_825_600), "2000-02-29 12:00:00 UTC");
        assert_eq!(at(1_767_225_599), "2025-12-31 23:59:59 UTC");
    }
}
