//! Bilinear resizing with antialiasing, as Pillow and torchvision do it.
//!
//! An output pixel is the average of the input under a triangle centred on it. The triangle is one
//! input pixel wide to each side when enlarging, and grows with the factor when shrinking, so that
//! no input pixel is skipped. Rows and columns are filtered one after the other, in 8 bits between.

use fast_image_resize::{
    FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};

use super::{
    Area,
    crop::{center, center_crop},
    resample::resample,
};
use crate::Image;

/// The image at `size` = (height, width), both at least 1.
pub fn resize(image: &Image, size: (usize, usize)) -> Image {
    resample(image, size, Area { top: 0, left: 0, size })
}

/// A part of the image at `size`, as if it had been cut out first: what lies around it has no
/// influence.
pub(super) fn resize_area(image: &Image, area: Area, size: (usize, usize)) -> Image {
    let pixels = match image.channels() {
        1 => resize_pixels::<U8>(image, area, size),
        _ => resize_pixels::<U8x3>(image, area, size),
    };
    Image::trusted(size.0, size.1, image.channels(), pixels)
}

/// The bytes of [`resize_area`], the image's pixels being of type `P`.
///
/// `Resizer::resize` would choose the type itself, and compile its thirteen types of pixels for
/// that: two thirds of this crate's build time.
fn resize_pixels<P: PixelTrait>(image: &Image, area: Area, size: (usize, usize)) -> Vec<u8> {
    // An image fills memory: its sides are far below 2^32.
    const FITS: &str = "sides fit 32 bits, pixels fit sides, the area lies inside";
    let side = |length: usize| u32::try_from(length).expect(FITS);
    let (height, width) = image.size();
    let whole = TypedImageRef::<P>::from_buffer(side(width), side(height), image.pixels());
    let whole = whole.expect(FITS);
    let (h, w) = area.size;
    let part =
        TypedCroppedImage::from_ref(&whole, side(area.left), side(area.top), side(w), side(h));
    let mut bytes = vec![0; size.0 * size.1 * image.channels()];
    let out = TypedImage::<P>::from_buffer(side(size.1), side(size.0), &mut bytes);
    let bilinear = ResizeAlg::Convolution(FilterType::Bilinear);
    let options = ResizeOptions::new().resize_alg(bilinear);
    // It fails where the options crop beyond the image, and these do not crop.
    Resizer::new().resize_typed(&part.expect(FITS), &mut out.expect(FITS), &options).expect(FITS);
    bytes
}

/// The image with its shorter side at `side` (at least 1) pixels and its proportions kept.
///
/// The longer side is rounded down, as in torchvision. It is as long as the image is: to cut the
/// middle out, [`resize_center_crop`] takes no more memory than the middle does.
pub fn resize_short_side(image: &Image, side: usize) -> Image {
    resize(image, short_side_size(image.size(), side))
}

/// The middle of the image with its shorter side at `side` (at least 1) pixels: every pixel is that
/// of [`center_crop`](super::center_crop) after [`resize_short_side`], and no other is computed.
pub fn resize_center_crop(image: &Image, side: usize, size: (usize, usize)) -> Image {
    let resized = short_side_size(image.size(), side);
    // Where the crop reaches beyond the image it is padded with black afterwards.
    let (top, height) = middle(resized.0, size.0);
    let (left, width) = middle(resized.1, size.1);
    let kept = resample(image, resized, Area { top, left, size: (height, width) });
    center_crop(&kept, size)
}

/// Start and length of what a centre crop keeps of a side.
fn middle(length: usize, size: usize) -> (usize, usize) {
    let start = usize::try_from(center(length, size)).unwrap_or(0);
    (start, size.min(length))
}

/// Height and width with the shorter side at `side`.
fn short_side_size((height, width): (usize, usize), side: usize) -> (usize, usize) {
    let long = |long: usize, short: usize| (side * long / short).max(1);
    if height <= width { (side, long(width, height)) } else { (long(height, width), side) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grey(height: usize, width: usize, pixels: &[u8]) -> Image {
        Image::new(height, width, 1, pixels.to_vec()).unwrap()
    }

    /// Pixels without any pattern: a linear congruential generator's high bytes.
    fn noise(height: usize, width: usize, channels: usize) -> Image {
        let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let states = std::iter::successors(Some(1u32), next);
        let pixels = states.map(|state| (state >> 24) as u8).take(height * width * channels);
        Image::new(height, width, channels, pixels.collect()).unwrap()
    }

    /// The definition, in one step and without rounding.
    fn definition(image: &Image, size: (usize, usize)) -> Vec<f64> {
        let weight = |from: usize, to: usize, x: usize, at: usize| {
            let factor = from as f64 / to as f64;
            let distance = (at as f64 + 0.5 - (x as f64 + 0.5) * factor) / factor.max(1.0);
            (1.0 - distance.abs()).max(0.0)
        };
        let (height, width) = image.size();
        let mut out = Vec::new();
        for y in 0..size.0 {
            for x in 0..size.1 {
                for channel in 0..image.channels() {
                    let (mut sum, mut weights) = (0.0, 0.0);
                    for v in 0..height {
                        for u in 0..width {
                            let both = weight(height, size.0, y, v) * weight(width, size.1, x, u);
                            sum += both * f64::from(image.pixel(v, u)[channel]);
                            weights += both;
                        }
                    }
                    out.push(sum / weights);
                }
            }
        }
        out
    }

    #[test]
    fn every_size_follows_the_definition() {
        for channels in [1, 3] {
            let image = noise(23, 37, channels);
            for size in [(11, 16), (23, 5), (1, 1), (40, 50), (7, 80), (23, 37)] {
                let resized = resize(&image, size);
                let expected = definition(&image, size);
                let errors = resized.pixels().iter().zip(&expected);
                let errors: Vec<f64> = errors.map(|(a, b)| (f64::from(*a) - b).abs()).collect();
                let mean = errors.iter().sum::<f64>() / errors.len() as f64;
                let worst = errors.iter().copied().fold(0.0, f64::max);
                // Two roundings, each by at most a half.
                assert!(worst < 1.1 && mean < 0.5, "{size:?}: {worst}, {mean}");
            }
        }
    }

    #[rustfmt::skip]
    const PILLOW_4X5: [u8; 20] = [
        55, 99, 135, 110, 186,
        115, 112, 98, 85, 147,
        129, 162, 187, 160, 114,
        119, 85, 97, 101, 134,
    ];
    #[rustfmt::skip]
    const PILLOW_3X12: [u8; 36] = [
        19, 88, 114, 92, 102, 123, 122, 97, 80, 145, 185, 184,
        124, 122, 125, 134, 151, 161, 143, 108, 119, 130, 134, 133,
        126, 122, 116, 110, 103, 106, 135, 169, 111, 90, 113, 162,
    ];

    #[test]
    fn pillow_gives_the_same() {
        // Image.resize((width, height), BILINEAR) of Pillow 13.0 on the same noise, mode L.
        let image = noise(7, 9, 1);
        let same = |size: (usize, usize), expected: &[u8]| {
            let resized = resize(&image, size);
            let differences = resized.pixels().iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
            assert_eq!(resized.pixels().len(), expected.len());
            assert!(differences.max().unwrap() <= 1, "{:?}", resized.pixels());
        };
        same((4, 5), &PILLOW_4X5);
        same((3, 12), &PILLOW_3X12);
    }

    /// By the crate that resizes the parts of training images.
    fn by_vectors(image: &Image, size: (usize, usize)) -> Image {
        resize_area(image, Area { top: 0, left: 0, size: image.size() }, size)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Bit for bit: the two implementations, and the crop before or after.
        #[test]
        fn only_what_a_crop_keeps_is_computed_and_with_the_same_pixels(
            height in 1usize..90,
            width in 1usize..90,
            grey in any::<bool>(),
            side in 1usize..70,
            size in (1usize..80, 1usize..80),
        ) {
            let image = noise(height, width, if grey { 1 } else { 3 });
            let resized = short_side_size(image.size(), side);
            let whole = by_vectors(&image, resized);
            prop_assert_eq!(&resize_short_side(&image, side), &whole);
            prop_assert_eq!(resize_center_crop(&image, side, size), center_crop(&whole, size));
            prop_assert_eq!(resize(&image, size), by_vectors(&image, size));
        }
    }

    #[test]
    fn photographs_have_the_same_pixels_whether_they_are_cut_before_or_after() {
        for (height, width) in [(375, 500), (500, 333), (256, 256), (224, 1000), (1200, 90)] {
            let image = noise(height, width, 3);
            for (side, size) in [(256, 224), (232, 224), (146, 128), (36, 32), (300, 299)] {
                let whole = by_vectors(&image, short_side_size(image.size(), side));
                let expected = center_crop(&whole, (size, size));
                assert_eq!(resize_center_crop(&image, side, (size, size)), expected);
            }
        }
    }

    /// Its resized long side has 25 million pixels, of which the crop keeps 224.
    #[test]
    fn a_long_strip_takes_no_more_memory_than_its_crop() {
        for (height, width) in [(1, 100_000), (100_000, 1)] {
            let image = Image::new(height, width, 3, [7, 80, 200].repeat(100_000)).unwrap();
            let out = resize_center_crop(&image, 256, (224, 224));
            assert_eq!(out.pixels(), [7, 80, 200].repeat(224 * 224));
            assert_eq!(resize(&image, (2, 3)).pixels(), [7, 80, 200].repeat(6));
        }
    }

    #[test]
    fn a_part_is_resized_as_if_it_were_cut_out() {
        let image = noise(30, 40, 3);
        let area = Area { top: 3, left: 5, size: (20, 31) };
        let cut = super::super::crop::window(&image, 3, 5, (20, 31));
        for size in [(8, 8), (20, 31), (50, 33)] {
            assert_eq!(resize_area(&image, area, size), resize(&cut, size));
        }
    }

    #[test]
    fn halving_weighs_four_pixels_per_line() {
        // From 4 to 2 the triangle reaches 2 pixels: around the centre 1.0 pixels 0, 1, 2 lie at
        // distances 0.5, 0.5, 1.5, weights 3, 3, 1 of 7; around 3.0 pixels 1, 2, 3 have 1, 3, 3.
        let row = grey(1, 4, &[0, 70, 140, 210]);
        // (0 + 210 + 140) / 7 = 50 and (70 + 420 + 630) / 7 = 160.
        assert_eq!(resize(&row, (1, 2)).pixels(), [50, 160]);
        let column = grey(4, 1, &[0, 70, 140, 210]);
        assert_eq!(resize(&column, (2, 1)).pixels(), [50, 160]);
    }

    #[test]
    fn doubling_is_plain_bilinear() {
        // Centres at 0.25, 0.75, 1.25, 1.75; the border repeats.
        let row = grey(1, 2, &[0, 100]);
        assert_eq!(resize(&row, (1, 4)).pixels(), [0, 25, 75, 100]);
    }

    #[test]
    fn the_same_size_and_a_constant_image_are_unchanged() {
        let image = Image::new(2, 2, 3, (0..12).collect()).unwrap();
        assert_eq!(resize(&image, (2, 2)), image);
        for value in [0, 1, 127, 255] {
            let flat = Image::new(7, 5, 3, vec![value; 105]).unwrap();
            for size in [(3, 3), (11, 13), (1, 1), (7, 2)] {
                assert!(resize(&flat, size).pixels().iter().all(|p| *p == value));
            }
        }
    }

    #[test]
    fn channels_do_not_mix() {
        let red = Image::new(1, 4, 3, [255, 0, 7].repeat(4)).unwrap();
        assert_eq!(resize(&red, (2, 2)).pixels(), [255, 0, 7].repeat(4));
    }

    #[test]
    fn the_short_side_decides() {
        let size = |height, width| {
            let image = grey(height, width, &vec![0; height * width]);
            resize_short_side(&image, 8).size()
        };
        assert_eq!(size(4, 7), (8, 14));
        assert_eq!(size(33, 16), (16, 8));
        assert_eq!(size(3, 10), (8, 26));
        assert_eq!(size(8, 8), (8, 8));
    }
}
