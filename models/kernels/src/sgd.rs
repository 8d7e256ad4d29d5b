//! Steps of the optimizer, in one pass over a parameter.

use rayon::prelude::*;

/// Values of a task.
const TASK: usize = if cfg!(test) { 1 << 4 } else { 1 << 15 };

/// Stochastic gradient descent, in the order of PyTorch's `torch.optim.SGD` without dampening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub rate: f32,
    /// The share of the velocity that stays; `None` for no velocity.
    pub momentum: Option<f32>,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// The share of the parameter that is added to its gradient.
    pub weight_decay: f32,
}

impl Sgd {
    /// Writes the parameter after a step to the place of its gradient. The velocity is zero before the first step,
    /// and empty without momentum.
    ///
    /// # Panics
    /// If the lengths differ.
    #[track_caller]
    pub fn step(&self, parameter: &[f32], gradient: &mut [f32], velocity: &mut [f32]) {
        assert_eq!(gradient.len(), parameter.len(), "length of the gradient");
        let with_momentum = if self.momentum.is_some() { parameter.len() } else { 0 };
        assert_eq!(velocity.len(), with_momentum, "length of the velocity");
        let Self { rate, nesterov, weight_decay, .. } = *self;
        let parts = (gradient.par_chunks_mut(TASK), parameter.par_chunks(TASK));
        match self.momentum {
            None => parts.into_par_iter().for_each(|(gradient, parameter)| {
                for (to, &p) in gradient.iter_mut().zip(parameter) {
                    *to = p - (p * weight_decay + *to) * rate;
                }
            }),
            Some(momentum) => {
                let parts = (parts.0, parts.1, velocity.par_chunks_mut(TASK)).into_par_iter();
                parts.for_each(|(gradient, parameter, velocity)| {
                    for ((to, &p), v) in gradient.iter_mut().zip(parameter).zip(velocity) {
                        let slope = p * weight_decay + *to;
                        *v = slope + *v * momentum;
                        let direction = if nesterov { *v * momentum + slope } else { *v };
                        *to = p - direction * rate;
                    }
                });
            }
        }
    }
}

/// The sum of the squares of all values; the same with any number of threads.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    const LANES: usize = 16;
    let part = |values: &[f32]| {
        let mut sums = [0.0f64; LANES];
        for values in values.chunks(LANES) {
            let squares = values.iter().map(|&value| f64::from(value) * f64::from(value));
            sums.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square);
        }
        sums.iter().sum::<f64>()
    };
    let sums: Vec<_> = values.par_chunks(TASK).map(part).collect();
    sums.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    /// PyTorch's rule in `f64`, three steps.
    #[test]
    fn steps_are_their_definition() {
        for (momentum, nesterov, weight_decay) in [
            (None, false, 0.0),
            (None, false, 0.1),
            (Some(0.9), false, 0.1),
            (Some(0.8), true, 0.01),
        ] {
            let sgd = Sgd { rate: 0.1, momentum, nesterov, weight_decay };
            let len = 3 * TASK + 5;
            let mut parameter = random(1, len);
            let mut expected: Vec<_> = parameter.iter().map(|&p| f64::from(p)).collect();
            let mut velocity = vec![0.0; momentum.map_or(0, |_| len)];
            let mut speeds = vec![0.0; len];
            for step in 0..3 {
                let mut gradient = random(2 + step, len);
                for ((p, v), &g) in expected.iter_mut().zip(&mut speeds).zip(&gradient) {
                    let slope = f64::from(g) + f64::from(weight_decay) * *p;
                    let direction = match momentum.map(f64::from) {
                        None => slope,
                        Some(momentum) => {
                            *v = momentum * *v + slope;
                            if nesterov { slope + momentum * *v } else { *v }
                        }
                    };
                    *p -= f64::from(sgd.rate) * direction;
                }
                sgd.step(&parameter, &mut gradient, &mut velocity);
                parameter = gradient;
            }
            crate::testing::assert_within("parameter", &parameter, &expected, 1e-6);
        }
    }

    #[test]
    fn squares_are_summed() {
        let values = random(7, 5 * TASK + 3);
        let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        assert!((sum_of_squares(&values) - expected).abs() < 1e-12 * expected);
        assert!(sum_of_squares(&[1.0, f32::NAN]).is_nan());
        assert_eq!(sum_of_squares(&[]), 0.0);
    }
}
