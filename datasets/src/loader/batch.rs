//! What the loader delivers.

use std::{borrow::Cow, ops::Range};

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::Rng;

use crate::{DataError, Image, Pipeline, Preprocess};

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
    /// What every image was mixed with; `None` if nothing was mixed.
    pub mixed: Option<Mixed>,
    /// Why images are missing; empty unless
    /// [`LoaderConfig::skip_unreadable`](crate::LoaderConfig::skip_unreadable).
    pub skipped: Vec<DataError>,
}

/// How the images of a batch were mixed: each is part itself, part another of the batch.
///
/// Its loss is `share` times that of its label plus `1 - share` times that of its partner.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixed {
    /// Classes of the images mixed in, one per image.
    pub partners: Vec<usize>,
    /// Share of an image that is its own, the same for all, 0 to 1.
    pub share: f32,
}

/// Classes as a tensor `[batch]`.
pub fn label_tensor(labels: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
    Tensor::from_data(TensorData::new(values, [labels.len()]), device)
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
        (Tensor::from_data(images, device), label_tensor(&self.labels, device))
    }

    /// Some of the images, in their order. Skipped images stay with the whole batch.
    ///
    /// # Panics
    /// If the range ends beyond the batch.
    pub fn slice(&self, range: Range<usize>) -> Self {
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

    /// The batch without its first `count` images.
    pub(super) fn without_first(self, count: usize) -> Self {
        if count == 0 {
            return self;
        }
        let rest = self.slice(count..self.len());
        Self { skipped: self.skipped, ..rest }
    }

    /// A batch of black images of this one's size, of the first class.
    pub fn black(&self, images: usize) -> Self {
        let [_, channels, height, width] = self.shape;
        Self {
            images: vec![0.0; images * channels * height * width],
            shape: [images, channels, height, width],
            labels: vec![0; images],
            indices: vec![0; images],
            mixed: None,
            skipped: Vec::new(),
        }
    }

    /// The class that makes up most of each image.
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

    /// Mixes the images if the pipeline asks for it.
    pub(super) fn mix(&mut self, pipeline: &Pipeline, rng: &mut impl Rng) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Augment, LoaderConfig, loader::testing::*};

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
    fn tensors_have_the_numbers_of_the_batch() {
        let config = LoaderConfig { shuffle: false, ..training(4, 0) };
        let batch = loader(Fake::of(6), config).epoch(0).last().unwrap().unwrap();
        let (images, labels) = batch.to_tensors(&Device::default());
        assert_eq!(images.dims(), batch.shape);
        assert_eq!(images.into_data().try_to_vec::<f32>().unwrap(), batch.images);
        let labels = labels.into_data().convert::<i64>().try_to_vec::<i64>().unwrap();
        assert_eq!(labels, [0, 1]);
    }
}
