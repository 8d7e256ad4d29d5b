//! Mirroring.

use crate::Image;

/// The image with left and right exchanged.
pub fn flip(image: &Image) -> Image {
    let (channels, row) = (image.channels(), image.width() * image.channels());
    let mut pixels = Vec::with_capacity(image.pixels().len());
    for row in image.pixels().chunks_exact(row) {
        for pixel in row.chunks_exact(channels).rev() {
            pixels.extend_from_slice(pixel);
        }
    }
    Image::trusted(image.height(), image.width(), channels, pixels)
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
