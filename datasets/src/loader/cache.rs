//! Images kept from one epoch to the next.
//!
//! Images are kept first come, first served, as far as they fit, and are never evicted: an epoch
//! asks for every image once, in random order, so no other policy would have more hits.

use std::{
    borrow::Cow,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{DataError, Image};

/// Memory for decoded images, shared by all loaders that have a clone of it. The default is none.
///
/// Memory that a loader has taken is not given back.
#[derive(Debug, Clone, Default)]
pub struct CacheBudget(Arc<AtomicUsize>);

impl CacheBudget {
    /// A budget in bytes; 0 keeps nothing.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(bytes.into()))
    }

    /// Takes some bytes, if that many are left.
    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// The images of a data set that a budget has room for. Workers share it without waiting for each
/// other.
#[derive(Debug)]
pub(super) struct Cache {
    budget: CacheBudget,
    /// By position in the data set; empty if the budget has no room even for the slots.
    slots: Box<[OnceLock<Box<Image>>]>,
}

impl Cache {
    /// A cache for `len` images.
    pub(super) fn new(budget: CacheBudget, len: usize) -> Self {
        let slots = if budget.take(len * size_of::<OnceLock<Box<Image>>>()) { len } else { 0 };
        Self { budget, slots: (0..slots).map(|_| OnceLock::new()).collect() }
    }

    /// An image that was kept, or the result of `read`, which is kept if there is room.
    ///
    /// # Errors
    ///
    /// As `read`; then nothing is kept.
    pub(super) fn get_or(
        &self,
        index: usize,
        read: impl FnOnce() -> Result<Image, DataError>,
    ) -> Result<Cow<'_, Image>, DataError> {
        let slot = self.slots.get(index);
        if let Some(image) = slot.and_then(OnceLock::get) {
            return Ok(Cow::Borrowed(image));
        }
        let image = read()?;
        let bytes = size_of::<Image>() + image.pixels().len();
        Ok(match slot.filter(|_| self.budget.take(bytes)) {
            Some(slot) => Cow::Borrowed(slot.get_or_init(|| Box::new(image))),
            None => Cow::Owned(image),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    const SLOT: usize = size_of::<OnceLock<Box<Image>>>();
    const IMAGE: usize = size_of::<Image>() + 100;

    fn image(value: u8) -> Result<Image, DataError> {
        Image::new(10, 10, 1, vec![value; 100])
    }

    /// Of the images 0 to 9 those that are kept, by asking for each twice.
    fn kept(cache: &Cache) -> Vec<usize> {
        for index in 0..10 {
            let found = cache.get_or(index, || image(index as u8)).unwrap();
            assert_eq!(*found, image(index as u8).unwrap());
        }
        let is_kept = |index: &usize| {
            let mut read = false;
            let found = cache.get_or(*index, || {
                read = true;
                image(*index as u8)
            });
            assert_eq!(*found.unwrap(), image(*index as u8).unwrap());
            !read
        };
        (0..10).filter(is_kept).collect()
    }

    #[test]
    fn as_many_are_kept_as_fit_with_their_slots() {
        for (bytes, expected) in [
            (0, 0),
            (10 * SLOT - 1, 0),
            (10 * SLOT + IMAGE - 1, 0),
            (10 * SLOT + IMAGE, 1),
            (10 * SLOT + 4 * IMAGE - 1, 3),
            (10 * (SLOT + IMAGE), 10),
        ] {
            let budget = CacheBudget::new(bytes);
            let kept = kept(&Cache::new(budget.clone(), 10));
            assert_eq!(kept, (0..expected).collect::<Vec<_>>());
            let slots = if bytes < 10 * SLOT { 0 } else { 10 * SLOT };
            let left = bytes - slots - expected * IMAGE;
            assert_eq!(budget.0.load(Ordering::Relaxed), left);
        }
    }

    #[test]
    fn two_caches_share_one_budget() {
        let budget = CacheBudget::new(20 * SLOT + 12 * IMAGE);
        let (first, second) = (Cache::new(budget.clone(), 10), Cache::new(budget, 10));
        assert_eq!((kept(&first).len(), kept(&second).len()), (10, 2));
    }

    #[test]
    fn an_error_is_not_kept() {
        let cache = Cache::new(CacheBudget::new(1 << 20), 1);
        assert!(cache.get_or(0, || Err(DataError::corrupt("x".as_ref(), "once"))).is_err());
        assert_eq!(*cache.get_or(0, || image(7)).unwrap(), image(7).unwrap());
    }

    #[test]
    fn images_are_read_side_by_side() {
        let cache = Cache::new(CacheBudget::new(1 << 20), 2);
        let (cache, wait) = (&cache, Duration::from_secs(20));
        let ((to_second, from_first), (to_first, from_second)) = (mpsc::channel(), mpsc::channel());
        thread::scope(|scope| {
            for (index, tell, hear) in [(0, to_second, from_second), (1, to_first, from_first)] {
                scope.spawn(move || {
                    // Each reading ends after the other one has begun.
                    let read = || {
                        tell.send(()).unwrap();
                        hear.recv_timeout(wait).expect("the other reading begins meanwhile");
                        image(index as u8)
                    };
                    cache.get_or(index, read).unwrap();
                });
            }
        });
    }
}
