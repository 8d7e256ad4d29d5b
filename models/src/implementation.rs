//! Which implementation the layers of a training form run on.

use std::cell::Cell;

use crate::error::ConfigError;

/// The implementation of the layers: a choice of speed, never of results.
///
/// It belongs to a scope: [`Implementation::during`] chooses it for the forward passes that a
/// piece of work begins in its own thread, and restores the one before however the work ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Implementation {
    /// This project's kernels, wherever there is one for the device and the layer.
    #[default]
    Fast,
    /// Burn's operations alone.
    Plain,
}

thread_local! {
    static CHOSEN: Cell<Implementation> = const { Cell::new(Implementation::Fast) };
}

impl Implementation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fast, Self::Plain];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Plain => "plain",
        }
    }

    /// Runs `work` with this implementation.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        struct Restore(Implementation);
        impl Drop for Restore {
            fn drop(&mut self) {
                CHOSEN.set(self.0);
            }
        }
        let _restore = Restore(CHOSEN.replace(self));
        work()
    }

    /// The implementation of this scope; [`Fast`](Self::Fast) unless another was chosen.
    pub fn current() -> Self {
        CHOSEN.get()
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
        Self::ALL.into_iter().find(|choice| choice.name() == name).ok_or(ConfigError::Option {
            option: "impl",
            value: format!("\"{name}\""),
            expected: "one of fast, plain",
        })
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

    /// Units whose forward passes have run in another thread.
    pub(crate) fn add(self) {
        let Self { fast, plain } = COUNT.get();
        COUNT.set(Self { fast: fast + self.fast, plain: plain + self.plain });
    }

    /// So many units that one kernel has computed.
    pub(crate) fn fast(units: usize) {
        Self { fast: units, plain: 0 }.add();
    }

    /// A part of a unit that no kernel has served.
    pub(crate) fn plain<T>(forward: impl FnOnce() -> T) -> T {
        let Self { fast, plain } = COUNT.get();
        COUNT.set(Self { fast, plain: plain + 1 });
        forward()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_restores_the_implementation_on_every_way_out() {
        assert_eq!(Implementation::current(), Implementation::Fast);
        Implementation::Plain.during(|| {
            Implementation::Fast
                .during(|| assert_eq!(Implementation::current(), Implementation::Fast));
            assert_eq!(Implementation::current(), Implementation::Plain);
            let other = std::thread::spawn(Implementation::current);
            assert_eq!(other.join().unwrap(), Implementation::Fast);
        });
        let early: Result<(), ()> = Implementation::Plain.during(|| Err(()));
        assert!(early.is_err());
        let panic = std::panic::catch_unwind(|| Implementation::Plain.during(|| panic!("out")));
        assert!(panic.is_err());
        assert_eq!(Implementation::current(), Implementation::Fast);
    }
}
