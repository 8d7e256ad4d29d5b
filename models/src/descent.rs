//! Steps of the optimizer, by a kernel where there is one.

use burn::tensor::Tensor;

use crate::cpu_ops;

pub use dbb_kernels::sgd::Sgd as Rule;

/// A parameter and its velocity, if the rule has momentum, after a step along a gradient. Before the first step there
/// is no velocity. None of the tensors is on an autodiff device.
pub fn sgd_step<const D: usize>(
    rule: &Rule,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Option<Tensor<D>>,
) -> (Tensor<D>, Option<Tensor<D>>) {
    if cpu_ops::serves(&parameter) && cpu_ops::serves(&gradient) {
        return cpu_ops::sgd_step(rule, parameter, gradient, velocity);
    }
    let slope = match rule.weight_decay {
        0.0 => gradient,
        decay => parameter.clone().mul_scalar(decay) + gradient,
    };
    let Some(momentum) = rule.momentum else {
        return (parameter - slope.mul_scalar(rule.rate), None);
    };
    let velocity = match velocity {
        Some(velocity) => slope.clone() + velocity.mul_scalar(momentum),
        None => slope.clone(),
    };
    let direction = if rule.nesterov {
        velocity.clone().mul_scalar(momentum) + slope
    } else {
        velocity.clone()
    };
    (parameter - direction.mul_scalar(rule.rate), Some(velocity))
}

/// The sum of the squares of all values, if a CPU kernel computes it: on other devices every sum is a transfer.
pub fn sum_of_squares<const D: usize>(tensor: Tensor<D>) -> Option<f64> {
    cpu_ops::sum_of_squares(tensor)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::Implementation;

    /// The kernel rounds as the definition does, step after step.
    #[test]
    fn kernel_and_definition_are_equal() {
        let tensor = |seed: u32| {
            let value = |i: u32| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
            let values: Vec<_> = (0..3 * 70_000).map(value).collect();
            Tensor::<2>::from_data(TensorData::new(values, [3, 70_000]), &Device::default())
        };
        for (momentum, nesterov, weight_decay) in
            [(None, false, 1e-2), (Some(0.9), false, 0.0), (Some(0.9), true, 1e-2)]
        {
            let rule = Rule { rate: 0.1, momentum, nesterov, weight_decay };
            let steps = || {
                let mut state = (tensor(0), None);
                for seed in 1..=3 {
                    state = sgd_step(&rule, state.0, tensor(seed), state.1);
                }
                (state.0.into_data(), state.1.map(Tensor::into_data))
            };
            assert_eq!(steps(), Implementation::Plain.during(steps));
        }
    }
}
