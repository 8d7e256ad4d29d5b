//! What the loader's tests share: a source that counts its readings, and batches bit by bit.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Epoch, Loader, LoaderConfig, Mixed};
use crate::{Augment, DataError, Image, ImageDataset, Pipeline, Preprocess, Source, presets};

/// Grey 4x4 images; reading one is counted, and may fail or panic.
pub(super) struct Fake {
    pub(super) len: usize,
    pub(super) fails: Option<usize>,
    pub(super) panics: Option<usize>,
    pub(super) reads: Arc<AtomicUsize>,
}

impl Fake {
    pub(super) fn of(len: usize) -> Self {
        Self { len, fails: None, panics: None, reads: Arc::default() }
    }
}

impl Source for Fake {
    fn len(&self) -> usize {
        self.len
    }

    fn label(&self, index: usize) -> usize {
        index % 2
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert_ne!(Some(index), self.panics, "a bug in a decoder");
        if Some(index) == self.fails {
            return Err(DataError::corrupt("fake".as_ref(), format!("record {index}")));
        }
        Image::new(4, 4, 1, (0..16).map(|at| (16 * index + at) as u8).collect())
    }

    fn channels(&self) -> usize {
        1
    }

    fn image_size(&self) -> Option<(usize, usize)> {
        Some((4, 4))
    }

    fn identity(&self, _: usize) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }
}

pub(super) fn loader(fake: Fake, config: LoaderConfig) -> Loader {
    let augment = Augment { pad_crop: 2, hflip: true, ..Augment::default() };
    loader_with(augment, fake, config)
}

pub(super) fn mixing(fake: Fake, config: LoaderConfig) -> Loader {
    loader_with(Augment { mixup: 1.0, cutmix: 1.0, ..Augment::default() }, fake, config)
}

pub(super) fn loader_with(augment: Augment, fake: Fake, config: LoaderConfig) -> Loader {
    let classes = vec!["even".to_owned(), "odd".to_owned()];
    let data = ImageDataset::new("fake", classes, presets::MNIST, Arc::new(fake)).unwrap();
    let pipeline = Pipeline::new(Preprocess::of(&data), augment).unwrap();
    Loader::new(Arc::new(data), config, pipeline).unwrap()
}

pub(super) fn training(batch_size: usize, workers: usize) -> LoaderConfig {
    LoaderConfig { batch_size, workers, seed: 5, shuffle: true, ..LoaderConfig::default() }
}

/// What a batch delivers, bit by bit.
#[derive(PartialEq)]
pub(super) struct Content {
    pub(super) bits: Vec<u32>,
    pub(super) shape: [usize; 4],
    pub(super) labels: Vec<usize>,
    pub(super) indices: Vec<usize>,
    pub(super) mixed: Option<Mixed>,
}

pub(super) fn content(loader: &Loader, epoch: u64) -> Vec<Content> {
    contents(loader.epoch(epoch))
}

pub(super) fn contents(epoch: Epoch) -> Vec<Content> {
    epoch
        .map(Result::unwrap)
        .map(|batch| Content {
            bits: batch.images.iter().map(|value| value.to_bits()).collect(),
            shape: batch.shape,
            labels: batch.labels,
            indices: batch.indices,
            mixed: batch.mixed,
        })
        .collect()
}
