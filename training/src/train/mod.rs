//! Training: the loop, and what it is made of.

pub mod average;
pub mod checkpoint;
pub mod ending;
pub mod gradients;
pub mod group;
pub mod observer;
pub mod optimizer;
mod range_curve;
pub mod schedule;
mod sgd;
pub mod start;
mod trainer;

pub use range_curve::{RangeCurve, RangePoint};
pub use trainer::{
    DiskForecast, Forecast, MemoryForecast, RangeTest, TimeForecast, TrainResult, Trainer, check,
};
