//! From a stored image to a network's input: what preprocessing and augmentation a network gets.

use std::{borrow::Cow, ops::RangeInclusive};

use rand::{Rng, RngExt};
use rand_distr::{Beta, Distribution};
use serde::{Deserialize, Serialize};

use crate::{
    DataError, Image, ImageDataset,
    image::check_channels,
    transforms::{
        ColorJitter, MAX_MAGNITUDE, center_crop, color_jitter, cutmix, flip, lighting, mixup,
        normalize, pad_crop, rand_augment, random_erasing, random_resized_crop, resize,
        resize_short_side, to_channels, trivial_augment,
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
        self.finish(self.fit(image), &self.mean, &mut out);
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

    /// Channels and normalisation, about `mean`, of an image that has its size, appended to `out`.
    fn finish(&self, image: Image, mean: &[f32], out: &mut Vec<f32>) {
        normalize(&to_channels(image, self.channels), mean, &self.std, out);
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
    /// A policy of drawn changes.
    pub policy: Policy,
    /// Changes that `randaugment` makes of an image, 1 to 16.
    pub num_ops: u32,
    /// Strength of `randaugment`, 0 to 30.
    pub magnitude: u32,
    /// Random changes of brightness, contrast, saturation and hue.
    pub color_jitter: ColorJitter,
    /// Standard deviation of a shift of colours along ImageNet's principal components, 0 to 1 (0.1
    /// is usual); 0 is off.
    pub lighting: f32,
    /// Probability that a random rectangle is set to the mean colour, 0 to 1.
    pub random_erasing: f32,
    /// Blend the images of a batch in pairs, with shares from Beta(alpha, alpha): alpha, 0 to 100;
    /// 0 is off. Beside `cutmix` a coin decides for each batch.
    pub mixup: f32,
    /// Replace a rectangle of each image by another's, with areas from Beta(alpha, alpha): alpha,
    /// 0 to 100; 0 is off.
    pub cutmix: f32,
}

/// A policy of drawn changes: shear, move, turn, brightness, colour, contrast, sharpness, tones.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// No policy.
    #[default]
    None,
    /// `num_ops` changes of strength `magnitude`.
    RandAugment,
    /// One change of random, wide strength.
    TrivialAugment,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            pad_crop: 0,
            hflip: false,
            random_resized_crop: false,
            rrc_scale: (0.08, 1.0),
            rrc_ratio: (3.0 / 4.0, 4.0 / 3.0),
            policy: Policy::None,
            num_ops: 2,
            magnitude: 9,
            color_jitter: ColorJitter::default(),
            lighting: 0.0,
            random_erasing: 0.0,
            mixup: 0.0,
            cutmix: 0.0,
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
        if !(1..=16).contains(&self.num_ops) {
            return Err(DataError::setting("augment.num_ops", self.num_ops, "1 to 16"));
        }
        if self.magnitude > MAX_MAGNITUDE {
            let expected = format!("0 to {MAX_MAGNITUDE}");
            return Err(DataError::setting("augment.magnitude", self.magnitude, expected));
        }
        let jitter = &self.color_jitter;
        for (name, value, most) in [
            ("augment.color_jitter.brightness", jitter.brightness, 2.0),
            ("augment.color_jitter.contrast", jitter.contrast, 2.0),
            ("augment.color_jitter.saturation", jitter.saturation, 2.0),
            ("augment.color_jitter.hue", jitter.hue, 0.5),
            ("augment.lighting", self.lighting, 1.0),
            ("augment.random_erasing", self.random_erasing, 1.0),
            ("augment.mixup", self.mixup, 100.0),
            ("augment.cutmix", self.cutmix, 100.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(DataError::setting(name, value, format!("0 to {most}")));
            }
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
        if augment.lighting > 0.0 && preprocess.channels != 3 {
            let expected = "0 for a network of grey images: it shifts colours";
            return Err(DataError::setting("augment.lighting", augment.lighting, expected));
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
    ///
    /// The order: crop, mirror, policy, colour jitter, lighting, normalisation, erasing. Lighting is
    /// added on the 0 to 1 scale, neither rounded nor cut off.
    pub fn append(&self, image: &Image, rng: &mut impl Rng, out: &mut Vec<f32>) {
        self.append_prepared(self.prepare(Cow::Borrowed(image)), rng, out);
    }

    /// What comes before all chance, so that it can be kept: the image at the input's size, or the
    /// whole of it where a random part will be cut out.
    pub(crate) fn prepare<'a>(&self, image: Cow<'a, Image>) -> Cow<'a, Image> {
        if self.augment.random_resized_crop {
            image
        } else {
            Cow::Owned(self.preprocess.fit(&image))
        }
    }

    /// The rest of [`append`](Self::append).
    pub(crate) fn append_prepared(
        &self,
        prepared: Cow<'_, Image>,
        rng: &mut impl Rng,
        out: &mut Vec<f32>,
    ) {
        let (preprocess, augment) = (&self.preprocess, &self.augment);
        let mut image = if augment.random_resized_crop {
            let (scale, ratio) = (augment.rrc_scale, augment.rrc_ratio);
            random_resized_crop(&prepared, preprocess.size, scale, ratio, rng)
        } else if augment.pad_crop > 0 {
            pad_crop(&prepared, augment.pad_crop, rng)
        } else {
            prepared.into_owned()
        };
        if augment.hflip && rng.random() {
            image = flip(&image);
        }
        image = match augment.policy {
            Policy::None => image,
            Policy::RandAugment => rand_augment(image, augment.num_ops, augment.magnitude, rng),
            Policy::TrivialAugment => trivial_augment(image, rng),
        };
        color_jitter(&mut image, &augment.color_jitter, rng);
        let start = out.len();
        if augment.lighting > 0.0 {
            // Added to the pixels or taken from their mean: the same.
            let shift = lighting(augment.lighting, rng);
            let mean: Vec<f32> = preprocess.mean.iter().zip(shift).map(|(m, s)| m - s).collect();
            preprocess.finish(image, &mean, out);
        } else {
            preprocess.finish(image, &preprocess.mean, out);
        }
        if augment.random_erasing > 0.0 {
            random_erasing(&mut out[start..], preprocess.size, augment.random_erasing, rng);
        }
    }

    /// Mixes the images of a batch, `[batch, channels, height, width]`, each with the one before it
    /// and the first with the last, where the augmentation says so: the part of an image that is its
    /// own then, 0 to 1.
    pub fn mix(&self, images: &mut [f32], rng: &mut impl Rng) -> Option<f32> {
        let (mixing, cutting) = (self.augment.mixup, self.augment.cutmix);
        let cut = cutting > 0.0 && (mixing == 0.0 || rng.random());
        let alpha = if cut { cutting } else { mixing };
        // No distribution has an alpha of 0: nothing is mixed.
        let share = Beta::new(alpha, alpha).ok()?.sample(rng);
        let [channels, height, width] = self.preprocess.shape();
        Some(if cut {
            cutmix(images, channels, (height, width), share, rng)
        } else {
            mixup(images, channels * height * width, share)
        })
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

    fn everything() -> Augment {
        let color_jitter =
            ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.4 };
        Augment {
            hflip: true,
            policy: Policy::TrivialAugment,
            color_jitter,
            lighting: 0.1,
            random_erasing: 0.5,
            ..Augment::default()
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
            Augment { random_resized_crop: true, ..everything() },
            Augment { policy: Policy::RandAugment, ..everything() },
        ] {
            for (height, width) in [(1, 1), (5, 7), (3, 40), (64, 9)] {
                let image = Image::new(height, width, 1, vec![9; height * width]).unwrap();
                let out = augment.apply(&image, &preprocess, &mut rng).unwrap();
                assert_eq!(out.len(), 3 * 5 * 7);
            }
        }
    }

    #[test]
    fn lighting_shifts_each_channel_before_its_deviation_divides() {
        let std = vec![0.5, 0.25, 0.125];
        let preprocess = Preprocess { mean: vec![0.2; 3], std, ..plain((1, 2), 3) };
        let image = Image::new(1, 2, 1, vec![0, 255]).unwrap();
        let augment = Augment { lighting: 0.1, ..Augment::default() };
        let rng = || stream(Purpose::Augment, 0, 0, 0);
        let shift = lighting(0.1, &mut rng());
        let out = augment.apply(&image, &preprocess, &mut rng()).unwrap();
        let expected = (0..3).flat_map(|channel| {
            [0.0, 1.0].map(|v| (v + shift[channel] - 0.2) / preprocess.std[channel])
        });
        assert!(shift.iter().all(|shift| shift.abs() > 1e-5), "{shift:?}");
        for (value, expected) in out.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value}, {expected}");
        }
    }

    #[test]
    fn erasing_sets_the_mean_colour_of_one_image_only() {
        let preprocess = Preprocess { mean: vec![0.5], std: vec![0.5], ..plain((8, 8), 1) };
        let augment = Augment { random_erasing: 1.0, ..Augment::default() };
        let pipeline = Pipeline::new(preprocess, augment).unwrap();
        let white = Image::new(8, 8, 1, vec![255; 64]).unwrap();
        let mut out = vec![9.0; 64];
        pipeline.append(&white, &mut stream(Purpose::Augment, 0, 0, 0), &mut out);
        assert_eq!(out[..64], [9.0; 64]);
        assert!(out[64..].contains(&0.0) && out[64..].contains(&1.0));
    }

    #[test]
    fn a_coin_decides_between_blending_and_cutting() {
        let draw = |mixup, cutmix, batch| {
            let augment = Augment { mixup, cutmix, ..Augment::default() };
            let pipeline = Pipeline::new(plain((8, 8), 1), augment).unwrap();
            let mut images = [[0.0; 64], [1.0; 64]].concat();
            let share = pipeline.mix(&mut images, &mut stream(Purpose::Mix, 0, 0, batch));
            let blended = images.iter().any(|value| *value != 0.0 && *value != 1.0);
            // Whatever was done, the second image is as bright as its share is large.
            if let Some(share) = share {
                let mean = images[64..].iter().sum::<f32>() / 64.0;
                assert!((mean - share).abs() < 1e-5, "{mean}, {share}");
            }
            (share, blended)
        };
        assert_eq!(draw(0.0, 0.0, 0).0, None);
        let blended = |mixup, cutmix| (0..200).filter(|i| draw(mixup, cutmix, *i).1).count();
        assert_eq!((blended(1.0, 0.0), blended(0.0, 1.0)), (200, 0));
        assert!((70..130).contains(&blended(1.0, 1.0)));
        // The variance of Beta(a, a) is 1 / (8 a + 4).
        for alpha in [0.2f32, 1.0, 4.0] {
            let shares = (0..4000).map(|i| draw(alpha, 0.0, i).0.unwrap() - 0.5);
            let (sum, squares) = shares.fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
            assert!((sum / 4000.0).abs() < 0.03, "{alpha}: {sum}");
            let ratio = squares / 4000.0 * (8.0 * alpha + 4.0);
            assert!((ratio - 1.0).abs() < 0.08, "{alpha}: {ratio}");
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
        let beyond = ColorJitter { hue: 0.6, ..ColorJitter::default() };
        for (name, bad) in [
            ("augment.pad_crop", Augment { pad_crop: 4, ..good.clone() }),
            ("augment.rrc_scale", Augment { rrc_scale: (0.5, 1.5), ..good.clone() }),
            ("augment.rrc_ratio", Augment { rrc_ratio: (2.0, 1.0), ..good.clone() }),
            ("augment.num_ops", Augment { num_ops: 0, ..good.clone() }),
            ("augment.magnitude", Augment { magnitude: 31, ..good.clone() }),
            ("augment.color_jitter.hue", Augment { color_jitter: beyond, ..good.clone() }),
            ("augment.lighting", Augment { lighting: -0.1, ..good.clone() }),
            ("augment.random_erasing", Augment { random_erasing: 1.1, ..good.clone() }),
            ("augment.mixup", Augment { mixup: f32::NAN, ..good.clone() }),
            ("augment.cutmix", Augment { cutmix: f32::INFINITY, ..good }),
        ] {
            let text = bad.validate().unwrap_err().to_string();
            assert!(text.starts_with(name), "{text}");
        }
        let wide = Augment { pad_crop: 3, ..Augment::default() };
        assert!(Pipeline::new(plain((3, 9), 1), wide.clone()).is_ok());
        assert!(Pipeline::new(plain((2, 9), 1), wide).is_err());
        let lit = Augment { lighting: 0.1, ..Augment::default() };
        assert!(Pipeline::new(plain((1, 1), 3), lit.clone()).is_ok());
        assert!(Pipeline::new(plain((1, 1), 1), lit).is_err());
    }

    #[test]
    fn configs_have_defaults_and_refuse_unknown_names() {
        let augment: Augment = serde_json::from_str(r#"{"hflip": true}"#).unwrap();
        assert_eq!(augment, Augment { hflip: true, ..Augment::default() });
        assert!(serde_json::from_str::<Augment>(r#"{"flip": true}"#).is_err());
        let text = r#"{"policy": "randaugment", "color_jitter": {"hue": 0.5}}"#;
        let augment: Augment = serde_json::from_str(text).unwrap();
        assert_eq!((augment.policy, augment.num_ops), (Policy::RandAugment, 2));
        assert_eq!((augment.color_jitter.hue, augment.color_jitter.contrast), (0.5, 0.0));
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
