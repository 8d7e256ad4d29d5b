//! From a stored image to a network's input: preprocessing and augmentation in their order.

use std::borrow::Cow;

use rand::{Rng, RngExt};
use rand_distr::{Beta, Distribution};

use crate::{
    Augment, DataError, Image, Policy, Preprocess,
    transforms::{
        color_jitter, cutmix, flip, lighting, mixup, pad_crop, rand_augment, random_erasing,
        random_resized_crop, trivial_augment,
    },
};

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

    /// The pipeline of images for evaluation or prediction: no augmentation.
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

    /// Appends the network's input, `[channels, height, width]`, to `out`.
    ///
    /// The order: crop, mirror, policy, colour jitter, lighting, normalisation, erasing. Lighting is
    /// added on the 0 to 1 scale, neither rounded nor cut off.
    pub fn append(&self, image: &Image, rng: &mut impl Rng, out: &mut Vec<f32>) {
        self.append_prepared(self.prepare(Cow::Borrowed(image)), rng, out);
    }

    /// The deterministic part, whose result can be cached: the image at the input's size, or the
    /// whole image where a random part will be cut out.
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
            // Adding it to the pixels or subtracting it from their mean is the same.
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

    /// Whether the images of a batch are mixed.
    pub(crate) fn mixes(&self) -> bool {
        self.augment.mixup > 0.0 || self.augment.cutmix > 0.0
    }

    /// Mixes the images of a batch, `[batch, channels, height, width]`, each with the one before it
    /// and the first with the last, if the augmentation asks for it. Returns the share of each
    /// image that is its own, 0 to 1.
    pub fn mix(&self, images: &mut [f32], rng: &mut impl Rng) -> Option<f32> {
        let (mixing, cutting) = (self.augment.mixup, self.augment.cutmix);
        let cut = cutting > 0.0 && (mixing == 0.0 || rng.random());
        let alpha = if cut { cutting } else { mixing };
        // An alpha of 0 is not a distribution: nothing is mixed.
        let share = Beta::new(alpha, alpha).ok()?.sample(rng);
        let [channels, height, width] = self.preprocess.shape();
        Some(if cut {
            cutmix(images, channels, (height, width), share, rng)
        } else {
            mixup(images, channels * height * width, share)
        })
    }
}

impl Augment {
    /// The network's input from a randomly changed image, `[channels, height, width]`: for a single image,
    /// as to look at the changes; a [`Loader`](crate::Loader) makes whole batches.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        preprocess::tests::{levels, plain},
        rng::{Purpose, stream},
        transforms::ColorJitter,
    };

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
    fn augmentation_and_input_have_to_fit() {
        let wide = Augment { pad_crop: 3, ..Augment::default() };
        assert!(Pipeline::new(plain((3, 9), 1), wide.clone()).is_ok());
        assert!(Pipeline::new(plain((2, 9), 1), wide).is_err());
        let lit = Augment { lighting: 0.1, ..Augment::default() };
        assert!(Pipeline::new(plain((1, 1), 3), lit.clone()).is_ok());
        assert!(Pipeline::new(plain((1, 1), 1), lit).is_err());
    }
}
