//! Shearing, translation and rotation, with nearest-neighbour sampling and black outside, as in
//! Pillow.

use crate::Image;

/// Moves row `y` by `slope * y` columns to the left; slopes from -1 to 1.
pub fn shear_x(image: &Image, slope: f64) -> Image {
    affine(image, [[1.0, slope, 0.0], [0.0, 1.0, 0.0]])
}

/// Moves column `x` by `slope * x` rows up; slopes from -1 to 1.
pub fn shear_y(image: &Image, slope: f64) -> Image {
    affine(image, [[1.0, 0.0, 0.0], [slope, 1.0, 0.0]])
}

/// Moves the image by `columns` to the right and `rows` down; both may be negative.
pub fn translate(image: &Image, columns: isize, rows: isize) -> Image {
    super::crop::window(image, rows.saturating_neg(), columns.saturating_neg(), image.size())
}

/// Rotates the image about its centre by `degrees`, anticlockwise.
pub fn rotate(image: &Image, degrees: f64) -> Image {
    // Angles like 90 degrees get their exact sine and cosine back.
    let exact = |value: f64| (value * 1e15).round() / 1e15;
    let (sin, cos) = degrees.rem_euclid(360.0).to_radians().sin_cos();
    let (sin, cos) = (exact(sin), exact(cos));
    let (x, y) = (image.width() as f64 / 2.0, image.height() as f64 / 2.0);
    // About the centre: p -> R (p - c) + c, with rows growing downwards.
    affine(image, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])
}

/// The image whose pixel at (x, y) is the one of `image` at `map * (x, y, 1)`, in pixels with the
/// first one's corner at 0; black where that lies outside.
///
/// Positions are kept in 16-bit fixed point, whose range is enough for the sides of any
/// [network input](crate::Preprocess::size).
fn affine(image: &Image, map: [[f64; 3]; 2]) -> Image {
    let channels = image.channels();
    if channels == 1 { sampled::<1>(image, map) } else { sampled::<3>(image, map) }
}

fn sampled<const CHANNELS: usize>(image: &Image, map: [[f64; 3]; 2]) -> Image {
    let (height, width) = image.size();
    let source = image.pixels().as_chunks::<CHANNELS>().0;
    let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
    let [[xx, xy, x0], [yx, yy, y0]] = map;
    // The centre of the first pixel is at (0.5, 0.5).
    let start = (fixed(x0 + 0.5 * (xx + xy)), fixed(y0 + 0.5 * (yx + yy)));
    let [[xx, xy], [yx, yy]] = [[xx, xy], [yx, yy]].map(|row| row.map(fixed));
    let mut pixels = vec![[0; CHANNELS]; height * width];
    for (row, y) in pixels.chunks_exact_mut(width).zip(0..) {
        let mut at = (start.0 + xy * y, start.1 + yy * y);
        for pixel in row {
            // Negative positions wrap to huge ones, which lie outside.
            let (x, y) = ((at.0 >> 16) as usize, (at.1 >> 16) as usize);
            if x < width && y < height {
                *pixel = source[y * width + x];
            }
            at = (at.0 + xx, at.1 + yx);
        }
    }
    Image::trusted(height, width, CHANNELS, pixels.into_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transforms::reference::image;

    fn counting() -> Image {
        Image::new(4, 6, 1, (1..=24).collect()).unwrap()
    }

    // Expected: torchvision 0.29 on Pillow 13.0, `affine` with the shear's centre at 0 and `rotate`.

    #[test]
    fn shearing_is_torchvisions() {
        assert_eq!(
            shear_x(&counting(), 0.7).pixels(),
            [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 0, 15, 16, 17, 18, 0, 0, 21, 22, 23, 24, 0, 0]
        );
        assert_eq!(
            shear_y(&counting(), -0.4).pixels(),
            [1, 0, 0, 0, 0, 0, 7, 2, 3, 4, 0, 0, 13, 8, 9, 10, 5, 6, 19, 14, 15, 16, 11, 12]
        );
    }

    #[test]
    fn rotating_is_torchvisions() {
        assert_eq!(
            rotate(&counting(), 30.0).pixels(),
            [0, 0, 4, 5, 12, 12, 2, 2, 9, 10, 17, 18, 7, 8, 15, 16, 23, 23, 13, 13, 20, 21, 0, 0]
        );
        assert_eq!(
            rotate(&counting(), -90.0).pixels(),
            [0, 20, 14, 8, 2, 0, 0, 21, 15, 9, 3, 0, 0, 22, 16, 10, 4, 0, 0, 23, 17, 11, 5, 0]
        );
    }

    #[test]
    fn moving_leaves_black_behind() {
        let moved = translate(&counting(), 2, -1);
        let expected = [
            [0, 0, 7, 8, 9, 10],
            [0, 0, 13, 14, 15, 16],
            [0, 0, 19, 20, 21, 22],
            [0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(moved.pixels(), expected.as_flattened());
        assert!(translate(&counting(), 0, 99).pixels().iter().all(|value| *value == 0));
    }

    #[test]
    fn no_change_and_half_turns_keep_every_pixel() {
        assert_eq!(shear_x(&image(), 0.0), image());
        assert_eq!(rotate(&image(), 0.0), image());
        let turned = rotate(&image(), 180.0);
        assert_ne!(turned, image());
        assert_eq!(rotate(&turned, -180.0), image());
    }
}
