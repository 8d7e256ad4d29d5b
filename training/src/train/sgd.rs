//! Stochastic gradient descent as an optimizer of Burn.

use burn::optim::{LearningRate, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor};
use dbb_models::descent::{self, Rule};

/// A rule for a group of parameters, whose learning rate is that of each step.
#[derive(Clone)]
pub(super) struct Sgd(pub Rule);

/// The velocity of a parameter, if the rule has momentum.
#[derive(Clone)]
pub(super) struct Velocity<const D: usize>(Option<Tensor<D>>);

/// The path of the velocity in checkpoints, which is that of Burn's `SgdState`.
const PATH: &str = "momentum.velocity";

impl<const D: usize> RecordState for Velocity<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        if let Some(velocity) = &self.0 {
            out.push_tensor(prefix, PATH, velocity.clone().into_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let velocity = src.take_tensor(prefix, PATH);
        Some(Self(velocity.map(|data| Tensor::from_data(data, device))))
    }
}

impl burn::optim::Optimizer for Sgd {
    type State<const D: usize> = Velocity<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Velocity<D>>,
    ) -> (Tensor<D>, Option<Velocity<D>>) {
        let rule = Rule { rate: lr as f32, ..self.0 };
        let velocity = state.and_then(|state| state.0);
        let (parameter, velocity) = descent::sgd_step(&rule, parameter, gradient, velocity);
        (parameter, Some(Velocity(velocity)))
    }

    fn to_device<const D: usize>(state: Velocity<D>, device: &Device) -> Velocity<D> {
        Velocity(state.0.map(|velocity| velocity.to_device(device)))
    }
}
