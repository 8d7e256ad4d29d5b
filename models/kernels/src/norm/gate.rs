//! The activation behind a norm, on the way back.

use pulp::Simd;

use super::Dims;
use super::branches::{affine, splat_branches};
use crate::shape::map_len;
use crate::simd::Lanes;

/// Where a gradient passes the activation.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// Everywhere: there is no activation.
    Open,
    /// Where this output of [`apply`](super::apply()) with ReLU is positive or NaN.
    Output(&'a [f32]),
    /// Where [`apply`](super::apply()) with ReLU, these values and no residual is positive or NaN.
    /// Its output need neither be kept nor read: it is found again, bit for bit, from the maps.
    Affine {
        /// `[branches, channels]`.
        scale: &'a [f32],
        /// `[channels]`.
        shift: &'a [f32],
    },
}

/// The cases of [`Gate`], for the compiler.
pub(super) const OPEN: u8 = 0;
pub(super) const OUTPUT: u8 = 1;
pub(super) const AFFINE: u8 = 2;

impl Gate<'_> {
    pub(super) fn check(&self, branches: usize, dims: Dims) {
        let channels = dims[1];
        match self {
            Self::Open => {}
            Self::Output(y) => {
                assert_eq!(y.len(), map_len(dims), "length of the output");
            }
            Self::Affine { scale, shift } => {
                assert_eq!(scale.len(), branches * channels, "one scale per branch and channel");
                assert_eq!(shift.len(), channels, "one shift per channel");
            }
        }
    }

    #[inline(always)]
    pub(super) fn of_plane<S: Simd, const B: usize>(
        &self,
        simd: S,
        plane: usize,
        channel: usize,
        [_, channels, positions]: Dims,
    ) -> PlaneGate<S, B> {
        let zero = simd.splat_f32s(0.0);
        let mut gate = PlaneGate { y: std::ptr::null(), scale: [zero; B], shift: zero };
        match self {
            Self::Open => {}
            Self::Output(y) => gate.y = y[plane * positions..][..positions].as_ptr(),
            Self::Affine { scale, shift } => {
                gate.scale = splat_branches(simd, scale, channel, channels);
                gate.shift = simd.splat_f32s(shift[channel]);
            }
        }
        gate
    }
}

/// A gate as one plane needs it.
pub(super) struct PlaneGate<S: Simd, const B: usize> {
    y: *const f32,
    scale: [S::f32s; B],
    shift: S::f32s,
}

impl<S: Simd, const B: usize> PlaneGate<S, B> {
    /// The gradient behind the activation.
    ///
    /// # Safety
    /// The lanes at `at` lie in the plane, and `KIND` is the case of the gate.
    #[inline(always)]
    pub(super) unsafe fn pass<L: Lanes, const KIND: u8>(
        &self,
        simd: S,
        lanes: L,
        at: usize,
        dy: S::f32s,
        maps: &[S::f32s; B],
    ) -> S::f32s {
        let y = match KIND {
            OPEN => return dy,
            // SAFETY: as the caller promises.
            OUTPUT => unsafe { lanes.load(simd, self.y.add(at)) },
            _ => affine(simd, &self.scale, self.shift, maps),
        };
        let zero = simd.splat_f32s(0.0);
        // Where the output is NaN the gradient passes: it must not vanish.
        simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, dy)
    }
}
