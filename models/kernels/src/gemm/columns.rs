//! The columns of a convolution (`im2col`), read from the image while an operand is packed.

use std::ops::Range;

use super::simd::Isa;
use crate::simd::{WIDEST, prefetch_place};

/// A matrix of `channels * taps` rows and `images * grid` columns that is never stored: row
/// `(c, t)`, column `(n, oy, ox)` is `source[n, c, oy * sy + ty, ox * sx + tx]`, zero outside the
/// image, where `(ty, tx)` is tap `t`.
pub(crate) struct Columns<'a> {
    pub source: &'a [f32],
    /// Where the first channel of the first image begins.
    pub start: usize,
    pub image_stride: usize,
    pub channel_stride: usize,
    /// Height and width of the image.
    pub size: [usize; 2],
    pub stride: [usize; 2],
    pub taps: Vec<[isize; 2]>,
    /// Height and width of the grid of positions.
    pub grid: [usize; 2],
}

/// Lanes of one vector that lie in one row of the grid.
#[derive(Clone, Copy, Default)]
struct Run {
    lane: usize,
    length: usize,
    /// Of the image from the first.
    image: isize,
    /// Row and column of the image that the first lane reads by the tap `(0, 0)`.
    y: isize,
    x: isize,
}

/// The lanes of a run that lie in the image.
#[derive(Clone, Copy)]
struct Piece<M> {
    /// Of lane 0 from the channel's first value; lane 0 itself may lie outside.
    offset: isize,
    lanes: (usize, usize),
    /// At stride 1 the lanes; at stride 2 the values of two vectors among which they lie.
    masks: [M; 2],
}

impl Columns<'_> {
    /// Positions of the grid.
    pub fn positions(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Whether the source itself holds every square of a vector of channels and a vector of columns
    /// of these, so that it can be transposed from there.
    pub fn holds_squares<I: Isa>(&self, channels: &Range<usize>, columns: &Range<usize>) -> bool {
        let whole = self.size == self.grid && self.grid[0] == 1 && self.taps == [[0, 0]];
        let aligned = [columns.start, columns.end, self.positions()]
            .iter()
            .all(|count| count.is_multiple_of(I::LANES));
        let past = (columns.end - 1) / self.positions() * self.image_stride
            + (channels.end + I::LANES) * self.channel_stride;
        whole && self.stride == [1, 1] && aligned && self.start + past <= self.source.len()
    }

    /// Where the square of `holds_squares` at this channel and column begins.
    pub fn square(&self, channel: usize, column: usize) -> *const f32 {
        let (image, position) = (column / self.positions(), column % self.positions());
        let place = image * self.image_stride + channel * self.channel_stride + position;
        self.source.as_ptr().wrapping_add(self.start + place)
    }

    /// The runs of the columns `from..to`, at most a vector of them.
    fn runs(&self, from: usize, to: usize, runs: &mut [Run; WIDEST]) -> usize {
        let (mut count, mut column) = (0, from);
        while column < to {
            let (image, position) = (column / self.positions(), column % self.positions());
            let (y, x) = (position / self.grid[1], position % self.grid[1]);
            let length = (self.grid[1] - x).min(to - column);
            runs[count] = Run {
                lane: column - from,
                length,
                image: (image * self.image_stride) as isize,
                y: (y * self.stride[0]) as isize,
                x: (x * self.stride[1]) as isize,
            };
            count += 1;
            column += length;
        }
        count
    }

    /// Where the tap `(0, 0)` reads a column, from the channel's first value.
    fn place(&self, column: usize) -> usize {
        let (image, position) = (column / self.positions(), column % self.positions());
        let (y, x) = (position / self.grid[1], position % self.grid[1]);
        image * self.image_stride + y * self.stride[0] * self.size[1] + x * self.stride[1]
    }

    /// The pieces of `runs` that a tap reads.
    #[inline(always)]
    unsafe fn pieces<I: Isa>(
        &self,
        [ty, tx]: [isize; 2],
        runs: &[Run],
        pieces: &mut [Piece<I::Mask>; WIDEST],
    ) -> usize {
        let [height, width] = self.size.map(|size| size as isize);
        let stride = self.stride[1] as isize;
        // Values divided by the stride, rounded up.
        let steps = |values: isize| match stride {
            1 => values,
            2 => (values + 1) >> 1,
            _ => (values + stride - 1).div_euclid(stride),
        };
        let mut count = 0;
        for run in runs {
            let (y, x) = (run.y + ty, run.x + tx);
            // Lanes l of the run with 0 <= x + l stride < width.
            let first = steps(-x).max(0) as usize;
            let last = steps(width - x).clamp(0, run.length as isize) as usize;
            if (0..height).contains(&y) && first < last {
                let lanes = (run.lane + first, run.lane + last);
                // SAFETY: the caller runs inside `enter`.
                let masks = unsafe {
                    if stride == 2 {
                        let (start, end) = (2 * lanes.0, 2 * lanes.1 - 1);
                        let clip = |value: usize| value.min(I::LANES);
                        [
                            I::mask(clip(start), clip(end)),
                            I::mask(start.saturating_sub(I::LANES), end.saturating_sub(I::LANES)),
                        ]
                    } else {
                        [I::mask(lanes.0, lanes.1), I::mask(0, 0)]
                    }
                };
                let offset = run.image + y * width + x - run.lane as isize * stride;
                pieces[count] = Piece { offset, lanes, masks };
                count += 1;
            }
        }
        count
    }

    /// Packs the rows of the channels `channels` and the columns `columns` in panels of two
    /// vectors of columns: `[panel, row, 2 * LANES]`, columns past the last zero.
    ///
    /// # Safety
    /// Inside `enter`; `to` has room for whole panels.
    #[inline(always)]
    pub unsafe fn pack<I: Isa>(&self, channels: Range<usize>, columns: Range<usize>, to: *mut f32) {
        let (width, taps) = (2 * I::LANES, self.taps.len());
        let depth = channels.len() * taps;
        // SAFETY: the caller runs inside `enter`.
        let none = unsafe { I::mask(0, 0) };
        let mut pieces = [Piece { offset: 0, lanes: (0, 0), masks: [none; 2] }; WIDEST];
        let mut runs = [Run::default(); WIDEST];
        let first = self.start + channels.start * self.channel_stride;
        let source = self.source.as_ptr().wrapping_add(first);
        for half in 0..2 * columns.len().div_ceil(width) {
            let from = (columns.start + half * I::LANES).min(columns.end);
            let until = (from + I::LANES).min(columns.end);
            let count = self.runs(from, until, &mut runs);
            let runs = &runs[..count];
            // A vector of every channel is read before the next one of the first channel. Channels are so far apart
            // that the processor does not foresee their addresses.
            let next =
                [until, until + I::LANES - 1].map(|column| self.place(column.min(columns.end - 1)));
            for (tap, &offset) in self.taps.iter().enumerate() {
                // SAFETY: the masks hold lanes inside the image only, whose place in `source`
                // the caller of the kernel checked; `to` has room by contract.
                unsafe {
                    let count = self.pieces::<I>(offset, runs, &mut pieces);
                    let pieces = &pieces[..count];
                    let mut to =
                        to.add((half / 2) * depth * width + (half % 2) * I::LANES + tap * width);
                    let mut source = source;
                    let ahead = offset[0] * self.size[1] as isize + offset[1];
                    for _ in 0..channels.len() {
                        for place in next {
                            prefetch_place(source.wrapping_add(place).wrapping_offset(ahead));
                        }
                        match self.stride[1] {
                            1 => {
                                let mut value = I::splat(0.0);
                                if let Some((head, rest)) = pieces.split_first() {
                                    let from = source.wrapping_offset(head.offset);
                                    value = I::load_masked(from, head.masks[0]);
                                    for piece in rest {
                                        let from = source.wrapping_offset(piece.offset);
                                        let run = I::load_masked(from, piece.masks[0]);
                                        value = I::add(value, run);
                                    }
                                }
                                I::store(to, value);
                            }
                            2 => {
                                let mut value = I::splat(0.0);
                                for piece in pieces {
                                    let from = source.wrapping_offset(piece.offset);
                                    let low = I::load_masked(from, piece.masks[0]);
                                    let from = from.wrapping_add(I::LANES);
                                    let high = I::load_masked(from, piece.masks[1]);
                                    value = I::add(value, I::even(low, high));
                                }
                                I::store(to, value);
                            }
                            stride => {
                                I::store(to, I::splat(0.0));
                                for piece in pieces {
                                    for lane in piece.lanes.0..piece.lanes.1 {
                                        let place = piece.offset + (lane * stride) as isize;
                                        *to.add(lane) = *source.wrapping_offset(place);
                                    }
                                }
                            }
                        }
                        to = to.wrapping_add(taps * width);
                        source = source.wrapping_add(self.channel_stride);
                    }
                }
            }
        }
    }
}
