//! Patterns of layer names, such as `stage4.*`.

use crate::error::ConfigError;

/// Layers that an error shows of a network.
const SHOWN: usize = 4;

/// Whether a layer name fits a pattern in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|&i| rest.is_char_boundary(i))
                .any(|i| matches(tail, &rest[i..]))
        }),
    }
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
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }
}
