//! The data loader: batches in an order, and with an augmentation, that depend on the seed and the
//! epoch alone.

use std::sync::Arc;

use crate::{DataError, ImageDataset, Pipeline};

mod batch;
mod cache;
mod epoch;
mod plan;
mod share;
#[cfg(test)]
mod testing;
mod workers;

pub use batch::{Batch, Mixed, label_tensor};
use cache::Cache;
pub use cache::CacheBudget;
pub use epoch::Epoch;
use plan::Plan;
pub use share::{Share, parts};

/// How a [`Loader`] makes batches.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Images in a batch, at least 1.
    pub batch_size: usize,
    /// Threads that build batches, up to [`MAX_WORKERS`](Self::MAX_WORKERS); 0 builds them in the
    /// calling thread.
    pub workers: usize,
    /// Batches that are ready or being built; at least one per worker. Without workers there are
    /// none.
    pub prefetch: usize,
    /// Seed of the order and the augmentation.
    pub seed: u64,
    /// Training: a new order every epoch. Otherwise the data set's order.
    pub shuffle: bool,
    /// Leave out unreadable images and list them in [`Batch::skipped`], instead of failing their
    /// batch.
    pub skip_unreadable: bool,
    /// The part of every batch to deliver; by default all of it. The parts of all members are the
    /// batch, and each loader reads its own images alone, with mixing one more of every batch.
    pub share: Share,
    /// Memory for images that later epochs then need not read again: at the input's size, or whole
    /// where [`Augment::random_resized_crop`](crate::Augment) takes a part. It does not change the
    /// batches.
    pub cache: CacheBudget,
}

impl LoaderConfig {
    /// Most threads of a loader: more than any machine needs, fewer than systems refuse.
    pub const MAX_WORKERS: usize = 256;
}

impl Default for LoaderConfig {
    /// Batches of 64 in the data set's order, built in the calling thread.
    fn default() -> Self {
        Self {
            batch_size: 64,
            workers: 0,
            prefetch: 2,
            seed: 0,
            shuffle: false,
            skip_unreadable: false,
            share: Share::default(),
            cache: CacheBudget::default(),
        }
    }
}

/// Batches of a data set, epoch by epoch.
///
/// The order of an epoch depends on (seed, epoch), the augmentation of a sample on (seed, epoch,
/// index), the mixing of a batch on (seed, epoch, batch): neither on the number of workers nor on
/// earlier epochs, so that a run can be resumed at any batch.
#[derive(Debug, Clone)]
pub struct Loader(Arc<Plan>);

impl Loader {
    /// A loader over a data set.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] if the batch size is 0, there are too many workers, or the data set is
    /// empty.
    pub fn new(
        dataset: Arc<ImageDataset>,
        config: LoaderConfig,
        pipeline: Pipeline,
    ) -> Result<Self, DataError> {
        if config.batch_size == 0 {
            return Err(DataError::setting("batch_size", 0, "at least 1"));
        }
        if config.workers > LoaderConfig::MAX_WORKERS {
            let expected = format!("0 to {}", LoaderConfig::MAX_WORKERS);
            return Err(DataError::setting("workers", config.workers, expected));
        }
        if dataset.is_empty() {
            return Err(DataError::setting("dataset.len", 0, "at least one image"));
        }
        let cache = Cache::new(config.cache.clone(), dataset.len());
        Ok(Self(Arc::new(Plan { dataset, config, pipeline, cache })))
    }

    /// The same over a class-balanced part of at most `n` images, at least one, of the data set.
    pub fn limit(&self, n: usize) -> Self {
        let Plan { dataset, config, pipeline, .. } = &*self.0;
        let dataset = Arc::new(dataset.limit(n.max(1)));
        let (config, pipeline) = (config.clone(), pipeline.clone());
        let cache = Cache::new(config.cache.clone(), dataset.len());
        Self(Arc::new(Plan { dataset, config, pipeline, cache }))
    }

    /// The data set.
    pub fn dataset(&self) -> &ImageDataset {
        &self.0.dataset
    }

    /// How its images are prepared.
    pub fn pipeline(&self) -> &Pipeline {
        &self.0.pipeline
    }

    /// Images in a batch.
    pub fn batch_size(&self) -> usize {
        self.0.config.batch_size
    }

    /// Number of batches of every epoch.
    ///
    /// The last batch is smaller where the size of the data set is not a multiple of the batch
    /// size. When shuffling, a remainder of a single image joins the batch before it instead: batch
    /// normalisation cannot train on one image, and no image is lost.
    pub fn batches_per_epoch(&self) -> usize {
        self.0.batches()
    }

    /// The batches of an epoch, in order.
    ///
    /// An image that cannot be read arrives as an error in the place of its batch, unless
    /// [`LoaderConfig::skip_unreadable`]; a panic in a decoder does too. The batches after it
    /// can still be taken. Dropping the iterator stops its workers.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch except the first `batch`, each the same as in
    /// [`epoch`](Self::epoch): those left for a run that was stopped in the middle.
    pub fn epoch_from(&self, epoch: u64, batch: usize) -> Epoch {
        Epoch::new(Arc::clone(&self.0), epoch, batch)
    }

    /// A single batch of an epoch, the same as in [`epoch`](Self::epoch), built in the calling thread.
    ///
    /// # Errors
    ///
    /// An image that cannot be read, as in an epoch.
    ///
    /// # Panics
    ///
    /// If the epoch has no such batch.
    pub fn batch(&self, epoch: u64, batch: usize) -> Result<Batch, DataError> {
        assert!(batch < self.batches_per_epoch(), "an epoch has no batch {batch}");
        self.0.build_guarded(epoch, batch, &self.0.order(epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRef, Preprocess, Split, open};

    #[test]
    fn impossible_settings_are_refused() {
        let data = open(&DataRef::Sample, Split::Val).unwrap();
        let pipeline = Pipeline::eval(Preprocess::of(&data)).unwrap();
        let none = LoaderConfig { batch_size: 0, ..LoaderConfig::default() };
        assert!(Loader::new(Arc::new(data.clone()), none, pipeline.clone()).is_err());
        let many = LoaderConfig { workers: 257, ..LoaderConfig::default() };
        let error = Loader::new(Arc::new(data.clone()), many, pipeline.clone()).unwrap_err();
        assert!(error.to_string().contains("0 to 256"), "{error}");
        let empty = Arc::new(data.limit(0));
        assert!(Loader::new(empty, LoaderConfig::default(), pipeline).is_err());
    }

    #[test]
    fn a_part_has_images_of_every_class() {
        let data = Arc::new(open(&DataRef::Sample, Split::Val).unwrap());
        let pipeline = Pipeline::eval(Preprocess::of(&data)).unwrap();
        let config = LoaderConfig { batch_size: 8, ..LoaderConfig::default() };
        let part = Loader::new(data.clone(), config, pipeline).unwrap().limit(20);
        let labels: Vec<_> = part.epoch(0).flat_map(|batch| batch.unwrap().labels).collect();
        let of_class = |class| labels.iter().filter(|label| **label == class).count();
        assert!((0..10).all(|class| of_class(class) == 2), "{labels:?}");
        assert_eq!((labels.len(), part.batches_per_epoch()), (20, 3));
    }
}
