//! Networks in use: loading a run or a weights file, preparing images, naming classes, evaluation,
//! prediction and recalibration.

pub mod description;
pub mod evaluate;
pub mod input;
pub mod labels;
pub mod loaded_model;
pub mod pictures;
pub mod predict;
pub mod predictions;
pub mod probe;
pub mod recalibrate;
