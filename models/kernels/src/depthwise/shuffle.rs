//! Splits vectors into their even and odd values, for rows that are read with stride 2, and transposes squares.

#[cfg(target_arch = "x86_64")]
use std::any::TypeId;

use pulp::Simd;

#[cfg(target_arch = "x86_64")]
use crate::gemm::simd::{Avx2, Avx512, Isa};
use crate::simd::{Full, Lanes, WIDEST};

/// The even and the odd values of two consecutive vectors.
#[inline(always)]
pub(super) fn deinterleave<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
    let half = S::F32_LANES;
    permute(simd, a, b, |i| if i < half { 2 * i } else { 2 * (i - half) + 1 })
}

/// Two consecutive vectors from their even and odd values.
#[inline(always)]
pub(super) fn interleave<S: Simd>(simd: S, even: S::f32s, odd: S::f32s) -> [S::f32s; 2] {
    permute(simd, even, odd, |i| i / 2 + i % 2 * S::F32_LANES)
}

/// Rows of as many values as the widest vector has, and as many of them.
pub(super) type Square = [[f32; WIDEST]; WIDEST];

/// Transposes the first values of all rows, as many as a vector has lanes, to rows.
#[inline(always)]
pub(super) fn transpose<S: Simd>(simd: S, from: &Square, to: &mut Square) {
    let (from, to) = (from.as_flattened(), to.as_flattened_mut());
    for first in (0..WIDEST).step_by(S::F32_LANES) {
        transpose_lanes(simd, &from[first * WIDEST..], &mut to[first..]);
    }
}

/// The inverse of [`transpose`].
#[inline(always)]
pub(super) fn transpose_back<S: Simd>(simd: S, from: &Square, to: &mut Square) {
    let (from, to) = (from.as_flattened(), to.as_flattened_mut());
    for first in (0..WIDEST).step_by(S::F32_LANES) {
        transpose_lanes(simd, &from[first..], &mut to[first * WIDEST..]);
    }
}

/// Transposes a square of as many rows and columns as a vector has lanes, a part of a [`Square`].
#[inline(always)]
fn transpose_lanes<S: Simd>(_: S, from: &[f32], to: &mut [f32]) {
    assert!(from.len().min(to.len()) >= (S::F32_LANES - 1) * WIDEST + S::F32_LANES);
    #[cfg(target_arch = "x86_64")]
    {
        let is = |set: TypeId| set == TypeId::of::<S>();
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        if is(TypeId::of::<pulp::x86::V4>()) {
            // SAFETY: the value of type `V4` proves that the processor has AVX-512; the lengths are checked.
            return unsafe { Avx512::transpose(from, WIDEST, to, WIDEST) };
        }
        if is(TypeId::of::<pulp::x86::V3>()) {
            // SAFETY: as above, with AVX2.
            return unsafe { Avx2::transpose(from, WIDEST, to, WIDEST) };
        }
    }
    for r in 0..S::F32_LANES {
        for c in 0..S::F32_LANES {
            to[c * WIDEST + r] = from[r * WIDEST + c];
        }
    }
}

/// Two vectors that hold at `i` the value that two others hold at `place(i)`. The compiler turns the
/// way through memory into shuffles, which intrinsics do not outrun (MobileNetV1 in training and
/// inference, AVX-512 and AVX2).
#[inline(always)]
fn permute<S: Simd>(
    simd: S,
    a: S::f32s,
    b: S::f32s,
    place: impl Fn(usize) -> usize,
) -> [S::f32s; 2] {
    let [mut from, mut to] = [[0.0; 2 * WIDEST]; 2];
    // SAFETY: the arrays hold two vectors of any width.
    unsafe {
        Full.store(simd, from.as_mut_ptr(), a);
        Full.store(simd, from.as_mut_ptr().add(S::F32_LANES), b);
        for (i, to) in to[..2 * S::F32_LANES].iter_mut().enumerate() {
            *to = from[place(i)];
        }
        [Full.load(simd, to.as_ptr()), Full.load(simd, to.as_ptr().add(S::F32_LANES))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{instruction_set, testing::for_each_set};
    use pulp::WithSimd;

    #[test]
    fn shuffles_are_inverse() {
        struct Check;
        impl WithSimd for Check {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                let lanes = S::F32_LANES;
                let pairs: Vec<f32> = (0..2 * lanes).map(|i| i as f32).collect();
                let mut out = vec![0.0; 2 * lanes];
                // SAFETY: both hold two vectors.
                unsafe {
                    let [a, b] = [0, lanes].map(|at| Full.load(simd, pairs.as_ptr().add(at)));
                    let [even, odd] = deinterleave(simd, a, b);
                    Full.store(simd, out.as_mut_ptr(), even);
                    Full.store(simd, out.as_mut_ptr().add(lanes), odd);
                    for i in 0..lanes {
                        assert_eq!([out[i], out[lanes + i]], [pairs[2 * i], pairs[2 * i + 1]]);
                    }
                    let [a, b] = interleave(simd, even, odd);
                    Full.store(simd, out.as_mut_ptr(), a);
                    Full.store(simd, out.as_mut_ptr().add(lanes), b);
                }
                assert_eq!(out, pairs);
            }
        }
        for_each_set(|| instruction_set::dispatch(Check));
    }
}
