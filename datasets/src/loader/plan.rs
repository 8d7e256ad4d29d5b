//! Which samples make which batch, and how a batch is built.

use std::{
    any::Any,
    borrow::Cow,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rand::seq::SliceRandom;

use super::{Batch, LoaderConfig, cache::Cache};
use crate::{
    DataError, Image, ImageDataset, Pipeline,
    rng::{Purpose, stream},
};

/// Everything that determines an epoch except its number.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) dataset: Arc<ImageDataset>,
    pub(super) config: LoaderConfig,
    pub(super) pipeline: Pipeline,
    pub(super) cache: Cache,
}

impl Plan {
    /// Batches of every epoch: see [`Loader::batches_per_epoch`](crate::Loader::batches_per_epoch).
    pub(super) fn batches(&self) -> usize {
        let (len, size) = (self.dataset.len(), self.config.batch_size);
        match len % size {
            0 => len / size,
            1 if self.config.shuffle && len > size => len / size,
            _ => len / size + 1,
        }
    }

    /// Positions, in the epoch's order, of a batch.
    fn range(&self, batch: usize) -> Range<usize> {
        let start = batch * self.config.batch_size;
        if batch + 1 == self.batches() {
            start..self.dataset.len()
        } else {
            start..start + self.config.batch_size
        }
    }

    /// The samples of an epoch in their order.
    pub(super) fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.config.shuffle {
            order.shuffle(&mut stream(Purpose::Shuffle, self.config.seed, epoch, 0));
        }
        order
    }

    /// An image after the deterministic part of the pipeline.
    fn prepared(&self, index: usize) -> Result<Cow<'_, Image>, DataError> {
        self.cache.get_or(index, || {
            let image = Cow::Owned(self.dataset.get(index)?.image);
            Ok(self.pipeline.prepare(image).into_owned())
        })
    }

    /// Builds this loader's share of a batch, the `number`th of the epoch.
    fn build(&self, epoch: u64, number: usize, indices: &[usize]) -> Result<Batch, DataError> {
        let own = self.config.share.range(indices.len());
        let mut batch = Batch::empty(self.pipeline.preprocess());
        let pixels: usize = batch.shape[1..].iter().product();
        batch.images.reserve_exact((own.len() + 1) * pixels);
        // The first image is mixed with the one before it, which may be another member's.
        let (behind, ahead) = (&indices[..own.start], &indices[own.end..]);
        let others = behind.iter().rev().chain(ahead.iter().rev());
        let needs_one_more = self.pipeline.mixes() && !own.is_empty();
        let more = others.take(if needs_one_more { usize::MAX } else { 0 });
        for &index in more {
            if self.add(&mut batch, epoch, index)? {
                break;
            }
        }
        batch.skipped.clear(); // its owner reports it
        let extra = batch.len();
        for &index in &indices[own] {
            self.add(&mut batch, epoch, index)?;
        }
        let seed = self.config.seed;
        batch.mix(&self.pipeline, &mut stream(Purpose::Mix, seed, epoch, number as u64));
        Ok(batch.without_first(extra))
    }

    /// Adds an image to a batch; says whether it could be read.
    fn add(&self, batch: &mut Batch, epoch: u64, index: usize) -> Result<bool, DataError> {
        let image = match self.prepared(index) {
            Ok(image) => image,
            Err(error) if self.config.skip_unreadable => {
                batch.skipped.push(error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let mut rng = stream(Purpose::Augment, self.config.seed, epoch, index as u64);
        batch.push(index, self.dataset.label(index), image, &self.pipeline, &mut rng);
        Ok(true)
    }

    /// Builds a batch; a panic becomes an error.
    pub(super) fn build_guarded(
        &self,
        epoch: u64,
        batch: usize,
        order: &[usize],
    ) -> Result<Batch, DataError> {
        let build = || self.build(epoch, batch, &order[self.range(batch)]);
        // Nothing half-changed is visible afterwards: the batch is dropped, images in the cache are
        // complete, and the rest is only read.
        catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|panic| {
            Err(DataError::Panic { epoch, batch, message: panic_text(panic.as_ref()) })
        })
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{Augment, CacheBudget, Loader, Policy, loader::testing::*};

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let first = loader(Fake::of(50), training(8, 0));
        let other = LoaderConfig { seed: 6, ..training(8, 0) };
        let other = loader(Fake::of(50), other);
        assert!(content(&first, 0) == content(&first, 0));
        assert!(content(&first, 0) != content(&first, 1));
        assert!(content(&first, 0) != content(&other, 0));
    }

    #[test]
    fn the_augmentation_of_a_sample_changes_with_the_epoch_alone() {
        let pixels = |batch_size, shuffle, epoch| {
            let config = LoaderConfig { shuffle, ..training(batch_size, 0) };
            let batches = loader(Fake::of(20), config).epoch(epoch);
            let mut images: Vec<(usize, Vec<f32>)> = batches
                .map(Result::unwrap)
                .flat_map(|b| {
                    let images = b.images.chunks(16).map(<[f32]>::to_vec);
                    b.indices.clone().into_iter().zip(images).collect::<Vec<_>>()
                })
                .collect();
            images.sort_by_key(|(index, _)| *index);
            images
        };
        assert!(pixels(8, true, 0) == pixels(3, false, 0));
        assert!(pixels(8, true, 0) != pixels(8, true, 1));
    }

    #[test]
    fn an_epoch_has_every_sample_once() {
        let batches = content(&loader(Fake::of(50), training(8, 2)), 0);
        let order: Vec<usize> = batches.iter().flat_map(|b| b.indices.clone()).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_ne!(order, sorted);
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        for batch in &batches {
            let expected: Vec<usize> = batch.indices.iter().map(|i| i % 2).collect();
            assert_eq!(batch.labels, expected);
        }
    }

    #[test]
    fn the_order_survives_updates() {
        // Recorded: a run stopped before an update of `rand` resumes with the same order.
        let order = &content(&loader(Fake::of(10), training(10, 0)), 1)[0].indices;
        assert_eq!(order, &[8, 3, 0, 4, 5, 2, 6, 7, 9, 1]);
    }

    fn sizes(loader: &Loader) -> Vec<usize> {
        loader.epoch(0).map(|batch| batch.unwrap().len()).collect()
    }

    #[test]
    fn a_single_image_left_over_joins_the_batch_before_it_in_training() {
        let eval = |batch_size| LoaderConfig { shuffle: false, ..training(batch_size, 0) };
        for (len, config, expected) in [
            (9, training(4, 0), vec![4, 5]),
            (9, training(4, 2), vec![4, 5]),
            (10, training(4, 0), vec![4, 4, 2]),
            (8, training(4, 0), vec![4, 4]),
            (1, training(4, 0), vec![1]),
            (3, training(1, 0), vec![1, 1, 1]),
            (9, eval(4), vec![4, 4, 1]),
            (3, eval(4), vec![3]),
        ] {
            let loader = loader(Fake::of(len), config);
            assert_eq!(sizes(&loader), expected);
            assert_eq!(loader.batches_per_epoch(), expected.len());
            assert_eq!(loader.epoch(0).len(), expected.len());
        }
    }

    #[test]
    fn unreadable_images_can_be_skipped() {
        let fake = Fake { fails: Some(9), ..Fake::of(20) };
        let config = LoaderConfig { shuffle: false, skip_unreadable: true, ..training(4, 2) };
        let batches: Vec<Batch> = loader(fake, config).epoch(0).map(Result::unwrap).collect();
        assert_eq!(batches[2].indices, [8, 10, 11]);
        assert_eq!(batches[2].shape, [3, 1, 4, 4]);
        assert_eq!(batches[2].images.len(), 48);
        let skipped: Vec<usize> = batches.iter().map(|b| b.skipped.len()).collect();
        assert_eq!(skipped, [0, 0, 1, 0, 0]);
    }

    #[test]
    fn mixing_depends_on_epoch_and_batch_alone() {
        let mixing = |workers| mixing(Fake::of(50), training(8, workers));
        let whole = content(&mixing(0), 3);
        for (workers, first) in [(1, 0), (4, 2), (0, 6)] {
            let rest = contents(mixing(workers).epoch_from(3, first));
            assert!(rest == whole[first..], "{workers} workers, from {first}");
        }
        let shares = |epoch| -> Vec<f32> {
            content(&mixing(0), epoch).into_iter().map(|b| b.mixed.unwrap().share).collect()
        };
        assert_ne!(shares(3), shares(4));
        // Areas of such small images may well be equal twice.
        assert!(shares(3).iter().any(|share| *share != shares(3)[0]));
    }

    #[test]
    fn kept_images_change_no_batch_and_are_not_read_again() {
        let everything = Augment {
            policy: Policy::TrivialAugment,
            random_erasing: 0.5,
            mixup: 1.0,
            hflip: true,
            ..Augment::default()
        };
        let crop = Augment { random_resized_crop: true, ..everything.clone() };
        for augment in [Augment { pad_crop: 2, ..everything }, crop] {
            let load = |bytes, workers| {
                let fake = Fake::of(50);
                let reads = Arc::clone(&fake.reads);
                let cache = CacheBudget::new(bytes);
                let config = LoaderConfig { cache, ..training(8, workers) };
                let loader = loader_with(augment.clone(), fake, config);
                let epochs: Vec<Vec<Content>> =
                    (0..3).map(|epoch| content(&loader, epoch)).collect();
                (epochs, reads.load(Ordering::Relaxed))
            };
            let (plain, reads) = load(0, 0);
            assert_eq!(reads, 150);
            for workers in [0, 1, 4] {
                let (some, reads) = load(3000, workers);
                assert!(some == plain, "{workers} workers");
                assert!((51..150).contains(&reads), "{reads}");
                let (all, reads) = load(1 << 20, workers);
                assert!(all == plain, "{workers} workers");
                assert_eq!(reads, 50);
            }
        }
    }
}
