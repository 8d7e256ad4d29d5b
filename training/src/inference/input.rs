//! How an image becomes a network's input where the file does not say, and what a user overrides.

use std::path::PathBuf;

use dbb_datasets::{ImageDataset, Preprocess};
use dbb_models::ModelConfig;

use crate::error::{Error, Result};

/// A user's changes to how an image becomes a network's input, and to the classes of images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputOverrides {
    /// Height and width of the input.
    pub size: Option<usize>,
    /// Short side that an image is resized to before the centre crop of `size`; at least the short
    /// side of the input.
    pub resize: Option<usize>,
    /// Mean per channel on the scale 0 to 1.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel on the scale 0 to 1, above 0.
    pub std: Option<Vec<f32>>,
    /// Which output each class of the data is; see [`ClassMap`](crate::data::ClassMap).
    pub class_map: Option<PathBuf>,
}

impl InputOverrides {
    /// The preprocessing with these changes. A new `size` alone keeps the part of an image that the
    /// crop shows.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn apply(&self, mut preprocess: Preprocess) -> Result<Preprocess> {
        if let Some(size) = self.size {
            let (height, width) = preprocess.size;
            let before = height.min(width).max(1);
            preprocess.resize = preprocess.resize.map(|side| side * size / before);
            preprocess.size = (size, size);
        }
        if let Some(resize) = self.resize {
            let (height, width) = preprocess.size;
            if resize < height.min(width) {
                return Err(Error::Unusable(format!(
                    "the short side of images is resized to {resize}, less than the input's \
                     {height}x{width}; the crop would be padded with black"
                )));
            }
            preprocess.resize = Some(resize);
        }
        preprocess.mean = self.mean.clone().unwrap_or(preprocess.mean);
        preprocess.std = self.std.clone().unwrap_or(preprocess.std);
        preprocess.validate()?;
        Ok(preprocess)
    }
}

/// The [preprocessing that published weights](Preprocess::of_published) of an architecture expect.
pub fn usual(model: &ModelConfig, dataset: Option<&ImageDataset>) -> Preprocess {
    Preprocess::of_published(model.arch.default_resolution(), model.in_channels, dataset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dbb_models::{Arch, BlockKind};

    fn of(arch: Arch) -> Preprocess {
        usual(&ModelConfig::new(arch, BlockKind::Base, 10), None)
    }

    #[test]
    fn published_weights_get_what_they_expect() {
        let imagenet = of(Arch::MobileNetV2);
        assert_eq!((imagenet.size, imagenet.resize), ((224, 224), Some(256)));
        assert_eq!(imagenet.mean, [0.485, 0.456, 0.406]);
        assert_eq!(imagenet.std, [0.229, 0.224, 0.225]);
        let cifar = of(Arch::ResNet20);
        assert_eq!((cifar.size, cifar.resize), ((32, 32), Some(32)));
        assert_eq!((cifar.mean, cifar.std), (imagenet.mean, imagenet.std));
    }

    #[test]
    fn overrides_change_what_they_name() {
        let overrides = InputOverrides { size: Some(112), ..InputOverrides::default() };
        let half = overrides.apply(of(Arch::ResNet50)).unwrap();
        assert_eq!((half.size, half.resize), ((112, 112), Some(128)));
        let std = Some(vec![1.0; 3]);
        let overrides = InputOverrides { resize: Some(232), std, ..Default::default() };
        let other = overrides.apply(of(Arch::ResNet50)).unwrap();
        assert_eq!((other.size, other.resize), ((224, 224), Some(232)));
        assert_eq!((other.mean, other.std), (of(Arch::ResNet50).mean, vec![1.0; 3]));
    }

    #[test]
    fn overrides_out_of_range_are_refused() {
        let refused = |overrides: InputOverrides| {
            overrides.apply(of(Arch::ResNet50)).unwrap_err().to_string()
        };
        let small = InputOverrides { resize: Some(223), ..Default::default() };
        assert!(refused(small).contains("padded with black"));
        let single = InputOverrides { mean: Some(vec![0.5]), ..Default::default() };
        assert!(refused(single).contains("preprocess.mean"));
        let none = InputOverrides { std: Some(vec![0.0; 3]), ..Default::default() };
        assert!(refused(none).contains("preprocess.std"));
    }
}
