//! Tests of properties that all kernels share.

mod buffers;
mod geometry;
mod nonfinite;
mod parameters;
