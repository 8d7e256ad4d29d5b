//! The vector operations of the matrix kernels, for each instruction set.
//!
//! This uses `core::arch` instead of `pulp`: the kernels need masked loads and register transposes
//! that are inlined, which `pulp` does not offer.

/// An instruction set. Its functions are `unsafe` because the processor must have it, and because
/// loads and stores need valid pointers.
#[allow(clippy::missing_safety_doc)]
pub(crate) trait Isa: Copy + Send + Sync + 'static {
    /// A register of `LANES` values.
    type Vector: Copy;
    /// Lanes that a masked load reads.
    type Mask: Copy;
    /// The instructions of the same processor on half a register, where they cost half.
    type Half: Isa;
    /// Values of a register.
    const LANES: usize;
    /// Most rows of a register tile of two vectors.
    const ROWS: usize;

    /// Runs `body` compiled for this instruction set.
    unsafe fn enter<R>(body: impl FnOnce() -> R) -> R;
    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, value: Self::Vector);
    /// Copies `count` values with non-temporal stores, which do not read the lines of the target
    /// first. The writer calls `fence` before other threads read them.
    unsafe fn stream(to: *mut f32, from: *const f32, count: usize) {
        // SAFETY: as the caller promises.
        unsafe { to.copy_from_nonoverlapping(from, count) }
    }
    /// Ends a series of `stream`.
    unsafe fn fence() {}
    /// `a * b + c`.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger values, or `value` where one of the two is NaN.
    unsafe fn max(bound: Self::Vector, value: Self::Vector) -> Self::Vector;
    /// The smaller values, or `value` where one of the two is NaN.
    unsafe fn min(bound: Self::Vector, value: Self::Vector) -> Self::Vector;
    /// The sum of all lanes.
    #[inline(always)]
    unsafe fn sum(value: Self::Vector) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: no vector has more lanes.
        unsafe { Self::store(lanes.as_mut_ptr(), value) };
        lanes.iter().sum()
    }
    /// The mask of lanes `start..end`.
    unsafe fn mask(start: usize, end: usize) -> Self::Mask;
    /// The lanes of the mask from `from + lane`, zero elsewhere; other lanes are not touched.
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self::Vector;
    /// The values at even places of the two registers, one after the other.
    unsafe fn even(low: Self::Vector, high: Self::Vector) -> Self::Vector;
    /// Transposes a square of `LANES` rows; rows of the result are written in rising order.
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const PORTABLE: usize = 4;

impl Isa for Portable {
    type Vector = [f32; PORTABLE];
    type Mask = (usize, usize);
    type Half = Self;
    const LANES: usize = PORTABLE;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn enter<R>(body: impl FnOnce() -> R) -> R {
        body()
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Vector {
        [value; PORTABLE]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Vector {
        // SAFETY: the caller gives a whole register of values.
        unsafe { from.cast::<Self::Vector>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::Vector) {
        // SAFETY: as for `load`.
        unsafe { to.cast::<Self::Vector>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
    #[inline(always)]
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }
    #[inline(always)]
    unsafe fn max(bound: Self::Vector, value: Self::Vector) -> Self::Vector {
        std::array::from_fn(
            |lane| if bound[lane] > value[lane] { bound[lane] } else { value[lane] },
        )
    }
    #[inline(always)]
    unsafe fn min(bound: Self::Vector, value: Self::Vector) -> Self::Vector {
        std::array::from_fn(
            |lane| if bound[lane] < value[lane] { bound[lane] } else { value[lane] },
        )
    }
    #[inline(always)]
    unsafe fn mask(start: usize, end: usize) -> Self::Mask {
        (start, end)
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, (start, end): Self::Mask) -> Self::Vector {
        std::array::from_fn(|lane| {
            if (start..end).contains(&lane) {
                // SAFETY: the caller vouches for the lanes of the mask.
                unsafe { *from.wrapping_add(lane) }
            } else {
                0.0
            }
        })
    }
    #[inline(always)]
    unsafe fn even(low: Self::Vector, high: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| [low, high][2 * lane / PORTABLE][2 * lane % PORTABLE])
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for column in 0..PORTABLE {
            for row in 0..PORTABLE {
                // SAFETY: the caller gives two squares of these strides.
                unsafe { *to.add(column * to_stride + row) = *from.add(row * from_stride + column) }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::Neon;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;
