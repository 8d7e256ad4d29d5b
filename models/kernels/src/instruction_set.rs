//! The vector instructions that the kernels use: one choice for the whole crate.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use pulp::{Arch, WithSimd};

/// A set of vector instructions that the kernels support, in rising order of width.
///
/// Results are bit-identical for the same number of threads *and* the same set; different sets add
/// in different orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// Plain Rust, compiled for any processor of the architecture.
    Portable,
    /// NEON, on AArch64.
    Neon,
    /// AVX2 with FMA (x86-64-v3).
    Avx2,
    /// AVX-512 with its F, BW, CD, DQ and VL parts (x86-64-v4).
    Avx512,
}

/// The environment variable that chooses the set.
const VARIABLE: &str = "DBB_INSTRUCTION_SET";

/// The choice of the environment, read once.
static CHOSEN: LazyLock<Result<InstructionSet, InstructionSetError>> = LazyLock::new(|| {
    let value = std::env::var_os(VARIABLE).unwrap_or_default();
    InstructionSet::choose(&value.to_string_lossy())
});

impl InstructionSet {
    const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The sets of this processor; the widest, which is the default, comes last.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|set| set.arch().is_some())
    }

    /// Whether this processor has the set.
    pub fn is_available(self) -> bool {
        self.arch().is_some()
    }

    /// The set that the environment variable `DBB_INSTRUCTION_SET` names (`portable`, `neon`,
    /// `avx2` or `avx512`), or else the widest. The variable is read once.
    ///
    /// # Errors
    /// If the variable names no set, or one that the processor does not have.
    pub fn from_env() -> Result<Self, InstructionSetError> {
        CHOSEN.clone()
    }

    /// The set that the kernels use: that of [`InstructionSet::from_env`].
    ///
    /// # Panics
    /// If the environment variable is invalid. A program checks it with
    /// [`InstructionSet::from_env`] first.
    pub fn current() -> Self {
        #[cfg(test)]
        if let Some(set) = crate::testing::forced_set() {
            return set;
        }
        match &*CHOSEN {
            Ok(set) => *set,
            Err(error) => panic!("{error}"),
        }
    }

    fn choose(value: &str) -> Result<Self, InstructionSetError> {
        if value.is_empty() {
            return Ok(Self::available().next_back().unwrap_or(Self::Portable));
        }
        let set = value.parse::<Self>()?;
        if set.is_available() { Ok(set) } else { Err(InstructionSetError::Unavailable(set)) }
    }

    /// The set as a token of `pulp`, which proves that the processor has it.
    pub(crate) fn arch(self) -> Option<Arch> {
        match self {
            Self::Portable => Some(Arch::Scalar),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().map(Arch::V3),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().map(Arch::V4),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().map(Arch::Neon),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The current set as a token of `pulp`. Every kernel takes its instructions from here.
#[inline]
pub(crate) fn arch() -> Arch {
    InstructionSet::current().arch().expect("the current set is one of the processor's")
}

/// Runs a kernel written with `pulp` with the current set.
#[inline]
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    arch().dispatch(op)
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for InstructionSet {
    type Err = InstructionSetError;

    fn from_str(name: &str) -> Result<Self, InstructionSetError> {
        let named = Self::ALL.into_iter().find(|set| set.to_string() == name);
        named.ok_or_else(|| InstructionSetError::Unknown(name.to_owned()))
    }
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstructionSetError {
    /// No set has this name.
    Unknown(String),
    /// The processor does not have the set.
    Unavailable(InstructionSet),
}

impl fmt::Display for InstructionSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = InstructionSet::available().map(|set| set.to_string()).collect::<Vec<_>>();
        let names = names.join(", ");
        match self {
            Self::Unknown(name) => write!(f, "unknown instruction set `{name}`")?,
            Self::Unavailable(set) => write!(f, "this processor does not have {set}")?,
        }
        write!(f, "; {VARIABLE} takes one of: {names}")
    }
}

impl std::error::Error for InstructionSetError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::for_each_set;

    #[test]
    fn names_are_read_back() {
        for set in InstructionSet::ALL {
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        let error = "AVX".parse::<InstructionSet>().unwrap_err();
        assert!(error.to_string().starts_with("unknown instruction set `AVX`; "), "{error}");
    }

    #[test]
    fn the_default_is_the_widest_and_others_must_be_there() {
        let widest = InstructionSet::available().max();
        assert_eq!(InstructionSet::choose("").ok(), widest);
        assert_eq!(InstructionSet::choose("portable"), Ok(InstructionSet::Portable));
        for set in InstructionSet::ALL {
            let expected = match set.is_available() {
                true => Ok(set),
                false => Err(InstructionSetError::Unavailable(set)),
            };
            assert_eq!(InstructionSet::choose(&set.to_string()), expected);
        }
        let error = InstructionSetError::Unavailable(InstructionSet::Neon).to_string();
        assert!(error.starts_with("this processor does not have neon; "), "{error}");
    }

    #[test]
    fn tests_run_with_every_set_on_all_threads() {
        use std::sync::Mutex;
        let seen = Mutex::new(Vec::new());
        for_each_set(|| {
            let here = InstructionSet::current();
            rayon::broadcast(|_| assert_eq!(InstructionSet::current(), here));
            crate::testing::with_threads(2, || {
                rayon::broadcast(|_| assert_eq!(InstructionSet::current(), here));
            });
            seen.lock().unwrap().push(here);
        });
        assert_eq!(*seen.lock().unwrap(), InstructionSet::available().collect::<Vec<_>>());
    }
}
