//! The data loader: batches in an order, and with an augmentation, that depend on the seed and the
//! epoch alone.
//!
//! Workers build whole batches. The consumer hands out jobs in order and keeps, in the same order,
//! the channel on which each result will arrive; so batches come out in order whoever finishes
//! first, and no more than the window of handed-out jobs is ever in memory.

use std::{
    any::Any,
    borrow::Cow,
    collections::VecDeque,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{Rng, seq::SliceRandom};

use crate::{
    DataError, Image, ImageDataset, Pipeline, Preprocess,
    rng::{Purpose, stream},
};

mod cache;

use cache::Cache;
pub use cache::CacheBudget;

/// How a [`Loader`] makes batches.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Images in a batch, at least 1.
    pub batch_size: usize,
    /// Threads that build batches; 0 builds them in the calling thread.
    pub workers: usize,
    /// Batches kept ready or in the making; at least one per worker is. Without workers none is.
    pub prefetch: usize,
    /// Where the order and the augmentation come from.
    pub seed: u64,
    /// Training: a new order every epoch. Otherwise the data set's order.
    pub shuffle: bool,
    /// Leave unreadable images out and list them in [`Batch::skipped`], rather than fail their batch.
    pub skip_unreadable: bool,
    /// Memory for images that later epochs then need not read again: at the input's size, or whole
    /// where [`Augment::random_resized_crop`](crate::Augment) takes a part. Batches are the same
    /// with any.
    pub cache: CacheBudget,
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
            cache: CacheBudget::default(),
        }
    }
}

/// Images and labels of one step.
#[derive(Debug)]
pub struct Batch {
    /// Pixels as the network reads them, `[batch, channels, height, width]`.
    pub images: Vec<f32>,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
    /// Classes.
    pub labels: Vec<usize>,
    /// Positions in the data set.
    pub indices: Vec<usize>,
    /// What every image was mixed with; `None` where each is itself.
    pub mixed: Option<Mixed>,
    /// Why images are missing; empty unless [`LoaderConfig::skip_unreadable`].
    pub skipped: Vec<DataError>,
}

/// How the images of a batch were mixed: each is part itself, part another of the batch.
///
/// Its loss is `share` times that of its label plus `1 - share` times that of its partner.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixed {
    /// Classes of the images mixed in, one per image.
    pub partners: Vec<usize>,
    /// Part of an image that is its own, the same for all, 0 to 1.
    pub share: f32,
}

impl Batch {
    /// Images in the batch. Can be 0, where all were skipped.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Images `[batch, channels, height, width]` and classes `[batch]` on a device, for a batch
    /// that is not [empty](Self::is_empty).
    pub fn to_tensors(&self, device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
        let images = TensorData::new(self.images.clone(), self.shape);
        let labels: Vec<i64> = self.labels.iter().map(|label| *label as i64).collect();
        let labels = TensorData::new(labels, [self.len()]);
        (Tensor::from_data(images, device), Tensor::from_data(labels, device))
    }

    /// Some of the images, in their order. Those that are missing stay with the whole.
    ///
    /// # Panics
    /// If the range ends beyond the batch.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let [_, channels, height, width] = self.shape;
        let pixels = channels * height * width;
        Self {
            images: self.images[range.start * pixels..range.end * pixels].to_vec(),
            shape: [range.len(), channels, height, width],
            labels: self.labels[range.clone()].to_vec(),
            indices: self.indices[range.clone()].to_vec(),
            mixed: self.mixed.as_ref().map(|mixed| Mixed {
                partners: mixed.partners[range].to_vec(),
                share: mixed.share,
            }),
            skipped: Vec::new(),
        }
    }

    /// Of every image the class that makes up most of it.
    pub fn main_labels(&self) -> &[usize] {
        match &self.mixed {
            Some(mixed) if mixed.share < 0.5 => &mixed.partners,
            _ => &self.labels,
        }
    }

    pub(crate) fn empty(preprocess: &Preprocess) -> Self {
        let [channels, height, width] = preprocess.shape();
        Self {
            images: Vec::new(),
            shape: [0, channels, height, width],
            labels: Vec::new(),
            indices: Vec::new(),
            mixed: None,
            skipped: Vec::new(),
        }
    }

    /// Adds an image [prepared](Pipeline::prepare) by `pipeline`.
    pub(crate) fn push(
        &mut self,
        index: usize,
        label: usize,
        prepared: Cow<'_, Image>,
        pipeline: &Pipeline,
        rng: &mut impl Rng,
    ) {
        pipeline.append_prepared(prepared, rng, &mut self.images);
        self.shape[0] += 1;
        self.labels.push(label);
        self.indices.push(index);
    }

    /// Mixes the images where the pipeline says so.
    fn mix(&mut self, pipeline: &Pipeline, rng: &mut impl Rng) {
        if self.is_empty() {
            return;
        }
        self.mixed = pipeline.mix(&mut self.images, rng).map(|share| {
            let mut partners = self.labels.clone();
            partners.rotate_right(1); // as the images: each with the one before it
            Mixed { partners, share }
        });
    }
}

/// Batches of a data set, epoch by epoch.
///
/// The order of an epoch depends on (seed, epoch), the augmentation of a sample on (seed, epoch,
/// index), the mixing of a batch on (seed, epoch, batch): neither on the number of workers nor on
/// earlier epochs, so that a run can be resumed at any batch.
#[derive(Debug, Clone)]
pub struct Loader(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    dataset: Arc<ImageDataset>,
    config: LoaderConfig,
    pipeline: Pipeline,
    cache: Cache,
}

impl Loader {
    /// A loader over a data set.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] if the batch size is 0 or the data set is empty.
    pub fn new(
        dataset: Arc<ImageDataset>,
        config: LoaderConfig,
        pipeline: Pipeline,
    ) -> Result<Self, DataError> {
        if config.batch_size == 0 {
            return Err(DataError::setting("batch_size", 0, "at least 1"));
        }
        if dataset.is_empty() {
            return Err(DataError::setting("dataset.len", 0, "at least one image"));
        }
        let cache = Cache::new(config.cache.clone(), dataset.len());
        Ok(Self(Arc::new(Plan { dataset, config, pipeline, cache })))
    }

    /// The data set.
    pub fn dataset(&self) -> &ImageDataset {
        &self.0.dataset
    }

    /// Number of batches of every epoch.
    ///
    /// The last batch is smaller where the data set is no multiple of the batch size. When
    /// shuffling, a remainder of a single image joins the batch before it instead: batch
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

    /// The batches of an epoch but for the first `batch`, each the same as in
    /// [`epoch`](Self::epoch): what a run that was stopped in the middle still has to see.
    pub fn epoch_from(&self, epoch: u64, batch: usize) -> Epoch {
        Epoch::new(Arc::clone(&self.0), epoch, batch)
    }
}

impl Plan {
    fn batches(&self) -> usize {
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

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.config.shuffle {
            order.shuffle(&mut stream(Purpose::Shuffle, self.config.seed, epoch, 0));
        }
        order
    }

    /// An image as it is before all chance.
    fn prepared(&self, index: usize) -> Result<Cow<'_, Image>, DataError> {
        self.cache.get_or(index, || {
            let image = Cow::Owned(self.dataset.get(index)?.image);
            Ok(self.pipeline.prepare(image).into_owned())
        })
    }

    /// Builds a batch, the `number`th of the epoch.
    fn build(&self, epoch: u64, number: usize, indices: &[usize]) -> Result<Batch, DataError> {
        let seed = self.config.seed;
        let mut batch = Batch::empty(self.pipeline.preprocess());
        let pixels: usize = batch.shape[1..].iter().product();
        batch.images.reserve_exact(indices.len() * pixels);
        for &index in indices {
            match self.prepared(index) {
                Ok(image) => {
                    let mut rng = stream(Purpose::Augment, seed, epoch, index as u64);
                    let label = self.dataset.label(index);
                    batch.push(index, label, image, &self.pipeline, &mut rng);
                }
                Err(error) if self.config.skip_unreadable => batch.skipped.push(error),
                Err(error) => return Err(error),
            }
        }
        batch.mix(&self.pipeline, &mut stream(Purpose::Mix, seed, epoch, number as u64));
        Ok(batch)
    }

    /// Builds a batch; a panic becomes an error.
    fn build_guarded(&self, epoch: u64, batch: usize, order: &[usize]) -> Result<Batch, DataError> {
        let build = || self.build(epoch, batch, &order[self.range(batch)]);
        // Nothing half-changed is seen afterwards: the batch is dropped, the rest is only read.
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

/// The batches of one epoch: see [`Loader::epoch`].
pub struct Epoch {
    plan: Arc<Plan>,
    epoch: u64,
    order: Arc<[usize]>,
    /// The next batch to hand out.
    next: usize,
    workers: Option<Workers>,
}

impl Epoch {
    fn new(plan: Arc<Plan>, epoch: u64, batch: usize) -> Self {
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
        while workers.pending.len() < workers.window && self.next < self.plan.batches() {
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
        let (batch, result) = workers.pending.pop_front()?;
        let result = result.recv().unwrap_or_else(|_| {
            Err(DataError::Panic {
                epoch: self.epoch,
                batch,
                message: "its worker is gone".to_owned(),
            })
        });
        self.hand_out();
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pending = self.workers.as_ref().map_or(0, |w| w.pending.len());
        let left = self.plan.batches() - self.next + pending;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}

impl std::iter::FusedIterator for Epoch {}

/// A batch to build and where to send it.
struct Job {
    batch: usize,
    reply: mpsc::SyncSender<Result<Batch, DataError>>,
}

/// The threads of an epoch and the batches they owe.
struct Workers {
    jobs: Option<mpsc::Sender<Job>>,
    /// Batches handed out and not yet taken, in order.
    pending: VecDeque<(usize, mpsc::Receiver<Result<Batch, DataError>>)>,
    /// Most batches handed out at a time.
    window: usize,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// `None` where batches are built in the calling thread: without workers, or on a system that
    /// gives no thread.
    fn start(plan: &Arc<Plan>, epoch: u64, order: &Arc<[usize]>) -> Option<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<JoinHandle<()>> = (0..plan.config.workers.min(plan.batches()))
            .map_while(|number| {
                let (plan, order) = (Arc::clone(plan), Arc::clone(order));
                let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
                let work = move || {
                    while let Some(job) = take(&queue) {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        // The consumer may be gone: then nobody wants the batch.
                        let _ = job.reply.send(plan.build_guarded(epoch, job.batch, &order));
                    }
                };
                std::thread::Builder::new().name(format!("loader-{number}")).spawn(work).ok()
            })
            .collect();
        if threads.is_empty() {
            return None;
        }
        Some(Self {
            jobs: Some(jobs),
            pending: VecDeque::new(),
            window: plan.config.prefetch.max(threads.len()),
            stop,
            threads,
        })
    }

    fn submit(&mut self, batch: usize) {
        let (reply, result) = mpsc::sync_channel(1);
        if let Some(jobs) = &self.jobs {
            // A queue without workers drops the job, and the dropped reply tells the consumer.
            let _ = jobs.send(Job { batch, reply });
        }
        self.pending.push_back((batch, result));
    }
}

fn take(queue: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.recv().ok()
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Panics were turned into errors already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, fs, sync::atomic::AtomicUsize};

    use super::*;
    use crate::{Augment, DataRef, Image, Source, Split, open, presets};

    /// Grey 4x4 images; reading one is counted, and may fail or panic.
    struct Fake {
        len: usize,
        fails: Option<usize>,
        panics: Option<usize>,
        reads: Arc<AtomicUsize>,
    }

    impl Fake {
        fn of(len: usize) -> Self {
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

    fn loader(fake: Fake, config: LoaderConfig) -> Loader {
        let augment = Augment { pad_crop: 2, hflip: true, ..Augment::default() };
        loader_with(augment, fake, config)
    }

    fn mixing(fake: Fake, config: LoaderConfig) -> Loader {
        loader_with(Augment { mixup: 1.0, cutmix: 1.0, ..Augment::default() }, fake, config)
    }

    fn loader_with(augment: Augment, fake: Fake, config: LoaderConfig) -> Loader {
        let classes = vec!["even".to_owned(), "odd".to_owned()];
        let data = ImageDataset::new("fake", classes, presets::MNIST, Arc::new(fake)).unwrap();
        let pipeline = Pipeline::new(Preprocess::of(&data), augment).unwrap();
        Loader::new(Arc::new(data), config, pipeline).unwrap()
    }

    fn training(batch_size: usize, workers: usize) -> LoaderConfig {
        LoaderConfig { batch_size, workers, seed: 5, shuffle: true, ..LoaderConfig::default() }
    }

    /// What a batch delivers, bit by bit.
    #[derive(PartialEq)]
    struct Content {
        bits: Vec<u32>,
        shape: [usize; 4],
        labels: Vec<usize>,
        indices: Vec<usize>,
        mixed: Option<Mixed>,
    }

    fn content(loader: &Loader, epoch: u64) -> Vec<Content> {
        contents(loader.epoch(epoch))
    }

    fn contents(epoch: Epoch) -> Vec<Content> {
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

    fn sizes(loader: &Loader) -> Vec<usize> {
        loader.epoch(0).map(|batch| batch.unwrap().len()).collect()
    }

    #[test]
    fn the_number_of_workers_changes_nothing() {
        let content = |workers| content(&loader(Fake::of(50), training(8, workers)), 3);
        let alone = content(0);
        assert_eq!(alone.len(), 7);
        for workers in [1, 4, 30] {
            assert!(content(workers) == alone, "{workers} workers");
        }
    }

    #[test]
    fn kept_images_change_no_batch_and_are_not_read_again() {
        let everything = Augment {
            policy: crate::Policy::TrivialAugment,
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
    fn images_are_mixed_with_their_partners() {
        let config = LoaderConfig { skip_unreadable: true, ..training(8, 0) };
        let fake = || Fake { fails: Some(9), ..Fake::of(20) };
        let plain = loader_with(Augment::default(), fake(), config.clone()).epoch(0);
        let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
        let mut images = 0;
        for (plain, batch) in plain.zip(mixing(fake(), config).epoch(0)) {
            let (plain, batch) = (plain.unwrap(), batch.unwrap());
            assert_eq!((&plain.labels, plain.mixed), (&batch.labels, None));
            let mixed = batch.mixed.as_ref().unwrap();
            for (image, pixels) in batch.images.chunks(16).enumerate() {
                let partner = (image + batch.labels.len() - 1) % batch.labels.len();
                assert_eq!(mixed.partners[image], batch.labels[partner]);
                // The fake images differ by the same amount in every pixel: however they are
                // mixed, the mean says by how much.
                let [own, other] = [image, partner].map(|at| mean(&plain.images[16 * at..][..16]));
                let expected = mixed.share * own + (1.0 - mixed.share) * other;
                assert!((mean(pixels) - expected).abs() < 1e-5, "{image}");
            }
            images += batch.len();
        }
        assert_eq!(images, 19);
    }

    #[test]
    fn a_batch_without_images_is_not_mixed() {
        let fake = Fake { fails: Some(0), ..Fake::of(1) };
        let config = LoaderConfig { skip_unreadable: true, ..training(8, 0) };
        let batch = mixing(fake, config).epoch(0).next().unwrap().unwrap();
        assert!(batch.is_empty() && batch.mixed.is_none());
    }

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
    fn an_unreadable_image_is_an_error_in_its_place() {
        for workers in [0, 3] {
            let fake = Fake { fails: Some(9), ..Fake::of(20) };
            let config = LoaderConfig { shuffle: false, ..training(4, workers) };
            let results: Vec<_> = loader(fake, config).epoch(0).collect();
            let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
            assert_eq!(good, [true, true, false, true, true]);
            let error = results[2].as_ref().unwrap_err().to_string();
            assert!(error.contains("record 9"), "{error}");
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
    fn a_panic_is_an_error_in_its_place() {
        for workers in [0, 2] {
            let fake = Fake { panics: Some(5), ..Fake::of(12) };
            let config = LoaderConfig { shuffle: false, ..training(4, workers) };
            let results: Vec<_> = loader(fake, config).epoch(7).collect();
            let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
            assert_eq!(good, [true, false, true]);
            let error = results[1].as_ref().unwrap_err().to_string();
            assert!(error.contains("batch 1 of epoch 7 panicked"), "{error}");
            assert!(error.contains("a bug in a decoder"), "{error}");
        }
    }

    #[test]
    fn workers_stay_within_the_window_and_stop_with_the_iterator() {
        let reads = Arc::new(AtomicUsize::new(0));
        let fake = Fake { reads: Arc::clone(&reads), ..Fake::of(1000) };
        let config = LoaderConfig { prefetch: 3, ..training(10, 2) };
        let mut epoch = loader(fake, config).epoch(0);
        assert_eq!(epoch.next().unwrap().unwrap().len(), 10);
        // Dropping joins the workers: whatever they read, they have read by then.
        drop(epoch);
        let read = reads.load(Ordering::Relaxed);
        assert!((10..=40).contains(&read), "{read} images for one batch and a window of three");
    }

    #[test]
    fn a_corrupt_jpeg_in_a_folder_is_named_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["ant", "bee"] {
            let folder = dir.path().join("train").join(class);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..3 {
                let image = image::RgbImage::from_pixel(8, 8, image::Rgb([number, 0, 0]));
                image.save(folder.join(format!("{number}.jpg"))).unwrap();
            }
        }
        let bad = dir.path().join("train/bee/1.jpg");
        let bytes = fs::read(&bad).unwrap();
        fs::write(&bad, &bytes[..bytes.len() - 20]).unwrap();

        let data: DataRef = dir.path().to_str().unwrap().parse().unwrap();
        let data = open(&data, Split::Train).unwrap();
        let preprocess = Preprocess { size: (8, 8), ..Preprocess::of(&data) };
        let config = LoaderConfig { batch_size: 2, workers: 2, ..LoaderConfig::default() };
        let pipeline = Pipeline::eval(preprocess).unwrap();
        let loader = Loader::new(Arc::new(data), config, pipeline).unwrap();
        let results: Vec<_> = loader.epoch(0).collect();
        assert!(results[0].is_ok() && results[1].is_ok());
        let error = results[2].as_ref().unwrap_err().to_string();
        assert!(error.contains("bee") && error.contains("1.jpg"), "{error}");
    }

    #[test]
    fn tensors_have_the_numbers_of_the_batch() {
        let config = LoaderConfig { shuffle: false, ..training(4, 0) };
        let batch = loader(Fake::of(6), config).epoch(0).last().unwrap().unwrap();
        let (images, labels) = batch.to_tensors(&Device::default());
        assert_eq!(images.dims(), batch.shape);
        assert_eq!(images.into_data().try_to_vec::<f32>().unwrap(), batch.images);
        let labels = labels.into_data().convert::<i64>().try_to_vec::<i64>().unwrap();
        assert_eq!(labels, [0, 1]);
    }

    #[test]
    fn impossible_settings_are_refused() {
        let data = open(&DataRef::Sample, Split::Val).unwrap();
        let pipeline = Pipeline::eval(Preprocess::of(&data)).unwrap();
        let none = LoaderConfig { batch_size: 0, ..LoaderConfig::default() };
        assert!(Loader::new(Arc::new(data.clone()), none, pipeline.clone()).is_err());
        let empty = Arc::new(data.limit(0));
        assert!(Loader::new(empty, LoaderConfig::default(), pipeline).is_err());
    }
}
