//! Patterns of layer names, such as `stage4.*`.

use crate::error::ConfigError;

/// Layers that an error shows of a network.
const SHOWN: usize = 4;

/// Whether a layer name fits a pattern in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let (between, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut name) = name.strip_prefix(head).and_then(|name| name.strip_suffix(tail)) else {
        return false;
    };
    // The first place where a text occurs leaves most of the name to those after it.
    between.split('*').all(|text| {
        let found = name.find(text);
        name = found.map_or(name, |at| &name[at + text.len()..]);
        found.is_some()
    })
}

/// That every pattern fits one of the layers of a network, which errors call `network`.
///
/// # Errors
/// [`ConfigError::Pattern`] for the first that fits none.
pub(crate) fn check<'a>(
    patterns: impl IntoIterator<Item = &'a String>,
    layers: &[&str],
    network: &str,
) -> Result<(), ConfigError> {
    let fits_none = |pattern: &&String| !layers.iter().any(|layer| matches(pattern, layer));
    match patterns.into_iter().find(fits_none) {
        None => Ok(()),
        Some(pattern) => Err(ConfigError::Pattern {
            pattern: pattern.clone(),
            arch: network.to_string(),
            layers: format!("{}, ...", layers[..layers.len().min(SHOWN)].join(", ")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("stage4.*", "stage4.0.conv1", true),
            ("stage4.*", "stage3.0.conv1", false),
            ("*.conv2", "stage1.1.conv2", true),
            ("stage?.0", "stage1.0", false),
            ("*", "stem", true),
            ("s*e*1", "stage1.0.conv1", true),
            ("stem", "stem.conv", false),
            ("stem", "stem", true),
            ("stage*.0.*.conv1", "stage1.0.0.conv1", true),
            ("stage*.0.*.conv1", "stage1.0.conv1", false),
            ("s*", "s", true),
            ("s*s", "s", false),
            ("**", "", true),
            ("*ü*", "stümpfe", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    /// A pattern comes from a file as well.
    #[test]
    fn many_stars_take_no_longer() {
        let stars = "*".repeat(100_000);
        assert!(matches(&(stars.clone() + "1"), "stage1.0.conv1"));
        assert!(!matches(&(stars + "x"), "stage1.0.conv1"));
        assert!(!matches(&"*a".repeat(100_000), &"a".repeat(1000)));
    }
}
