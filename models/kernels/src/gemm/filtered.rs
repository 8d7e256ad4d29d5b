//! Columns of the output of a depthwise convolution, computed while an operand is packed.

use std::ops::Range;

use super::columns::Columns;
use super::simd::Isa;
use super::with_scratch;
use crate::Activation;
use crate::simd::WIDEST;

/// The weight, the bias and the activation of a depthwise convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filters<'a> {
    /// `[channels, side, side]`.
    pub weight: &'a [f32],
    /// `[channels]`.
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    /// Height and width of the kernels.
    pub side: usize,
    /// Over height and width.
    pub stride: usize,
}

impl<'a> Filters<'a> {
    /// The filters, if [`Columns::pack_filtered`] serves their geometry.
    pub fn new(
        weight: &'a [f32],
        bias: Option<&'a [f32]>,
        activation: Activation,
        [kernel, stride]: [[usize; 2]; 2],
    ) -> Option<Self> {
        let ([side, stride], square) =
            ([kernel[0], stride[0]], [kernel, stride].map(|[h, w]| h == w));
        let served = square == [true; 2] && [3, 5].contains(&side) && [1, 2].contains(&stride);
        served.then_some(Self { weight, bias, activation, side, stride })
    }
}

/// Outputs below each other, a vector wide.
#[derive(Clone, Copy)]
struct Strip<M, const SIDE: usize> {
    /// The image's place in the source.
    image: usize,
    /// The first row of the output and their number.
    row: usize,
    rows: usize,
    /// The column of the input that the first lane's first tap reads.
    column: isize,
    /// The first output among the columns.
    to: usize,
    /// For every column of the kernel the lanes inside the image; at stride 2 the values of two vectors
    /// among which they lie.
    masks: [[M; 2]; SIDE],
}

impl Columns<'_> {
    /// Packs the outputs of a depthwise convolution whose taps these are, as [`Self::pack`] packs the
    /// taps: `[panel, channel, 2 * LANES]`. Columns past the last have arbitrary values.
    ///
    /// # Safety
    /// As for [`Self::pack`]. There are filters for every channel.
    #[inline(always)]
    pub unsafe fn pack_filtered<I: Isa>(
        &self,
        filters: &Filters,
        channels: Range<usize>,
        columns: Range<usize>,
        to: *mut f32,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            match (filters.side, filters.stride) {
                (3, 1) => self.filter::<I, 3, 1>(filters, channels, columns, to),
                (3, _) => self.filter::<I, 3, 2>(filters, channels, columns, to),
                (_, 1) => self.filter::<I, 5, 1>(filters, channels, columns, to),
                _ => self.filter::<I, 5, 2>(filters, channels, columns, to),
            }
        }
    }

    /// # Safety
    /// As for [`Self::pack_filtered`], with the filters' side and stride.
    #[inline(always)]
    unsafe fn filter<I: Isa, const SIDE: usize, const STRIDE: usize>(
        &self,
        filters: &Filters,
        channels: Range<usize>,
        columns: Range<usize>,
        to: *mut f32,
    ) {
        let (width, count) = (2 * I::LANES, columns.len());
        // SAFETY: as the caller promises; a strip writes at most a vector past the last column.
        with_scratch(count.next_multiple_of(width) + WIDEST, |outputs| unsafe {
            let strips = self.strips::<I, SIDE, STRIDE>(columns);
            let panel = channels.len() * width;
            for (index, channel) in channels.enumerate() {
                let first = self.start + channel * self.channel_stride;
                let mut weight = [[I::splat(0.0); SIDE]; SIDE];
                let values = filters.weight[channel * SIDE * SIDE..].as_chunks::<SIDE>().0;
                for (row, values) in weight.iter_mut().zip(values) {
                    for (weight, &value) in row.iter_mut().zip(values) {
                        *weight = I::splat(value);
                    }
                }
                let bias = I::splat(filters.bias.map_or(0.0, |bias| bias[channel]));
                for strip in &strips {
                    let source = self.source.as_ptr().wrapping_add(first + strip.image);
                    let to = outputs.as_mut_ptr().add(strip.to);
                    let mut row = 0;
                    while row + 4 <= strip.rows {
                        self.convolve::<I, SIDE, STRIDE, 4>(strip, row, source, &weight, bias, to);
                        row += 4;
                    }
                    while row < strip.rows {
                        self.convolve::<I, SIDE, STRIDE, 1>(strip, row, source, &weight, bias, to);
                        row += 1;
                    }
                }
                for column in (0..count).step_by(I::LANES) {
                    let value = I::load(outputs.as_ptr().add(column));
                    let value = activate::<I>(value, filters.activation);
                    let place = column / width * panel + index * width + column % width;
                    I::store(to.add(place), value);
                }
            }
        });
    }

    /// The strips that cover the columns. A strip may write past the lanes that it has, over outputs of
    /// strips that follow.
    ///
    /// # Safety
    /// Inside `enter`.
    #[inline(always)]
    unsafe fn strips<I: Isa, const SIDE: usize, const STRIDE: usize>(
        &self,
        columns: Range<usize>,
    ) -> Vec<Strip<I::Mask, SIDE>> {
        let ([height, width], [_, right]) = (self.grid, self.size);
        let mut strips = Vec::new();
        let mut column = columns.start;
        while column < columns.end {
            let (image, position) = (column / self.positions(), column % self.positions());
            let (row, start) = (position / width, position % width);
            let left = columns.end - column;
            let (rows, length) = match start == 0 && left >= width {
                true => ((left / width).min(height - row), width),
                false => (1, left.min(width - start)),
            };
            for lane in (0..length).step_by(I::LANES).rev() {
                let lanes = (length - lane).min(I::LANES);
                let first = ((start + lane) * STRIDE) as isize + self.taps[0][1];
                // SAFETY: as the caller promises.
                let masks = std::array::from_fn(|tap| unsafe {
                    masks::<I, STRIDE>(first + tap as isize, lanes, right)
                });
                strips.push(Strip {
                    image: image * self.image_stride,
                    row,
                    rows,
                    column: first,
                    to: column - columns.start + lane,
                    masks,
                });
            }
            column += rows * length;
        }
        strips
    }

    /// Computes `ROWS` rows of a strip from row `row` of it on. Rows of the input are read once for all of
    /// them.
    ///
    /// # Safety
    /// Inside `enter`; `source` is the plane of the strip's image, and `to` the place of its first output.
    #[inline(always)]
    unsafe fn convolve<I: Isa, const SIDE: usize, const STRIDE: usize, const ROWS: usize>(
        &self,
        strip: &Strip<I::Mask, SIDE>,
        row: usize,
        source: *const f32,
        weight: &[[I::Vector; SIDE]; SIDE],
        bias: I::Vector,
        to: *mut f32,
    ) {
        let [height, width] = self.size;
        let top = ((strip.row + row) * STRIDE) as isize + self.taps[0][0];
        // SAFETY: the masks hold lanes inside the image only, whose place in `source` the caller of the
        // kernel checked; `to` has room by contract.
        unsafe {
            let mut sums = [bias; ROWS];
            for input in 0..(ROWS - 1) * STRIDE + SIDE {
                let y = top + input as isize;
                if !(0..height as isize).contains(&y) {
                    continue;
                }
                let from = source.wrapping_offset(y * width as isize + strip.column);
                let mut values = [bias; SIDE];
                for (tap, value) in values.iter_mut().enumerate() {
                    let (from, [low, high]) = (from.wrapping_add(tap), strip.masks[tap]);
                    *value = I::load_masked(from, low);
                    if STRIDE == 2 {
                        let next = from.wrapping_add(I::LANES);
                        *value = I::even(*value, I::load_masked(next, high));
                    }
                }
                for (output, sum) in sums.iter_mut().enumerate() {
                    if let Some(weight) =
                        input.checked_sub(output * STRIDE).and_then(|row| weight.get(row))
                    {
                        for (&weight, &value) in weight.iter().zip(&values) {
                            *sum = I::mul_add(weight, value, *sum);
                        }
                    }
                }
            }
            for (output, sum) in sums.into_iter().enumerate() {
                I::store(to.add((row + output) * self.grid[1]), sum);
            }
        }
    }
}

/// The lanes, of so many, that read columns `first`, `first + STRIDE`, .. of an image of this width; at
/// stride 2 the values of two vectors among which they lie.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
unsafe fn masks<I: Isa, const STRIDE: usize>(
    first: isize,
    lanes: usize,
    width: usize,
) -> [I::Mask; 2] {
    let inside = |lane: &usize| (0..width as isize).contains(&(first + (lane * STRIDE) as isize));
    let start = (0..lanes).find(inside).unwrap_or(0);
    let end = (start..lanes).rev().find(inside).map_or(start, |last| last + 1);
    // Of the two vectors, less the value behind the last lane, which may lie outside.
    let values = [start * STRIDE, (end * STRIDE).saturating_sub(STRIDE - 1).max(start * STRIDE)];
    let clip = |first: usize| values.map(|value| value.saturating_sub(first).min(I::LANES));
    // SAFETY: as the caller promises.
    [0, I::LANES].map(|first| unsafe {
        let [start, end] = clip(first);
        I::mask(start, end)
    })
}

/// The value after the activation; NaN stays NaN.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
unsafe fn activate<I: Isa>(value: I::Vector, activation: Activation) -> I::Vector {
    // SAFETY: as the caller promises.
    unsafe {
        if activation == Activation::HardSwish {
            let factor = clamp::<I>(I::add(value, I::splat(3.0)), Activation::Relu6.bounds());
            I::mul(I::mul(value, factor), I::splat(1.0 / 6.0))
        } else {
            clamp::<I>(value, activation.bounds())
        }
    }
}

/// Clamps; a bound that is NaN is none, and NaN stays NaN.
///
/// # Safety
/// Inside `enter`.
#[inline(always)]
unsafe fn clamp<I: Isa>(value: I::Vector, [low, high]: [f32; 2]) -> I::Vector {
    // SAFETY: as the caller promises.
    unsafe { I::min(I::splat(high), I::max(I::splat(low), value)) }
}
