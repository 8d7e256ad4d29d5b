//! Steps of the optimizer.

use burn::tensor::Tensor;
use dbb_kernels::sgd::{self, Sgd};

use super::operation::{serves, slice, untracked, values};

/// A tensor's values, without a copy where nobody else holds them.
fn owned<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let values = values(tensor).into_data().try_into_vec();
    values.expect("the caller has asked whether the kernels serve the tensor")
}

/// A parameter and its velocity after a step, for tensors that [`serves`] serves.
pub(crate) fn sgd_step<const D: usize>(
    rule: &Sgd,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Option<Tensor<D>>,
) -> (Tensor<D>, Option<Tensor<D>>) {
    let dims = parameter.dims();
    let parameter = values(parameter);
    let mut gradient = owned(gradient);
    let kept = rule.momentum.is_some().then_some(velocity);
    let mut velocity = kept.map(|velocity| match velocity {
        Some(velocity) => owned(velocity),
        None => vec![0.0; gradient.len()],
    });
    rule.step(slice(&parameter), &mut gradient, velocity.as_deref_mut().unwrap_or_default());
    (untracked(gradient, dims), velocity.map(|velocity| untracked(velocity, dims)))
}

/// The sum of the squares of all values, if a kernel serves the tensor.
pub(crate) fn sum_of_squares<const D: usize>(tensor: Tensor<D>) -> Option<f64> {
    serves(&tensor).then(|| sgd::sum_of_squares(slice(&values(tensor))))
}
