//! A memory pool for feature maps.
//!
//! Newly allocated memory costs as much as a kernel: the operating system zeroes every page when it
//! is first touched. The maps of a training step have the same lengths as those of the previous
//! step, so a pool keeps the buffers that are returned and lends them again. Three bounds keep the
//! pool small:
//!
//! - Of each length it accepts at most as many buffers as it has lent. Buffers that were allocated
//!   elsewhere, such as batches of images, do not accumulate.
//! - A buffer that was not needed during a window of 8192 requests is freed.
//! - The buffers lent and kept together hold at most half as many values again as were lent at once.
//!   If they would hold more, the length that has been unused for the longest time is freed first.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// The length below which buffers are not kept. In tests it is small, so that kernels get buffers
/// with old contents.
const SMALL: usize = if cfg!(test) { 1 << 4 } else { 1 << 14 };

/// The number of requests after which unneeded buffers are freed: more than a training step of the
/// deepest network makes. Under Miri, which is a thousand times slower, it is smaller.
const WINDOW: u64 = if cfg!(miri) { 1 << 6 } else { 1 << 13 };

/// The buffers of one length.
#[derive(Default)]
struct Shelf {
    free: Vec<Vec<f32>>,
    /// Buffers handed out and not given back.
    lent: usize,
    /// Buffers handed out in this window.
    taken: usize,
    /// The fewest free buffers at any time in this window: so many were never needed.
    idle: usize,
    /// The request that last took from here.
    last: u64,
}

#[derive(Default)]
struct Pool {
    shelves: HashMap<usize, Shelf>,
    /// Requests so far.
    requests: u64,
    /// Values lent.
    lent: usize,
    /// Values free.
    free: usize,
    /// The most values lent at once in the last window and in this one.
    most_lent: [usize; 2],
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    // No operation panics in the middle of an update, so a poisoned pool is consistent.
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    work(pool.get_or_insert_default())
}

/// A buffer of the pool: a slice that returns to the pool when it is dropped.
#[derive(Debug, Default)]
pub struct Buffer(Vec<f32>);

/// Borrows a buffer of `len` values with arbitrary contents: every value must be overwritten.
/// Memory that is never returned, such as the gradient of a parameter, is better allocated.
pub fn take(len: usize) -> Buffer {
    if len < SMALL {
        return Buffer(vec![0.0; len]);
    }
    #[cfg(test)]
    tests::count(1);
    Buffer(with_pool(|pool| pool.take(len)).unwrap_or_else(|| vec![0.0; len]))
}

/// Borrows a buffer of at least `len` values with arbitrary contents, for a short time: the smallest one at hand that is
/// long enough. In inference few maps live at once, and most are shorter than the first ones.
pub fn take_at_least(len: usize) -> Buffer {
    let longer = with_pool(|pool| pool.shortest_free(len));
    take(longer.unwrap_or(len))
}

/// Returns the memory of [`Buffer::into_vec`] to the pool, for [`take`].
pub fn give(buffer: Vec<f32>) {
    if buffer.len() >= SMALL {
        #[cfg(test)]
        tests::count(-1);
        // Buffers that are not kept are freed here, outside the lock.
        drop(with_pool(|pool| pool.give(buffer)));
    }
}

impl Buffer {
    /// Takes the memory out, for a tensor whose last owner may [`give`] it back.
    pub fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.0));
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = take(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

impl Pool {
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        self.requests += 1;
        if self.requests.is_multiple_of(WINDOW) {
            self.end_window();
        }
        let shelf = self.shelves.entry(len).or_default();
        let found = shelf.free.pop();
        shelf.lent += 1;
        shelf.taken += 1;
        shelf.idle = shelf.idle.min(shelf.free.len());
        shelf.last = self.requests;
        self.lent += len;
        self.most_lent[1] = self.most_lent[1].max(self.lent);
        if found.is_some() {
            self.free -= len;
        }
        found
    }

    /// The length of the shortest free buffer of at least `len` values.
    fn shortest_free(&self, len: usize) -> Option<usize> {
        let free = self.shelves.iter().filter(|(_, shelf)| !shelf.free.is_empty());
        free.map(|(&length, _)| length).filter(|&length| length >= len).min()
    }

    /// Keeps a buffer, and returns the buffers that exceed the bounds.
    fn give(&mut self, buffer: Vec<f32>) -> Vec<Vec<f32>> {
        let len = buffer.len();
        let Some(shelf) = self.shelves.get_mut(&len).filter(|shelf| shelf.lent > 0) else {
            return vec![buffer];
        };
        shelf.lent -= 1;
        shelf.free.push(buffer);
        self.lent -= len;
        self.free += len;
        let mut surplus = Vec::new();
        while self.lent + self.free > self.bound() {
            let kept = self.shelves.iter_mut().filter(|(_, shelf)| !shelf.free.is_empty());
            let Some((len, shelf)) = kept.min_by_key(|(_, shelf)| shelf.last) else { break };
            surplus.extend(shelf.free.pop());
            shelf.idle = shelf.idle.min(shelf.free.len());
            self.free -= len;
        }
        surplus
    }

    /// The most values that the pool holds, lent and free: half as many again as were lent at once. A
    /// training step lends buffers of some lengths before its peak and of others behind it; with the
    /// peak alone, a step of MobileNetV1 allocates 43 buffers anew, which is 3 percent of its time.
    fn bound(&self) -> usize {
        self.most_lent[0].max(self.most_lent[1]) / 2 * 3
    }

    /// Frees the buffers that were not needed, and forgets loans older than a window: those buffers
    /// were dropped elsewhere.
    fn end_window(&mut self) {
        for shelf in self.shelves.values_mut() {
            shelf.free.truncate(shelf.free.len() - shelf.idle);
            shelf.idle = shelf.free.len();
            shelf.lent = shelf.lent.min(shelf.taken);
            shelf.taken = 0;
        }
        self.shelves.retain(|_, shelf| shelf.lent > 0 || !shelf.free.is_empty());
        let values = |count: fn(&Shelf) -> usize| {
            self.shelves.iter().map(|(len, shelf)| len * count(shelf)).sum::<usize>()
        };
        self.free = values(|shelf| shelf.free.len());
        self.lent = values(|shelf| shelf.lent);
        self.most_lent = [self.most_lent[1], self.lent];
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    const LEN: usize = SMALL + 1;

    thread_local! {
        /// Buffers that this thread has taken and not given back.
        static LENT: Cell<isize> = const { Cell::new(0) };
    }

    pub(super) fn count(change: isize) {
        LENT.set(LENT.get() + change);
    }

    /// How many more buffers `work` takes on this thread than come back.
    pub(crate) fn kept_by(work: impl FnOnce()) -> isize {
        let before = LENT.get();
        work();
        LENT.get() - before
    }

    fn buffer(pool: &mut Pool, len: usize) -> Vec<f32> {
        pool.take(len).unwrap_or_else(|| vec![0.0; len])
    }

    #[test]
    fn a_buffer_is_reused() {
        // A length that no other test takes.
        let len = 123_457;
        let mut buffer = take(len);
        buffer[7] = 7.0;
        let address = buffer.as_ptr();
        give(buffer.into_vec());
        let again = take(len);
        assert_eq!((again.as_ptr(), again.len(), again[7]), (address, len, 7.0));
        drop(again);
        let again = take(len);
        assert_eq!(again.as_ptr(), address);
        let other = take(len);
        assert_ne!(other.as_ptr(), address);
    }

    /// Maps that become shorter, two at a time.
    #[test]
    fn a_longer_buffer_serves_if_there_is_none_of_the_length() {
        let mut pool = Pool::default();
        for _ in 0..3 {
            let mut input: Option<Vec<f32>> = None;
            for len in (2..10).rev().map(|factor| factor * LEN) {
                let longer = pool.shortest_free(len);
                assert!(longer.is_none_or(|longer| longer >= len));
                let output = buffer(&mut pool, longer.unwrap_or(len));
                input.replace(output).map(|input| pool.give(input));
            }
            input.map(|input| pool.give(input));
        }
        assert_eq!((pool.lent, pool.free), (0, (9 + 8) * LEN));
        assert_eq!(pool.shortest_free(9 * LEN + 1), None);
    }

    #[test]
    fn buffers_of_others_are_not_kept() {
        let mut pool = Pool::default();
        for _ in 0..100 {
            let map = buffer(&mut pool, LEN);
            pool.give(vec![0.0; 3 * LEN]);
            pool.give(map);
            pool.give(vec![0.0; LEN]);
        }
        assert_eq!((pool.free, pool.lent), (LEN, 0));
    }

    /// A length whose buffers are lent and dropped, while others of the same length are given.
    #[test]
    fn a_length_whose_buffers_are_dropped_does_not_grow() {
        let mut pool = Pool::default();
        for _ in 0..3 * WINDOW {
            drop(buffer(&mut pool, LEN));
            pool.give(vec![0.0; LEN]);
            drop(buffer(&mut pool, 2 * LEN));
        }
        assert_eq!(pool.free, LEN);
        assert!(pool.lent <= 2 * LEN * WINDOW as usize, "{} values lent", pool.lent);
    }

    #[test]
    fn a_length_that_no_longer_occurs_is_freed_although_others_are_found() {
        let mut pool = Pool::default();
        let [old, other] = [3 * LEN, LEN].map(|len| buffer(&mut pool, len));
        pool.give(old);
        pool.give(other);
        for _ in 0..2 * WINDOW {
            let found = pool.take(LEN);
            pool.give(found.expect("this length is kept"));
        }
        assert_eq!((pool.free, pool.shelves.len()), (LEN, 1));
    }

    /// Images of ever new sizes: the pool holds little more than one of them needed.
    #[test]
    fn free_and_lent_stay_near_the_most_lent_at_once() {
        let mut pool = Pool::default();
        let mut most = 0;
        for size in 0..if cfg!(miri) { 50 } else { 1000 } {
            let maps: Vec<_> = (0..3).map(|_| buffer(&mut pool, LEN + size)).collect();
            most = most.max(pool.lent);
            maps.into_iter().for_each(|map| drop(pool.give(map)));
            assert!(pool.free + pool.lent <= most / 2 * 3, "size {size}");
        }
    }
}
