//! Where to compute.

use std::ffi::OsStr;

use burn::tensor::Device;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Args, Command};
use dbb_training::device;
use dbb_training::train::group::{Place, Ranks};

/// The name of a device; completions offer the kinds, and a number may follow.
#[derive(Clone, Debug)]
pub struct DeviceName;

impl TypedValueParser for DeviceName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(device::kinds().map(PossibleValue::new)))
    }
}

/// Where to compute.
#[derive(Debug, Args)]
pub struct DeviceOptions {
    /// Device.
    #[arg(long, help = format!("Device: one of {} (see `dbb devices`)", device::names()))]
    #[arg(default_value = "flex", value_parser = DeviceName, hide_possible_values = true)]
    pub device: String,
    /// Threads of the CPU backends; by default one per core, divided among the MPI ranks of a machine. Results are equal bit for bit with
    /// equal threads and instruction set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

impl DeviceOptions {
    /// Starts the threads.
    pub fn start_threads(&self) -> dbb_training::Result<()> {
        Ok(device::start_threads(self.threads.map(usize::from))?)
    }

    /// Starts the threads of one of several processes and opens its device.
    pub fn open_on(&self, ranks: &Ranks) -> dbb_training::Result<Place> {
        Place::open(&self.device, self.threads.map(usize::from), ranks)
    }

    /// Starts the threads and opens the device.
    pub fn open(&self) -> dbb_training::Result<Device> {
        self.start_threads()?;
        Ok(device::open(&self.device)?)
    }

    /// The same with another number of threads.
    pub fn open_with(&self, threads: usize) -> dbb_training::Result<Device> {
        device::start_threads(Some(threads))?;
        Ok(device::open(&self.device)?)
    }

    /// The threads of each of several processes side by side.
    pub fn share_threads(&self, jobs: usize) -> dbb_training::Result<usize> {
        let threads = self.threads.map_or_else(device::cores, usize::from);
        match threads / jobs {
            0 => Err(dbb_training::Error::Unusable(format!(
                "--jobs {jobs} is more than the {threads} threads; give at most {threads}, or more threads \
                 with --threads"
            ))),
            share => Ok(share),
        }
    }
}
