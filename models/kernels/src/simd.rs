//! The one layer over `pulp`'s vectors: whole and partial vectors of a slice, and loops over them.

use pulp::{MemMask, Simd};

/// Lanes of the widest vector of `f32`.
pub(crate) const WIDEST: usize = 16;

/// The lanes of a vector that exist in memory.
pub(crate) trait Lanes<S: Simd>: Copy {
    /// Loads these lanes; the others are zero.
    ///
    /// # Safety
    /// `from` is valid for reads of these lanes.
    unsafe fn load(self, simd: S, from: *const f32) -> S::f32s;

    /// Stores these lanes.
    ///
    /// # Safety
    /// `to` is valid for writes of these lanes.
    unsafe fn store(self, simd: S, to: *mut f32, value: S::f32s);

    /// Sets the other lanes to zero.
    fn keep(self, simd: S, value: S::f32s) -> S::f32s;
}

/// All lanes.
#[derive(Clone, Copy)]
pub(crate) struct Full;

/// The first lanes, as a mask.
#[derive(Clone, Copy)]
pub(crate) struct First<S: Simd>(S::m32s);

impl<S: Simd> First<S> {
    #[inline(always)]
    pub fn new(simd: S, count: usize) -> Self {
        Self(simd.mask_between_m32s(0, count as u32).mask())
    }
}

impl<S: Simd> Lanes<S> for Full {
    #[inline(always)]
    unsafe fn load(self, _: S, from: *const f32) -> S::f32s {
        // SAFETY: `from` is valid for all lanes; a vector is plain data.
        unsafe { from.cast::<S::f32s>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, _: S, to: *mut f32, value: S::f32s) {
        // SAFETY: `to` is valid for all lanes.
        unsafe { to.cast::<S::f32s>().write_unaligned(value) }
    }

    #[inline(always)]
    fn keep(self, _: S, value: S::f32s) -> S::f32s {
        value
    }
}

// `MemMask::new` makes a plain masked instruction of a load or a store. The masks that
// `mask_between_m32s` returns would call assembly through a pointer instead.
impl<S: Simd> Lanes<S> for First<S> {
    #[inline(always)]
    unsafe fn load(self, simd: S, from: *const f32) -> S::f32s {
        // SAFETY: `from` is valid for the lanes of the mask; others are not touched.
        unsafe { simd.mask_load_ptr_f32s(MemMask::new(self.0), from) }
    }

    #[inline(always)]
    unsafe fn store(self, simd: S, to: *mut f32, value: S::f32s) {
        // SAFETY: `to` is valid for the lanes of the mask; others are not touched.
        unsafe { simd.mask_store_ptr_f32s(MemMask::new(self.0), to, value) }
    }

    #[inline(always)]
    fn keep(self, simd: S, value: S::f32s) -> S::f32s {
        simd.select_f32s(self.0, value, simd.splat_f32s(0.0))
    }
}

/// Loads a whole vector of a slice.
///
/// # Safety
/// The slice holds a vector from the index `at` on.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(simd: S, from: &[f32], at: usize) -> S::f32s {
    debug_assert!(at + S::F32_LANES <= from.len(), "a vector past its slice");
    // SAFETY: as the caller promises.
    unsafe { Full.load(simd, from.as_ptr().add(at)) }
}

/// Adds a whole vector to memory.
///
/// # Safety
/// `to` is valid for reads and writes of all lanes.
#[inline(always)]
pub(crate) unsafe fn add<S: Simd>(simd: S, to: *mut f32, value: S::f32s) {
    // SAFETY: as the caller promises.
    unsafe { Full.store(simd, to, simd.add_f32s(Full.load(simd, to), value)) }
}

/// Brings a value into the cache, if it exists and the processor has an instruction for it.
#[inline(always)]
pub(crate) fn prefetch(source: &[f32], at: usize) {
    if at < source.len() {
        prefetch_place(source.as_ptr().wrapping_add(at));
    }
}

/// [`prefetch`] of any address; nothing happens where no memory is.
#[inline(always)]
pub(crate) fn prefetch_place(place: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, a hint that takes any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Evaluates `$body` with `$lanes` set to the first `$count` lanes, or to all of them if there are
/// no more.
macro_rules! with_lanes {
    ($simd:expr, $count:expr, |$lanes:ident| $body:expr) => {
        if $count >= $crate::simd::lanes($simd) {
            let $lanes = $crate::simd::Full;
            $body
        } else {
            let $lanes = $crate::simd::First::new($simd, $count);
            $body
        }
    };
}
pub(crate) use with_lanes;

/// Runs a body for every vector of `$len` values: `$at` is the index of its first value, `$lanes`
/// are the lanes that exist, and `$turn` alternates between 0 and 1, for independent accumulators.
macro_rules! sweep {
    ($simd:expr, $len:expr, |$at:ident, $lanes:ident, $turn:ident| $body:block) => {{
        let (len, width) = ($len, $crate::simd::lanes($simd));
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
            // Written without `at`, so that the mask is made once for rows of equal length.
            let ($at, $lanes) = (at, $crate::simd::First::new($simd, len % width));
            const $turn: usize = 1;
            $body
        }
    }};
}
pub(crate) use sweep;

/// Lanes of a vector of `f32`.
#[inline(always)]
pub(crate) const fn lanes<S: Simd>(_: S) -> usize {
    S::F32_LANES
}
