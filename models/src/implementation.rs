//! Which implementation the layers of a training form run on.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::ConfigError;

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

/// How many units of a network have run on which implementation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerCount {
    /// Units that ran on this project's kernels alone.
    pub fast: usize,
    /// Units of which a part ran on Burn's operations.
    pub plain: usize,
}

thread_local! {
    static COUNT: Cell<LayerCount> = const { Cell::new(LayerCount { fast: 0, plain: 0 }) };
}

impl LayerCount {
    /// The units whose forward passes `work` has run in this thread.
    pub fn during<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let before = COUNT.take();
        let result = work();
        (result, COUNT.replace(before))
    }

    /// The forward of a unit.
    pub(crate) fn unit<T>(forward: impl FnOnce() -> T) -> T {
        let before = COUNT.get();
        let result = forward();
        let Self { fast, plain } = before;
        COUNT.set(match COUNT.get().plain == plain {
            true => Self { fast: fast + 1, plain },
            false => Self { fast, plain: plain + 1 },
        });
        result
    }

    /// A part of a unit that no kernel has served.
    pub(crate) fn plain<T>(forward: impl FnOnce() -> T) -> T {
        let Self { fast, plain } = COUNT.get();
        COUNT.set(Self { fast, plain: plain + 1 });
        forward()
    }
}
