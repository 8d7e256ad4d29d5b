//! AVX2 and AVX-512.

use std::arch::x86_64::*;

use super::Isa;

/// Four rows of eight, transposed: columns c and 4 + c in the halves of c.
#[inline]
#[target_feature(enable = "avx")]
unsafe fn half(from: *const f32, stride: usize) -> [__m256; 4] {
    // SAFETY: the caller gives four rows of eight values.
    let [r0, r1, r2, r3] = unsafe {
        [
            _mm256_loadu_ps(from),
            _mm256_loadu_ps(from.add(stride)),
            _mm256_loadu_ps(from.add(2 * stride)),
            _mm256_loadu_ps(from.add(3 * stride)),
        ]
    };
    let (low, high) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
    let (low2, high2) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
    [
        _mm256_shuffle_ps::<0x44>(low, low2),
        _mm256_shuffle_ps::<0xEE>(low, low2),
        _mm256_shuffle_ps::<0x44>(high, high2),
        _mm256_shuffle_ps::<0xEE>(high, high2),
    ]
}

/// AVX2 with FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY, for the blocks of both instruction sets: the caller runs inside `enter` on a
// processor that has the instructions and gives pointers to as many values as are touched.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Avx2 {
    type Vector = __m256;
    type Mask = __m256i;
    type Half = Self;
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn enter<R>(body: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx,avx2,fma")]
        #[inline]
        fn entered<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        unsafe { entered(body) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(bound: __m256, value: __m256) -> __m256 {
        // The instruction returns its second operand where one is NaN.
        unsafe { _mm256_max_ps(bound, value) }
    }
    #[inline(always)]
    unsafe fn min(bound: __m256, value: __m256) -> __m256 {
        unsafe { _mm256_min_ps(bound, value) }
    }
    #[inline(always)]
    unsafe fn mask(start: usize, end: usize) -> __m256i {
        let lanes: [i32; 8] = std::array::from_fn(|lane| -i32::from((start..end).contains(&lane)));
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __m256i) -> __m256 {
        unsafe { _mm256_maskload_ps(from, mask) }
    }
    #[inline(always)]
    unsafe fn even(low: __m256, high: __m256) -> __m256 {
        unsafe {
            let quarters = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(low, high));
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(quarters))
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let (top, bottom) =
                (half(from, from_stride), half(from.add(4 * from_stride), from_stride));
            for c in 0..4 {
                let column = _mm256_permute2f128_ps::<0x20>(top[c], bottom[c]);
                _mm256_storeu_ps(to.add(c * to_stride), column);
            }
            for c in 0..4 {
                let column = _mm256_permute2f128_ps::<0x31>(top[c], bottom[c]);
                _mm256_storeu_ps(to.add((4 + c) * to_stride), column);
            }
        }
    }
}

/// Four rows of sixteen, transposed: columns c, 4 + c, 8 + c and 12 + c in the quarters of c.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quarter(from: *const f32, stride: usize) -> [__m512; 4] {
    // SAFETY: the caller gives four rows of sixteen values.
    let [r0, r1, r2, r3] = unsafe {
        [
            _mm512_loadu_ps(from),
            _mm512_loadu_ps(from.add(stride)),
            _mm512_loadu_ps(from.add(2 * stride)),
            _mm512_loadu_ps(from.add(3 * stride)),
        ]
    };
    let low = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
    let high = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
    let low2 = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
    let high2 = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
    [
        _mm512_castpd_ps(_mm512_unpacklo_pd(low, low2)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(low, low2)),
        _mm512_castpd_ps(_mm512_unpacklo_pd(high, high2)),
        _mm512_castpd_ps(_mm512_unpackhi_pd(high, high2)),
    ]
}

/// AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[allow(clippy::undocumented_unsafe_blocks)]
impl Isa for Avx512 {
    type Vector = __m512;
    type Mask = __mmask16;
    type Half = Avx2;
    const LANES: usize = 16;
    const ROWS: usize = 14;

    #[inline(always)]
    unsafe fn enter<R>(body: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx,avx2,fma,avx512f,avx512vl,avx512dq,avx512bw")]
        #[inline]
        fn entered<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        unsafe { entered(body) }
    }
    #[inline(always)]
    unsafe fn stream(to: *mut f32, from: *const f32, count: usize) {
        unsafe {
            let head = to.align_offset(64).min(count);
            to.copy_from_nonoverlapping(from, head);
            let lines = (count - head) / 16;
            for line in 0..lines {
                let place = head + 16 * line;
                _mm512_stream_ps(to.add(place), _mm512_loadu_ps(from.add(place)));
            }
            let done = head + 16 * lines;
            to.add(done).copy_from_nonoverlapping(from.add(done), count - done);
        }
    }
    #[inline(always)]
    unsafe fn fence() {
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(bound: __m512, value: __m512) -> __m512 {
        // The instruction returns its second operand where one is NaN.
        unsafe { _mm512_max_ps(bound, value) }
    }
    #[inline(always)]
    unsafe fn min(bound: __m512, value: __m512) -> __m512 {
        unsafe { _mm512_min_ps(bound, value) }
    }
    #[inline(always)]
    unsafe fn sum(value: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(value) }
    }
    #[inline(always)]
    unsafe fn mask(start: usize, end: usize) -> __mmask16 {
        (((1_u32 << end) - 1) & !((1_u32 << start) - 1)) as u16
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: __mmask16) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn even(low: __m512, high: __m512) -> __m512 {
        unsafe {
            let places =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_ps(low, places, high)
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let q = [
                quarter(from, from_stride),
                quarter(from.add(4 * from_stride), from_stride),
                quarter(from.add(8 * from_stride), from_stride),
                quarter(from.add(12 * from_stride), from_stride),
            ];
            let mut columns = [_mm512_setzero_ps(); 16];
            for c in 0..4 {
                let x0 = _mm512_shuffle_f32x4::<0x44>(q[0][c], q[1][c]);
                let x1 = _mm512_shuffle_f32x4::<0xEE>(q[0][c], q[1][c]);
                let y0 = _mm512_shuffle_f32x4::<0x44>(q[2][c], q[3][c]);
                let y1 = _mm512_shuffle_f32x4::<0xEE>(q[2][c], q[3][c]);
                columns[c] = _mm512_shuffle_f32x4::<0x88>(x0, y0);
                columns[4 + c] = _mm512_shuffle_f32x4::<0xDD>(x0, y0);
                columns[8 + c] = _mm512_shuffle_f32x4::<0x88>(x1, y1);
                columns[12 + c] = _mm512_shuffle_f32x4::<0xDD>(x1, y1);
            }
            for (c, column) in columns.into_iter().enumerate() {
                _mm512_storeu_ps(to.add(c * to_stride), column);
            }
        }
    }
}
