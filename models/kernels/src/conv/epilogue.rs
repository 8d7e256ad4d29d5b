//! Epilogues of convolutions: operations on an output while it is in the cache.

use crate::Activation;
use crate::activation::{clamp, hard_swish};
use crate::gemm::Isa;

/// Operations on an output while it is in the cache, in this order: add the bias, the residual and
/// the earlier value of the output, then apply the activation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added per output channel.
    pub bias: Option<&'a [f32]>,
    /// Added per value, shaped as the output.
    pub residual: Option<&'a [f32]>,
    /// Whether the result is added to the earlier value of the output.
    pub accumulate: bool,
    /// Applied last.
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// # Panics
    /// If there is a bias that does not have one value for each channel.
    #[track_caller]
    pub(super) fn check_bias(&self, channels: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == channels), "length of the bias");
    }
}

/// The epilogue of one row.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    pub bias: f32,
    /// Of the activation.
    pub bounds: [f32; 2],
    /// Whether there is neither bias nor activation.
    pub plain: bool,
    pub accumulate: bool,
    /// Whether the output is written with non-temporal stores.
    pub stream: bool,
}

impl Finish {
    /// Writes `from`, which may change, to places that are `stride` apart.
    ///
    /// # Safety
    /// Inside `enter`; the places belong to the caller alone.
    #[inline(always)]
    pub unsafe fn write<I: Isa, const HARD_SWISH: bool>(
        self,
        from: &mut [f32],
        residual: Option<&[f32]>,
        to: *mut f32,
        stride: usize,
    ) {
        let Self { bias, bounds, plain, accumulate, stream } = self;
        if stride != 1 {
            // The strided outputs of the input gradient, which has no other epilogue.
            for (index, value) in from.iter().enumerate() {
                // SAFETY: as the caller promises.
                unsafe {
                    let to = to.add(index * stride);
                    *to = if accumulate { *to } else { 0.0 } + value;
                }
            }
            return;
        }
        if stream {
            if let Some(residual) = residual {
                for (value, residual) in from.iter_mut().zip(residual) {
                    *value = activate::<HARD_SWISH>(*value + bias + residual, bounds);
                }
            } else if !plain {
                for value in from.iter_mut() {
                    *value = activate::<HARD_SWISH>(*value + bias, bounds);
                }
            }
            // SAFETY: as the caller promises.
            return unsafe { I::stream(to, from.as_ptr(), from.len()) };
        }
        // SAFETY: as the caller promises.
        let to = unsafe { std::slice::from_raw_parts_mut(to, from.len()) };
        match (residual, accumulate) {
            (None, false) if plain => to.copy_from_slice(from),
            (None, false) => {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = activate::<HARD_SWISH>(*from + bias, bounds);
                }
            }
            (None, true) => {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = activate::<HARD_SWISH>(*from + bias + *to, bounds);
                }
            }
            (Some(residual), false) => {
                for ((to, from), residual) in to.iter_mut().zip(from).zip(residual) {
                    *to = activate::<HARD_SWISH>(*from + bias + residual, bounds);
                }
            }
            (Some(residual), true) => {
                for ((to, from), residual) in to.iter_mut().zip(from).zip(residual) {
                    *to = activate::<HARD_SWISH>(*from + bias + residual + *to, bounds);
                }
            }
        }
    }
}

/// The value after the activation; NaN stays NaN.
#[inline(always)]
fn activate<const HARD_SWISH: bool>(value: f32, bounds: [f32; 2]) -> f32 {
    if HARD_SWISH { hard_swish(value) } else { clamp(value, bounds) }
}
