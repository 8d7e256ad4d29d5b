//! Stochastic gradient descent with momentum.

use pulp::{Arch, Simd, WithSimd};

use crate::planes::{self, SharedMap};
use crate::simd::{Lanes, sweep};

/// The constants of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f32,
    /// Share of the velocity that is kept.
    pub momentum: f32,
    /// Weight decay, added to the gradient as this multiple of the parameter.
    pub weight_decay: f32,
    /// Whether the step looks ahead along the velocity (Sutskever et al., 2013).
    pub nesterov: bool,
}

/// Values in a task's share of a parameter.
const BLOCK: usize = 1 << 12;

impl Sgd {
    /// Updates a parameter and its velocity, which begins as zeros; one pass over the three.
    ///
    /// With `d = grad + weight_decay * parameter`, `velocity = momentum * velocity + d` and
    /// `parameter -= lr * velocity`, or with Nesterov `lr * (d + momentum * velocity)`.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn step(&self, parameter: &mut [f32], grad: &[f32], velocity: &mut [f32]) {
        let len = parameter.len();
        assert!([grad.len(), velocity.len()] == [len; 2], "lengths of gradient and velocity");
        let (blocks, rest) = (len / BLOCK, len / BLOCK * BLOCK);
        {
            let (parameter, velocity) = (SharedMap::new(parameter), SharedMap::new(velocity));
            planes::for_each(blocks, BLOCK, |range| {
                let values = range.start * BLOCK..range.end * BLOCK;
                // SAFETY: this task alone has these blocks.
                let (parameter, velocity) =
                    unsafe { (parameter.slice(values.clone()), velocity.slice(values.clone())) };
                Arch::new().dispatch(Step { sgd: *self, parameter, grad: &grad[values], velocity });
            });
        }
        Arch::new().dispatch(Step {
            sgd: *self,
            parameter: &mut parameter[rest..],
            grad: &grad[rest..],
            velocity: &mut velocity[rest..],
        });
    }
}

struct Step<'a> {
    sgd: Sgd,
    parameter: &'a mut [f32],
    grad: &'a [f32],
    velocity: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sgd, parameter, grad, velocity } = self;
        let momentum = simd.splat_f32s(sgd.momentum);
        let decay = simd.splat_f32s(sgd.weight_decay);
        let step = simd.splat_f32s(-sgd.lr);
        sweep!(S, parameter.len(), |at, lanes, _TURN| {
            // SAFETY: `sweep` stays within the three slices, whose lengths are equal.
            unsafe {
                let (to, moving) = (parameter.as_mut_ptr().add(at), velocity.as_mut_ptr().add(at));
                let old = lanes.load(simd, to);
                let d = simd.mul_add_e_f32s(decay, old, lanes.load(simd, grad.as_ptr().add(at)));
                let new = simd.mul_add_e_f32s(momentum, lanes.load(simd, moving), d);
                let along = if sgd.nesterov { simd.mul_add_e_f32s(momentum, new, d) } else { new };
                lanes.store(simd, moving, new);
                lanes.store(simd, to, simd.mul_add_e_f32s(step, along, old));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random, with_threads};
    use pulp::Scalar;

    #[test]
    fn steps_follow_the_definition() {
        for len in [0, 1, 17, BLOCK, 5 * BLOCK + 3, 40_000] {
            for nesterov in [false, true] {
                let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov };
                let mut parameter = random(1, len);
                let mut velocity = vec![0.0; len];
                let mut truth: Vec<f64> = parameter.iter().map(|&value| value.into()).collect();
                let mut truth_velocity = vec![0.0; len];
                for step in 0..3 {
                    let grad = random(2 + step, len);
                    with_threads(3, || sgd.step(&mut parameter, &grad, &mut velocity));
                    for ((p, v), &g) in truth.iter_mut().zip(&mut truth_velocity).zip(&grad) {
                        let d = f64::from(g) + 0.01 * *p;
                        *v = 0.9 * *v + d;
                        *p -= 0.1 * if nesterov { d + 0.9 * *v } else { *v };
                    }
                }
                assert_close(&parameter, &truth, 1e-6);
                assert_close(&velocity, &truth_velocity, 1e-6);
            }
        }
    }

    #[test]
    fn vectors_and_scalars_agree() {
        let sgd = Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov: true };
        let (grad, mut fast, mut fast_velocity) = (random(1, 37), random(2, 37), random(3, 37));
        let (mut plain, mut plain_velocity) = (fast.clone(), fast_velocity.clone());
        sgd.step(&mut fast, &grad, &mut fast_velocity);
        Step { sgd, parameter: &mut plain, grad: &grad, velocity: &mut plain_velocity }
            .with_simd(Scalar);
        let plain: Vec<f64> = plain.into_iter().map(f64::from).collect();
        assert_close(&fast, &plain, 1e-6);
    }
}
