//! The layouts a data set can have on disk, one file each.

pub(crate) mod cifar;
pub(crate) mod classes;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod idx;
pub(crate) mod memory;
mod names;
pub(crate) mod sample;
pub(crate) mod tar;

/// Most bytes of a file of images that are read: several times the size of the published ones.
const MAX_BYTES: u64 = 4 << 30;
