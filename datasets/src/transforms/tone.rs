//! Curves: every value is replaced by another, channel by channel, as Pillow's `ImageOps` does.

use crate::Image;

/// Keeps the upper `bits` (0 to 8) of every value.
pub fn posterize(image: &mut Image, bits: u32) {
    let mask = !(0xffu32 >> bits) as u8;
    for value in image.pixels_mut() {
        *value &= mask;
    }
}

/// Inverts the values of at least `threshold` (0 to 256).
pub fn solarize(image: &mut Image, threshold: f32) {
    for value in image.pixels_mut() {
        if f32::from(*value) >= threshold {
            *value = 255 - *value;
        }
    }
}

/// Stretches every channel to the full range, from 0 to 255; a channel with a single value is
/// unchanged.
pub fn auto_contrast(image: &mut Image) {
    map_channels(image, |histogram| {
        let low = histogram.iter().position(|count| *count > 0)?;
        let high = histogram.iter().rposition(|count| *count > 0)?;
        if low == high {
            return None;
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = low as f64 * scale;
        // `as` clamps and truncates, as Pillow does.
        Some(std::array::from_fn(|value| (value as f64 * scale - offset) as u8))
    });
}

/// Spreads the values of every channel so that all grey levels are about equally frequent.
///
/// A channel with fewer than 255 pixels below its largest value is unchanged.
pub fn equalize(image: &mut Image) {
    map_channels(image, |histogram| {
        let last = histogram.iter().rposition(|count| *count > 0)?;
        let below: usize = histogram[..last].iter().sum();
        let step = below / 255;
        if step == 0 {
            return None;
        }
        let mut sum = step / 2;
        Some(std::array::from_fn(|value| {
            let level = (sum / step).min(255);
            sum += histogram[value];
            level as u8
        }))
    });
}

/// Replaces the values of each channel by the curve of its histogram, where there is one.
fn map_channels(image: &mut Image, curve: impl Fn(&[usize; 256]) -> Option<[u8; 256]>) {
    let channels = image.channels();
    for channel in 0..channels {
        let mut histogram = [0; 256];
        for value in image.pixels()[channel..].iter().step_by(channels) {
            histogram[usize::from(*value)] += 1;
        }
        if let Some(curve) = curve(&histogram) {
            for value in image.pixels_mut()[channel..].iter_mut().step_by(channels) {
                *value = curve[usize::from(*value)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::reference::{image, levels};

    // Expected: Pillow 13.0's `ImageOps` on the same image.

    #[test]
    fn posterize_is_pillows() {
        assert_eq!(
            levels(posterize, 2),
            [
                0, 0, 64, 192, 64, 192, 64, 0, 192, 192, 128, 192, 192, 0, 64, 192, 64, 192, 128,
                64, 0, 192, 192, 0, 0, 64, 192, 0, 128, 64, 0, 192, 128, 128, 128, 128, 192, 0,
                128, 192, 128, 0, 192, 128, 128, 128, 128, 128, 192, 64, 128, 0, 128, 64, 0, 192,
                192, 192, 192, 0, 64, 128, 0, 128, 64, 192, 128, 128, 128, 128, 128, 192, 0, 128,
                192, 128, 0, 192, 128, 128, 128, 128, 192, 0, 64, 128, 0, 192, 64, 0
            ]
        );
        assert_eq!(levels(posterize, 8), image().pixels());
    }

    #[test]
    fn solarize_is_pillows() {
        assert_eq!(
            levels(solarize, 127.5),
            [
                0, 48, 118, 45, 68, 51, 106, 30, 23, 55, 65, 53, 19, 36, 114, 41, 80, 31, 121, 66,
                20, 3, 5, 14, 56, 120, 49, 58, 67, 84, 2, 57, 95, 111, 105, 77, 27, 44, 117, 1,
                119, 40, 33, 85, 115, 123, 109, 73, 15, 64, 89, 34, 75, 92, 26, 17, 39, 39, 17, 26,
                92, 75, 34, 89, 64, 15, 73, 109, 123, 115, 85, 33, 40, 119, 1, 117, 44, 27, 77,
                105, 111, 95, 57, 2, 84, 67, 58, 49, 120, 56
            ]
        );
        assert_eq!(levels(solarize, 256.0), image().pixels());
    }

    #[test]
    fn auto_contrast_is_pillows() {
        // Half of the range first, so that there is something to stretch.
        let narrow = |image: &mut Image, _| {
            image.pixels_mut().iter_mut().for_each(|value| *value = 40 + *value / 2);
            auto_contrast(image);
        };
        assert_eq!(
            levels(narrow, ()),
            [
                0, 20, 117, 210, 44, 204, 106, 0, 232, 200, 185, 202, 236, 6, 113, 214, 57, 224,
                134, 41, 18, 252, 255, 12, 56, 104, 206, 58, 183, 82, 2, 194, 159, 144, 139, 178,
                228, 16, 137, 255, 122, 38, 222, 162, 139, 132, 134, 182, 240, 39, 165, 34, 173,
                91, 26, 241, 216, 216, 241, 24, 92, 173, 32, 166, 39, 240, 182, 134, 131, 140, 162,
                222, 40, 122, 255, 138, 16, 228, 178, 139, 143, 160, 194, 0, 84, 183, 56, 206, 104,
                54
            ]
        );
    }

    #[test]
    fn equalize_spreads_the_levels() {
        // 765 pixels below the largest of 255: three for each level. So 20 starts at (1 + 0) / 3,
        // 30 at (1 + 255) / 3, 40 at (1 + 510) / 3 and 50 at (1 + 765) / 3.
        let pixels = [20, 30, 40, 50].map(|grey| [grey; 255]).as_flattened().to_vec();
        let mut even = Image::new(4, 255, 1, pixels).unwrap();
        equalize(&mut even);
        let firsts: Vec<u8> = even.pixels().iter().copied().step_by(255).collect();
        assert_eq!(firsts, [0, 85, 170, 255]);
    }

    #[test]
    fn a_channel_without_contrast_stays() {
        for mut flat in [
            Image::new(30, 30, 3, [7, 80, 255].repeat(900)).unwrap(),
            Image::new(1, 1, 1, vec![9]).unwrap(),
        ] {
            let before = flat.clone();
            auto_contrast(&mut flat);
            equalize(&mut flat);
            assert_eq!(flat, before);
        }
    }
}
