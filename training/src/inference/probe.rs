//! The images that two forms of a network are compared on.

use burn::tensor::TensorData;
use dbb_datasets::Loader;

use crate::error::Result;

/// Images to compare two forms of a network on.
pub enum Probe {
    /// Random ones `[n, channels, height, width]`, where there is no data.
    Random(TensorData),
    /// Those of a data set.
    Data(Loader),
}

/// Images and, where they are known, their classes.
pub struct ProbeBatch {
    /// A network's input, `[n, channels, height, width]`.
    pub images: TensorData,
    /// The classes; empty for random images.
    pub labels: Vec<usize>,
}

impl Probe {
    /// All images, except those of a data set that are left out because they cannot be read.
    pub fn batches(&self) -> Box<dyn Iterator<Item = Result<ProbeBatch>> + '_> {
        match self {
            Self::Random(images) => {
                let batch = ProbeBatch { images: images.clone(), labels: Vec::new() };
                Box::new(std::iter::once(Ok(batch)))
            }
            Self::Data(loader) => {
                let batches = loader.epoch(0).map(|batch| {
                    let batch = batch?;
                    let images = TensorData::new(batch.images, batch.shape);
                    Ok(ProbeBatch { images, labels: batch.labels })
                });
                let some =
                    |batch: &Result<ProbeBatch>| !matches!(batch, Ok(b) if b.labels.is_empty());
                Box::new(batches.filter(some))
            }
        }
    }

    /// At most `n` of the images, at least one, balanced over the classes.
    pub fn limit(&self, n: usize) -> Self {
        match self {
            Self::Data(loader) => Self::Data(loader.limit(n)),
            Self::Random(images) => {
                let mut shape = images.shape().to_vec();
                let of_image = images.num_elements() / shape[0].max(1);
                shape[0] = shape[0].min(n.max(1));
                let values: Vec<f32> = images.iter::<f32>().take(shape[0] * of_image).collect();
                Self::Random(TensorData::new(values, shape))
            }
        }
    }

    /// Batches of [`Probe::batches`].
    pub fn batches_per_pass(&self) -> usize {
        match self {
            Self::Random(_) => 1,
            Self::Data(loader) => loader.batches_per_epoch(),
        }
    }

    /// A description of the images.
    pub fn describe(&self) -> String {
        match self {
            Self::Random(_) => "seeded random input".into(),
            Self::Data(loader) => loader.dataset().describe(),
        }
    }
}
