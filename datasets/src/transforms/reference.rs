//! The image on which transforms are compared with other libraries.

use crate::Image;

/// 5 x 6 RGB, value `i` in memory order `(37 i + 11 i^2) mod 256`.
pub fn image() -> Image {
    pattern(5, 6)
}

/// As [`image`], of any size.
pub fn pattern(height: usize, width: usize) -> Image {
    let pixels = (0..height * width * 3).map(|i| (37 * i + 11 * i * i) as u8).collect();
    Image::new(height, width, 3, pixels).unwrap()
}

/// The image after a transform.
pub fn levels<T>(transform: impl Fn(&mut Image, T), parameter: T) -> Vec<u8> {
    let mut image = image();
    transform(&mut image, parameter);
    image.pixels().to_vec()
}
