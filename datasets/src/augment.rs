//! Augmentation of training images: which changes, and how strong.

use serde::{Deserialize, Serialize};

use crate::{
    DataError,
    transforms::{ColorJitter, MAX_MAGNITUDE},
};

/// Augmentation of training images; by default there is none.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Pixels of black padding on each side before a random crop back to size; 0 is off, at most
    /// the input's shorter side.
    pub pad_crop: usize,
    /// Mirror images with probability 1/2.
    pub hflip: bool,
    /// Crop a random part of the image instead of its centre.
    pub random_resized_crop: bool,
    /// Smallest and largest share of the image's area in `random_resized_crop`, above 0 and up to 1.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub rrc_scale: (f32, f32),
    /// Smallest and largest aspect ratio (width over height) of that part, above 0.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub rrc_ratio: (f32, f32),
    /// Policy of random changes.
    pub policy: Policy,
    /// Changes that `randaugment` makes to an image, 1 to 16.
    pub num_ops: u32,
    /// Strength of `randaugment`, 0 to 30.
    pub magnitude: u32,
    /// Random changes of brightness, contrast, saturation and hue.
    pub color_jitter: ColorJitter,
    /// Standard deviation of a colour shift along ImageNet's principal components (AlexNet's PCA
    /// lighting), 0 to 1; 0.1 is usual, 0 is off.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub lighting: f32,
    /// Probability of erasing a random rectangle, which is set to the mean colour, 0 to 1.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub random_erasing: f32,
    /// Mixup: blend the images of a batch in pairs, with shares from Beta(alpha, alpha). The value is
    /// alpha, 0 to 100; 0 is off. With `cutmix` as well, each batch gets one of the two at random.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub mixup: f32,
    /// CutMix: replace a rectangle of each image by that of another, with areas from
    /// Beta(alpha, alpha). The value is alpha, 0 to 100; 0 is off.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub cutmix: f32,
}

/// A policy of random changes: shear, translation, rotation, brightness, colour, contrast, sharpness,
/// tone.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// No policy.
    #[default]
    None,
    /// `num_ops` changes of strength `magnitude`.
    RandAugment,
    /// One change of random strength, from a wide range.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
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
    }
}
