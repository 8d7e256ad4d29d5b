//! Mixing the images of a batch, each with the one before it, the first with the last.
//!
//! Both functions return the share of an image that is its own; labels are weighted by it.

use rand::{Rng, RngExt};

/// Mixup: every image becomes `share` times itself plus `1 - share` times the other.
///
/// `images` holds images of `len` values each, `share` lies in 0 to 1. Zhang et al. (2017),
/// arXiv:1710.09412.
pub fn mixup(images: &mut [f32], len: usize, share: f32) -> f32 {
    with_previous(images, len, |image, previous| {
        for (value, other) in image.iter_mut().zip(previous) {
            *value = share * *value + (1.0 - share) * other;
        }
    });
    share
}

/// CutMix: a rectangle of every image, the same for all, is replaced by the other's.
///
/// `images` holds images of `[channels, height, width]`, `size` = (height, width). The rectangle
/// has the proportions of the image and about `1 - share` of its area, and its middle anywhere: what
/// reaches beyond the border is cut off, and the returned share is that of the rest. Yun et al.
/// (2019), arXiv:1905.04899.
pub fn cutmix(
    images: &mut [f32],
    channels: usize,
    size: (usize, usize),
    share: f32,
    rng: &mut impl Rng,
) -> f32 {
    let (height, width) = size;
    let half = 0.5 * (1.0 - f64::from(share)).sqrt();
    let mut span = |side: usize| {
        let (middle, reach) = (rng.random_range(0..side), (half * side as f64) as usize);
        middle.saturating_sub(reach)..(middle + reach).min(side)
    };
    let (rows, columns) = (span(height), span(width));
    with_previous(images, channels * height * width, |image, previous| {
        for channel in 0..channels {
            for y in rows.clone() {
                let row = (channel * height + y) * width;
                let part = row + columns.start..row + columns.end;
                image[part.clone()].copy_from_slice(&previous[part]);
            }
        }
    });
    1.0 - (rows.len() * columns.len()) as f32 / (height * width) as f32
}

/// Calls `change` with every image and the one before it, as they were before all changes.
fn with_previous(images: &mut [f32], len: usize, mut change: impl FnMut(&mut [f32], &[f32])) {
    let count = images.len() / len;
    if count == 0 {
        return;
    }
    let last = images[(count - 1) * len..].to_vec();
    // From the end, so that the image before is still as it was.
    for image in (1..count).rev() {
        let (before, from) = images.split_at_mut(image * len);
        change(&mut from[..len], &before[(image - 1) * len..]);
    }
    change(&mut images[..len], &last);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn mixup_blends_with_the_image_before() {
        let mut images = [0.0, 4.0, 8.0, 16.0, 100.0, 200.0];
        assert_eq!(mixup(&mut images, 2, 0.75), 0.75);
        assert_eq!(images, [25.0, 53.0, 6.0, 13.0, 77.0, 154.0]);
    }

    #[test]
    fn an_image_alone_is_mixed_with_itself() {
        let mut alone = [1.0, 2.0];
        mixup(&mut alone, 2, 0.5);
        assert_eq!(alone, [1.0, 2.0]);
        mixup(&mut [], 2, 0.5);
    }

    #[test]
    fn cutmix_replaces_a_rectangle_and_counts_what_is_left() {
        let (channels, size, count) = (3, (10, 20), 4);
        let plane = size.0 * size.1;
        let mut rng = stream(Purpose::Mix, 0, 0, 0);
        let mut largest = 0.0f32;
        for draw in 0..200 {
            let own = draw as f32 / 200.0;
            let mut images: Vec<f32> =
                (0..count).flat_map(|image| vec![image as f32; channels * plane]).collect();
            let share = cutmix(&mut images, channels, size, own, &mut rng);
            // Half sides are rounded down and the border cuts off: never less than drawn.
            assert!(share >= own, "{share} of {own}");
            largest = largest.max(share - own);
            for (number, image) in images.chunks(channels * plane).enumerate() {
                let previous = ((number + count - 1) % count) as f32;
                for channel in image.chunks(plane) {
                    let kept = channel.iter().filter(|value| **value == number as f32).count();
                    assert!((kept as f32 / plane as f32 - share).abs() < 1e-6, "{kept} {share}");
                    assert!(channel.iter().all(|v| *v == number as f32 || *v == previous));
                }
            }
        }
        assert!(largest > 0.3, "the middle reaches the border: {largest}");
    }

    #[test]
    fn all_or_nothing_can_be_replaced() {
        let mut images = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0];
        let mut rng = stream(Purpose::Mix, 0, 0, 0);
        assert_eq!(cutmix(&mut images, 1, (2, 2), 1.0, &mut rng), 1.0);
        assert_eq!(images, [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
    }
}
