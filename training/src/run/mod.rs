//! What a run leaves on disk: its directory, checkpoints with their hashes, metrics and event
//! files, and what must not change when a run is resumed.

pub mod directory;
pub mod identity;
pub mod lock;
pub mod manifest;
pub mod metrics;
pub mod progress;
pub mod spikes;
pub mod steps;
pub mod tensorboard;
