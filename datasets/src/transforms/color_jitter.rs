//! Random changes of colour.

use rand::{Rng, RngExt, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::{brightness, contrast, hue, saturation};
use crate::Image;

/// Ranges of random colour changes, as in torchvision's `ColorJitter`; by default there are none.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// Brightness is multiplied by a factor between 1 - value (at least 0) and 1 + value; 0 is off.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub brightness: f32,
    /// The same for contrast.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub contrast: f32,
    /// The same for saturation.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub saturation: f32,
    /// Hue is shifted by up to this part of the colour circle to either side, 0 to 0.5; 0 is off.
    #[serde(serialize_with = "crate::shortest::serialize")]
    pub hue: f32,
}

/// Changes brightness, contrast, saturation and hue, in a random order, each by a random amount.
pub fn color_jitter(image: &mut Image, jitter: &ColorJitter, rng: &mut impl Rng) {
    if *jitter == ColorJitter::default() {
        return;
    }
    let mut order = [0, 1, 2, 3];
    order.shuffle(rng);
    for change in order {
        match change {
            0 => enhance(image, brightness, jitter.brightness, rng),
            1 => enhance(image, contrast, jitter.contrast, rng),
            2 => enhance(image, saturation, jitter.saturation, rng),
            _ if jitter.hue > 0.0 => hue(image, rng.random_range(-jitter.hue..=jitter.hue)),
            _ => {}
        }
    }
}

fn enhance(image: &mut Image, by: fn(&mut Image, f32), reach: f32, rng: &mut impl Rng) {
    if reach > 0.0 {
        by(image, rng.random_range((1.0 - reach).max(0.0)..=1.0 + reach));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn nothing_changes_without_strength() {
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let mut same = super::super::reference::image();
        color_jitter(&mut same, &ColorJitter::default(), &mut rng);
        assert_eq!(same, super::super::reference::image());
    }

    #[test]
    fn brightness_covers_its_range() {
        let jitter = ColorJitter { brightness: 0.4, ..ColorJitter::default() };
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let mut draw = || {
            let mut grey = Image::new(1, 1, 1, vec![100]).unwrap();
            color_jitter(&mut grey, &jitter, &mut rng);
            u32::from(grey.pixels()[0])
        };
        let levels: Vec<u32> = (0..2000).map(|_| draw()).collect();
        assert!((60..=62).contains(levels.iter().min().unwrap()));
        assert!((138..=140).contains(levels.iter().max().unwrap()));
        // Uniform over 60 to 140, half a level lower by the dropped fraction: the mean's deviation is
        // 80 / sqrt(12 * 2000) = 0.5.
        let mean = levels.iter().sum::<u32>() as f64 / 2000.0;
        assert!((mean - 99.5).abs() < 2.0, "{mean}");
    }

    #[test]
    fn the_order_is_drawn() {
        // Less contrast lifts black and lowers white by the same. Brighter afterwards, white is cut
        // off at 255 and black stays lifted; brighter before, which white does not show, their sum
        // is still 255.
        let jitter = ColorJitter { brightness: 1.0, contrast: 1.0, ..ColorJitter::default() };
        let (mut contrast_first, mut brightness_first) = (0, 0);
        for index in 0..400 {
            let mut image = Image::new(1, 2, 1, vec![0, 255]).unwrap();
            color_jitter(&mut image, &jitter, &mut stream(Purpose::Augment, 0, 0, index));
            let [black, white] = [0, 1].map(|x| i32::from(image.pixels()[x]));
            contrast_first += i32::from(black > 10 && white == 255);
            brightness_first += i32::from(black > 10 && (254..=256).contains(&(black + white)));
        }
        // With one order alone the other count is 0, or at most a few by chance.
        assert!(
            contrast_first > 15 && brightness_first > 15,
            "{contrast_first} {brightness_first}"
        );
    }
}
