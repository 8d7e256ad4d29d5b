//! How much memory may be used.

use burn::tensor::Device;

use super::{ACCURACY, Estimate, available, mib};
use crate::device;
use crate::error::Error;

/// How much memory may be used, and who says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Bytes that the system can give.
    Available(u64),
    /// Bytes that the configuration allows.
    Allowed(u64),
}

impl Limit {
    /// What the system can give.
    pub(super) fn available(bytes: u64) -> Self {
        Self::Available(bytes)
    }

    /// MiB that the configuration allows (`train.memory_mb`).
    pub fn allowed(mib: usize) -> Self {
        Self::Allowed((mib as u64).saturating_mul(1 << 20))
    }

    /// The limit on a device: what the configuration allows, or else, on a CPU, what the system can
    /// give. `None` where neither is known.
    pub fn of(allowed_mib: Option<usize>, device: &Device) -> Option<Self> {
        match allowed_mib {
            Some(mib) => Some(Self::allowed(mib)),
            None if device::is_cpu(device) => available().map(Self::Available),
            None => None,
        }
    }

    /// The part of one of several processes on this machine. What the configuration allows is allowed to each.
    pub fn shared_by(self, processes: usize) -> Self {
        match self {
            Self::Available(bytes) => Self::Available(bytes / processes as u64),
            Self::Allowed(_) => self,
        }
    }

    /// The largest estimate that should be within it: of what the configuration allows a fifth is kept
    /// for the error of the estimate.
    pub fn room(self) -> u64 {
        match self {
            Self::Available(bytes) => bytes,
            Self::Allowed(bytes) => bytes - bytes / 5,
        }
    }

    /// Whether an estimate is within it. What the system can give is exceeded only by what does not
    /// fit even if the estimate is too high by [`ACCURACY`].
    pub fn has_room_for(self, estimate: &Estimate) -> bool {
        match self {
            Self::Available(bytes) => estimate.bytes() as f64 <= ACCURACY * bytes as f64,
            Self::Allowed(_) => estimate.bytes() <= self.room(),
        }
    }

    /// The error that an estimate is beyond it. `what` needs the memory, `lower` says what would need
    /// less.
    pub fn error(self, what: &'static str, estimate: &Estimate, lower: String) -> Error {
        let limit = match self {
            Self::Available(bytes) => format!("{} MiB are available", mib(bytes)),
            Self::Allowed(bytes) => format!(
                "train.memory_mb allows {}, of which a fifth is kept for the error of the estimate",
                mib(bytes)
            ),
        };
        Error::Memory { what, needed: estimate.describe(), limit, lower }
    }
}
