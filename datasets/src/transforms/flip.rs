//! Mirroring.

use crate::Image;

/// The image mirrored left to right.
pub fn flip(image: &Image) -> Image {
    let mut pixels = image.pixels().to_vec();
    for row in pixels.chunks_exact_mut(image.width() * image.channels()) {
        match image.channels() {
            1 => row.reverse(),
            _ => row.as_chunks_mut::<3>().0.reverse(),
        }
    }
    Image::trusted(image.height(), image.width(), image.channels(), pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_reversed_pixel_by_pixel() {
        let image = Image::new(2, 2, 3, (1..=12).collect()).unwrap();
        let expected = [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9];
        assert_eq!(flip(&image).pixels(), expected);
        assert_eq!(flip(&flip(&image)), image);
    }
}
