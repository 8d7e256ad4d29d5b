//! Policies: a few changes drawn from a fixed set of fourteen, with torchvision's set and strengths.
//!
//! RandAugment: Cubuk et al. (2019), arXiv:1909.13719. TrivialAugment: Mueller and Hutter (2021),
//! arXiv:2103.10158.

use rand::{Rng, RngExt};

use super::{
    auto_contrast, brightness, contrast, equalize, posterize, rotate, saturation, sharpness,
    shear_x, shear_y, solarize, translate,
};
use crate::Image;

/// The strongest magnitude of a policy; 0 is the weakest.
pub const MAX_MAGNITUDE: u32 = 30;

/// Applies `num_ops` random changes, one after the other, at `magnitude` (0 to 30).
pub fn rand_augment(image: Image, num_ops: u32, magnitude: u32, rng: &mut impl Rng) -> Image {
    let space = Space::rand_augment(&image);
    (0..num_ops).fold(image, |image, _| {
        let op = Op::ALL[rng.random_range(0..Op::ALL.len())];
        op.apply(image, space.signed(op, magnitude, rng))
    })
}

/// Applies one random change at a random magnitude, from a wider range than RandAugment's.
pub fn trivial_augment(image: Image, rng: &mut impl Rng) -> Image {
    let op = Op::ALL[rng.random_range(0..Op::ALL.len())];
    let magnitude = rng.random_range(0..=MAX_MAGNITUDE);
    op.apply(image, Space::TRIVIAL_AUGMENT.signed(op, magnitude, rng))
}

/// A change of the set.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

impl Op {
    const ALL: [Self; 14] = [
        Self::Identity,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Rotate,
        Self::Brightness,
        Self::Color,
        Self::Contrast,
        Self::Sharpness,
        Self::Posterize,
        Self::Solarize,
        Self::AutoContrast,
        Self::Equalize,
    ];

    /// The image changed by an amount in the operation's own unit.
    fn apply(self, mut image: Image, amount: f64) -> Image {
        let factor = (1.0 + amount) as f32;
        match self {
            Self::Identity => {}
            Self::ShearX => return shear_x(&image, amount),
            Self::ShearY => return shear_y(&image, amount),
            Self::TranslateX => return translate(&image, amount as isize, 0),
            Self::TranslateY => return translate(&image, 0, amount as isize),
            Self::Rotate => return rotate(&image, amount),
            Self::Brightness => brightness(&mut image, factor),
            Self::Color => saturation(&mut image, factor),
            Self::Contrast => contrast(&mut image, factor),
            Self::Sharpness => sharpness(&mut image, factor),
            Self::Posterize => posterize(&mut image, 8 - amount.round_ties_even() as u32),
            Self::Solarize => solarize(&mut image, 255.0 - amount as f32),
            Self::AutoContrast => auto_contrast(&mut image),
            Self::Equalize => equalize(&mut image),
        }
        image
    }
}

/// What the strongest magnitude means; magnitudes are spread evenly from 0 to it.
struct Space {
    /// Columns per row and rows per column.
    shear: f64,
    /// Columns and rows.
    translate: (f64, f64),
    /// Degrees.
    rotate: f64,
    /// Difference from 1 of the factor of brightness, colour, contrast and sharpness.
    enhance: f64,
    /// Bits lost.
    posterize: f64,
}

impl Space {
    /// One strength for all sizes of images, even where a move leaves nothing of a small one.
    const TRIVIAL_AUGMENT: Self =
        Self { shear: 0.99, translate: (32.0, 32.0), rotate: 135.0, enhance: 0.99, posterize: 6.0 };

    fn rand_augment(image: &Image) -> Self {
        let part = |side: usize| 150.0 / 331.0 * side as f64;
        let translate = (part(image.width()), part(image.height()));
        Self { shear: 0.3, translate, rotate: 30.0, enhance: 0.9, posterize: 4.0 }
    }

    /// The amount of a magnitude, to either side where the operation has two.
    fn signed(&self, op: Op, magnitude: u32, rng: &mut impl Rng) -> f64 {
        let (amount, signed) = self.amount(op, magnitude);
        if signed && rng.random() { -amount } else { amount }
    }

    /// The amount of a magnitude and whether it has a sign.
    fn amount(&self, op: Op, magnitude: u32) -> (f64, bool) {
        let (most, signed) = match op {
            Op::Identity | Op::AutoContrast | Op::Equalize => (0.0, false),
            Op::ShearX | Op::ShearY => (self.shear, true),
            Op::TranslateX => (self.translate.0, true),
            Op::TranslateY => (self.translate.1, true),
            Op::Rotate => (self.rotate, true),
            Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => (self.enhance, true),
            Op::Posterize => (self.posterize, false),
            Op::Solarize => (255.0, false),
        };
        let amount = match op {
            // torchvision spreads magnitudes in `f32`, from both ends; the last bit of a factor
            // decides the level of a pixel.
            Op::Brightness | Op::Color | Op::Contrast | Op::Sharpness => {
                let step = most as f32 / MAX_MAGNITUDE as f32;
                f64::from(match magnitude < MAX_MAGNITUDE / 2 {
                    true => step * magnitude as f32,
                    false => (-step).mul_add((MAX_MAGNITUDE - magnitude) as f32, most as f32),
                })
            }
            _ => most * f64::from(magnitude) / f64::from(MAX_MAGNITUDE),
        };
        (amount, signed)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        rng::{Purpose, stream},
        transforms::reference::pattern,
    };

    /// Start of the SHA-256 of the image under an operation at all magnitudes, both signs where
    /// there are two.
    fn digest(op: Op, space: &Space, image: &Image) -> String {
        let mut hash = Sha256::new();
        for magnitude in 0..=MAX_MAGNITUDE {
            let (amount, signed) = space.amount(op, magnitude);
            for amount in [amount, -amount].into_iter().take(1 + usize::from(signed)) {
                hash.update(op.apply(image.clone(), amount).pixels());
            }
        }
        hash.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn every_operation_at_every_magnitude_is_torchvisions() {
        // `_apply_op` of torchvision 0.29 on Pillow 13.0, with the magnitudes of `RandAugment` and
        // of `TrivialAugmentWide`, on a pattern of 45 x 52 pixels; but TrivialAugment's 16 pixels at
        // magnitude 15, which are 15.999999 in torchvision's `f32` and cut to 15, are left at 16.
        let expected = [
            ["c1711d2f", "c1711d2f"],
            ["8c2e107b", "7e21cf62"],
            ["a321a2be", "534a6455"],
            ["c4baecb5", "15f2dfa7"],
            ["a5b137e8", "a7ee528b"],
            ["ee92bd4d", "6a050369"],
            ["8bfbde19", "a8e4b00b"],
            ["cdd7db40", "d3f91b27"],
            ["ba57ef48", "24cc474c"],
            ["a14abd3d", "091c06fa"],
            ["cadb99c9", "b8f59877"],
            ["c695a37b", "c695a37b"],
            ["ecbe61f7", "ecbe61f7"],
            ["66862ab8", "66862ab8"],
        ];
        let image = pattern(45, 52);
        let spaces = [Space::rand_augment(&image), Space::TRIVIAL_AUGMENT];
        for (op, expected) in Op::ALL.into_iter().zip(expected) {
            let digests = spaces.each_ref().map(|space| digest(op, space, &image));
            assert_eq!(digests, expected, "{op:?}");
        }
    }

    #[test]
    fn every_operation_and_both_signs_are_drawn() {
        // Moved by 150 / 331 * 2 * 30 / 30 = 0.9 pixels, which is none, and so on: at magnitude 30
        // fourteen operations, nine of which have signs, make this many different images.
        let image = pattern(45, 52);
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let mut images: Vec<Vec<u8>> = (0..1000)
            .map(|_| rand_augment(image.clone(), 1, 30, &mut rng).pixels().to_vec())
            .collect();
        images.sort_unstable();
        images.dedup();
        assert_eq!(images.len(), 14 + 9);
    }

    #[test]
    fn operations_follow_each_other_and_magnitudes_vary() {
        let image = pattern(45, 52);
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        assert_eq!(rand_augment(image.clone(), 0, 9, &mut rng), image);
        let mut different = |augment: &dyn Fn(Image, &mut _) -> Image| {
            let mut images: Vec<Vec<u8>> =
                (0..300).map(|_| augment(image.clone(), &mut rng).pixels().to_vec()).collect();
            images.sort_unstable();
            images.dedup();
            images.len()
        };
        assert!(different(&|image, rng| rand_augment(image, 2, 9, rng)) > 100);
        assert!(different(&|image, rng| trivial_augment(image, rng)) > 100);
    }

    #[test]
    fn any_size_and_grey_are_enough() {
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        for (height, width) in [(1, 1), (1, 9), (2, 3)] {
            let grey = Image::new(height, width, 1, vec![100; height * width]).unwrap();
            for _ in 0..200 {
                let out = trivial_augment(rand_augment(grey.clone(), 2, 30, &mut rng), &mut rng);
                assert_eq!((out.size(), out.channels()), (grey.size(), 1));
            }
        }
    }
}
