//! A window of a resized image, without the rest of it.
//!
//! Fixed-point arithmetic as in Pillow and `fast_image_resize`: weights of an axis become 16-bit
//! integers with as many fractional bits as its largest weight leaves, sums are rounded to 8 bits
//! after the columns and again after the rows. One row is in memory between the two, so that the
//! image may be of any length.

use std::ops::Range;

use super::{Area, crop};
use crate::Image;

/// Most fractional bits of a weight: with 8 bits of a pixel and 2 of margin they fill 32.
const MAX_PRECISION: u32 = 21;

/// Values of a row that are summed together: their sums stay in registers.
const BLOCK: usize = 64;

/// The pixels of `window` of the image at `size` = (height, width), bilinear with antialiasing.
///
/// Nothing but the window is computed or stored. It lies inside `size`, and no side is 0.
pub(super) fn resample(image: &Image, size: (usize, usize), window: Area) -> Image {
    let Area { top, left, size: (height, width) } = window;
    if image.size() == size {
        return crop::window(image, top as isize, left as isize, window.size);
    }
    let rows = Axis::new(image.height(), size.0, top..top + height);
    let columns = Axis::new(image.width(), size.1, left..left + width);
    let channels = image.channels();
    let mut pixels = Vec::with_capacity(height * width * channels);
    let used = columns.used();
    let run = used.start * channels..used.end * channels;
    let mut row = vec![0; run.len()];
    for y in 0..height {
        rows.sum_rows(y, image, &run, &mut row);
        match channels {
            1 => columns.sum_columns::<1>(&row, used.start, &mut pixels),
            _ => columns.sum_columns::<3>(&row, used.start, &mut pixels),
        }
    }
    Image::trusted(height, width, channels, pixels)
}

/// The weights of one axis.
struct Axis {
    /// Fractional bits of the weights.
    precision: u32,
    /// The first input of each output, and the range of its weights.
    taps: Vec<(usize, Range<usize>)>,
    weights: Vec<i16>,
}

impl Axis {
    /// For the outputs `kept` of `to`, from inputs 0 up to `from`.
    fn new(from: usize, to: usize, kept: Range<usize>) -> Self {
        let scale = from as f64 / to as f64;
        if from == to {
            // Every pixel is copied; nothing is rounded.
            let taps = kept.enumerate().map(|(i, at)| (at, i..i + 1)).collect::<Vec<_>>();
            return Self { precision: 0, weights: vec![1; taps.len()], taps };
        }
        // When enlarging, the first output sees the first input alone.
        let largest = match scale < 1.0 {
            true => 1.0,
            false => (0..to).flat_map(|at| normalised(at, scale, from).1).fold(0.0, f64::max),
        };
        let precision = (0..MAX_PRECISION)
            .find(|bits| (largest * f64::from(1u32 << (bits + 1))).round() >= 32768.0)
            .unwrap_or(MAX_PRECISION);
        let one = f64::from(1u32 << precision);
        let (mut taps, mut weights) = (Vec::with_capacity(kept.len()), Vec::new());
        for at in kept {
            let (first, values) = normalised(at, scale, from);
            let start = weights.len();
            weights.extend(values.map(|value| (value * one).round() as i16));
            taps.push((first, start..weights.len()));
        }
        Self { precision, taps, weights }
    }

    /// The inputs that any output sees.
    fn used(&self) -> Range<usize> {
        let end = |(first, weights): &(usize, Range<usize>)| first + weights.len();
        // Both ends rise with the output.
        let first = self.taps.first().map_or(0, |tap| tap.0);
        first..self.taps.last().map_or(first, end)
    }

    /// Half a unit of the result, so that the shift rounds.
    fn half(&self) -> i32 {
        (1 << self.precision) >> 1
    }

    fn round(&self, sum: i32) -> u8 {
        // Rounded weights may add up to a little more than 1.
        (sum >> self.precision).min(255) as u8
    }

    /// The values `run` of output row `y`.
    fn sum_rows(&self, y: usize, image: &Image, run: &Range<usize>, out: &mut [u8]) {
        let (first, weights) = &self.taps[y];
        let length = image.width() * image.channels();
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let mut sums = [self.half(); BLOCK];
            let mut start = first * length + run.start + block * BLOCK;
            for &weight in &self.weights[weights.clone()] {
                let values = &image.pixels()[start..start + out.len()];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(*value) * i32::from(weight);
                }
                start += length;
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = self.round(sum);
            }
        }
    }

    /// The output pixels of a row that begins at input column `start`, appended to `out`.
    fn sum_columns<const CHANNELS: usize>(&self, row: &[u8], start: usize, out: &mut Vec<u8>) {
        let (row, _) = row.as_chunks::<CHANNELS>();
        for (first, weights) in &self.taps {
            let mut sums = [self.half(); CHANNELS];
            for (pixel, &weight) in row[first - start..].iter().zip(&self.weights[weights.clone()])
            {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * i32::from(weight);
                }
            }
            out.extend(sums.map(|sum| self.round(sum)));
        }
    }
}

/// The first input that output `at` sees, and the weights from there on, which add up to 1. `scale` is
/// inputs per output, of which there are `from`.
fn normalised(at: usize, scale: f64, from: usize) -> (usize, impl Iterator<Item = f64>) {
    let stretch = scale.max(1.0);
    let center = (at as f64 + 0.5) * scale;
    let first = (center - stretch).floor().max(0.0) as usize;
    let end = (center + stretch).ceil().min(from as f64) as usize;
    let narrow = 1.0 / stretch;
    let triangle = move |x: usize| {
        let distance = ((x as f64 - (center - 0.5)) * narrow).abs();
        if distance < 1.0 { 1.0 - distance } else { 0.0 }
    };
    let sum: f64 = (first..end).map(triangle).sum();
    (first, (first..end).map(move |x| triangle(x) / sum))
}
