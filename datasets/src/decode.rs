//! From the bytes of an image file to RGB.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
};

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
    metadata::Orientation,
};

use crate::DataError;

/// Most pixels of an image that is decoded.
pub(crate) const MAX_PIXELS: u64 = 100_000_000;

/// Most bytes of a file that is read.
pub(crate) const MAX_FILE_BYTES: u64 = 256 << 20;

/// What a decoder may allocate besides the image: rows, colour profiles, other metadata.
const SCRATCH_BYTES: u64 = 64 << 20;

/// Most bytes of the samples of a TIFF, of which its decoder keeps a second copy.
const TIFF_BYTES: u64 = 4 * MAX_PIXELS;

/// Why a file cannot be used as an image.
enum Refusal {
    Unreadable(io::Error),
    Damaged(String),
    Unsupported(String),
    TooLarge(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => {
                Self::TooLarge(format!("{error}; at most {} pixels are read", MAX_PIXELS))
            }
            // The file may be fine, but its kind is not supported.
            ImageError::Unsupported(_) => {
                Self::Unsupported(format!("images of its kind are not read ({error})"))
            }
            _ => Self::Damaged(error.to_string()),
        }
    }
}

impl Refusal {
    fn of(self, path: &Path) -> DataError {
        match self {
            Self::Unreadable(error) => DataError::io(path, error),
            Self::Damaged(reason) => DataError::corrupt(path, reason),
            Self::Unsupported(reason) => DataError::entry(path, &reason),
            Self::TooLarge(reason) => DataError::too_large(path, reason),
        }
    }
}

/// Reads and decodes a file; see [`Image::open`].
pub(crate) fn open(path: &Path) -> Result<RgbImage, DataError> {
    read(path).and_then(|bytes| decode(&bytes)).map_err(|refusal| refusal.of(path))
}

/// Decodes the content of a file; see [`Image::from_bytes`].
pub(crate) fn from_bytes(bytes: &[u8], path: &Path) -> Result<RgbImage, DataError> {
    decode(bytes).map_err(|refusal| refusal.of(path))
}

/// The bytes of a file. A file without a size, such as a device, is read up to the limit.
fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let most = MAX_FILE_BYTES;
    let file = File::open(path)?;
    let mut len = file.metadata()?.len();
    let mut bytes = Vec::new();
    if len <= most {
        bytes.reserve_exact(len as usize);
        file.take(most + 1).read_to_end(&mut bytes)?;
        len = bytes.len() as u64;
    }
    if len > most {
        return Err(Refusal::TooLarge(format!("more than {most} bytes")));
    }
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<RgbImage, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Damaged("the file is empty".to_owned()));
    }
    if is_cut_jpeg(bytes) {
        let reason = "the JPEG ends before its end marker (a partial copy?)";
        return Err(Refusal::Damaged(reason.to_owned()));
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let Some(format) = reader.format().filter(ImageFormat::reading_enabled) else {
        let reason = "it is not a JPEG, PNG, GIF, WebP, BMP or TIFF image";
        return Err(Refusal::Unsupported(reason.to_owned()));
    };
    reader.limits(limits(SCRATCH_BYTES));
    // Reads the header alone.
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Refusal::TooLarge(format!(
            "{width} x {height} pixels, at most {} are read",
            MAX_PIXELS
        )));
    }
    let bytes = decoder.total_bytes();
    let most = match format {
        ImageFormat::Tiff if bytes > TIFF_BYTES => {
            let reason =
                format!("{bytes} bytes of samples, at most {TIFF_BYTES} of a TIFF are read");
            return Err(Refusal::TooLarge(reason));
        }
        // A strip or tile, which is decoded at once, may be the whole image.
        ImageFormat::Tiff => 2 * bytes + SCRATCH_BYTES,
        _ => bytes.max(SCRATCH_BYTES),
    };
    decoder.set_limits(limits(most))?;
    // An invalid tag says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut decoded = into_rgb8(DynamicImage::from_decoder(decoder)?);
    decoded.apply_orientation(orientation);
    Ok(decoded.into_rgb8())
}

fn limits(max_alloc: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_alloc);
    limits
}

/// Drops alpha, replicates grey and keeps the high byte of 16-bit samples.
fn into_rgb8(mut image: DynamicImage) -> DynamicImage {
    let wide: &mut [u16] = match &mut image {
        DynamicImage::ImageLuma16(image) => image,
        DynamicImage::ImageLumaA16(image) => image,
        DynamicImage::ImageRgb16(image) => image,
        DynamicImage::ImageRgba16(image) => image,
        _ => &mut [],
    };
    // The conversion rounds to the nearest byte, which here is the high one exactly.
    wide.iter_mut().for_each(|sample| *sample = (*sample >> 8) * 257);
    image.into_rgb8().into()
}

/// Whether a JPEG lacks its end marker.
///
/// Decoders fill what is missing with grey and report success, which would train on damaged
/// images. Segments are stepped over, since metadata may hold a whole thumbnail, and what follows
/// the image is not looked at.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    if !bytes.starts_with(&[0xFF, 0xD8]) {
        return false;
    }
    let mut rest = &bytes[2..];
    // In scan data 0xFF is followed by 0 or a restart marker; 0xFF also fills space.
    let is_marker =
        |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0x01 | 0xD0..=0xD8 | 0xFF);
    while let Some(at) = rest.windows(2).position(is_marker) {
        if rest[at + 1] == END_OF_IMAGE {
            return false;
        }
        let length = match rest.get(at + 2..at + 4) {
            Some(length) => usize::from(u16::from_be_bytes([length[0], length[1]])),
            None => return true,
        };
        rest = rest.get(at + 2 + length..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::PathBuf};

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::Image;

    #[derive(Deserialize)]
    struct Expected {
        images: BTreeMap<String, Case>,
        too_large: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Case {
        kind: Kind,
        like: Option<String>,
        #[serde(default)]
        rows: Vec<String>,
    }

    #[derive(Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Exact,
        Lossy,
    }

    fn fixture(name: &str) -> PathBuf {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/images");
        Path::new(folder).join(name)
    }

    fn expected() -> Expected {
        serde_json::from_str(&fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    #[test]
    fn images_of_every_kind_are_read_as_another_decoder_reads_them() {
        let Expected { images, .. } = expected();
        let mut wrong = Vec::new();
        for (name, case) in &images {
            let rows = &case.like.as_ref().map_or(case, |other| &images[other]).rows;
            let rows: Vec<Vec<u8>> = rows.iter().map(|row| bytes_of(row)).collect();
            let image = match Image::open(fixture(name)) {
                Ok(image) => image,
                Err(error) => {
                    wrong.push(error.to_string());
                    continue;
                }
            };
            let size = (rows.len(), rows[0].len() / 3);
            if image.size() != size {
                wrong.push(format!("{name}: {:?}, expected {size:?}", image.size()));
                continue;
            }
            let differences: Vec<u8> =
                image.pixels().iter().zip(rows.concat()).map(|(a, b)| a.abs_diff(b)).collect();
            let largest = differences.iter().copied().max().unwrap();
            let sum: f64 = differences.iter().copied().map(f64::from).sum();
            let mean = sum / differences.len() as f64;
            let (most, most_mean) = if case.kind == Kind::Exact { (0, 0.0) } else { (8, 1.5) };
            if largest > most || mean > most_mean {
                wrong.push(format!("{name}: differs by {largest}, {mean:.2} on average"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(images.len() > 40, "{} images", images.len());
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused() {
        for name in expected().too_large {
            let error = Image::open(fixture(&name)).unwrap_err();
            assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
            assert!(error.to_string().contains(&name), "{error}");
        }
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endless.png");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = Image::open(&path).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains("endless.png"), "{error}");
    }

    #[test]
    fn a_cut_file_is_damaged_wherever_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.jpg");
        for name in [
            "orientation6.jpg",
            "progressive.jpg",
            "rgb.png",
            "lossy.webp",
            "interlaced.gif",
            "rgb.bmp",
            "rgb.tiff",
            "lzw.tiff",
        ] {
            let whole = fs::read(fixture(name)).unwrap();
            // The last bytes of a PNG and of a GIF hold no pixel.
            let lost = if name.ends_with("jpg") { 1 } else { 24 };
            for kept in 0..=whole.len() - lost {
                fs::write(&path, &whole[..kept]).unwrap();
                let error = Image::open(&path).expect_err(&format!("{kept} bytes of {name}"));
                // Without its first bytes it is no image at all.
                let told = matches!(error, DataError::Corrupt { .. })
                    || kept < 16 && matches!(error, DataError::Entry { .. });
                assert!(told, "{kept} bytes of {name}: {error}");
                assert!(error.to_string().contains("cut.jpg"), "{error}");
            }
        }
    }

    #[test]
    fn what_follows_a_jpeg_is_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("motion.jpg");
        let mut bytes = fs::read(fixture("colour.jpg")).unwrap();
        bytes.extend([0xFF, 0xDA, 0x00, 0x02, 0x00]);
        fs::write(&path, bytes).unwrap();
        let image = Image::open(&path).unwrap();
        assert_eq!(image, Image::open(fixture("colour.jpg")).unwrap());
    }

    #[test]
    fn what_is_no_image_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page.jpg");
        // The last is an icon, which the library knows and this program does not read.
        let no_image = "it is not a JPEG, PNG, GIF, WebP, BMP or TIFF image";
        for (content, reason) in
            [("", "the file is empty"), ("<html>", no_image), ("\0\0\x01\0\x01\0", no_image)]
        {
            fs::write(&path, content).unwrap();
            let text = Image::open(&path).unwrap_err().to_string();
            assert!(text.contains("page.jpg") && text.contains(reason), "{text}");
        }
    }

    /// 16-bit samples of 60 million pixels, which would take three times 480 MB.
    #[test]
    fn the_samples_of_a_tiff_are_limited_too() {
        let mut bytes = fs::read(fixture("rgb16.tiff")).unwrap();
        for (tag, value) in [(256u16, 10_000u32), (257, 6_700), (278, 6_700)] {
            let entry = bytes.windows(2).position(|pair| pair == tag.to_le_bytes()).unwrap();
            bytes[entry + 8..entry + 12].copy_from_slice(&value.to_le_bytes());
        }
        let error = Image::from_bytes(&bytes, "wide.tiff").unwrap_err();
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains("at most 400000000 of a TIFF"), "{error}");
    }

    proptest! {
        /// Images of every kind with bytes changed and the end cut off are decoded or refused.
        #[test]
        fn a_damaged_image_is_decoded_or_refused(
            name in prop::sample::select(expected().images.into_keys().collect::<Vec<_>>()),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in 0usize..8,
        ) {
            let mut bytes = fs::read(fixture(&name)).unwrap();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(bytes.len() - cut);
            if let Err(error) = Image::from_bytes(&bytes, &name) {
                prop_assert!(error.to_string().contains(&name), "{}", error);
            }
        }
    }
}
