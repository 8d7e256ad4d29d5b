//! Splits vectors into their even and odd values, for rows that are read with stride 2.

#[cfg(target_arch = "x86_64")]
use std::{
    any::TypeId,
    mem::{transmute, transmute_copy},
};

use pulp::Simd;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use crate::simd::{Full, Lanes, WIDEST};

/// The token of the instruction set `T`, if `simd` is one: it proves that the processor has the
/// set, and that vectors of `S` are vectors of `T`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn known<S: Simd, T: Simd>(simd: S) -> Option<T> {
    if TypeId::of::<S>() == TypeId::of::<T>() {
        // SAFETY: the types are the same.
        Some(unsafe { transmute_copy(&simd) })
    } else {
        None
    }
}

/// The even and the odd values of two consecutive vectors.
#[inline(always)]
pub(super) fn deinterleave<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        // SAFETY: the vectors of `V4` are `__m512`, those of `V3` are `__m256`.
        unsafe {
            if let Some(V4 { avx512f: avx512, .. }) = known(simd) {
                let [a, b]: [__m512; 2] = [transmute_copy(&a), transmute_copy(&b)];
                let even =
                    avx512._mm512_permutex2var_ps(a, transmute::<[i32; 16], __m512i>(EVEN), b);
                let odd = avx512._mm512_permutex2var_ps(a, transmute::<[i32; 16], __m512i>(ODD), b);
                return [transmute_copy(&even), transmute_copy(&odd)];
            }
            if let Some(V3 { avx, avx2, .. }) = known(simd) {
                let [a, b]: [__m256; 2] = [transmute_copy(&a), transmute_copy(&b)];
                let even = transmute::<__m256, __m256d>(avx._mm256_shuffle_ps::<0x88>(a, b));
                let odd = transmute::<__m256, __m256d>(avx._mm256_shuffle_ps::<0xDD>(a, b));
                let even = avx2._mm256_permute4x64_pd::<0xD8>(even);
                let odd = avx2._mm256_permute4x64_pd::<0xD8>(odd);
                return [transmute_copy(&even), transmute_copy(&odd)];
            }
        }
    }
    let half = S::F32_LANES;
    permute(simd, a, b, |i| if i < half { 2 * i } else { 2 * (i - half) + 1 })
}

/// Two consecutive vectors from their even and odd values.
#[inline(always)]
pub(super) fn interleave<S: Simd>(simd: S, even: S::f32s, odd: S::f32s) -> [S::f32s; 2] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        // SAFETY: as above.
        unsafe {
            if let Some(V4 { avx512f: avx512, .. }) = known(simd) {
                let [even, odd]: [__m512; 2] = [transmute_copy(&even), transmute_copy(&odd)];
                let low =
                    avx512._mm512_permutex2var_ps(even, transmute::<[i32; 16], __m512i>(LOW), odd);
                let high =
                    avx512._mm512_permutex2var_ps(even, transmute::<[i32; 16], __m512i>(HIGH), odd);
                return [transmute_copy(&low), transmute_copy(&high)];
            }
            if let Some(V3 { avx, .. }) = known(simd) {
                let [even, odd]: [__m256; 2] = [transmute_copy(&even), transmute_copy(&odd)];
                let a = avx._mm256_unpacklo_ps(even, odd);
                let b = avx._mm256_unpackhi_ps(even, odd);
                let low = avx._mm256_permute2f128_ps::<0x20>(a, b);
                let high = avx._mm256_permute2f128_ps::<0x31>(a, b);
                return [transmute_copy(&low), transmute_copy(&high)];
            }
        }
    }
    permute(simd, even, odd, |i| i / 2 + i % 2 * S::F32_LANES)
}

/// Two vectors that hold at `i` the value that two others hold at `place(i)`, by way of memory.
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

#[cfg(target_arch = "x86_64")]
const EVEN: [i32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
#[cfg(target_arch = "x86_64")]
const ODD: [i32; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];
#[cfg(target_arch = "x86_64")]
const LOW: [i32; 16] = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
#[cfg(target_arch = "x86_64")]
const HIGH: [i32; 16] = [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31];

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
