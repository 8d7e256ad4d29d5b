//! Numbers and times in sentences, paths in results.

use std::path::Path;

use serde::Serializer;

/// Serialises a path as it is displayed, with a replacement character for what is not UTF-8.
///
/// # Errors
/// As the serializer.
pub fn displayed<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// `1 run`, `2 runs`, `3 classes`.
pub fn plural(n: usize, noun: &str) -> String {
    let ending = match n {
        1 => "",
        _ if ["tch", "nch", "ss"].iter().any(|end| noun.ends_with(end)) => "es",
        _ => "s",
    };
    format!("{n} {noun}{ending}")
}

/// A number rounded to an integer, with commas between the thousands.
pub(crate) fn thousands(value: f64) -> String {
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

/// A time in its two largest units, such as `1 h 12 min`; below a minute in tenths of a second.
pub fn duration(seconds: f64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_their_nouns() {
        for (n, noun, text) in [
            (1, "run", "1 run"),
            (0, "run", "0 runs"),
            (2, "epoch", "2 epochs"),
            (1, "batch", "1 batch"),
            (3, "batch", "3 batches"),
            (4, "branch", "4 branches"),
            (10, "class", "10 classes"),
        ] {
            assert_eq!(plural(n, noun), text);
        }
    }

    #[test]
    fn thousands_are_separated() {
        let cases = [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (-1_234_567.0, "-1,234,567")];
        for (value, text) in cases {
            assert_eq!(thousands(value), text);
        }
    }
}
