//! The crop of ImageNet training: a random part of the image, stretched to the network's size.

use rand::{Rng, RngExt};

use super::{Area, resize::resize_area};
use crate::Image;

/// Cuts out a random rectangle and resizes it to `size` = (height, width), both at least 1.
///
/// The rectangle's area is a fraction of the image's, uniform in `scale` (0 < low <= high <= 1);
/// its width over height is log-uniform in `ratio` (0 < low <= high). After ten draws that do not
/// fit, the largest middle part within `ratio` is taken.
pub fn random_resized_crop(
    image: &Image,
    size: (usize, usize),
    scale: (f32, f32),
    ratio: (f32, f32),
    rng: &mut impl Rng,
) -> Image {
    let area = draw(image.size(), scale, ratio, rng);
    resize_area(image, area, size)
}

fn draw(
    (height, width): (usize, usize),
    scale: (f32, f32),
    ratio: (f32, f32),
    rng: &mut impl Rng,
) -> Area {
    const TRIES: usize = 10;
    let mut uniform = |low: f64, high: f64| low + (high - low) * rng.random::<f64>();
    let (scale, ratio) = (wide(scale), wide(ratio));
    for _ in 0..TRIES {
        let area = (height * width) as f64 * uniform(scale.0, scale.1);
        let aspect = uniform(ratio.0.ln(), ratio.1.ln()).exp();
        let w = (area * aspect).sqrt().round() as usize;
        let h = (area / aspect).sqrt().round() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            // Floor of a draw below n + 1 is uniform over 0..=n; `min` guards its rounding up.
            let mut offset = |n: usize| (uniform(0.0, (n + 1) as f64) as usize).min(n);
            return Area { top: offset(height - h), left: offset(width - w), size: (h, w) };
        }
    }
    let aspect = width as f64 / height as f64;
    let (h, w) = if aspect < ratio.0 {
        ((width as f64 / ratio.0).round() as usize, width)
    } else if aspect > ratio.1 {
        (height, (height as f64 * ratio.1).round() as usize)
    } else {
        (height, width)
    };
    let (h, w) = (h.clamp(1, height), w.clamp(1, width));
    Area { top: (height - h) / 2, left: (width - w) / 2, size: (h, w) }
}

fn wide(range: (f32, f32)) -> (f64, f64) {
    (f64::from(range.0), f64::from(range.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    const SCALE: (f32, f32) = (0.08, 1.0);
    const RATIO: (f32, f32) = (3.0 / 4.0, 4.0 / 3.0);

    #[test]
    fn areas_stay_inside_and_within_scale_and_ratio() {
        let (height, width) = (90, 120);
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let (mut smallest, mut largest) = (f64::MAX, 0.0f64);
        for _ in 0..2000 {
            let Area { top, left, size } = draw((height, width), SCALE, RATIO, &mut rng);
            assert!(top + size.0 <= height && left + size.1 <= width);
            let part = (size.0 * size.1) as f64 / (height * width) as f64;
            let aspect = size.1 as f64 / size.0 as f64;
            // Rounding sides of at least 26 pixels moves both by a few percent.
            assert!((0.076..=1.0).contains(&part), "{part}");
            assert!((0.72..=1.39).contains(&aspect), "{aspect}");
            (smallest, largest) = (smallest.min(part), largest.max(part));
        }
        assert!(smallest < 0.1 && largest > 0.9, "{smallest} to {largest}");
    }

    #[test]
    fn a_strip_falls_back_to_its_middle() {
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        // Parts of at least half of a 1:100 strip within the ratio do not exist.
        let area = draw((3, 300), (0.5, 1.0), RATIO, &mut rng);
        assert_eq!((area.top, area.left, area.size), (0, 148, (3, 4)));
        let area = draw((300, 3), (0.5, 1.0), RATIO, &mut rng);
        assert_eq!((area.top, area.left, area.size), (148, 0, (4, 3)));
    }

    #[test]
    fn the_whole_image_at_its_size_is_unchanged() {
        let image = Image::new(2, 2, 1, vec![1, 2, 3, 4]).unwrap();
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let same = random_resized_crop(&image, (2, 2), (1.0, 1.0), (1.0, 1.0), &mut rng);
        assert_eq!(same, image);
    }

    #[test]
    fn one_pixel_is_enough() {
        let image = Image::new(1, 1, 3, vec![1, 2, 3]).unwrap();
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let out = random_resized_crop(&image, (2, 3), SCALE, RATIO, &mut rng);
        assert_eq!(out.pixels(), [1, 2, 3].repeat(6));
    }
}
