//! Preprocessing: how an image becomes a network's input, without augmentation.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{
    DataError, Image, ImageDataset,
    image::check_channels,
    presets::{IMAGENET, Normalization},
    transforms::{normalize, resize, resize_center_crop, to_channels},
};

const SIDES: RangeInclusive<usize> = 1..=Preprocess::MAX_SIDE;

/// How an image becomes a network's input, without augmentation. It is stored with the network's
/// weights, which are worthless without it.
///
/// Size: with `resize` the short side is resized to it and the middle of `size` cut out (black
/// where the image is too small); without, the image is stretched to `size`. Then channels, then
/// `(pixel / 255 - mean) / std`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Height and width of the input, 1 to 16,384.
    pub size: (usize, usize),
    /// Length of the short side before the middle is cut out, 1 to 16,384; `None` to stretch to
    /// `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<usize>,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Mean per channel, on the 0 to 1 scale.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, on the 0 to 1 scale, above 0.
    pub std: Vec<f32>,
}

/// The short side before the middle of `side` is cut out, by ImageNet's ratio of 256 to 224.
fn resize_before(side: usize) -> usize {
    side * 256 / 224
}

impl Preprocess {
    /// Longest side of a network's input, in pixels: far above what is used, far below overflow.
    pub const MAX_SIDE: usize = 16_384;

    /// The usual preprocessing of a data set: its own size, channels and constants; for images of
    /// various sizes ImageNet's resize to 256 and crop of 224.
    pub fn of(dataset: &ImageDataset) -> Self {
        Self::with_defaults(dataset.image_size(), 224, dataset.normalization(), dataset.channels())
    }

    /// The preprocessing that published weights expect of a network whose paper has inputs of
    /// `side` pixels: for ImageNet's 224 the short side resized to 256, for CIFAR's 32 no border,
    /// with ImageNet's mean and deviation. Images of one size keep it, and grey data keeps its own
    /// mean and deviation.
    pub fn of_published(side: usize, channels: usize, dataset: Option<&ImageDataset>) -> Self {
        let grey = dataset.filter(|dataset| dataset.channels() == 1);
        let normalization = grey.map_or(IMAGENET, ImageDataset::normalization);
        let size = dataset.and_then(ImageDataset::image_size);
        let preprocess = Self::with_defaults(size, side, normalization, channels);
        let resize = preprocess.resize.map(|resize| if side == 224 { resize } else { side });
        Self { resize, ..preprocess }
    }

    /// Images of one size keep it; others are cut to `side`.
    fn with_defaults(
        size: Option<(usize, usize)>,
        side: usize,
        normalization: Normalization,
        channels: usize,
    ) -> Self {
        let (mean, std) = normalization.for_channels(channels);
        let resize = size.is_none().then(|| resize_before(side));
        Self { size: size.unwrap_or((side, side)), resize, channels, mean, std }
    }

    /// The same for a network with other channels than the data set.
    pub fn with_channels(self, channels: usize, dataset: &ImageDataset) -> Self {
        let (mean, std) = dataset.normalization().for_channels(channels);
        Self { channels, mean, std, ..self }
    }

    /// The same for another size of the input. Images of one size are stretched to it, others cut
    /// as [`of`](Self::of) cuts them.
    pub fn with_size(self, side: usize, dataset: &ImageDataset) -> Self {
        let resize = dataset.image_size().is_none().then(|| resize_before(side));
        Self { size: (side, side), resize, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] naming the field outside its range.
    pub fn validate(&self) -> Result<(), DataError> {
        check_channels("preprocess.channels", self.channels)?;
        let expected = format!("1 to {} pixels a side", Self::MAX_SIDE);
        if !SIDES.contains(&self.size.0) || !SIDES.contains(&self.size.1) {
            return Err(DataError::setting("preprocess.size", self.size, expected));
        }
        if let Some(side) = self.resize.filter(|side| !SIDES.contains(side)) {
            return Err(DataError::setting("preprocess.resize", side, expected));
        }
        let per_channel = |values: &[f32]| {
            values.len() == self.channels && values.iter().all(|value| value.is_finite())
        };
        if !per_channel(&self.mean) {
            let expected = format!("finite values, one per channel (channels: {})", self.channels);
            return Err(DataError::setting("preprocess.mean", &self.mean, expected));
        }
        if !per_channel(&self.std) || self.std.iter().any(|value| *value <= 0.0) {
            let expected = format!("values above 0, one per channel (channels: {})", self.channels);
            return Err(DataError::setting("preprocess.std", &self.std, expected));
        }
        Ok(())
    }

    /// The network's input, `[channels, height, width]`: for a single image, as in a program that classifies
    /// one; a [`Loader`](crate::Loader) makes whole batches.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn apply(&self, image: &Image) -> Result<Vec<f32>, DataError> {
        self.validate()?;
        let mut out = Vec::new();
        self.finish(self.fit(image), &self.mean, &mut out);
        Ok(out)
    }

    /// The picture that an input `[channels, height, width]` shows: the inverse of its normalisation,
    /// rounded to bytes and cut off where augmentation has left their range.
    ///
    /// # Panics
    ///
    /// If the input has another shape than [`shape`](Self::shape).
    pub fn picture(&self, input: &[f32]) -> Image {
        let [channels, height, width] = self.shape();
        assert_eq!(input.len(), channels * height * width, "an input of shape {:?}", self.shape());
        let mut pixels = vec![0; input.len()];
        for (channel, plane) in input.chunks_exact(height * width).enumerate() {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            for (pixel, value) in pixels[channel..].iter_mut().step_by(channels).zip(plane) {
                // The cast cuts off; NaN becomes black.
                *pixel = ((value * std + mean) * 255.0).round() as u8;
            }
        }
        Image::trusted(height, width, channels, pixels)
    }

    /// Shape of one input: channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.size.0, self.size.1]
    }

    /// The image at the input's size.
    pub(crate) fn fit(&self, image: &Image) -> Image {
        match self.resize {
            Some(side) => resize_center_crop(image, side, self.size),
            None => resize(image, self.size),
        }
    }

    /// Appends an image that has its size to `out`, with channels adapted and normalised about
    /// `mean`.
    pub(crate) fn finish(&self, image: Image, mean: &[f32], out: &mut Vec<f32>) {
        normalize(&to_channels(image, self.channels), mean, &self.std, out);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plain(size: (usize, usize), channels: usize) -> Preprocess {
        Preprocess {
            size,
            resize: None,
            channels,
            mean: vec![0.0; channels],
            std: vec![1.0 / 255.0; channels], // so that outputs are grey levels
        }
    }

    pub(crate) fn levels(values: &[f32]) -> Vec<i32> {
        values.iter().map(|value| value.round() as i32).collect()
    }

    #[test]
    fn an_image_of_the_size_is_only_normalised() {
        let image = Image::new(1, 2, 1, vec![10, 20]).unwrap();
        assert_eq!(levels(&plain((1, 2), 1).apply(&image).unwrap()), [10, 20]);
        let rgb = plain((1, 2), 3).apply(&image).unwrap();
        assert_eq!(levels(&rgb), [10, 20, 10, 20, 10, 20]);
    }

    #[test]
    fn a_picture_is_the_inverse_of_the_normalisation() {
        let pixels = vec![0, 128, 255, 7, 77, 177];
        let image = Image::new(1, 2, 3, pixels.clone()).unwrap();
        let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
        let preprocess = Preprocess { mean, std, ..plain((1, 2), 3) };
        let mut input = preprocess.apply(&image).unwrap();
        assert_eq!(preprocess.picture(&input), image);
        // Beyond black and white, and no number at all.
        (input[0], input[1], input[5]) = (-9.0, 9.0, f32::NAN);
        let picture = preprocess.picture(&input);
        assert_eq!(picture.pixels(), [0, 128, 255, 255, 77, 0]);
    }

    #[test]
    fn the_short_side_is_resized_before_the_middle_is_cut() {
        let image = Image::new(1, 4, 1, vec![0, 100, 200, 50]).unwrap();
        let stretched = plain((1, 2), 1);
        let cut = Preprocess { resize: Some(1), ..stretched.clone() };
        assert_eq!(levels(&cut.apply(&image).unwrap()), [100, 200]);
        // (3 * 0 + 3 * 100 + 200) / 7 and (100 + 3 * 200 + 3 * 50) / 7.
        assert_eq!(levels(&stretched.apply(&image).unwrap()), [71, 121]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let good = plain((1, 1), 1);
        for (name, bad) in [
            ("preprocess.size", Preprocess { size: (0, 1), ..good.clone() }),
            ("preprocess.resize", Preprocess { resize: Some(0), ..good.clone() }),
            ("preprocess.channels", Preprocess { channels: 2, ..good.clone() }),
            ("preprocess.mean", Preprocess { mean: vec![0.0; 3], ..good.clone() }),
            ("preprocess.std", Preprocess { std: vec![0.0], ..good.clone() }),
            ("preprocess.std", Preprocess { std: vec![f32::NAN], ..good }),
        ] {
            let text = bad.validate().unwrap_err().to_string();
            assert!(text.starts_with(name), "{text}");
        }
    }

    #[test]
    fn it_is_stored_as_text() {
        let preprocess = plain((2, 3), 1);
        let text = serde_json::to_string(&preprocess).unwrap();
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), preprocess);
    }

    #[test]
    fn a_data_set_has_a_usual_preprocessing() {
        let (train, _) = crate::open_pair(&crate::DataRef::Sample).unwrap();
        let usual = Preprocess::of(&train);
        assert_eq!(usual.shape(), [1, 28, 28]);
        assert_eq!((usual.mean, usual.std), (vec![0.2860], vec![0.3530]));
    }
}
