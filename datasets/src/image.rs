//! A decoded image.

use std::path::Path;

use image::RgbImage;

use crate::{DataError, decode};

/// An 8-bit image, grey or RGB.
///
/// Pixels lie row by row, the channels of one pixel side by side: `[height, width, channels]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Image {
    /// An image from its pixels.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] unless height and width are at least 1, channels 1 or 3, and `pixels`
    /// holds `height * width * channels` bytes.
    pub fn new(
        height: usize,
        width: usize,
        channels: usize,
        pixels: Vec<u8>,
    ) -> Result<Self, DataError> {
        check_channels("image.channels", channels)?;
        if height == 0 || width == 0 {
            return Err(DataError::setting(
                "image.size",
                (height, width),
                "height and width of at least 1",
            ));
        }
        if height.checked_mul(width).and_then(|n| n.checked_mul(channels)) != Some(pixels.len()) {
            return Err(DataError::setting(
                "image.pixels.len",
                pixels.len(),
                format!("{height} x {width} x {channels} bytes"),
            ));
        }
        Ok(Self { height, width, channels, pixels })
    }

    /// An image whose size the caller has checked.
    pub(crate) fn trusted(height: usize, width: usize, channels: usize, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(height * width * channels, pixels.len());
        Self { height, width, channels, pixels }
    }

    /// Most pixels of a file that [`open`](Self::open) decodes, for which it takes up to about
    /// 1 GiB.
    pub const MAX_PIXELS: u64 = decode::MAX_PIXELS;

    /// Most bytes of a file that [`open`](Self::open) reads.
    pub const MAX_FILE_BYTES: u64 = decode::MAX_FILE_BYTES;

    /// Reads a JPEG, PNG, GIF, WebP, BMP or TIFF file as RGB.
    ///
    /// The content decides the format, not the extension. Pixels are those of PIL's
    /// `convert("RGB")`: grey is replicated, alpha is dropped without blending, palettes are looked
    /// up, inks (CMYK and YCCK, inverted as Adobe writes them) become `ink * black`, colour
    /// profiles are ignored. Of 16-bit samples the high byte is kept, of an animation the first
    /// frame. The EXIF orientation is applied.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] if the file cannot be read, [`DataError::Corrupt`] if it cannot be decoded
    /// in full, [`DataError::Entry`] if it is not an image or of an unsupported kind (a TIFF with a
    /// palette), [`DataError::TooLarge`] if it or its header's size is beyond
    /// [`MAX_FILE_BYTES`](Self::MAX_FILE_BYTES) or [`MAX_PIXELS`](Self::MAX_PIXELS): then nothing
    /// is allocated for the pixels. Of a TIFF, the samples may take 400,000,000 bytes.
    ///
    /// Damage inside the pixels of a JPEG that ends as it should is not an error, as in Pillow: it
    /// shows as wrong colours or grey.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        Self::decoded(decode::open(path)?, path)
    }

    /// Decodes the content of an image file as [`open`](Self::open) does; errors call it `path`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8], path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        Self::decoded(decode::from_bytes(bytes, path)?, path)
    }

    fn decoded(image: RgbImage, path: &Path) -> Result<Self, DataError> {
        let (width, height) = image.dimensions();
        Self::new(height as usize, width as usize, 3, image.into_raw())
            .map_err(|e| DataError::corrupt(path, e.to_string()))
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// 1 for grey, 3 for RGB.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The pixels, `[height, width, channels]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels, to be changed in place.
    pub(crate) fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// One pixel's channels.
    ///
    /// # Panics
    ///
    /// If `y` or `x` lies outside the image.
    pub fn pixel(&self, y: usize, x: usize) -> &[u8] {
        assert!(y < self.height && x < self.width, "pixel outside the image");
        let start = (y * self.width + x) * self.channels;
        &self.pixels[start..start + self.channels]
    }
}

/// Channel counts an image can have.
pub(crate) fn check_channels(name: &'static str, channels: usize) -> Result<(), DataError> {
    match channels {
        1 | 3 => Ok(()),
        _ => Err(DataError::setting(name, channels, "1 (grey) or 3 (RGB)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_size_is_refused() {
        assert!(Image::new(2, 2, 3, vec![0; 12]).is_ok());
        assert!(Image::new(2, 2, 3, vec![0; 11]).is_err());
        assert!(Image::new(2, 2, 2, vec![0; 8]).is_err());
        assert!(Image::new(0, 2, 1, vec![]).is_err());
        assert!(Image::new(usize::MAX, 2, 1, vec![]).is_err());
    }

    #[test]
    fn a_grey_png_is_read_as_rgb_whatever_its_extension() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grey.jpg");
        image::GrayImage::from_raw(3, 1, vec![0, 100, 255])
            .unwrap()
            .save_with_format(&path, image::ImageFormat::Png)
            .unwrap();
        let image = Image::open(&path).unwrap();
        assert_eq!((image.size(), image.channels()), ((1, 3), 3));
        assert_eq!(image.pixels(), [0, 0, 0, 100, 100, 100, 255, 255, 255]);
        assert_eq!(image.pixel(0, 1), [100; 3]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Image::open("no/such/image.png").unwrap_err();
        assert!(error.to_string().contains("no/such/image.png"), "{error}");
    }
}
