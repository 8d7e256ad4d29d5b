//! From a stored image to a network's input: what preprocessing and augmentation a network gets.

use std::ops::RangeInclusive;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{
    DataError, Image, ImageDataset,
    image::check_channels,
    transforms::{
        center_crop, flip, normalize, pad_crop, random_resized_crop, resize, resize_short_side,
        to_channels,
    },
};

/// Longest side of a network's input, in pixels: far above use, far below overflow.
const MAX_SIDE: usize = 16_384;
const SIDES: RangeInclusive<usize> = 1..=MAX_SIDE;

/// How an image becomes a network's input, without chance: stored with a network's weights, since
/// they are worthless without it.
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

impl Preprocess {
    /// The usual preprocessing of a data set: its own size, channels and constants; for images of
    /// various sizes ImageNet's resize to 256 and crop of 224.
    pub fn of(dataset: &ImageDataset) -> Self {
        let channels = dataset.channels();
        let (mean, std) = dataset.normalization().for_channels(channels);
        let (size, resize) = match dataset.image_size() {
            Some(size) => (size, None),
            None => ((224, 224), Some(256)),
        };
        Self { size, resize, channels, mean, std }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] naming the field outside its range.
    pub fn validate(&self) -> Result<(), DataError> {
        check_channels("preprocess.channels", self.channels)?;
        let expected = format!("1 to {MAX_SIDE} pixels a side");
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
            let expected = format!("{} finite values, one per channel", self.channels);
            return Err(DataError::setting("preprocess.mean", &self.mean, expected));
        }
        if !per_channel(&self.std) || self.std.iter().any(|value| *value <= 0.0) {
            let expected = format!("{} values above 0, one per channel", self.channels);
            return Err(DataError::setting("preprocess.std", &self.std, expected));
        }
        Ok(())
    }

    /// The network's input, `[channels, height, width]`.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn apply(&self, image: &Image) -> Result<Vec<f32>, DataError> {
        self.validate()?;
        let mut out = Vec::new();
        self.finish(self.fit(image), &mut out);
        Ok(out)
    }

    /// Shape of one input: channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.size.0, self.size.1]
    }

    /// The image at the input's size.
    fn fit(&self, image: &Image) -> Image {
        match self.resize {
            Some(side) => center_crop(&resize_short_side(image, side), self.size),
            None => resize(image, self.size),
        }
    }

    /// Channels and normalisation of an image that has its size, appended to `out`.
    fn finish(&self, image: Image, out: &mut Vec<f32>) {
        normalize(&to_channels(image, self.channels), &self.mean, &self.std, out);
    }
}

/// Random changes of training images. The default changes nothing.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Pixels of black padding on each side before a random crop back to size; 0 is off, at most
    /// the input's shorter side.
    pub pad_crop: usize,
    /// Mirror every second image, on average.
    pub hflip: bool,
    /// Cut out a random part instead of the preprocessing's fixed one.
    pub random_resized_crop: bool,
    /// Smallest and largest part of the area that `random_resized_crop` takes, above 0 to 1.
    pub rrc_scale: (f32, f32),
    /// Smallest and largest width over height of that part, above 0.
    pub rrc_ratio: (f32, f32),
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            pad_crop: 0,
            hflip: false,
            random_resized_crop: false,
            rrc_scale: (0.08, 1.0),
            rrc_ratio: (3.0 / 4.0, 4.0 / 3.0),
        }
    }
}

impl Augment {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] naming the field outside its range.
    pub fn validate(&self) -> Result<(), DataError> {
        let ordered = |(low, high): (f32, f32)| low > 0.0 && low <= high && high.is_finite();
        if self.random_resized_crop && self.pad_crop > 0 {
            let expected = "0 beside random_resized_crop, which crops by itself";
            return Err(DataError::setting("augment.pad_crop", self.pad_crop, expected));
        }
        if !ordered(self.rrc_scale) || self.rrc_scale.1 > 1.0 {
            let expected = "[low, high] with 0 < low <= high <= 1";
            return Err(DataError::setting("augment.rrc_scale", self.rrc_scale, expected));
        }
        if !ordered(self.rrc_ratio) {
            let expected = "[low, high] with 0 < low <= high";
            return Err(DataError::setting("augment.rrc_ratio", self.rrc_ratio, expected));
        }
        Ok(())
    }

    /// The network's input from a randomly changed image, `[channels, height, width]`.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate) of both.
    pub fn apply(
        &self,
        image: &Image,
        preprocess: &Preprocess,
        rng: &mut impl Rng,
    ) -> Result<Vec<f32>, DataError> {
        let mut out = Vec::new();
        Pipeline::new(preprocess.clone(), self.clone())?.append(image, rng, &mut out);
        Ok(out)
    }
}

/// Preprocessing and augmentation, checked once.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    preprocess: Preprocess,
    augment: Augment,
}

impl Pipeline {
    /// The pipeline of training images.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] naming the field outside its range.
    pub fn new(preprocess: Preprocess, augment: Augment) -> Result<Self, DataError> {
        preprocess.validate()?;
        augment.validate()?;
        let side = preprocess.size.0.min(preprocess.size.1);
        if augment.pad_crop > side {
            let expected = format!("at most {side}, the input's shorter side");
            let pad_crop = augment.pad_crop;
            return Err(DataError::setting("augment.pad_crop", pad_crop, expected));
        }
        Ok(Self { preprocess, augment })
    }

    /// The pipeline of images to measure on or to predict: no chance.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn eval(preprocess: Preprocess) -> Result<Self, DataError> {
        Self::new(preprocess, Augment::default())
    }

    /// The preprocessing.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// The augmentation.
    pub fn augment(&self) -> &Augment {
        &self.augment
    }

    /// Appends the network's input, `[channels, height, width]`, to `out`.
    pub fn append(&self, image: &Image, rng: &mut impl Rng, out: &mut Vec<f32>) {
        let (preprocess, augment) = (&self.preprocess, &self.augment);
        let mut image = if augment.random_resized_crop {
            let (scale, ratio) = (augment.rrc_scale, augment.rrc_ratio);
            random_resized_crop(image, preprocess.size, scale, ratio, rng)
        } else {
            preprocess.fit(image)
        };
        if augment.pad_crop > 0 {
            image = pad_crop(&image, augment.pad_crop, rng);
        }
        if augment.hflip && rng.random() {
            image = flip(&image);
        }
        preprocess.finish(image, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    fn plain(size: (usize, usize), channels: usize) -> Preprocess {
        Preprocess {
            size,
            resize: None,
            channels,
            mean: vec![0.0; channels],
            std: vec![1.0 / 255.0; channels], // so that outputs are grey levels
        }
    }

    fn levels(values: &[f32]) -> Vec<i32> {
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
    fn the_short_side_is_resized_before_the_middle_is_cut() {
        let image = Image::new(1, 4, 1, vec![0, 100, 200, 50]).unwrap();
        let stretched = plain((1, 2), 1);
        let cut = Preprocess { resize: Some(1), ..stretched.clone() };
        assert_eq!(levels(&cut.apply(&image).unwrap()), [100, 200]);
        // (3 * 0 + 3 * 100 + 200) / 7 and (100 + 3 * 200 + 3 * 50) / 7.
        assert_eq!(levels(&stretched.apply(&image).unwrap()), [71, 121]);
    }

    #[test]
    fn padding_is_black_before_normalisation() {
        let image = Image::new(1, 1, 1, vec![255]).unwrap();
        let preprocess = Preprocess { mean: vec![0.5], std: vec![0.5], ..plain((1, 1), 1) };
        let augment = Augment { pad_crop: 1, ..Augment::default() };
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let mut seen = [false; 2];
        for _ in 0..100 {
            match augment.apply(&image, &preprocess, &mut rng).unwrap()[..] {
                [1.0] => seen[0] = true,
                [-1.0] => seen[1] = true,
                ref other => panic!("neither white nor black: {other:?}"),
            }
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn half_of_the_images_are_mirrored() {
        let image = Image::new(1, 2, 1, vec![1, 2]).unwrap();
        let augment = Augment { hflip: true, ..Augment::default() };
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let mirrored = (0..1000)
            .map(|_| augment.apply(&image, &plain((1, 2), 1), &mut rng).unwrap())
            .filter(|out| levels(out) == [2, 1])
            .count();
        assert!((400..600).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn every_augmentation_ends_at_the_same_shape() {
        let preprocess = plain((5, 7), 3);
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        for augment in [
            Augment::default(),
            Augment { pad_crop: 2, hflip: true, ..Augment::default() },
            Augment { random_resized_crop: true, ..Augment::default() },
        ] {
            for (height, width) in [(1, 1), (5, 7), (3, 40), (64, 9)] {
                let image = Image::new(height, width, 1, vec![9; height * width]).unwrap();
                let out = augment.apply(&image, &preprocess, &mut rng).unwrap();
                assert_eq!(out.len(), 3 * 5 * 7);
            }
        }
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
        let good = Augment { random_resized_crop: true, ..Augment::default() };
        for (name, bad) in [
            ("augment.pad_crop", Augment { pad_crop: 4, ..good.clone() }),
            ("augment.rrc_scale", Augment { rrc_scale: (0.5, 1.5), ..good.clone() }),
            ("augment.rrc_ratio", Augment { rrc_ratio: (2.0, 1.0), ..good }),
        ] {
            let text = bad.validate().unwrap_err().to_string();
            assert!(text.starts_with(name), "{text}");
        }
        let wide = Augment { pad_crop: 3, ..Augment::default() };
        assert!(Pipeline::new(plain((3, 9), 1), wide.clone()).is_ok());
        assert!(Pipeline::new(plain((2, 9), 1), wide).is_err());
    }

    #[test]
    fn configs_have_defaults_and_refuse_unknown_names() {
        let augment: Augment = serde_json::from_str(r#"{"hflip": true}"#).unwrap();
        assert_eq!(augment, Augment { hflip: true, ..Augment::default() });
        assert!(serde_json::from_str::<Augment>(r#"{"flip": true}"#).is_err());
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
