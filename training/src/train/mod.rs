//! Training: the loop, and what it is made of.

pub mod average;
pub mod checkpoint;
pub mod distributed;
pub mod gradients;
pub mod observer;
pub mod optimizer;
pub mod schedule;
pub mod start;
mod trainer;

pub use trainer::{TrainResult, Trainer, check};
