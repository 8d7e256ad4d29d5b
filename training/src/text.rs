//! Numbers in sentences.

/// `1 run`, `2 runs`, `3 classes`.
pub fn plural(n: usize, noun: &str) -> String {
    let ending = match n {
        1 => "",
        _ if noun.ends_with("ch") || noun.ends_with('s') => "es",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_their_nouns() {
        assert_eq!((plural(1, "run"), plural(0, "run")), ("1 run".into(), "0 runs".into()));
        assert_eq!(
            (plural(1, "batch"), plural(3, "batch")),
            ("1 batch".into(), "3 batches".into())
        );
    }

    #[test]
    fn thousands_are_separated() {
        let cases = [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (-1_234_567.0, "-1,234,567")];
        for (value, text) in cases {
            assert_eq!(thousands(value), text);
        }
    }
}
