//! Small pictures for pages, encoded.

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::{Image, transforms::resize};

/// Images of at most so many pixels a side are kept pixel by pixel.
const EXACT: usize = 32;
/// Quality of the others, as JPEG.
const QUALITY: u8 = 85;

/// A small picture, encoded as PNG or JPEG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `image/png` or `image/jpeg`.
    pub media_type: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
}

impl Image {
    /// A picture of at most `longest` pixels a side: exact, as PNG, where it has at most 32 a
    /// side, otherwise as JPEG.
    pub fn thumbnail(&self, longest: usize) -> Thumbnail {
        let (height, width) = self.size();
        let side = height.max(width);
        let small = match side > longest {
            true => {
                let scaled = |length: usize| (length * longest / side).max(1);
                &resize(self, (scaled(height), scaled(width)))
            }
            false => self,
        };
        let (height, width) = small.size();
        let color = match small.channels() {
            1 => ExtendedColorType::L8,
            _ => ExtendedColorType::Rgb8,
        };
        let mut bytes = Vec::new();
        let is_exact = height.max(width) <= EXACT;
        let (columns, rows) = (width as u32, height as u32);
        let written = match is_exact {
            true => PngEncoder::new(&mut bytes).write_image(small.pixels(), columns, rows, color),
            false => {
                let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
                encoder.write_image(small.pixels(), columns, rows, color)
            }
        };
        // An image has as many bytes as its size says, and memory takes whatever is written.
        written.expect("pixels of a checked size are encoded to memory");
        let media_type = if is_exact { "image/png" } else { "image/jpeg" };
        Thumbnail { height, width, media_type, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(height: usize, width: usize, channels: usize) -> Image {
        let pixels = (0..height * width * channels).map(|i| (i / channels % 251) as u8).collect();
        Image::new(height, width, channels, pixels).unwrap()
    }

    #[test]
    fn small_images_are_kept_pixel_by_pixel() {
        for channels in [1, 3] {
            let image = gradient(5, 7, channels);
            let thumbnail = image.thumbnail(64);
            assert_eq!((thumbnail.media_type, thumbnail.height), ("image/png", 5));
            let read = Image::from_bytes(&thumbnail.bytes, "thumbnail").unwrap();
            assert_eq!(read.size(), (5, 7));
            for (y, x) in [(0, 0), (4, 6), (2, 3)] {
                assert_eq!(read.pixel(y, x)[0], image.pixel(y, x)[0]);
            }
        }
    }

    #[test]
    fn large_images_keep_their_shape() {
        let white = Image::new(400, 100, 3, vec![255; 400 * 100 * 3]).unwrap();
        let thumbnail = white.thumbnail(128);
        assert_eq!((thumbnail.height, thumbnail.width), (128, 32));
        assert_eq!(thumbnail.media_type, "image/jpeg");
        let read = Image::from_bytes(&thumbnail.bytes, "thumbnail").unwrap();
        assert_eq!(read.size(), (128, 32));
        assert!(read.pixels().iter().all(|&value| value > 250));
        // A side never vanishes.
        assert_eq!(gradient(1000, 1, 1).thumbnail(64).width, 1);
    }
}
