//! `[data]`: the images.

use std::path::PathBuf;

use dbb_datasets::{
    Augment, CacheBudget, DataError, DataRef, ImageDataset, LoaderConfig, Pipeline, Preprocess,
    shortest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{ABOVE_0_BELOW_1, Fault, require, setting};
use super::model::ANY_CHANNELS;

/// The images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// `sample` (bundled), a folder whose layout is recognised, or `KIND:PATH` with KIND one of
    /// `folder`, `tar`, `idx`, `cifar10`, `cifar100`.
    pub source: String,
    /// Height and width of the network's input. By default those of the images, or 224 where they vary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Short side that validation images are resized to before the centre crop of `size`; at least
    /// `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<usize>,
    /// Mean per channel on the scale 0 to 1. By default the data set's.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shortest::serialize")]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel on the scale 0 to 1. By default the data set's.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shortest::serialize")]
    pub std: Option<Vec<f32>>,
    /// File that assigns other indices to the classes of the data: TOML (`n01440764 = 0`), or lines of
    /// class, tab, index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_map: Option<PathBuf>,
    /// Validate on this share of the training images of every class, drawn by the seed and not trained
    /// on; the data set's own validation images are left for the final measurement. Data without
    /// validation images, such as class folders that are not below train/, needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_from_train: Option<f64>,
    /// Use only so many training images, balanced over the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Use only so many validation images, balanced over the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_val: Option<usize>,
    /// Threads that decode and transform images, up to 256; 0 uses the training thread.
    pub workers: usize,
    /// MiB of memory for decoded training and validation images, which later epochs reuse; 0 keeps
    /// none. Results do not depend on it.
    pub cache_mb: usize,
    /// What to do with an image that cannot be read.
    pub on_bad_sample: OnBadSample,
    /// Most images that may be skipped before the run ends with an error.
    pub max_bad_samples: usize,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            source: "sample".into(),
            size: None,
            resize: None,
            mean: None,
            std: None,
            class_map: None,
            val_from_train: None,
            limit_train: None,
            limit_val: None,
            workers: 1,
            cache_mb: 0,
            on_bad_sample: OnBadSample::Error,
            max_bad_samples: 100,
        }
    }
}

/// What to do with an image that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBadSample {
    /// End the run with an error that names the file.
    Error,
    /// Skip it, and name and count it.
    Skip,
}

impl DataSection {
    /// The data set meant by `source`.
    ///
    /// # Errors
    /// If the text names none.
    pub fn reference(&self) -> Result<DataRef, DataError> {
        self.source.parse()
    }

    /// The memory for decoded images, which later epochs reuse.
    pub fn cache(&self) -> CacheBudget {
        CacheBudget::new(self.cache_mb.saturating_mul(1 << 20))
    }

    /// How an image of a data set becomes the network's input.
    pub fn preprocess(&self, dataset: &ImageDataset, channels: Option<usize>) -> Preprocess {
        let mut preprocess = Preprocess::of(dataset);
        if let Some(channels) = channels {
            preprocess = preprocess.with_channels(channels, dataset);
        }
        if let Some(size) = self.size {
            preprocess = preprocess.with_size(size, dataset);
        }
        if self.resize.is_some() {
            preprocess.resize = self.resize;
        }
        preprocess.mean = self.mean.clone().unwrap_or(preprocess.mean);
        preprocess.std = self.std.clone().unwrap_or(preprocess.std);
        preprocess
    }

    /// Checks the ranges of the keys, and that images can become the network's input.
    pub(super) fn check(&self, in_channels: Option<usize>, augment: &Augment) -> Result<(), Fault> {
        if let Some(share) = self.val_from_train {
            let inside = share > 0.0 && share < 1.0;
            require(inside, "data.val_from_train", &share, ABOVE_0_BELOW_1)?;
        }
        require(self.limit_train != Some(0), "data.limit_train", &0, "at least 1")?;
        require(self.limit_val != Some(0), "data.limit_val", &0, "at least 1")?;
        let most = LoaderConfig::MAX_WORKERS;
        require(self.workers <= most, "data.workers", &self.workers, &format!("0 to {most}"))?;
        let source = |e: DataError| Fault { key: "data.source".into(), text: e.to_string() };
        self.reference().map_err(source)?;

        // What the data decides is assumed to fit.
        let given = [&self.mean, &self.std].into_iter().flatten().map(Vec::len);
        let of_data = given.into_iter().find(|length| matches!(length, 1 | 3));
        let channels = in_channels.or(of_data).unwrap_or(ANY_CHANNELS);
        let most = Preprocess::MAX_SIDE;
        let size = self.size.unwrap_or(most);
        require((1..=most).contains(&size), "data.size", &size, &format!("1 to {most} pixels"))?;
        let preprocess = Preprocess {
            size: (size, size),
            resize: self.resize,
            channels,
            mean: self.mean.clone().unwrap_or_else(|| vec![0.0; channels]),
            std: self.std.clone().unwrap_or_else(|| vec![1.0; channels]),
        };
        Pipeline::new(preprocess, augment.clone()).map_err(setting)?;
        match self.size {
            Some(size) => self.check_resize(size),
            None => Ok(()),
        }
    }

    /// Checks that `data.resize` leaves enough for the crop of `size`.
    fn check_resize(&self, size: usize) -> Result<(), Fault> {
        let Some(resize) = self.resize else { return Ok(()) };
        let expected = format!("at least data.size, {size}: the crop would be padded with black");
        require(resize >= size, "data.resize", &resize, &expected)
    }
}
