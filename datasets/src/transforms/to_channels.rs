//! Grey and colour.

use crate::Image;

/// The image with 1 or 3 channels.
///
/// Grey is replicated; RGB becomes luma by ITU-R 601 (0.299 R + 0.587 G + 0.114 B), rounded.
pub fn to_channels(image: Image, channels: usize) -> Image {
    let (height, width) = image.size();
    let pixels = match (image.channels(), channels) {
        (1, 3) => image.pixels().iter().flat_map(|grey| [*grey; 3]).collect(),
        (3, 1) => image.pixels().chunks_exact(3).map(luma).collect(),
        _ => return image,
    };
    Image::trusted(height, width, channels, pixels)
}

/// Luma in 16-bit fixed point; the weights sum to 65536, so that grey is unchanged.
pub(super) fn luma(rgb: &[u8]) -> u8 {
    let weighted = [19595, 38470, 7471].iter().zip(rgb);
    let sum: u32 = weighted.map(|(weight, value)| weight * u32::from(*value)).sum();
    ((sum + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_replicated_and_comes_back() {
        let grey = Image::new(1, 3, 1, vec![0, 128, 255]).unwrap();
        let rgb = to_channels(grey.clone(), 3);
        assert_eq!(rgb.pixels(), [0, 0, 0, 128, 128, 128, 255, 255, 255]);
        assert_eq!(to_channels(rgb, 1), grey);
    }

    #[test]
    fn luma_weighs_the_primaries() {
        let rgb = Image::new(1, 3, 3, vec![255, 0, 0, 0, 255, 0, 0, 0, 255]).unwrap();
        // 0.299, 0.587 and 0.114 of 255, rounded.
        assert_eq!(to_channels(rgb, 1).pixels(), [76, 150, 29]);
    }
}
