//! Requests to stop, from outside the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A flag that a signal handler or another thread sets and that training checks after every step:
/// the run is then saved and ends with [`Error::Interrupted`](crate::Error::Interrupted). Clones
/// share it.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicUsize>);

impl CancelToken {
    /// Requests a stop because of a signal, whose number is above 0; from another thread or an observer, in
    /// a program around this library.
    pub fn request(&self, signal: usize) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// The signal, if there was one.
    pub fn requested(&self) -> Option<usize> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Where a handler stores the number of its signal.
    pub fn cell(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }
}
