//! Groups of bundles. A bundle is the images that share strips; a task holds the strips of a group at once.

use std::ops::Range;

use super::grid::Grid;

/// Values of the strips of a group, a quarter of what the second cache of recent processors holds. Strips of small
/// planes are few values: one image after the other, they would be read while their stores are still under way, and
/// would be made a second time for the second pass.
const VALUES: usize = if cfg!(test) { 1 << 10 } else { 1 << 16 };

/// Buffers of as many bundles as fit.
pub(super) struct Group {
    bundles: usize,
    /// Bundles of a group, but for the last one, which may be smaller.
    size: usize,
    lead: usize,
    /// Values of a bundle, behind the unused ones.
    len: usize,
}

impl Group {
    /// For bundles that have the strips of the input and `more` values behind them.
    pub fn new(grid: &Grid, bundles: usize, more: usize) -> Self {
        let len = (grid.lead + grid.strips_buffer() + more).next_multiple_of(super::grid::SLACK);
        let size = (VALUES / len).clamp(1, bundles.max(1));
        Self { bundles, size, lead: grid.lead, len: len - grid.lead }
    }

    /// The length of the buffer.
    pub fn buffer(&self) -> usize {
        self.size * (self.lead + self.len)
    }

    /// The bundles of each group.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
        let (bundles, size) = (self.bundles, self.size);
        (0..bundles.div_ceil(size)).map(move |group| group * size..bundles.min((group + 1) * size))
    }

    /// The part of the buffer that a bundle has.
    pub fn of<'a>(&self, buffer: &'a mut [f32], bundle: usize) -> &'a mut [f32] {
        let start = bundle % self.size * (self.lead + self.len) + self.lead;
        &mut buffer[start..start + self.len]
    }
}
