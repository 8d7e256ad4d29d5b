//! Maps that are used again.
//!
//! Fresh memory costs as much as a kernel: the system clears every page when it is first touched.
//! The maps of a training step have the same lengths as those of the step before, so that those
//! that are given back serve again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Values below which a buffer is not worth keeping.
const SMALL: usize = 1 << 14;
/// A buffer that has lain unused while so many others were taken belongs to a shape that no longer
/// occurs; the deepest networks take about half as many in a step.
const AGE: u64 = 1 << 13;

/// Buffers by length, each with the time when it was given back, counted in buffers taken.
#[derive(Default)]
struct Pool {
    taken: u64,
    free: HashMap<usize, Vec<(u64, Vec<f32>)>>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    // Nothing in here leaves a pool half-changed.
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    work(pool.get_or_insert_default())
}

/// A buffer of `len` values, which are whatever they were before: to be overwritten, all of them.
pub fn take(len: usize) -> Vec<f32> {
    if len < SMALL {
        return vec![0.0; len];
    }
    let found = with_pool(|pool| {
        pool.taken += 1;
        let found = pool.free.get_mut(&len).and_then(Vec::pop);
        if found.is_none() {
            let oldest = pool.taken.saturating_sub(AGE);
            pool.free.retain(|_, buffers| {
                buffers.retain(|&(given, _)| given >= oldest);
                !buffers.is_empty()
            });
        }
        found
    });
    match found {
        Some((_, buffer)) => buffer,
        None => vec![0.0; len],
    }
}

/// Gives back a buffer for [`take`].
pub fn give(buffer: Vec<f32>) {
    if buffer.len() >= SMALL {
        with_pool(|pool| {
            pool.free.entry(buffer.len()).or_default().push((pool.taken, buffer));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_serves_again() {
        // A length that no other test takes.
        let len = SMALL + 12_345;
        let mut buffer = take(len);
        buffer[7] = 7.0;
        let address = buffer.as_ptr();
        give(buffer);
        let again = take(len);
        assert_eq!((again.as_ptr(), again.len(), again[7]), (address, len, 7.0));
        let other = take(len);
        assert_ne!(other.as_ptr(), address);
    }

    #[test]
    fn a_length_that_no_longer_occurs_is_freed() {
        let len = SMALL + 54_321;
        give(vec![1.0; len]);
        for _ in 0..=AGE {
            give(take(SMALL + 1));
        }
        // A length that is not there makes room.
        take(SMALL + 99_999);
        assert!(with_pool(|pool| !pool.free.contains_key(&len)));
    }
}
