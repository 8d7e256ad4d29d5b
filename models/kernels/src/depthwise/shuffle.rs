//! Splits vectors into their even and odd values, for rows that are read with stride 2.

use pulp::Simd;

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
