//! Where a run computes.

use burn::tensor::Device;

use super::Ranks;
use crate::device;
use crate::error::Result;

/// Where a run computes. A device alone is a place too.
#[derive(Clone)]
pub struct Place {
    /// The device of this process, for inference.
    pub device: Device,
    /// The processes that share every batch.
    pub ranks: Ranks,
}

impl From<&Device> for Place {
    fn from(device: &Device) -> Self {
        Self { device: device.clone(), ranks: Ranks::default() }
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Self {
        place.clone()
    }
}

impl Place {
    /// Starts the threads of this process and opens its device. Without a number of threads, the
    /// ranks of a machine share its processors; without a number in the name of a kind of device that
    /// has numbers, each takes one of its own.
    ///
    /// # Errors
    /// As [`device::start_threads`] and [`device::open`], on any rank.
    pub fn open(name: &str, threads: Option<usize>, ranks: &Ranks) -> Result<Self> {
        let threads = match threads {
            None if ranks.size() > 1 => Some(fair_threads(ranks)?),
            threads => threads,
        };
        let name = match ranks.size() > 1 && device::is_numbered(name) {
            true => format!("{name}:{}", ranks.local().0),
            false => name.to_string(),
        };
        let open = device::start_threads(threads).and_then(|()| device::open(&name));
        let device = ranks.agree(open.map_err(Into::into))?;
        Ok(Self { device, ranks: ranks.clone() })
    }
}

/// Threads for each rank of a machine. A launcher may have bound each to processors of its own; those
/// that are bound to the same ones share them.
fn fair_threads(ranks: &Ranks) -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bound = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let own = (ranks.host().to_string(), bound.unwrap_or_default().trim().to_string());
    let sharing = ranks.gather(own.clone())?.into_iter().filter(|other| *other == own).count();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok((processors / sharing).max(1))
}
