//! From bytes to the numbers a network reads.

use crate::Image;

/// Appends `(pixel / 255 - mean) / std` to `out`, `[channels, height, width]`.
///
/// `mean` and `std` hold one value per channel of the image, on the 0 to 1 scale.
pub fn normalize(image: &Image, mean: &[f32], std: &[f32], out: &mut Vec<f32>) {
    debug_assert_eq!((mean.len(), std.len()), (image.channels(), image.channels()));
    for (channel, (mean, std)) in mean.iter().zip(std).enumerate() {
        // A byte has 256 values: looking them up spares two divisions a pixel.
        let levels: [f32; 256] = std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std);
        let plane = image.pixels()[channel..].iter().step_by(image.channels());
        out.extend(plane.map(|pixel| levels[usize::from(*pixel)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_follow_each_other() {
        let image = Image::new(1, 2, 3, vec![0, 51, 102, 153, 204, 255]).unwrap();
        let mut out = vec![9.0];
        normalize(&image, &[0.0, 0.2, 0.5], &[1.0, 0.5, 0.25], &mut out);
        let expected = [9.0, 0.0, 0.6, 0.0, 1.2, -0.4, 2.0];
        assert_eq!(out.len(), expected.len());
        for (value, expected) in out.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{out:?}");
        }
    }
}
