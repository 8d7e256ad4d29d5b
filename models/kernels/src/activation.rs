//! Activation functions, which kernels apply while a value is in a register.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::shared::Shared;
use crate::simd::{Lanes, sweep};
use crate::{instruction_set, planes};

/// An activation function without parameters. NaN is propagated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    #[default]
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x min(max(x + 3, 0), 6) / 6`.
    HardSwish,
}

/// The cases of [`Activation`] that need different code, as constants for generic parameters.
pub(crate) const IDENTITY: u8 = 0;
pub(crate) const CLAMP: u8 = 1;
pub(crate) const HARD_SWISH: u8 = 2;

/// Evaluates `$body` with the case of `$activation` as the constant `$kind`.
macro_rules! with_kind {
    ($activation:expr, |$kind:ident| $body:expr) => {
        match $activation {
            $crate::Activation::Identity => {
                const $kind: u8 = $crate::activation::IDENTITY;
                $body
            }
            $crate::Activation::Relu | $crate::Activation::Relu6 => {
                const $kind: u8 = $crate::activation::CLAMP;
                $body
            }
            $crate::Activation::HardSwish => {
                const $kind: u8 = $crate::activation::HARD_SWISH;
                $body
            }
        }
    };
}
pub(crate) use with_kind;

impl Activation {
    /// The value after the activation.
    pub fn apply(self, value: f32) -> f32 {
        match self {
            Self::HardSwish => hard_swish(value),
            _ => clamp(value, self.bounds()),
        }
    }

    /// The bounds to which values are clamped. NaN means that there is no bound: every comparison
    /// with it is false.
    pub(crate) fn bounds(self) -> [f32; 2] {
        match self {
            Self::Identity | Self::HardSwish => [f32::NAN; 2],
            Self::Relu => [0.0, f32::NAN],
            Self::Relu6 => [0.0, 6.0],
        }
    }

    /// Whether the derivative is computed from the activation's input. For the other activations it
    /// is computed from the output.
    pub(crate) fn needs_input(self) -> bool {
        self == Self::HardSwish
    }
}

/// Clamps by comparisons, which propagate NaN.
#[inline(always)]
pub(crate) fn clamp(value: f32, [low, high]: [f32; 2]) -> f32 {
    let value = if value < low { low } else { value };
    if value > high { high } else { value }
}

/// `x min(max(x + 3, 0), 6) / 6`.
#[inline(always)]
pub(crate) fn hard_swish(value: f32) -> f32 {
    value * clamp(value + 3.0, [0.0, 6.0]) * (1.0 / 6.0)
}

/// An activation of vectors.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<S: Simd> {
    simd: S,
    low: S::f32s,
    high: S::f32s,
}

impl<S: Simd> Vectors<S> {
    #[inline(always)]
    pub fn new(simd: S, activation: Activation) -> Self {
        let [low, high] = activation.bounds();
        Self { simd, low: simd.splat_f32s(low), high: simd.splat_f32s(high) }
    }

    /// Applies the activation, whose case is `KIND`.
    #[inline(always)]
    pub fn apply<const KIND: u8>(&self, value: S::f32s) -> S::f32s {
        let simd = self.simd;
        match KIND {
            IDENTITY => value,
            CLAMP => clamp_vectors(simd, value, self.low, self.high),
            _ => {
                let zero = simd.splat_f32s(0.0);
                let raised = simd.add_f32s(value, simd.splat_f32s(3.0));
                let gate = clamp_vectors(simd, raised, zero, simd.splat_f32s(6.0));
                simd.mul_f32s(simd.mul_f32s(value, gate), simd.splat_f32s(1.0 / 6.0))
            }
        }
    }

    /// The gradient of the activation's input, from the gradient of its output and from `value`:
    /// the input or the output of a clamp, the input of hard-swish. Where the value is NaN, the
    /// gradient is not set to zero.
    #[inline(always)]
    pub fn backward<const KIND: u8>(&self, value: S::f32s, grad: S::f32s) -> S::f32s {
        let (simd, zero) = (self.simd, self.simd.splat_f32s(0.0));
        match KIND {
            IDENTITY => grad,
            CLAMP => {
                let below = simd.less_than_or_equal_f32s(value, self.low);
                let above = simd.less_than_or_equal_f32s(self.high, value);
                simd.select_f32s(below, zero, simd.select_f32s(above, zero, grad))
            }
            _ => {
                let three = simd.splat_f32s(3.0);
                let slope = simd.add_f32s(simd.add_f32s(value, value), three);
                let inside = simd.mul_f32s(slope, simd.splat_f32s(1.0 / 6.0));
                let inside = simd.mul_f32s(inside, grad);
                let below = simd.less_than_or_equal_f32s(value, simd.splat_f32s(-3.0));
                let above = simd.less_than_or_equal_f32s(three, value);
                simd.select_f32s(below, zero, simd.select_f32s(above, grad, inside))
            }
        }
    }
}

#[inline(always)]
pub(crate) fn clamp_vectors<S: Simd>(
    simd: S,
    value: S::f32s,
    low: S::f32s,
    high: S::f32s,
) -> S::f32s {
    // Not `max`, which may return a number for NaN.
    let value = simd.select_f32s(simd.less_than_f32s(value, low), low, value);
    simd.select_f32s(simd.greater_than_f32s(value, high), high, value)
}

/// The number of values that one task of a pass over a whole map processes.
const CHUNK: usize = 1 << 12;

/// `y = activation(x)`; one pass.
pub(crate) fn forward(activation: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "length of the output");
    over(x.len(), Shared::new(y), |range, y| {
        instruction_set::dispatch(Pass { activation, values: &x[range], grad: None, to: y });
    });
}

/// `dx = dy * activation'(values)`, for the values that [`Vectors::backward`] takes; one pass.
pub(crate) fn backward(activation: Activation, values: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!([values.len(), dy.len()], [dx.len(); 2], "length of the gradient");
    over(dx.len(), Shared::new(dx), |range, dx| {
        let (values, grad) = (&values[range.clone()], Some(&dy[range]));
        instruction_set::dispatch(Pass { activation, values, grad, to: dx });
    });
}

/// Applies the activation in place on this thread, to values that are in the cache.
pub(crate) fn forward_plane(activation: Activation, values: &mut [f32]) {
    if activation != Activation::Identity {
        for value in values {
            *value = activation.apply(*value);
        }
    }
}

fn over<'a>(len: usize, to: Shared<'a>, work: impl Fn(Range<usize>, Shared<'a>) + Sync) {
    planes::for_each(len.div_ceil(CHUNK), CHUNK, |chunks| {
        let range = (chunks.start * CHUNK).min(len)..(chunks.end * CHUNK).min(len);
        work(range.clone(), to.part(range));
    });
}

struct Pass<'a> {
    activation: Activation,
    values: &'a [f32],
    grad: Option<&'a [f32]>,
    to: Shared<'a>,
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_kind!(self.activation, |KIND| self.run::<S, KIND>(simd))
    }
}

impl Pass<'_> {
    #[inline(always)]
    fn run<S: Simd, const KIND: u8>(self, simd: S) {
        let vectors = Vectors::new(simd, self.activation);
        let (len, values) = (self.values.len(), self.values.as_ptr());
        let to = self.to.range(0..len);
        sweep!(simd, len, |at, lanes, _TURN| {
            // SAFETY: `sweep` stays within slices of `len` values; this task alone writes these.
            unsafe {
                let value = lanes.load(simd, values.add(at));
                let result = match self.grad {
                    Some(grad) => {
                        vectors.backward::<KIND>(value, lanes.load(simd, grad.as_ptr().add(at)))
                    }
                    None => vectors.apply::<KIND>(value),
                };
                lanes.store(simd, to.add(at), result);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, for_each_set, random};

    const ALL: [Activation; 4] =
        [Activation::Identity, Activation::Relu, Activation::Relu6, Activation::HardSwish];

    fn definition(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Identity => x,
            Activation::Relu => x.max(0.0),
            Activation::Relu6 => x.clamp(0.0, 6.0),
            Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "about precision alone")]
    fn values_and_slopes_follow_the_definition() {
        for_each_set(|| {
            for activation in ALL {
                // More than one task, and a part of a vector at the end.
                let x: Vec<f32> = random(1, 3 * CHUNK + 13).iter().map(|v| 8.0 * v).collect();
                let dy = random(2, x.len());
                let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                forward(activation, &x, &mut y);
                let expected: Vec<f64> =
                    x.iter().map(|&x| definition(activation, x.into())).collect();
                assert_close(&y, &expected, 4e-7);
                assert!(
                    x.iter().zip(&y).all(|(&x, &y)| { (activation.apply(x) - y).abs() <= 1e-6 })
                );
                let values = if activation.needs_input() { &x } else { &y };
                backward(activation, values, &dy, &mut dx);
                let step = 1e-6;
                let near = |x: f64| [-3.0, 0.0, 3.0, 6.0].iter().any(|k| (x - k).abs() < 1e-5);
                for (index, &x) in x.iter().enumerate().filter(|&(_, &x)| !near(x.into())) {
                    let x = f64::from(x);
                    let slope = (definition(activation, x + step)
                        - definition(activation, x - step))
                        / (2.0 * step);
                    let expected = slope * f64::from(dy[index]);
                    assert!((f64::from(dx[index]) - expected).abs() < 1e-6, "{activation:?} {x}");
                }
            }
        });
    }

    #[test]
    fn what_is_nan_stays_so_both_ways() {
        for_each_set(|| {
            for activation in ALL {
                let (x, mut y, mut dx) = ([f32::NAN; 19], [0.0; 19], [0.0; 19]);
                forward(activation, &x, &mut y);
                assert!(y.iter().all(|y| y.is_nan()) && activation.apply(f32::NAN).is_nan());
                backward(activation, &x, &[1.0; 19], &mut dx);
                assert!(dx.iter().all(|&dx| dx != 0.0), "{activation:?}");
            }
        });
    }
}
