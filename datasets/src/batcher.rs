//! Batches for Burn's own data loader.

use std::borrow::Cow;

use burn::{
    data::dataloader::batcher::Batcher,
    tensor::{Device, Int, Tensor},
};

use crate::{
    DataError, Pipeline, Preprocess, Sample,
    loader::Batch,
    rng::{Purpose, stream},
};

/// Turns samples into tensors, without augmentation, for `burn::data::dataloader`.
///
/// Burn's loader shuffles by itself; only the order of [`Loader`](crate::Loader) can be repeated
/// and resumed.
#[derive(Debug, Clone)]
pub struct ImageBatcher {
    pipeline: Pipeline,
}

impl ImageBatcher {
    /// A batcher with this preprocessing.
    ///
    /// # Errors
    ///
    /// As [`Preprocess::validate`].
    pub fn new(preprocess: Preprocess) -> Result<Self, DataError> {
        Ok(Self { pipeline: Pipeline::eval(preprocess)? })
    }
}

/// A batch on a device.
#[derive(Debug, Clone)]
pub struct ImageBatch {
    /// `[batch, channels, height, width]`.
    pub images: Tensor<4>,
    /// Classes, `[batch]`.
    pub targets: Tensor<1, Int>,
}

impl Batcher<Sample, ImageBatch> for ImageBatcher {
    fn batch(&self, items: Vec<Sample>, device: &Device) -> ImageBatch {
        let mut batch = Batch::empty(self.pipeline.preprocess());
        for (index, sample) in items.iter().enumerate() {
            // Nothing is drawn without augmentation: any stream will do.
            let mut rng = stream(Purpose::Augment, 0, 0, 0);
            let image = self.pipeline.prepare(Cow::Borrowed(&sample.image));
            batch.push(index, sample.label, image, &self.pipeline, &mut rng);
        }
        let (images, targets) = batch.to_tensors(device);
        ImageBatch { images, targets }
    }
}

#[cfg(test)]
mod tests {
    use burn::data::dataloader::DataLoaderBuilder;

    use super::*;
    use crate::{DataRef, Split, open};

    #[test]
    fn burns_own_loader_gives_the_same_numbers() {
        let data = open(&DataRef::Sample, Split::Val).unwrap().limit(30);
        let preprocess = Preprocess::of(&data);
        let batcher = ImageBatcher::new(preprocess.clone()).unwrap();
        let loader = DataLoaderBuilder::new(batcher).batch_size(20).build(data.clone());
        let batches: Vec<ImageBatch> = loader.iter().map(Result::unwrap).collect();
        assert_eq!(batches[0].images.dims(), [20, 1, 28, 28]);
        assert_eq!(batches[1].targets.dims(), [10]);

        let pixels = batches[1].images.to_data().try_to_vec::<f32>().unwrap();
        let expected = preprocess.apply(&data.get(29).unwrap().image).unwrap();
        assert_eq!(pixels[9 * 28 * 28..], expected);
        let targets = batches[1].targets.to_data().convert::<i64>();
        let expected: Vec<i64> = (20..30).map(|i| data.label(i) as i64).collect();
        assert_eq!(targets.try_to_vec::<i64>().unwrap(), expected);
    }
}
