//! Tests of properties that all kernels share.

mod nonfinite;
