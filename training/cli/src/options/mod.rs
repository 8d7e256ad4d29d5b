//! Options that several commands share.

mod data;
mod device;
mod input;
mod int8;
mod target;
mod values;

pub use data::{DataOptions, announce_size, data_kinds};
pub use device::{DeviceName, DeviceOptions};
pub use input::given;
pub use int8::{Calibrated, CalibrationOptions};
pub use target::TargetOptions;
pub use values::{arch, block, dialect, form, granularity, implementation, precision};
