//! Vectors over a run of values, the last of them cut short.

use pulp::Simd;

/// Which lanes of a vector exist in memory.
pub(crate) trait Lanes: Copy {
    /// Loads the lanes that exist; the others are `rest`.
    ///
    /// # Safety
    /// `from` is valid for reads of these lanes.
    unsafe fn load_or<S: Simd>(self, simd: S, from: *const f32, rest: S::f32s) -> S::f32s;

    /// Stores the lanes that exist.
    ///
    /// # Safety
    /// `to` is valid for writes of these lanes.
    unsafe fn store<S: Simd>(self, simd: S, to: *mut f32, value: S::f32s);

    /// Loads the lanes that exist; the others are zero.
    ///
    /// # Safety
    /// `from` is valid for reads of these lanes.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, from: *const f32) -> S::f32s {
        // SAFETY: as the caller promises.
        unsafe { self.load_or(simd, from, simd.splat_f32s(0.0)) }
    }
}

/// All lanes.
#[derive(Clone, Copy)]
pub(crate) struct Full;

/// The first lanes, fewer than all.
#[derive(Clone, Copy)]
pub(crate) struct First(pub usize);

impl Lanes for Full {
    #[inline(always)]
    unsafe fn load_or<S: Simd>(self, _: S, from: *const f32, _: S::f32s) -> S::f32s {
        // SAFETY: `from` is valid for all lanes; a vector is plain data.
        unsafe { from.cast::<S::f32s>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(self, _: S, to: *mut f32, value: S::f32s) {
        // SAFETY: `to` is valid for all lanes.
        unsafe { to.cast::<S::f32s>().write_unaligned(value) }
    }
}

impl Lanes for First {
    #[inline(always)]
    unsafe fn load_or<S: Simd>(self, simd: S, from: *const f32, rest: S::f32s) -> S::f32s {
        let mask = simd.mask_between_m32s(0, self.0 as u32);
        // SAFETY: the mask covers the lanes that `from` is valid for.
        let value = unsafe { simd.mask_load_ptr_f32s(mask, from) };
        simd.select_f32s(mask.mask(), value, rest)
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(self, simd: S, to: *mut f32, value: S::f32s) {
        let mask = simd.mask_between_m32s(0, self.0 as u32);
        // SAFETY: the mask covers the lanes that `to` is valid for.
        unsafe { simd.mask_store_ptr_f32s(mask, to, value) }
    }
}

/// Runs a body for every vector of `$len` values: `$at` is its first value, `$lanes` what exists
/// of it, and `$turn` alternates between 0 and 1, for independent accumulators.
macro_rules! sweep {
    ($simd:ty, $len:expr, |$at:ident, $lanes:ident, $turn:ident| $body:block) => {{
        let (len, width) = ($len, <$simd>::F32_LANES);
        let mut at = 0;
        while at + 2 * width <= len {
            {
                let ($at, $lanes) = (at, $crate::simd::Full);
                const $turn: usize = 0;
                $body
            }
            {
                let ($at, $lanes) = (at + width, $crate::simd::Full);
                const $turn: usize = 1;
                $body
            }
            at += 2 * width;
        }
        if at + width <= len {
            let ($at, $lanes) = (at, $crate::simd::Full);
            const $turn: usize = 0;
            $body
            at += width;
        }
        if at < len {
            let ($at, $lanes) = (at, $crate::simd::First(len - at));
            const $turn: usize = 1;
            $body
        }
    }};
}
pub(crate) use sweep;
