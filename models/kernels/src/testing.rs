//! What the tests of the kernels share.

use std::cell::Cell;
use std::fmt::Display;

pub(crate) use crate::arithmetic::to_f64 as widen;
use crate::{Activation, ConvShape, InstructionSet};

/// Values between -1 and 1, a different sequence per seed.
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Values between 0.5 and 1.5.
pub(crate) fn positive(seed: u64, len: usize) -> Vec<f32> {
    random(seed, len).iter().map(|value| 1.0 + 0.5 * value).collect()
}

/// The largest magnitude, but not less than `least`.
pub(crate) fn largest(values: &[f64], least: f64) -> f64 {
    values.iter().fold(least, |max, value| max.max(value.abs()))
}

/// Every value within `bound` of the expected one.
#[track_caller]
pub(crate) fn assert_within(what: impl Display, found: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "length of {what}");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= bound, "{what} at {index}: {found} for {expected}, {error:.1e}");
    }
}

/// Every value within `tolerance` of the expected one, relative to it where it is above 1.
#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_close_f64(&widen(found), expected, tolerance);
}

/// [`assert_close`] of `f64` values.
#[track_caller]
pub(crate) fn assert_close_f64(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let bound = tolerance * expected.abs().max(1.0);
        assert!((found - expected).abs() <= bound, "at {index}: {found} for {expected}");
    }
}

/// Calls `term(x index, w index, y index)` for every multiply-add of the definition.
pub(crate) fn each_term(shape: &ConvShape, mut term: impl FnMut(usize, usize, usize)) {
    let [oh, ow] = shape.output();
    let [h, w] = shape.input;
    let [kh, kw] = shape.kernel;
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    for n in 0..shape.batch {
        for o in 0..shape.out_channels {
            for i in 0..c {
                let channel = o / d * c + i;
                for (oy, ox) in (0..oh * ow).map(|p| (p / ow, p % ow)) {
                    for (ky, kx) in (0..kh * kw).map(|k| (k / kw, k % kw)) {
                        let y = (oy * shape.stride[0] + ky).wrapping_sub(shape.padding[0]);
                        let x = (ox * shape.stride[1] + kx).wrapping_sub(shape.padding[1]);
                        if y < h && x < w {
                            term(
                                ((n * shape.in_channels + channel) * h + y) * w + x,
                                ((o * c + i) * kh + ky) * kw + kx,
                                ((n * shape.out_channels + o) * oh + oy) * ow + ox,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// The value after an activation.
pub(crate) fn activated(activation: Activation, value: f64) -> f64 {
    match activation {
        Activation::Identity => value,
        Activation::Relu => value.max(0.0),
        Activation::Relu6 => value.clamp(0.0, 6.0),
        Activation::HardSwish => value * (value + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

/// A convolution from so many channels to so many, in groups.
pub(crate) fn shape(
    batch: usize,
    [in_channels, out_channels, groups]: [usize; 3],
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> ConvShape {
    ConvShape { batch, in_channels, out_channels, input, kernel, stride, padding, groups }
}

thread_local! {
    /// The instruction set that tests force on this thread.
    static FORCED: Cell<Option<InstructionSet>> = const { Cell::new(None) };
}

/// The instruction set that a test forces on this thread.
pub(crate) fn forced_set() -> Option<InstructionSet> {
    FORCED.get()
}

/// Unit roundoff of `f32`.
pub(crate) const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

/// What a sum in `f32` may be off, relative to the magnitudes of its terms.
///
/// Kernels add at most 512 values in a row in `f32`, in portable code a block of 1024 in turns to
/// two sums; wider vectors add fewer. The errors of `n` roundings, independent of each other, grow
/// as `sqrt(n)` (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, 2019).
const SUM: f64 = 22.7 * ROUNDOFF;

/// Every value as close to the expected one as sums in `f32` over terms of these magnitudes are.
#[track_caller]
pub(crate) fn assert_sums_close(found: &[f64], expected: &[f64], magnitudes: &[f64]) {
    assert_eq!([found.len(), magnitudes.len()], [expected.len(); 2]);
    for (index, ((&found, &expected), &magnitude)) in
        found.iter().zip(expected).zip(magnitudes).enumerate()
    {
        let bound = SUM * magnitude;
        assert!((found - expected).abs() <= bound, "at {index}: {found} for {expected}");
    }
}

/// Whether a test takes a case of about so many operations: under Miri, a thousand times slower,
/// the small ones alone. Every kernel runs there on the smallest maps in any case, in
/// `tests::geometry`.
pub(crate) fn affordable(operations: usize) -> bool {
    !cfg!(miri) || operations <= 1 << 10
}

/// Runs `work` once with each instruction set of the processor, on threads that all use it.
///
/// Every test of a kernel runs in here, so that a machine with wide vectors tests the narrow and
/// the portable code as other machines run them.
pub(crate) fn for_each_set(work: impl Fn() + Sync) {
    for set in InstructionSet::available() {
        with_set(set, &work);
    }
}

/// Runs `work` with an instruction set on threads that all use it.
pub(crate) fn with_set<T: Send>(set: InstructionSet, work: impl FnOnce() -> T + Send) -> T {
    // Seen where the test fails.
    println!("with {set}");
    // Not a multiple of the tasks that kernels make of small work.
    const THREADS: usize = 3;
    pool(THREADS, Some(set), work)
}

/// Runs `work` with a pool of `threads` threads, which keep to the forced instruction set.
pub(crate) fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    pool(threads, forced_set(), work)
}

fn pool<T: Send>(
    threads: usize,
    set: Option<InstructionSet>,
    work: impl FnOnce() -> T + Send,
) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .start_handler(move |_| FORCED.set(set))
        .build()
        .unwrap()
        .install(work)
}
