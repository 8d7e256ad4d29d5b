//! Brightness, contrast, saturation and sharpness: the image blended with a duller version of it.
//!
//! Every function takes a factor: 0 gives the dull version, 1 the image as it is, more than 1
//! exaggerates. Results are those of Pillow's `ImageEnhance`, which torchvision uses: computed in
//! `f32`, clamped to 0 and 255, and truncated.

use super::to_channels::luma;
use crate::Image;

/// Blends with black: every value times `factor` (at least 0).
pub fn brightness(image: &mut Image, factor: f32) {
    blend_with(image, 0, factor);
}

/// Blends with the mean grey level of the image by `factor` (at least 0).
pub fn contrast(image: &mut Image, factor: f32) {
    let pixels = image.height() * image.width();
    let sum: u64 = match image.channels() {
        1 => image.pixels().iter().map(|grey| u64::from(*grey)).sum(),
        _ => image.pixels().as_chunks::<3>().0.iter().map(|rgb| u64::from(luma(rgb))).sum(),
    };
    let mean = (sum as f64 / pixels as f64 + 0.5) as u8;
    blend_with(image, mean, factor);
}

/// Blends every pixel with its own grey level by `factor` (at least 0); grey images are unchanged.
pub fn saturation(image: &mut Image, factor: f32) {
    if image.channels() == 1 {
        return;
    }
    for rgb in image.pixels_mut().as_chunks_mut::<3>().0 {
        let grey = luma(rgb);
        *rgb = rgb.map(|value| blend(grey, value, factor));
    }
}

/// Blends with a smoothed image by `factor` (at least 0): below 1 blurs, above 1 sharpens.
///
/// The smoothed image weighs a pixel 5 and its eight neighbours 1 each; the border is not smoothed.
pub fn sharpness(image: &mut Image, factor: f32) {
    let (height, width) = image.size();
    let (channels, row) = (image.channels(), image.width() * image.channels());
    let source = image.pixels().to_vec();
    let out = image.pixels_mut();
    for y in 1..height.saturating_sub(1) {
        let [above, middle, below] = [y - 1, y, y + 1].map(|y| &source[y * row..(y + 1) * row]);
        for x in channels..(width.max(1) - 1) * channels {
            let around = |line: &[u8]| {
                [x - channels, x, x + channels].map(|at| u32::from(line[at])).iter().sum::<u32>()
            };
            let sum = around(above) + around(middle) + around(below) + 4 * u32::from(middle[x]);
            let smooth = (sum + 6) / 13; // rounded: 13 is odd, there are no ties
            out[y * row + x] = blend(smooth as u8, middle[x], factor);
        }
    }
}

/// Blends every value with the same dull one, by a table: values have 256 levels.
fn blend_with(image: &mut Image, dull: u8, factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|value| blend(dull, value as u8, factor));
    for value in image.pixels_mut() {
        *value = table[usize::from(*value)];
    }
}

/// From `dull` at 0 to `value` at 1, and beyond; `as` clamps and truncates.
fn blend(dull: u8, value: u8, factor: f32) -> u8 {
    let (dull, value) = (f32::from(dull), f32::from(value));
    (dull + factor * (value - dull)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::reference::{image, levels};

    // Expected: Pillow 13.0's `ImageEnhance` on the same image.

    #[test]
    fn brightness_is_pillows() {
        assert_eq!(
            levels(brightness, 0.3),
            [
                0, 14, 35, 63, 20, 61, 31, 9, 69, 60, 57, 60, 70, 10, 34, 64, 24, 67, 40, 19, 6,
                75, 75, 4, 16, 36, 61, 17, 56, 25, 0, 59, 48, 43, 45, 53, 68, 13, 41, 76, 40, 12,
                66, 51, 42, 39, 43, 54, 72, 19, 49, 10, 54, 27, 7, 71, 64, 64, 71, 7, 27, 54, 10,
                49, 19, 72, 54, 43, 39, 42, 51, 66, 12, 40, 76, 41, 13, 68, 53, 45, 43, 48, 59, 0,
                25, 56, 17, 61, 36, 16
            ]
        );
        assert_eq!(
            levels(brightness, 1.7),
            [
                0, 81, 200, 255, 115, 255, 180, 51, 255, 255, 255, 255, 255, 61, 193, 255, 136,
                255, 227, 112, 34, 255, 255, 23, 95, 204, 255, 98, 255, 142, 3, 255, 255, 244, 255,
                255, 255, 74, 234, 255, 231, 68, 255, 255, 238, 224, 248, 255, 255, 108, 255, 57,
                255, 156, 44, 255, 255, 255, 255, 44, 156, 255, 57, 255, 108, 255, 255, 248, 224,
                238, 255, 255, 68, 231, 255, 234, 74, 255, 255, 255, 244, 255, 255, 3, 142, 255,
                98, 255, 204, 95
            ]
        );
    }

    #[test]
    fn contrast_is_pillows() {
        assert_eq!(
            levels(contrast, 0.3),
            [
                96, 111, 132, 159, 117, 157, 128, 105, 166, 156, 153, 157, 167, 107, 130, 160, 120,
                163, 136, 116, 102, 172, 171, 100, 113, 132, 158, 114, 153, 121, 97, 156, 144, 139,
                141, 150, 165, 109, 138, 172, 137, 108, 163, 147, 138, 136, 140, 151, 168, 115,
                146, 106, 150, 124, 104, 168, 161, 161, 168, 104, 124, 150, 106, 146, 115, 168,
                151, 140, 136, 138, 147, 163, 108, 137, 172, 138, 109, 165, 150, 141, 139, 144,
                156, 97, 121, 153, 114, 158, 132, 113
            ]
        );
        assert_eq!(
            levels(contrast, 1.7),
            [
                0, 0, 104, 255, 19, 250, 83, 0, 255, 243, 226, 246, 255, 0, 97, 255, 39, 255, 131,
                15, 0, 255, 255, 0, 0, 107, 253, 2, 223, 46, 0, 240, 175, 148, 158, 206, 255, 0,
                138, 255, 134, 0, 255, 192, 141, 127, 151, 212, 255, 12, 185, 0, 209, 59, 0, 255,
                255, 255, 255, 0, 59, 209, 0, 185, 12, 255, 212, 151, 127, 141, 192, 255, 0, 134,
                255, 138, 0, 255, 206, 158, 148, 175, 240, 0, 46, 223, 2, 253, 107, 0
            ]
        );
    }

    #[test]
    fn saturation_is_pillows() {
        assert_eq!(
            levels(saturation, 0.3),
            [
                29, 43, 64, 151, 108, 149, 85, 62, 122, 195, 192, 196, 144, 84, 107, 159, 119, 162,
                96, 76, 62, 232, 231, 161, 94, 113, 139, 113, 152, 121, 95, 153, 142, 148, 150,
                159, 145, 90, 118, 188, 152, 124, 194, 178, 169, 141, 146, 156, 161, 108, 139, 98,
                142, 115, 128, 191, 185, 209, 216, 152, 123, 149, 106, 130, 99, 152, 163, 152, 148,
                158, 167, 183, 96, 125, 160, 106, 78, 133, 164, 155, 153, 162, 174, 115, 124, 155,
                116, 158, 132, 113
            ]
        );
        assert_eq!(
            levels(saturation, 1.7),
            [
                0, 52, 171, 255, 27, 255, 127, 0, 255, 204, 187, 207, 255, 0, 120, 255, 40, 255,
                171, 55, 0, 255, 255, 0, 17, 126, 255, 2, 223, 46, 0, 242, 177, 139, 149, 196, 255,
                0, 157, 255, 119, 0, 250, 161, 110, 122, 146, 207, 255, 19, 192, 0, 217, 68, 0,
                255, 246, 222, 255, 0, 60, 210, 0, 201, 28, 255, 200, 139, 115, 121, 172, 255, 0,
                146, 255, 169, 9, 255, 192, 144, 134, 157, 221, 0, 43, 220, 0, 253, 107, 0
            ]
        );
    }

    #[test]
    fn sharpness_is_pillows() {
        assert_eq!(
            levels(sharpness, 0.3),
            [
                0, 48, 118, 210, 68, 204, 106, 30, 232, 200, 190, 202, 236, 36, 114, 214, 80, 224,
                134, 66, 20, 208, 179, 67, 109, 131, 176, 97, 158, 123, 69, 168, 157, 144, 150,
                178, 228, 44, 138, 210, 147, 65, 192, 167, 123, 129, 143, 165, 182, 103, 163, 34,
                180, 92, 26, 238, 216, 186, 194, 79, 131, 163, 73, 163, 103, 182, 165, 143, 129,
                140, 170, 222, 40, 136, 254, 138, 44, 228, 178, 150, 144, 160, 198, 2, 84, 188, 58,
                206, 120, 56
            ]
        );
        assert_eq!(
            levels(sharpness, 1.7),
            [
                0, 48, 118, 210, 68, 204, 106, 30, 232, 200, 190, 202, 236, 36, 114, 214, 80, 224,
                134, 66, 20, 255, 255, 0, 2, 108, 235, 18, 217, 44, 0, 227, 162, 144, 150, 178,
                228, 44, 138, 255, 124, 14, 251, 172, 156, 134, 148, 198, 255, 24, 168, 34, 180,
                92, 26, 238, 216, 245, 255, 0, 52, 196, 0, 168, 24, 255, 198, 148, 134, 140, 170,
                222, 40, 136, 254, 138, 44, 228, 178, 150, 144, 160, 198, 2, 84, 188, 58, 206, 120,
                56
            ]
        );
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        for enhance in [brightness, contrast, saturation, sharpness] {
            let mut same = image();
            enhance(&mut same, 1.0);
            assert_eq!(same, image());
        }
    }

    #[test]
    fn small_and_grey_images_are_enhanced_too() {
        for (height, width) in [(1, 1), (1, 5), (2, 2), (5, 1)] {
            let mut flat = Image::new(height, width, 1, vec![100; height * width]).unwrap();
            for enhance in [contrast, saturation, sharpness] {
                enhance(&mut flat, 1.5);
                assert!(flat.pixels().iter().all(|grey| *grey == 100));
            }
            brightness(&mut flat, 1.5);
            assert!(flat.pixels().iter().all(|grey| *grey == 150));
        }
    }
}
