//! Convolution as one sweep over the flat positions of a plane.

use pulp::{Arch, Simd, WithSimd};

use super::grid::SLACK;
use crate::simd::{Full, Lanes, load};

/// What a sweep starts from: `constant + scale * strip[q]`.
pub(super) struct Base<'a> {
    pub strip: &'a [f32],
    pub scale: f32,
    pub constant: f32,
}

/// `outs[n][q] = base(q) + sum of weights[n][t] * source[offsets[t] + q]` for `q < count` and `N`
/// kernels at once, which share the loads. Up to `SLACK - 1` further values are overwritten.
pub(super) struct Convolve<'a, const N: usize> {
    pub source: &'a [f32],
    pub offsets: &'a [usize],
    pub weights: [&'a [f32]; N],
    pub bases: [Base<'a>; N],
    pub outs: [&'a mut [f32]; N],
    pub count: usize,
}

impl<const N: usize> Convolve<'_, N> {
    /// Checks the lengths, so that the unchecked accesses stay within the slices, and computes.
    pub(super) fn run(self, arch: Arch) {
        let Self { source, offsets, weights, bases, outs, count } = &self;
        let padded = count.next_multiple_of(SLACK);
        let last = offsets.iter().max().map_or(0, |offset| offset + padded);
        assert!(source.len() >= last, "a tap leaves the strips");
        assert!(weights.iter().all(|weights| weights.len() == offsets.len()), "one weight a tap");
        assert!(bases.iter().all(|base| base.strip.len() >= padded), "a base is too short");
        assert!(outs.iter().all(|out| out.len() >= padded), "an output is too short");
        arch.dispatch(self);
    }

    /// Computes `V` vectors at once, so that a weight is loaded once for all of them.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // Plain loops are certain to be unrolled.
    fn block<S: Simd, const V: usize>(&mut self, simd: S, at: usize) {
        let mut sums = [[simd.splat_f32s(0.0); V]; N];
        for n in 0..N {
            let scale = simd.splat_f32s(self.bases[n].scale);
            let constant = simd.splat_f32s(self.bases[n].constant);
            for v in 0..V {
                // SAFETY: checked in `run`.
                let base = unsafe { load(simd, self.bases[n].strip, at + v * S::F32_LANES) };
                sums[n][v] = simd.mul_add_e_f32s(scale, base, constant);
            }
        }
        for (t, &offset) in self.offsets.iter().enumerate() {
            let mut values = [simd.splat_f32s(0.0); V];
            for v in 0..V {
                // SAFETY: checked in `run`.
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
                // SAFETY: the outputs hold `count` values rounded up to whole vectors.
                unsafe {
                    let to = self.outs[n].as_mut_ptr().add(at + v * S::F32_LANES);
                    Full.store(simd, to, sums[n][v]);
                }
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
