//! Tests of properties that all kernels share.

mod buffers;
mod geometry;
mod members;
mod moments;
// The same accesses with other values, of which Miri learns nothing.
#[cfg(not(miri))]
mod nonfinite;
mod parameters;
