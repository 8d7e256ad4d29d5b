//! The inner loops: sweeps over the flat positions of a plane.
//!
//! Every function takes the vector instructions to use and checks the lengths of its slices, so
//! that the unchecked loads inside stay within them.

use pulp::{Arch, Simd, WithSimd};

use super::grid::{Grid, SLACK};
use super::vector;

/// Values that a lane adds in a row in `f32` before it is flushed to `f64`: few enough to cost no
/// digits, enough to make the flush cheap. A block of so many vectors also stays in the first cache.
const IN_A_ROW: usize = 256;

/// Positions after which sums in `f32` are added to those in `f64`.
fn block(arch: Arch) -> usize {
    struct Lanes;

    impl WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }

    IN_A_ROW * arch.dispatch(Lanes)
}

/// Taps of one side of a tile of pair sums.
const TILE: usize = 5;

/// What a sweep starts from: `constant + scale * strip[q]`.
pub(super) struct Base<'a> {
    pub strip: &'a [f32],
    pub scale: f32,
    pub constant: f32,
}

/// A vector of a slice.
///
/// # Safety
/// The slice holds `at` and the lanes after it: the functions that other files call have checked
/// it for all that a sweep reads.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, source: &[f32], at: usize) -> S::f32s {
    debug_assert!(at + S::F32_LANES <= source.len(), "a vector past its slice");
    // SAFETY: the caller's promise.
    unsafe { vector::load(simd, source.as_ptr(), at) }
}

fn round_up(count: usize) -> usize {
    count.next_multiple_of(SLACK)
}

/// `outs[n][q] = base(q) + sum of weights[n][t] * source[offsets[t] + q]` for `q < count` and `N`
/// kernels at once, which share the loads; up to `SLACK - 1` further values are overwritten.
pub(super) fn convolve<const N: usize>(
    arch: Arch,
    source: &[f32],
    offsets: &[usize],
    weights: [&[f32]; N],
    bases: [Base<'_>; N],
    outs: [&mut [f32]; N],
    count: usize,
) {
    struct Convolve<'a, const N: usize> {
        source: &'a [f32],
        offsets: &'a [usize],
        weights: [&'a [f32]; N],
        bases: [Base<'a>; N],
        outs: [&'a mut [f32]; N],
        count: usize,
    }

    impl<const N: usize> Convolve<'_, N> {
        /// `V` vectors at once, so that a weight is loaded once for all.
        #[inline(always)]
        #[allow(clippy::needless_range_loop)] // Plain loops unroll for sure.
        fn block<S: Simd, const V: usize>(&mut self, simd: S, at: usize) {
            let mut sums = [[simd.splat_f32s(0.0); V]; N];
            for n in 0..N {
                let scale = simd.splat_f32s(self.bases[n].scale);
                let constant = simd.splat_f32s(self.bases[n].constant);
                for v in 0..V {
                    // SAFETY: as checked before the sweep.
                    let base = unsafe { load(simd, self.bases[n].strip, at + v * S::F32_LANES) };
                    sums[n][v] = simd.mul_add_e_f32s(scale, base, constant);
                }
            }
            for (t, &offset) in self.offsets.iter().enumerate() {
                let mut values = [simd.splat_f32s(0.0); V];
                for v in 0..V {
                    // SAFETY: as checked before the sweep.
                    values[v] = unsafe { load(simd, self.source, offset + at + v * S::F32_LANES) };
                }
                for n in 0..N {
                    // SAFETY: there are as many weights as offsets.
                    let weight = simd.splat_f32s(unsafe { *self.weights[n].get_unchecked(t) });
                    for v in 0..V {
                        sums[n][v] = simd.mul_add_e_f32s(weight, values[v], sums[n][v]);
                    }
                }
            }
            for n in 0..N {
                for v in 0..V {
                    let target = self.outs[n].as_mut_ptr();
                    // SAFETY: the outputs hold `count` rounded up to whole vectors.
                    unsafe { vector::store(simd, target, at + v * S::F32_LANES, sums[n][v]) };
                }
            }
        }
    }

    impl<const N: usize> WithSimd for Convolve<'_, N> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, simd: S) {
            let mut at = 0;
            if N == 1 {
                while at + 7 * S::F32_LANES < self.count {
                    self.block::<S, 8>(simd, at);
                    at += 8 * S::F32_LANES;
                }
            }
            while at + 3 * S::F32_LANES < self.count {
                self.block::<S, 4>(simd, at);
                at += 4 * S::F32_LANES;
            }
            while at + S::F32_LANES < self.count {
                self.block::<S, 2>(simd, at);
                at += 2 * S::F32_LANES;
            }
            if at < self.count {
                self.block::<S, 1>(simd, at);
            }
        }
    }

    let padded = round_up(count);
    let last = offsets.iter().max().map_or(0, |offset| offset + padded);
    assert!(source.len() >= last, "a tap leaves the strips");
    assert!(weights.iter().all(|weights| weights.len() == offsets.len()), "one weight a tap");
    assert!(bases.iter().all(|base| base.strip.len() >= padded), "a base is too short");
    assert!(outs.iter().all(|out| out.len() >= padded), "an output is too short");
    arch.dispatch(Convolve { source, offsets, weights, bases, outs, count });
}

/// Sums in two levels: vectors of `f32`, flushed to `f64` every [`block`] of positions or so.
pub(super) struct Sums {
    partial: Vec<f32>,
    pending: usize,
    pub total: Vec<f64>,
}

impl Sums {
    pub(super) fn new(count: usize) -> Self {
        Self { partial: vec![0.0; count * SLACK], pending: 0, total: vec![0.0; count] }
    }

    pub(super) fn reset(&mut self) {
        self.partial.fill(0.0);
        self.pending = 0;
        self.total.fill(0.0);
    }

    /// Adds the partial sums to the totals.
    pub(super) fn flush(&mut self) {
        for (total, lanes) in self.total.iter_mut().zip(self.partial.chunks_exact_mut(SLACK)) {
            *total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
            lanes.fill(0.0);
        }
        self.pending = 0;
    }

    /// Makes room for `count` more positions in a block.
    fn reserve(&mut self, count: usize, block: usize) {
        if self.pending + count > block {
            self.flush();
        }
        self.pending += count;
    }
}

/// Adds `sum over q of mask[q] * source[offsets[a] + q] * source[offsets[b] + q]` for every pair
/// `a <= b`, in the order `(0, 0), (0, 1) .. (1, 1), (1, 2) ..`. The mask must be 0 or 1, and 0
/// from `count` to the next multiple of `SLACK`.
pub(super) fn add_pairs(
    arch: Arch,
    source: &[f32],
    offsets: &[usize],
    mask: &[f32],
    count: usize,
    sums: &mut Sums,
) {
    struct Pairs<'a> {
        source: &'a [f32],
        offsets: &'a [usize],
        mask: &'a [f32],
        range: std::ops::Range<usize>,
        partial: &'a mut [f32],
    }

    impl Pairs<'_> {
        /// The pairs of taps `a .. a + A` with `b .. b + B`; `a == b` on the diagonal.
        #[inline(always)]
        fn tile<S: Simd, const A: usize, const B: usize>(&mut self, simd: S, a: usize, b: usize) {
            let taps = self.offsets.len();
            let slot = |i: usize, j: usize| {
                let (i, j) = (a + i, b + j);
                (i * (2 * taps + 1 - i) / 2 + j - i) * SLACK
            };
            let wanted = |i: usize, j: usize| a != b || j >= i;
            let (left, right) = (&self.offsets[a..a + A], &self.offsets[b..b + B]);
            let left: [usize; A] = std::array::from_fn(|i| left[i]);
            let right: [usize; B] = std::array::from_fn(|j| right[j]);
            let mut sums = [[simd.splat_f32s(0.0); B]; A];
            let mut at = self.range.start;
            while at < self.range.end {
                // SAFETY: as checked before the sweep.
                let mask = unsafe { load(simd, self.mask, at) };
                let values: [S::f32s; B] =
                    // SAFETY: as checked before the sweep.
                    std::array::from_fn(|j| unsafe { load(simd, self.source, right[j] + at) });
                for i in 0..A {
                    // SAFETY: as checked before the sweep.
                    let value = unsafe { load(simd, self.source, left[i] + at) };
                    let value = simd.mul_f32s(mask, value);
                    for j in 0..B {
                        if wanted(i, j) {
                            sums[i][j] = simd.mul_add_e_f32s(value, values[j], sums[i][j]);
                        }
                    }
                }
                at += S::F32_LANES;
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    if wanted(i, j) {
                        let slot = slot(i, j);
                        let lanes = &mut self.partial[slot..slot + S::F32_LANES];
                        // SAFETY: the slice is one vector long.
                        unsafe { vector::add(simd, lanes.as_mut_ptr(), 0, sum) };
                    }
                }
            }
        }
    }

    impl WithSimd for Pairs<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, simd: S) {
            let taps = self.offsets.len();
            for a in (0..taps).step_by(TILE) {
                match taps - a {
                    1 => self.tile::<S, 1, 1>(simd, a, a),
                    2 => self.tile::<S, 2, 2>(simd, a, a),
                    3 => self.tile::<S, 3, 3>(simd, a, a),
                    4 => self.tile::<S, 4, 4>(simd, a, a),
                    _ => self.tile::<S, TILE, TILE>(simd, a, a),
                }
                for b in (a + TILE..taps).step_by(TILE) {
                    match taps - b {
                        1 => self.tile::<S, TILE, 1>(simd, a, b),
                        2 => self.tile::<S, TILE, 2>(simd, a, b),
                        3 => self.tile::<S, TILE, 3>(simd, a, b),
                        4 => self.tile::<S, TILE, 4>(simd, a, b),
                        _ => self.tile::<S, TILE, TILE>(simd, a, b),
                    }
                }
            }
        }
    }

    let last = offsets.iter().max().map_or(0, |offset| offset + round_up(count));
    assert!(source.len() >= last, "a tap leaves the strips");
    assert!(mask.len() >= round_up(count), "the mask is too short");
    assert_eq!(sums.total.len(), offsets.len() * (offsets.len() + 1) / 2, "one sum a pair");
    let block = block(arch);
    for start in (0..count).step_by(block) {
        let range = start..count.min(start + block);
        sums.reserve(range.len(), block);
        arch.dispatch(Pairs { source, offsets, mask, range, partial: &mut sums.partial });
    }
}

/// Adds `sum over q of factor[q] * source[offsets[t] + q]` for every tap. The factor must be 0
/// from `count` to the next multiple of `SLACK`.
pub(super) fn add_dots(
    arch: Arch,
    source: &[f32],
    offsets: &[usize],
    factor: &[f32],
    count: usize,
    sums: &mut Sums,
) {
    struct Dots<'a> {
        source: &'a [f32],
        offsets: &'a [usize],
        factor: &'a [f32],
        range: std::ops::Range<usize>,
        partial: &'a mut [f32],
    }

    impl Dots<'_> {
        #[inline(always)]
        fn group<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
            let offsets = &self.offsets[first..first + N];
            let offsets: [usize; N] = std::array::from_fn(|t| offsets[t]);
            let mut sums = [simd.splat_f32s(0.0); N];
            let mut at = self.range.start;
            while at < self.range.end {
                // SAFETY: as checked before the sweep.
                let factor = unsafe { load(simd, self.factor, at) };
                for t in 0..N {
                    // SAFETY: as checked before the sweep.
                    let value = unsafe { load(simd, self.source, offsets[t] + at) };
                    sums[t] = simd.mul_add_e_f32s(factor, value, sums[t]);
                }
                at += S::F32_LANES;
            }
            for (t, &sum) in sums.iter().enumerate() {
                let slot = (first + t) * SLACK;
                let lanes = &mut self.partial[slot..slot + S::F32_LANES];
                // SAFETY: the slice is one vector long.
                unsafe { vector::add(simd, lanes.as_mut_ptr(), 0, sum) };
            }
        }
    }

    impl WithSimd for Dots<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, simd: S) {
            let mut first = 0;
            while first < self.offsets.len() {
                let group = match self.offsets.len() - first {
                    13.. => {
                        self.group::<S, 13>(simd, first);
                        13
                    }
                    9.. => {
                        self.group::<S, 9>(simd, first);
                        9
                    }
                    3..9 => {
                        self.group::<S, 3>(simd, first);
                        3
                    }
                    _ => {
                        self.group::<S, 1>(simd, first);
                        1
                    }
                };
                first += group;
            }
        }
    }

    let last = offsets.iter().max().map_or(0, |offset| offset + round_up(count));
    assert!(source.len() >= last, "a tap leaves the strips");
    assert!(factor.len() >= round_up(count), "the factor is too short");
    assert_eq!(sums.total.len(), offsets.len(), "one sum a tap");
    let block = block(arch);
    for start in (0..count).step_by(block) {
        let range = start..count.min(start + block);
        sums.reserve(range.len(), block);
        arch.dispatch(Dots { source, offsets, factor, range, partial: &mut sums.partial });
    }
}

/// Sums over each class of outputs of what some taps in a row see, every `cols.stride`-th of the
/// kernel's: `strip` starts under the first at output 0, `sums` with its classes. `row` is room
/// for one row.
pub(super) fn class_sums(
    arch: Arch,
    grid: &Grid,
    strip: &[f32],
    taps: usize,
    row: &mut [f32],
    sums: &mut [f64],
) {
    struct ClassSums<'a> {
        grid: &'a Grid,
        strip: &'a [f32],
        taps: usize,
        row: &'a mut [f32],
        sums: &'a mut [f64],
    }

    impl WithSimd for ClassSums<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let (rows, cols) = (&self.grid.rows, &self.grid.cols);
            let row = &mut self.row[..cols.output + self.taps - 1];
            for (i, class) in rows.classes.iter().enumerate() {
                row.fill(0.0);
                for r in class.outputs.clone() {
                    let values = &self.strip[r * cols.len..][..row.len()];
                    row.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
                }
                for tap in 0..self.taps {
                    let first = (tap * cols.stride * rows.classes.len() + i) * cols.classes.len();
                    for (class, sum) in cols.classes.iter().zip(&mut self.sums[first..]) {
                        *sum = total(&row[class.outputs.start + tap..class.outputs.end + tap]);
                    }
                }
            }
        }
    }

    arch.dispatch(ClassSums { grid, strip, taps, row, sums });
}

/// The sum of a slice, over several independent lanes.
#[inline(always)]
fn total(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; SLACK];
    let chunks = values.chunks_exact(SLACK);
    let rest: f64 = chunks.remainder().iter().map(|&v| f64::from(v)).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, &v)| *lane += v);
    }
    lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + rest
}
