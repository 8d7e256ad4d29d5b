//! The batches of one epoch, in order.

use std::sync::Arc;

use super::{Batch, plan::Plan, workers::Workers};
use crate::DataError;

/// The batches of one epoch: see [`Loader::epoch`](crate::Loader::epoch).
pub struct Epoch {
    plan: Arc<Plan>,
    epoch: u64,
    order: Arc<[usize]>,
    /// The next batch to hand out.
    next: usize,
    workers: Option<Workers>,
}

impl Epoch {
    pub(super) fn new(plan: Arc<Plan>, epoch: u64, batch: usize) -> Self {
        let order: Arc<[usize]> = plan.order(epoch).into();
        let workers = Workers::start(&plan, epoch, &order);
        let next = batch.min(plan.batches());
        let mut epoch = Self { plan, epoch, order, next, workers };
        epoch.hand_out();
        epoch
    }

    /// Gives the workers jobs until the window is full or the epoch has no more.
    fn hand_out(&mut self) {
        let Some(workers) = &mut self.workers else {
            return;
        };
        while workers.has_room() && self.next < self.plan.batches() {
            workers.submit(self.next);
            self.next += 1;
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(workers) = &mut self.workers else {
            let batch = self.next;
            if batch == self.plan.batches() {
                return None;
            }
            self.next += 1;
            return Some(self.plan.build_guarded(self.epoch, batch, &self.order));
        };
        let result = workers.next()?;
        self.hand_out();
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pending = self.workers.as_ref().map_or(0, Workers::pending);
        let left = self.plan.batches() - self.next + pending;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}

impl std::iter::FusedIterator for Epoch {}

#[cfg(test)]
mod tests {
    use crate::loader::testing::*;

    #[test]
    fn the_rest_of_an_epoch_is_the_end_of_the_whole() {
        let whole = content(&loader(Fake::of(50), training(8, 2)), 3);
        for first in [0, 1, 6, 7, 9] {
            let loader = loader(Fake::of(50), training(8, 2));
            let rest = contents(loader.epoch_from(3, first));
            assert!(rest == whole[first.min(7)..], "from {first}");
        }
    }

    #[test]
    fn a_single_batch_is_that_of_its_epoch() {
        let loader = mixing(Fake::of(50), training(8, 2));
        let pixels = |batch: crate::Batch| (batch.indices, batch.images);
        let whole: Vec<_> = loader.epoch(3).map(|batch| pixels(batch.unwrap())).collect();
        for number in [0, 6] {
            assert!(pixels(loader.batch(3, number).unwrap()) == whole[number], "batch {number}");
        }
    }
}
