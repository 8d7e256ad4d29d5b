//! Tests of properties that all kernels share.

mod geometry;
mod nonfinite;
