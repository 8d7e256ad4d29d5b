//! Which implementation the layers of a training form run on.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::ConfigError;
use crate::zoo::Classifier;

/// The implementation of the layers, one for the whole process: a choice of speed, never of
/// results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Implementation {
    /// This project's kernels, wherever there is one for the device and the layer.
    #[default]
    Fast,
    /// Burn's operations alone.
    Plain,
}

static CHOSEN: AtomicU8 = AtomicU8::new(Implementation::Fast as u8);

impl Implementation {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Plain => "plain",
        }
    }

    /// Chooses the implementation of every forward that begins from now on, in any thread.
    pub fn set(self) {
        CHOSEN.store(self as u8, Ordering::Relaxed);
    }

    /// The implementation chosen last; [`Fast`](Self::Fast) unless another was.
    pub fn get() -> Self {
        match CHOSEN.load(Ordering::Relaxed) {
            chosen if chosen == Self::Plain as u8 => Self::Plain,
            _ => Self::Fast,
        }
    }
}

impl std::fmt::Display for Implementation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Implementation {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        [Self::Fast, Self::Plain].into_iter().find(|choice| choice.name() == name).ok_or(
            ConfigError::Option {
                option: "impl",
                value: format!("\"{name}\""),
                expected: "one of fast, plain",
            },
        )
    }
}

/// How many units of a network run on which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerCount {
    /// Units that run on this project's kernels.
    pub fast: usize,
    /// Units that run on Burn's operations.
    pub plain: usize,
}

impl LayerCount {
    /// Counts the units of a network, for the implementation chosen now.
    // No unit has a kernel of its own yet.
    pub fn of(network: &Classifier) -> Self {
        Self { fast: 0, plain: network.units([224; 2]).len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for choice in [Implementation::Fast, Implementation::Plain] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let error = "quick".parse::<Implementation>().expect_err("no such name").to_string();
        assert!(error.contains("one of fast, plain"), "{error}");
    }
}
