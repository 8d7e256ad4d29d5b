//! Random erasing: Zhong et al. (2017), arXiv:1708.04896, with torchvision's defaults.

use std::ops::Range;

use rand::{Rng, RngExt};

/// Part of the input's area that is erased.
const SCALE: Range<f64> = 0.02..0.33;

/// Height over width of what is erased.
const RATIO: Range<f64> = 0.3..3.3;

/// With a probability of `p` (0 to 1) sets a random rectangle of an input to 0, the mean colour.
///
/// `input` is normalised, `[channels, height, width]` with `size` = (height, width). The
/// rectangle's area is uniform in 0.02 to 0.33 of the input's, its height over width log-uniform in
/// 0.3 to 3.3; after ten draws that do not fit nothing is erased.
pub fn random_erasing(input: &mut [f32], size: (usize, usize), p: f32, rng: &mut impl Rng) {
    let erased = if rng.random::<f32>() < p { draw(size, rng) } else { None };
    if let Some((rows, columns)) = erased {
        for plane in input.chunks_exact_mut(size.0 * size.1) {
            for row in plane.chunks_exact_mut(size.1).take(rows.end).skip(rows.start) {
                row[columns.clone()].fill(0.0);
            }
        }
    }
}

/// Rows and columns of a rectangle smaller than the input in both directions.
fn draw(
    (height, width): (usize, usize),
    rng: &mut impl Rng,
) -> Option<(Range<usize>, Range<usize>)> {
    const TRIES: usize = 10;
    let (low, high) = (RATIO.start.ln(), RATIO.end.ln());
    (0..TRIES).find_map(|_| {
        let area = (height * width) as f64 * rng.random_range(SCALE);
        let ratio = rng.random_range(low..high).exp();
        let h = (area * ratio).sqrt().round() as usize;
        let w = (area / ratio).sqrt().round() as usize;
        (h < height && w < width).then(|| {
            let top = rng.random_range(0..=height - h);
            let left = rng.random_range(0..=width - w);
            (top..top + h, left..left + w)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn one_rectangle_of_all_channels_is_erased() {
        let (height, width) = (40, 60);
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let (mut smallest, mut largest) = (1.0f64, 0.0f64);
        for _ in 0..300 {
            let mut input = vec![1.0; 3 * height * width];
            random_erasing(&mut input, (height, width), 1.0, &mut rng);
            let (first, others) = input.split_at(height * width);
            assert!(others.chunks(height * width).all(|plane| plane == first));
            let erased = |y: usize, x: usize| first[y * width + x] == 0.0;
            let rows: Vec<usize> =
                (0..height).filter(|y| (0..width).any(|x| erased(*y, x))).collect();
            let columns: Vec<usize> =
                (0..width).filter(|x| (0..height).any(|y| erased(y, *x))).collect();
            let count = first.iter().filter(|value| **value == 0.0).count();
            assert_eq!(count, rows.len() * columns.len());
            assert_eq!(rows.last().unwrap() - rows[0] + 1, rows.len());
            assert_eq!(columns.last().unwrap() - columns[0] + 1, columns.len());
            // Sides of at least 4 pixels are rounded by up to half a pixel.
            let ratio = rows.len() as f64 / columns.len() as f64;
            assert!((0.3 / 1.15..3.3 * 1.15).contains(&ratio), "{ratio}");
            let part = count as f64 / (height * width) as f64;
            (smallest, largest) = (smallest.min(part), largest.max(part));
        }
        assert!((0.017..0.03).contains(&smallest), "{smallest}");
        assert!((0.30..0.345).contains(&largest), "{largest}");
    }

    #[test]
    fn the_probability_holds() {
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let mut erased = |p| {
            (0..1000)
                .filter(|_| {
                    let mut input = [1.0; 256];
                    random_erasing(&mut input, (16, 16), p, &mut rng);
                    input.contains(&0.0)
                })
                .count()
        };
        assert_eq!((erased(0.0), erased(1.0)), (0, 1000));
        assert!((210..290).contains(&erased(0.25)));
    }

    #[test]
    fn one_pixel_is_never_erased() {
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let mut input = [1.0];
        random_erasing(&mut input, (1, 1), 1.0, &mut rng);
        assert_eq!(input, [1.0]);
    }
}
