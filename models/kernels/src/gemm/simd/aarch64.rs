//! NEON.

use std::arch::aarch64::*;

use super::Isa;

/// NEON, which every AArch64 processor with an operating system has.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY, for all blocks: the caller runs inside `enter` on a processor that has the instructions and gives
// pointers to as many values as are touched.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Neon {
    type Vector = float32x4_t;
    type Mask = (usize, usize);
    type Half = Self;
    const LANES: usize = 4;
    // 24 sums, two weights and an input in 32 registers.
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn enter<R>(body: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "neon")]
        #[inline]
        fn entered<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        unsafe { entered(body) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: float32x4_t) {
        unsafe { vst1q_f32(to, value) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn max(bound: float32x4_t, value: float32x4_t) -> float32x4_t {
        // The comparison is false where one is NaN; the instruction for the maximum would return NaN.
        unsafe { vbslq_f32(vcgtq_f32(bound, value), bound, value) }
    }
    #[inline(always)]
    unsafe fn min(bound: float32x4_t, value: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(vcltq_f32(bound, value), bound, value) }
    }
    #[inline(always)]
    unsafe fn mask(start: usize, end: usize) -> Self::Mask {
        (start, end)
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, (start, end): Self::Mask) -> float32x4_t {
        // There are no masked loads.
        let lanes: [f32; 4] = std::array::from_fn(
            #[inline(always)]
            |lane| match (start..end).contains(&lane) {
                true => unsafe { *from.wrapping_add(lane) },
                false => 0.0,
            },
        );
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn even(low: float32x4_t, high: float32x4_t) -> float32x4_t {
        unsafe { vuzp1q_f32(low, high) }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let row = |row: usize| vld1q_f32(from.add(row * from_stride));
            // Pairs of rows, each with its even columns and its odd ones.
            let [a, b] = [[row(0), row(1)], [row(2), row(3)]].map(
                #[inline(always)]
                |[first, second]| {
                    let [even, odd] = [vtrn1q_f32(first, second), vtrn2q_f32(first, second)];
                    [even, odd].map(
                        #[inline(always)]
                        |pairs| vreinterpretq_f64_f32(pairs),
                    )
                },
            );
            for (half, columns) in [[0, 1], [2, 3]].into_iter().enumerate() {
                for column in columns {
                    let (top, bottom) = (a[column % 2], b[column % 2]);
                    let column_values = match half {
                        0 => vtrn1q_f64(top, bottom),
                        _ => vtrn2q_f64(top, bottom),
                    };
                    vst1q_f32(to.add(column * to_stride), vreinterpretq_f32_f64(column_values));
                }
            }
        }
    }
}
