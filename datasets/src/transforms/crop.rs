//! Windows cut out of an image, black where they reach beyond it.

use rand::{Rng, RngExt};

use crate::Image;

/// The window of `size` (height, width) whose first pixel is at row `top`, column `left`.
///
/// Both may be negative and the window may reach beyond the image: outside it is 0.
pub(super) fn window(image: &Image, top: isize, left: isize, size: (usize, usize)) -> Image {
    let channels = image.channels();
    let mut pixels = vec![0; size.0 * size.1 * channels];
    let (rows, columns) =
        (overlap(top, size.0, image.height()), overlap(left, size.1, image.width()));
    let run = columns.len() * channels;
    for y in rows.clone() {
        let source_y = y.wrapping_add_signed(top);
        let source_x = columns.start.wrapping_add_signed(left);
        let from = (source_y * image.width() + source_x) * channels;
        let to = (y * size.1 + columns.start) * channels;
        if run > 0 {
            pixels[to..to + run].copy_from_slice(&image.pixels()[from..from + run]);
        }
    }
    Image::trusted(size.0, size.1, channels, pixels)
}

/// The positions 0..size of a window starting at `start` that lie inside 0..length.
fn overlap(start: isize, size: usize, length: usize) -> std::ops::Range<usize> {
    let first = start.saturating_neg().max(0) as usize;
    let end = (length as isize).saturating_sub(start).max(0) as usize;
    let end = end.min(size);
    first.min(end)..end
}

/// The middle of an image, `size` = (height, width), both at least 1.
///
/// Where the image is smaller it is padded with black on both sides. Odd remainders are treated as
/// in torchvision: offsets are rounded to even, padding is larger below and on the right.
pub fn center_crop(image: &Image, size: (usize, usize)) -> Image {
    if image.size() == size {
        return image.clone();
    }
    let (top, left) = (center(image.height(), size.0), center(image.width(), size.1));
    window(image, top, left, size)
}

/// Where the middle `size` of a side begins; below 0 where the side is shorter.
pub(super) fn center(length: usize, size: usize) -> isize {
    if size > length {
        -(((size - length) / 2) as isize)
    } else {
        ((length - size) as f64 / 2.0).round_ties_even() as isize
    }
}

/// Pads all sides with `padding` black pixels and cuts out a random window of the original size.
pub fn pad_crop(image: &Image, padding: usize, rng: &mut impl Rng) -> Image {
    let mut offset = || rng.random_range(0..=2 * padding) as isize - padding as isize;
    let (top, left) = (offset(), offset());
    window(image, top, left, image.size())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rng::{Purpose, stream};

    fn counting(height: usize, width: usize) -> Image {
        Image::new(height, width, 1, (1..=(height * width) as u8).collect()).unwrap()
    }

    #[test]
    fn a_window_is_black_outside() {
        let image = counting(2, 3); // 1 2 3 / 4 5 6
        assert_eq!(window(&image, -1, -1, (2, 3)).pixels(), [0, 0, 0, 0, 1, 2]);
        assert_eq!(window(&image, 1, 2, (2, 2)).pixels(), [6, 0, 0, 0]);
        assert_eq!(window(&image, 0, 0, (2, 3)), image);
        assert_eq!(window(&image, 5, 0, (1, 2)).pixels(), [0, 0]);
        assert_eq!(window(&image, 0, -7, (1, 2)).pixels(), [0, 0]);
    }

    #[test]
    fn a_window_keeps_channels_together() {
        let image = Image::new(1, 2, 3, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(window(&image, 0, 1, (1, 2)).pixels(), [4, 5, 6, 0, 0, 0]);
    }

    #[test]
    fn the_middle_is_cut_out() {
        let image = counting(4, 5);
        // Row 1, column round(1.5) = 2.
        assert_eq!(center_crop(&image, (2, 2)).pixels(), [8, 9, 13, 14]);
        // Column round(0.5) = 0, to even.
        assert_eq!(center_crop(&image, (1, 4)).pixels(), [11, 12, 13, 14]);
        assert_eq!(center_crop(&image, (4, 5)), image);
    }

    #[test]
    fn a_small_image_is_padded_more_below_and_right() {
        let image = counting(1, 2);
        let expected = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(center_crop(&image, (4, 5)).pixels(), expected);
    }

    #[test]
    fn pad_crop_shifts_by_at_most_the_padding() {
        let image = counting(3, 3);
        let mut rng = stream(Purpose::Augment, 0, 0, 0);
        let seen: HashSet<Vec<u8>> =
            (0..500).map(|_| pad_crop(&image, 1, &mut rng).pixels().to_vec()).collect();
        let shifts = (-1..=1).flat_map(|top| (-1..=1).map(move |left| (top, left)));
        let expected: HashSet<Vec<u8>> =
            shifts.map(|(top, left)| window(&image, top, left, (3, 3)).pixels().to_vec()).collect();
        assert_eq!(seen, expected);
        assert!(seen.contains(&vec![0, 0, 0, 0, 1, 2, 0, 4, 5]));
    }
}
