//! Products of matrices from packed operands and a register tile.
//!
//! The scheme is that of Goto and van de Geijn (Anatomy of High-Performance Matrix Multiplication,
//! 2008): both operands are copied in panels in the order in which the register tile reads them (a
//! row-major first one may stay where it is). With AVX-512 the tile has up to 14 rows and 32
//! columns, with AVX2 6 and 16, with NEON 12 and 8; narrower ones take the last columns. The rows are divided evenly
//! among the panels (64 rows as 13 + 13 + 13 + 13 + 12), so that no tile is mostly empty.

mod columns;
pub(crate) mod simd;

use std::cell::RefCell;
use std::ops::Range;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use pulp::Arch;
use rayon::prelude::*;

use crate::instruction_set;
use crate::shared::Shared;
pub(crate) use columns::Columns;
pub(crate) use simd::Isa;
#[cfg(target_arch = "aarch64")]
use simd::Neon;
use simd::Portable;
#[cfg(target_arch = "x86_64")]
use simd::{Avx2, Avx512};

/// Work that is generic over the instruction sets of [`simd`].
pub(crate) trait Kernel {
    /// Runs it with `I`.
    ///
    /// # Safety
    /// The processor has `I`.
    unsafe fn run<I: Isa>(self);
}

/// Runs `kernel` with the current instruction set.
pub(crate) fn dispatch(kernel: impl Kernel) {
    match instruction_set::arch() {
        // SAFETY: `V4` proves more than what `Avx512` needs.
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => unsafe { kernel.run::<Avx512>() },
        // SAFETY: likewise `V3`.
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => unsafe { kernel.run::<Avx2>() },
        // SAFETY: pulp's `Neon` proves it.
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => unsafe { kernel.run::<Neon>() },
        // SAFETY: plain Rust.
        _ => unsafe { kernel.run::<Portable>() },
    }
}

/// Calls `body` with a buffer of `len` values with arbitrary contents, aligned to a cache line. The
/// thread keeps the buffer for the next call.
pub(crate) fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local!(static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) });
    const LINE: usize = 16;
    let mut buffer = FREE.with_borrow_mut(|free| {
        let fitting = free.iter().position(|buffer| buffer.len() >= len + LINE);
        fitting.map(|index| free.swap_remove(index)).or_else(|| free.pop()).unwrap_or_default()
    });
    if buffer.len() < len + LINE {
        buffer = vec![0.0; len + LINE];
    }
    let skip = buffer.as_ptr().align_offset(4 * LINE);
    let result = body(&mut buffer[skip..skip + len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// [`with_scratch`] with several buffers.
pub(crate) fn with_scratches<const COUNT: usize, R>(
    lengths: [usize; COUNT],
    body: impl FnOnce([&mut [f32]; COUNT]) -> R,
) -> R {
    with_scratch(lengths.iter().sum(), |mut rest| {
        body(lengths.map(|length| {
            let (part, others) = std::mem::take(&mut rest).split_at_mut(length);
            rest = others;
            part
        }))
    })
}

/// The number of panels of `rows` rows: an even number if there are many, so that two threads can
/// divide them.
pub(crate) fn panels<I: Isa>(rows: usize) -> usize {
    let count = rows.div_ceil(I::ROWS);
    if count > 8 { count.next_multiple_of(2) } else { count }
}

/// The rows of panel `panel`; heights differ by one at most.
pub(crate) fn panel_rows<I: Isa>(panel: usize, rows: usize) -> Range<usize> {
    let count = panels::<I>(rows);
    part(0..rows, 1, panel, count)
}

/// `start..end` divided evenly, in units of `unit`, in `parts`: part `part`.
pub(crate) fn part(range: Range<usize>, unit: usize, part: usize, parts: usize) -> Range<usize> {
    let units = range.len().div_ceil(unit);
    let at = |part: usize| (range.start + part * units / parts * unit).min(range.end);
    at(part)..at(part + 1)
}

/// The first operand of a [`Block`].
#[derive(Clone, Copy)]
pub(crate) enum Rows {
    /// Packed by `pack_rows`.
    Packed(*const f32),
    /// A row-major matrix, read in place.
    InPlace { from: *const f32, stride: usize },
}

/// A product `c (+)= a b` of a register tile. The rows of `a` are `a_stride` apart, unless they are
/// packed.
#[derive(Clone, Copy)]
struct Tile {
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
}

/// Computes a tile of `ROWS` rows and `VECTORS` vectors of columns of `Part`, which is `I` or its
/// half. The rows of `a` are interleaved if it is `PACKED`.
unsafe fn multiply<
    I: Isa,
    Part: Isa,
    const ROWS: usize,
    const VECTORS: usize,
    const PACKED: bool,
>(
    tile: Tile,
) {
    let Tile { depth, a, a_stride, b, c, c_stride, accumulate } = tile;
    // SAFETY: the packed panels hold `depth` columns and rows, `c` a whole tile.
    unsafe {
        I::enter(
            #[inline(always)]
            || {
                let mut sums = [[Part::splat(0.0); VECTORS]; ROWS];
                for step in 0..depth {
                    let b = b.add(step * 2 * I::LANES);
                    let columns: [_; VECTORS] = std::array::from_fn(
                        #[inline(always)]
                        |vector| Part::load(b.add(vector * Part::LANES)),
                    );
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let place = if PACKED { step * ROWS + row } else { row * a_stride + step };
                        let value = Part::splat(*a.add(place));
                        for (sum, &column) in sums.iter_mut().zip(&columns) {
                            *sum = Part::mul_add(value, column, *sum);
                        }
                    }
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    for (vector, sum) in sums.into_iter().enumerate() {
                        let c = c.add(row * c_stride + vector * Part::LANES);
                        let sum = if accumulate { Part::add(Part::load(c), sum) } else { sum };
                        Part::store(c, sum);
                    }
                }
            },
        )
    }
}

/// The width of a tile.
#[derive(Clone, Copy)]
enum Width {
    /// Two vectors.
    Two,
    One,
    Half,
}

impl Width {
    fn lanes<I: Isa>(self) -> usize {
        match self {
            Self::Two => 2 * I::LANES,
            Self::One => I::LANES,
            Self::Half => I::Half::LANES,
        }
    }
}

/// The tiles that cover `columns` columns, at most two vectors, and the first column of each. The
/// second tile may be missing.
#[inline(always)]
fn widths<I: Isa>(columns: usize) -> [Option<(usize, Width)>; 2] {
    let (whole, half) = (I::LANES, I::Half::LANES);
    if columns > whole + half || half == whole && columns > whole {
        [Some((0, Width::Two)), None]
    } else if columns > whole {
        [Some((0, Width::One)), Some((whole, Width::Half))]
    } else if columns > half {
        [Some((0, Width::One)), None]
    } else {
        [Some((0, Width::Half)), None]
    }
}

/// The function for tiles of these rows and this width.
fn multiply_of<I: Isa, const PACKED: bool>(rows: usize, width: Width) -> unsafe fn(Tile) {
    macro_rules! heights {
        ($($rows:literal)*) => {
            match (rows, width) {
                $(
                    ($rows, Width::Two) => multiply::<I, I, $rows, 2, PACKED>,
                    ($rows, Width::One) => multiply::<I, I, $rows, 1, PACKED>,
                    ($rows, Width::Half) => multiply::<I, I::Half, $rows, 1, PACKED>,
                )*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}

/// A part of a product `c (+)= a b`: the panels `panels` of `rows` rows, and `columns` columns.
pub(crate) struct Block {
    pub panels: Range<usize>,
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub a: Rows,
    /// Panels of two vectors of columns, each `[depth, 2 * LANES]`.
    pub b: *const f32,
    /// Between the rows of `c`.
    pub c_stride: usize,
    /// Whether whole tiles may be written past the last column of `c`.
    pub c_padded: bool,
    pub accumulate: bool,
}

impl Block {
    /// Computes the product. `c` is the place of a row; `finish` is called with the rows of each
    /// panel once they are computed.
    ///
    /// # Safety
    /// The operands are packed as described, `c` points to enough room, and the processor has `I`.
    #[inline(always)]
    pub unsafe fn run<I: Isa>(
        self,
        c: impl Fn(usize) -> *mut f32,
        mut finish: impl FnMut(Range<usize>),
    ) {
        let Self { panels, rows, depth, columns, a, b, c_stride, c_padded, accumulate } = self;
        let width = 2 * I::LANES;
        for panel in panels {
            let band = panel_rows::<I>(panel, rows);
            let (a, a_stride, packed) = match a {
                Rows::Packed(from) => (from.wrapping_add(band.start * depth), 0, true),
                Rows::InPlace { from, stride } => {
                    (from.wrapping_add(band.start * stride), stride, false)
                }
            };
            let c = c(band.start);
            for (index, column) in (0..columns).step_by(width).enumerate() {
                let count = (columns - column).min(width);
                for (start, part) in widths::<I>(count).into_iter().flatten() {
                    let multiply = if packed {
                        multiply_of::<I, true>(band.len(), part)
                    } else {
                        multiply_of::<I, false>(band.len(), part)
                    };
                    // SAFETY: as the caller promises; a partial tile goes through a buffer.
                    unsafe {
                        let b = b.add(index * depth * width + start);
                        let c = c.add(column + start);
                        let tile = Tile { depth, a, a_stride, b, c, c_stride, accumulate };
                        if c_padded || count == width {
                            multiply(tile);
                        } else {
                            let size = [band.len(), (count - start).min(part.lanes::<I>())];
                            multiply_partial::<I>(multiply, tile, size);
                        }
                    }
                }
            }
            finish(band);
        }
    }
}

/// Computes a tile of which only the first rows and columns exist in `c`.
///
/// # Safety
/// As for `multiply`, and `c` has this many rows and columns.
#[inline(always)]
unsafe fn multiply_partial<I: Isa>(
    multiply: unsafe fn(Tile),
    tile: Tile,
    [rows, columns]: [usize; 2],
) {
    let width = 2 * I::LANES;
    let mut buffer = [0.0_f32; 14 * 32];
    // SAFETY: no tile is larger than the buffer; otherwise as the caller promises.
    unsafe {
        multiply(Tile { c: buffer.as_mut_ptr(), c_stride: width, accumulate: false, ..tile });
        for row in 0..rows {
            for lane in 0..columns {
                let to = tile.c.add(row * tile.c_stride + lane);
                let before = if tile.accumulate { *to } else { 0.0 };
                *to = before + buffer[row * width + lane];
            }
        }
    }
}

/// Packs the rows of a matrix for [`Block`]: all panels of rows, each `[depth, height]`, for every
/// block of the depth one after the other. The value of row `r` at depth `k` is
/// `from[r * row_stride + places[k]]`.
pub(crate) fn pack_rows<I: Isa>(
    rows: usize,
    row_stride: usize,
    places: &[usize],
    blocks: &[Range<usize>],
    from: &[f32],
    to: &mut [f32],
) {
    let to = Shared::new(to);
    let count = panels::<I>(rows);
    (0..blocks.len() * count).into_par_iter().with_min_len(4).for_each(|index| {
        let steps = blocks[index / count].clone();
        let band = panel_rows::<I>(index % count, rows);
        let start = rows * steps.start + band.start * steps.len();
        let to = to.range(start..start + band.len() * steps.len());
        // Rows that lie side by side are copied together.
        if row_stride == 1 {
            for (step, &place) in places[steps].iter().enumerate() {
                let from = &from[place..][band.clone()];
                let to = to.wrapping_add(step * band.len());
                // SAFETY: the panels are disjoint and fill `rows * depth` values.
                unsafe { to.copy_from_nonoverlapping(from.as_ptr(), band.len()) }
            }
        } else {
            for (offset, row) in band.clone().enumerate() {
                let from = &from[row * row_stride..];
                for (step, &place) in places[steps.clone()].iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { *to.add(step * band.len() + offset) = from[place] }
                }
            }
        }
    });
}
