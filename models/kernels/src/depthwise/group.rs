//! Images whose strips a task holds at once.

use std::ops::Range;

use super::grid::Grid;

/// Values of the strips of a group, a quarter of what the second cache of recent processors holds. Strips of small
/// planes are few values: one image after the other, they would be read while their stores are still under way, and
/// would be made a second time for the second pass.
const VALUES: usize = if cfg!(test) { 1 << 10 } else { 1 << 16 };

/// Buffers of as many images as fit.
pub(super) struct Group {
    batch: usize,
    /// Images of a group, but for the last one, which may be smaller.
    size: usize,
    lead: usize,
    /// Values of an image, behind the unused ones.
    len: usize,
}

impl Group {
    /// For images that have the strips of the input and `more` values behind them.
    pub fn new(grid: &Grid, batch: usize, more: usize) -> Self {
        let len = (grid.lead + grid.strips_buffer() + more).next_multiple_of(super::grid::SLACK);
        let size = (VALUES / len).clamp(1, batch.max(1));
        Self { batch, size, lead: grid.lead, len: len - grid.lead }
    }

    /// The length of the buffer.
    pub fn buffer(&self) -> usize {
        self.size * (self.lead + self.len)
    }

    /// The images of each group.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
        let (batch, size) = (self.batch, self.size);
        (0..batch.div_ceil(size)).map(move |group| group * size..batch.min((group + 1) * size))
    }

    /// The part of the buffer that an image has.
    pub fn of<'a>(&self, buffer: &'a mut [f32], image: usize) -> &'a mut [f32] {
        let start = image % self.size * (self.lead + self.len) + self.lead;
        &mut buffer[start..start + self.len]
    }
}
