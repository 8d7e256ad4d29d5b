//! Bilinear resizing with antialiasing, as Pillow and torchvision do it.
//!
//! An output pixel is the average of the input under a triangle centred on it. The triangle is one
//! input pixel wide to each side when enlarging, and grows with the factor when shrinking, so that
//! no input pixel is skipped. Rows and columns are filtered one after the other.

use crate::Image;

/// The image at `size` = (height, width), both at least 1.
pub fn resize(image: &Image, size: (usize, usize)) -> Image {
    let (height, width) = image.size();
    if (height, width) == size {
        return image.clone();
    }
    let channels = image.channels();
    let narrowed = resize_rows(image, &taps(width, size.1));
    let mut pixels = Vec::with_capacity(size.0 * size.1 * channels);
    let row_len = size.1 * channels;
    let mut sum = vec![0.0f32; row_len];
    for tap in taps(height, size.0) {
        sum.fill(0.5); // for rounding
        let rows = narrowed[tap.first * row_len..].chunks_exact(row_len);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
        // `as` saturates: weights sum to 1 only up to rounding.
        pixels.extend(sum.iter().map(|value| *value as u8));
    }
    Image::trusted(size.0, size.1, channels, pixels)
}

/// The image with its shorter side at `side` (at least 1) pixels and its proportions kept.
///
/// The longer side is rounded down, as in torchvision.
pub fn resize_short_side(image: &Image, side: usize) -> Image {
    let (height, width) = image.size();
    let long = |long: usize, short: usize| (side * long / short).max(1);
    let size =
        if height <= width { (side, long(width, height)) } else { (long(height, width), side) };
    resize(image, size)
}

/// The input pixels one output pixel is made of.
struct Tap {
    first: usize,
    /// Weights of `first`, `first + 1`, ...; they sum to 1.
    weights: Vec<f32>,
}

/// One tap per output pixel of a line of `from` pixels resized to `to`.
fn taps(from: usize, to: usize) -> Vec<Tap> {
    let factor = from as f64 / to as f64;
    let reach = factor.max(1.0);
    (0..to)
        .map(|x| {
            let center = (x as f64 + 0.5) * factor;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(from);
            let weights: Vec<f64> = (first..end)
                .map(|at| (1.0 - ((at as f64 + 0.5 - center) / reach).abs()).max(0.0))
                .collect();
            let sum: f64 = weights.iter().sum();
            Tap { first, weights: weights.iter().map(|w| (w / sum) as f32).collect() }
        })
        .collect()
}

/// Every row filtered: `[height, taps, channels]`.
fn resize_rows(image: &Image, taps: &[Tap]) -> Vec<f32> {
    match image.channels() {
        1 => resize_rows_of::<1>(image, taps),
        _ => resize_rows_of::<3>(image, taps),
    }
}

fn resize_rows_of<const CHANNELS: usize>(image: &Image, taps: &[Tap]) -> Vec<f32> {
    let mut out = Vec::with_capacity(image.height() * taps.len() * CHANNELS);
    for row in image.pixels().chunks_exact(image.width() * CHANNELS) {
        for tap in taps {
            let mut sum = [0.0f32; CHANNELS];
            let pixels = row[tap.first * CHANNELS..].chunks_exact(CHANNELS);
            for (pixel, weight) in pixels.zip(&tap.weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += weight * f32::from(*value);
                }
            }
            out.extend_from_slice(&sum);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(height: usize, width: usize, pixels: &[u8]) -> Image {
        Image::new(height, width, 1, pixels.to_vec()).unwrap()
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
    fn both_directions_multiply() {
        let mut pixels = [0; 16];
        pixels[5] = 245; // row 1, column 1
        // 245 / 49 = 5 times the products of the weights 3, 1.
        let small = resize(&grey(4, 4, &pixels), (2, 2));
        assert_eq!(small.pixels(), [45, 15, 15, 5]);
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
