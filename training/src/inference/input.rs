//! How an image becomes the input of a network whose file does not say it, and what flags change.

use std::path::PathBuf;

use dbb_datasets::{ImageDataset, Preprocess};
use dbb_models::ModelConfig;

/// What flags say of a network's input and of the classes of images.
#[derive(Clone, Debug, Default)]
pub struct InputFlags {
    /// Height and width of the input.
    pub size: Option<usize>,
    /// Short side before the middle of `size` is cut out.
    pub resize: Option<usize>,
    /// Mean per channel on the scale 0 to 1.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel on the scale 0 to 1.
    pub std: Option<Vec<f32>>,
    /// Which output each class of the data is; see [`ClassMap`](crate::config::ClassMap).
    pub class_map: Option<PathBuf>,
}

impl InputFlags {
    /// The preprocessing with what the flags say. A new `size` alone keeps the part of an image
    /// that is seen.
    pub fn change(&self, mut preprocess: Preprocess) -> Preprocess {
        if let Some(size) = self.size {
            let (height, width) = preprocess.size;
            let before = height.min(width).max(1);
            preprocess.resize = preprocess.resize.map(|side| side * size / before);
            preprocess.size = (size, size);
        }
        preprocess.resize = self.resize.or(preprocess.resize);
        preprocess.mean = self.mean.clone().unwrap_or(preprocess.mean);
        preprocess.std = self.std.clone().unwrap_or(preprocess.std);
        preprocess
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
    fn flags_change_what_they_name() {
        let flags = InputFlags { size: Some(112), ..InputFlags::default() };
        let half = flags.change(of(Arch::ResNet50));
        assert_eq!((half.size, half.resize), ((112, 112), Some(128)));
        let flags = InputFlags { resize: Some(232), std: Some(vec![1.0; 3]), ..Default::default() };
        let other = flags.change(of(Arch::ResNet50));
        assert_eq!((other.size, other.resize), ((224, 224), Some(232)));
        assert_eq!((other.mean, other.std), (of(Arch::ResNet50).mean, vec![1.0; 3]));
    }
}
