//! 3x3 convolutions with stride 1 in fewer multiplications: F(2x2, 3x3) of Winograd's minimal
//! filtering (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016).
//!
//! The output is divided into tiles of 2x2. With `d` the 4x4 inputs that a tile reads and `g` a
//! kernel, a tile of the output is
//!
//! ```text
//! A^T ( sum over channels of (G g G^T) * (B^T d B) ) A
//! ```
//!
//! where `*` multiplies element by element: 16 multiplications a tile instead of 36. For each of the
//! 16 elements the sum over the channels of all kernels and tiles is a product of matrices, which is
//! computed as that of a direct convolution; the transform of the input stands in the place of
//! packing, that of the output before the epilogue. The transforms add and halve only, so that the
//! error is near that of a direct sum.

mod forward;
pub(crate) mod transform;
mod weight;

use crate::gemm::Columns;

pub(super) use forward::Winograd;
use transform::ELEMENTS;
pub(super) use weight::WinogradGrad;

/// Channels whose inputs are transformed at once, while they are in the first cache.
const CHANNELS: usize = 8;

/// The fewest channels, of inputs and outputs, that make products of matrices.
const LEAST_CHANNELS: usize = if cfg!(miri) { 2 } else { 16 };

/// The distance between matrices of `len` values, one for each element. Their values at one place are
/// written together, so that they must not compete for one set of the first cache, as those do whose
/// distance is a multiple of a page.
fn apart(len: usize) -> usize {
    const PAGE: usize = 1024;
    const LINES: usize = 5 * 16;
    len.next_multiple_of(PAGE) + LINES
}

/// The first tap of a 3x3 window with stride 1, and the index of each of its taps, row by row.
fn window(columns: &Columns) -> Option<([isize; 2], [usize; 9])> {
    let least = |axis: usize| columns.taps.iter().map(|tap| tap[axis]).min();
    let corner = [least(0)?, least(1)?];
    let mut order = [usize::MAX; 9];
    for (index, tap) in columns.taps.iter().enumerate() {
        let [down, across] = [0, 1].map(|axis| (tap[axis] - corner[axis]) as usize);
        if down > 2 || across > 2 {
            return None;
        }
        order[3 * down + across] = index;
    }
    (columns.stride == [1, 1] && !order.contains(&usize::MAX)).then_some((corner, order))
}

/// Tiles of 2x2 positions of a grid, whose taps are the `side` by `side` values from a corner on.
fn tiles<'a>(columns: &Columns<'a>, corner: [isize; 2], side: isize) -> Columns<'a> {
    let taps = (0..side).flat_map(|down| (0..side).map(move |across| [down, across]));
    Columns {
        source: columns.source,
        start: columns.start,
        image_stride: columns.image_stride,
        channel_stride: columns.channel_stride,
        size: columns.size,
        stride: [2, 2],
        taps: taps.map(|tap| [0, 1].map(|axis| tap[axis] + corner[axis])).collect(),
        grid: columns.grid.map(|extent| extent.div_ceil(2)),
    }
}

/// What a convolution of a group takes.
#[derive(Clone, Copy)]
struct Work {
    channels: usize,
    rows: usize,
    /// Height and width of the output.
    grid: [usize; 2],
    /// Positions of the outputs of all images.
    outputs: usize,
    /// Tiles of all images.
    tiles: usize,
}

impl Work {
    fn new(columns: &Columns, images: usize, channels: usize, rows: usize) -> Self {
        let grid = columns.grid;
        let [outputs, tiles] =
            [grid, grid.map(|extent| extent.div_ceil(2))].map(|[h, w]| images * h * w);
        Self { channels, rows, grid, outputs, tiles }
    }

    /// Whether the transforms cost less than the multiplications that they save. In multiply-adds, a
    /// transformed value of a tile costs 8 and one of a kernel 100, as measured with 16 to 512 channels
    /// on two Zen 4 cores: of 22 shapes, forward and backward, the slower algorithm is chosen twice, by 10
    /// and by 3 percent.
    fn pays(&self) -> bool {
        let Self { channels, rows, outputs, tiles, .. } = *self;
        let transforms = 8 * tiles * (channels + rows) + 100 * channels * rows;
        let transformed = ELEMENTS * (tiles * channels * rows + transforms);
        transformed < 9 * outputs * channels * rows
    }

    /// Whether the algorithm is taken. Tests, whose maps are small, take it wherever there are enough
    /// channels.
    fn is_taken(&self) -> bool {
        let enough = self.channels >= LEAST_CHANNELS && self.rows >= LEAST_CHANNELS;
        enough && (cfg!(test) || self.pays())
    }
}

#[cfg(test)]
mod tests;
