//! Depthwise convolutions and the depthwise Diverse Branch Block.

mod algebra;
mod channels;
mod copy;
mod dbb;
mod grid;
mod sweep;
#[cfg(test)]
mod tests;
mod vector;

pub use dbb::{
    BatchStats, Dbb, DbbGrads, DbbSaved, DbbStats, Kxk, Norm, PointwiseKxk, dbb_backward,
    dbb_forward,
};
