//! The derivative of the activation that follows a norm.

use pulp::Simd;

use super::Dims;
use super::branches::{MAX_BRANCHES, affine, splat_branches};
use crate::activation::{Activation, IDENTITY, Vectors};
use crate::shape::map_len;
use crate::simd::Lanes;

/// Where the derivative of the activation comes from.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// There is no activation.
    Open,
    /// From a map: the output of ReLU or ReLU6, the input of hard-swish. Where it is NaN, the
    /// gradient is not set to zero.
    Values(Activation, &'a [f32]),
    /// From the input of the activation in [`apply`](super::apply()) with these values and no
    /// residual. It is neither stored nor read, but recomputed from the maps, bit for bit. At most
    /// four branches.
    Affine {
        /// The activation.
        activation: Activation,
        /// `[branches, channels]`.
        scale: &'a [f32],
        /// `[channels]`.
        shift: &'a [f32],
    },
}

/// Evaluates `$body` with the case of the activation of a gate as the constant `$kind`, and with
/// `$map`: whether the values of the activation come from a map.
macro_rules! for_gate {
    ($gate:expr, |$kind:ident, $map:ident| $body:expr) => {
        match $gate {
            Gate::Open => {
                const $kind: u8 = $crate::activation::IDENTITY;
                const $map: bool = false;
                $body
            }
            Gate::Values(activation, _) => $crate::activation::with_kind!(activation, |$kind| {
                const $map: bool = true;
                $body
            }),
            Gate::Affine { activation, .. } => {
                $crate::activation::with_kind!(activation, |$kind| {
                    const $map: bool = false;
                    $body
                })
            }
        }
    };
}
pub(super) use for_gate;

impl Gate<'_> {
    pub(super) fn check(&self, branches: usize, dims: Dims) {
        let channels = dims[1];
        match self {
            Self::Open => {}
            Self::Values(_, values) => {
                assert_eq!(values.len(), map_len(dims), "length of the values");
            }
            Self::Affine { scale, shift, .. } => {
                assert!(branches <= MAX_BRANCHES, "the branches of one pass");
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
        let mut gate = PlaneGate {
            values: std::ptr::null(),
            scale: [zero; B],
            shift: zero,
            activation: Vectors::new(simd, Activation::Identity),
        };
        match *self {
            Self::Open => {}
            Self::Values(activation, values) => {
                gate.values = values[plane * positions..][..positions].as_ptr();
                gate.activation = Vectors::new(simd, activation);
            }
            Self::Affine { activation, scale, shift } => {
                gate.scale = splat_branches(simd, scale, channel, channels);
                gate.shift = simd.splat_f32s(shift[channel]);
                gate.activation = Vectors::new(simd, activation);
            }
        }
        gate
    }
}

/// A gate in one plane.
pub(super) struct PlaneGate<S: Simd, const B: usize> {
    values: *const f32,
    scale: [S::f32s; B],
    shift: S::f32s,
    activation: Vectors<S>,
}

impl<S: Simd, const B: usize> PlaneGate<S, B> {
    /// The gradient of the activation's input.
    ///
    /// # Safety
    /// The lanes at `at` lie in the plane, and `KIND` and `MAP` are the case of the gate.
    #[inline(always)]
    pub(super) unsafe fn pass<L: Lanes<S>, const KIND: u8, const MAP: bool>(
        &self,
        simd: S,
        lanes: L,
        at: usize,
        dy: S::f32s,
        maps: &[S::f32s; B],
    ) -> S::f32s {
        if KIND == IDENTITY {
            return dy;
        }
        let values = match MAP {
            // SAFETY: as the caller promises.
            true => unsafe { lanes.load(simd, self.values.add(at)) },
            false => affine(simd, &self.scale, self.shift, maps),
        };
        self.activation.backward::<KIND>(values, dy)
    }
}
