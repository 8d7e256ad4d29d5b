//! Loads, stores and shuffles that vector code over slices needs beside pulp's.

#[cfg(target_arch = "x86_64")]
use std::{
    any::TypeId,
    mem::{transmute, transmute_copy},
};

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{MemMask, Simd};

/// Lanes of the widest vector.
pub(super) const WIDEST: usize = 16;

/// Loads a vector.
///
/// # Safety
/// `source[at .. at + lanes]` must be readable.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(_: S, source: *const f32, at: usize) -> S::f32s {
    // SAFETY: the caller's promise.
    unsafe { source.add(at).cast::<S::f32s>().read_unaligned() }
}

/// Stores a vector.
///
/// # Safety
/// `target[at .. at + lanes]` must be writable.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(_: S, target: *mut f32, at: usize, value: S::f32s) {
    // SAFETY: the caller's promise.
    unsafe { target.add(at).cast::<S::f32s>().write_unaligned(value) }
}

/// Adds a vector to what is stored.
///
/// # Safety
/// `target[at .. at + lanes]` must be readable and writable.
#[inline(always)]
pub(super) unsafe fn add<S: Simd>(simd: S, target: *mut f32, at: usize, value: S::f32s) {
    // SAFETY: the caller's promise.
    unsafe { store(simd, target, at, simd.add_f32s(load(simd, target, at), value)) }
}

/// Asks for a value to be brought into the cache, if there is such a value and an instruction.
#[inline(always)]
pub(super) fn prefetch(source: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if at < source.len() {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address lies within the slice, and every x86-64 has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(source.as_ptr().add(at).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (source, at);
}

/// How a row is cut into vectors: whole ones, and a rest.
#[derive(Clone, Copy)]
pub(super) struct Cut<S: Simd> {
    /// Values in whole vectors.
    pub whole: usize,
    /// Lanes of the rest, if there is one.
    pub rest: Option<S::m32s>,
}

impl<S: Simd> Cut<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, width: usize) -> Self {
        let rest = width % S::F32_LANES;
        Self { whole: width - rest, rest: (rest > 0).then(|| first(simd, rest)) }
    }
}

/// Loads some lanes, zeros elsewhere.
///
/// # Safety
/// The lanes must be readable.
#[inline(always)]
pub(super) unsafe fn load_lanes<S: Simd>(
    simd: S,
    source: *const f32,
    at: usize,
    lanes: S::m32s,
) -> S::f32s {
    // SAFETY: the caller's promise; disabled lanes are not touched.
    unsafe { simd.mask_load_ptr_f32s(MemMask::new(lanes), source.add(at)) }
}

/// Stores some lanes.
///
/// # Safety
/// The lanes must be writable.
#[inline(always)]
pub(super) unsafe fn store_lanes<S: Simd>(
    simd: S,
    target: *mut f32,
    at: usize,
    lanes: S::m32s,
    value: S::f32s,
) {
    // SAFETY: the caller's promise; disabled lanes are not touched.
    unsafe { simd.mask_store_ptr_f32s(MemMask::new(lanes), target.add(at), value) }
}

/// The first `count` lanes.
#[inline(always)]
pub(super) fn first<S: Simd>(simd: S, count: usize) -> S::m32s {
    simd.mask_between_m32s(0, count as u32).mask()
}

/// Loads `count` values, zeros behind them.
///
/// # Safety
/// `source[at .. at + min(count, lanes)]` must be readable.
#[inline(always)]
pub(super) unsafe fn load_some<S: Simd>(
    simd: S,
    source: *const f32,
    at: usize,
    count: usize,
) -> S::f32s {
    // SAFETY: the caller's promise; disabled lanes are not touched.
    unsafe {
        if count >= S::F32_LANES {
            load(simd, source, at)
        } else {
            simd.mask_load_ptr_f32s(MemMask::new(first(simd, count)), source.add(at))
        }
    }
}

/// Stores the first `count` values.
///
/// # Safety
/// `target[at .. at + min(count, lanes)]` must be writable.
#[inline(always)]
pub(super) unsafe fn store_some<S: Simd>(
    simd: S,
    target: *mut f32,
    at: usize,
    count: usize,
    value: S::f32s,
) {
    // SAFETY: the caller's promise; disabled lanes are not touched.
    unsafe {
        if count >= S::F32_LANES {
            store(simd, target, at, value);
        } else {
            simd.mask_store_ptr_f32s(MemMask::new(first(simd, count)), target.add(at), value);
        }
    }
}

/// Zeroes all but the first `count` lanes.
#[inline(always)]
pub(super) fn keep<S: Simd>(simd: S, value: S::f32s, count: usize) -> S::f32s {
    if count >= S::F32_LANES {
        value
    } else {
        simd.select_f32s(first(simd, count), value, simd.splat_f32s(0.0))
    }
}

/// The instructions as those of a certain set, if they are: the proof that the processor has it,
/// and that vectors of the one are vectors of the other.
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
                let even = transmute::<[i32; 16], __m512i>(EVEN);
                let odd = transmute::<[i32; 16], __m512i>(ODD);
                let even = avx512._mm512_permutex2var_ps(a, even, b);
                let odd = avx512._mm512_permutex2var_ps(a, odd, b);
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
    let mut pairs = [0.0; 2 * WIDEST];
    let [mut even, mut odd] = [[0.0; WIDEST]; 2];
    // SAFETY: the arrays hold as many lanes as any vector.
    unsafe {
        store(simd, pairs.as_mut_ptr(), 0, a);
        store(simd, pairs.as_mut_ptr(), S::F32_LANES, b);
        for i in 0..S::F32_LANES {
            even[i] = pairs[2 * i];
            odd[i] = pairs[2 * i + 1];
        }
        [load(simd, even.as_ptr(), 0), load(simd, odd.as_ptr(), 0)]
    }
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
                let low = transmute::<[i32; 16], __m512i>(LOW);
                let high = transmute::<[i32; 16], __m512i>(HIGH);
                let low = avx512._mm512_permutex2var_ps(even, low, odd);
                let high = avx512._mm512_permutex2var_ps(even, high, odd);
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
    let mut pairs = [0.0; 2 * WIDEST];
    let [mut evens, mut odds] = [[0.0; WIDEST]; 2];
    // SAFETY: as above.
    unsafe {
        store(simd, evens.as_mut_ptr(), 0, even);
        store(simd, odds.as_mut_ptr(), 0, odd);
        for i in 0..S::F32_LANES {
            pairs[2 * i] = evens[i];
            pairs[2 * i + 1] = odds[i];
        }
        [load(simd, pairs.as_ptr(), 0), load(simd, pairs.as_ptr(), S::F32_LANES)]
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
                    let [a, b] = [0, lanes].map(|at| load(simd, pairs.as_ptr(), at));
                    let [even, odd] = deinterleave(simd, a, b);
                    store(simd, out.as_mut_ptr(), 0, even);
                    store(simd, out.as_mut_ptr(), lanes, odd);
                    for i in 0..lanes {
                        assert_eq!([out[i], out[lanes + i]], [pairs[2 * i], pairs[2 * i + 1]]);
                    }
                    let [a, b] = interleave(simd, even, odd);
                    store(simd, out.as_mut_ptr(), 0, a);
                    store(simd, out.as_mut_ptr(), lanes, b);
                }
                assert_eq!(out, pairs);
            }
        }
        for_each_set(|| instruction_set::dispatch(Check));
    }
}
