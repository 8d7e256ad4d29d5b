//! Rotation of hues.

use crate::Image;

/// Rotates every pixel's hue by `turn` (-1 to 1) of the circle; value and saturation of HSV are
/// unchanged.
///
/// Grey pixels and grey images are unchanged. Exact up to rounding, while Pillow, and torchvision
/// on it, distinguish only 256 hues.
///
/// With C the difference of a pixel's largest and smallest channel, the hue is counted in units of
/// C/6 turns scaled by C, so that no division is needed: red is 0, green 2 C, blue 4 C, all of the
/// circle 6 C.
pub fn hue(image: &mut Image, turn: f32) {
    if image.channels() == 1 {
        return;
    }
    // A turn in sixths, in 16-bit fixed point, 0 to 6.
    let sixths = (f64::from(turn).rem_euclid(1.0) * 6.0 * 65536.0).round() as i32;
    for rgb in image.pixels_mut().as_chunks_mut::<3>().0 {
        *rgb = turned(*rgb, sixths);
    }
}

fn turned(rgb: [u8; 3], sixths: i32) -> [u8; 3] {
    let [r, g, b] = rgb.map(i32::from);
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let range = max - min;
    let circle = 6 * range;
    let hue = if r == max {
        g - b
    } else if g == max {
        2 * range + b - r
    } else {
        4 * range + r - g
    };
    // Between -1 and 11 ranges: one turn forth or back leads into the circle.
    let hue = hue + ((range * sixths + 0x8000) >> 16);
    let hue = if hue < 0 { hue + circle } else { hue };
    let hue = if hue >= circle { hue - circle } else { hue };
    // A channel is at the top within one sixth of its colour and at the bottom beyond two.
    let red = (hue - 3 * range).abs() - range;
    let green = 2 * range - (hue - 2 * range).abs();
    let blue = 2 * range - (hue - 4 * range).abs();
    [red, green, blue].map(|height| (min + height.clamp(0, range)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::reference::{image, levels};

    /// Hue, saturation, value by their definition, and back, in `f64`.
    fn by_definition(rgb: [u8; 3], turn: f64) -> [f64; 3] {
        let [r, g, b] = rgb.map(f64::from);
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let range = max - min;
        if range == 0.0 {
            return [r, g, b];
        }
        let degrees = 60.0
            * if max == r {
                (g - b) / range
            } else if max == g {
                2.0 + (b - r) / range
            } else {
                4.0 + (r - g) / range
            };
        let degrees = (degrees + 360.0 * turn).rem_euclid(360.0);
        let second = range * (1.0 - ((degrees / 60.0) % 2.0 - 1.0).abs());
        let [r, g, b] = match degrees as u32 / 60 {
            0 => [range, second, 0.0],
            1 => [second, range, 0.0],
            2 => [0.0, range, second],
            3 => [0.0, second, range],
            4 => [second, 0.0, range],
            _ => [range, 0.0, second],
        };
        [r + min, g + min, b + min]
    }

    #[test]
    fn every_colour_turns_as_defined() {
        let steps = || (0..=255u8).step_by(15);
        for turn in [-0.5, -0.4, -0.13, 0.0, 0.01, 1.0 / 3.0, 0.5] {
            for (r, g, b) in
                steps().flat_map(|r| steps().flat_map(move |g| steps().map(move |b| (r, g, b))))
            {
                let mut one = Image::new(1, 1, 3, vec![r, g, b]).unwrap();
                hue(&mut one, turn as f32);
                let expected = by_definition([r, g, b], turn);
                for (value, expected) in one.pixels().iter().zip(expected) {
                    let error = (f64::from(*value) - expected).abs();
                    assert!(error < 0.51, "{r} {g} {b} turned by {turn}: {value}, {expected}");
                }
            }
        }
    }

    #[test]
    fn it_is_torchvisions_within_one_level() {
        // `adjust_hue` of torchvision 0.29 on a float tensor, times 255 and rounded.
        let expected = [
            118, 0, 72, 210, 188, 68, 232, 66, 30, 202, 198, 190, 154, 236, 36, 224, 185, 80, 20,
            134, 43, 14, 252, 202, 206, 56, 150, 58, 58, 188, 121, 2, 198, 178, 144, 157, 175, 228,
            44, 40, 254, 93, 140, 222, 154, 182, 132, 156, 201, 240, 64, 63, 34, 180, 174, 26, 238,
            26, 238, 218, 34, 121, 180, 240, 131, 64, 132, 182, 136, 222, 140, 186, 254, 40, 179,
            228, 101, 44, 145, 178, 144, 2, 198, 197, 58, 110, 188, 56, 206, 90,
        ];
        for (value, expected) in levels(hue, 0.3).iter().zip(expected) {
            assert!(value.abs_diff(expected) <= 1, "{value}, {expected}");
        }
    }

    #[test]
    fn a_whole_turn_and_grey_change_nothing() {
        for turn in [-1.0, 0.0, 1.0] {
            let mut same = image();
            hue(&mut same, turn);
            assert_eq!(same, image());
        }
        let mut grey = Image::new(1, 2, 1, vec![3, 200]).unwrap();
        hue(&mut grey, 0.2);
        assert_eq!(grey.pixels(), [3, 200]);
    }
}
