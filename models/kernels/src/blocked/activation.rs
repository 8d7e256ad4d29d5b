//! Activations of vectors and of maps.

use super::map::Map;
use crate::Activation;
use crate::activation;
use crate::gemm::Isa;

/// An activation with its bounds in vectors.
#[derive(Clone, Copy)]
pub(super) struct Activate<I: Isa> {
    bounds: [I::Vector; 2],
    hard_swish: bool,
}

impl<I: Isa> Activate<I> {
    /// # Safety
    /// Inside `enter`.
    #[inline(always)]
    pub unsafe fn new(activation: Activation) -> Self {
        let [low, high] = activation.bounds();
        // SAFETY: as the caller promises.
        let bounds = unsafe { [I::splat(low), I::splat(high)] };
        Self { bounds, hard_swish: activation == Activation::HardSwish }
    }

    /// The value after the activation; NaN stays NaN.
    ///
    /// # Safety
    /// Inside `enter`.
    #[inline(always)]
    pub unsafe fn apply(self, value: I::Vector) -> I::Vector {
        // SAFETY: as the caller promises.
        unsafe {
            if self.hard_swish {
                let raised = I::add(value, I::splat(3.0));
                let gate = I::min(I::splat(6.0), I::max(I::splat(0.0), raised));
                return I::mul(I::mul(value, gate), I::splat(1.0 / 6.0));
            }
            self.clamp(value)
        }
    }

    /// Whether [`Self::apply`] is more than [`Self::clamp`].
    #[inline(always)]
    pub fn is_hard_swish(self) -> bool {
        self.hard_swish
    }

    /// The value within the bounds; NaN stays NaN.
    ///
    /// # Safety
    /// Inside `enter`.
    #[inline(always)]
    pub unsafe fn clamp(self, value: I::Vector) -> I::Vector {
        // A bound that is NaN is none.
        let [low, high] = self.bounds;
        // SAFETY: as the caller promises.
        unsafe { I::min(high, I::max(low, value)) }
    }
}

/// The activation of every value.
pub fn activate(map: &Map, function: Activation) -> Map {
    let mut output = Map::new(map.dims());
    activation::forward(function, map.values(), output.values_mut());
    output
}
