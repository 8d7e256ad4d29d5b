//! The optimizer of the paper's training script, written out.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Gradients, Int, Tensor};
use dbb_models::Classifier;

use super::Array;
use super::fixture::Fixture;

/// The loss before each step of SGD on the batch of a fixture's trace. The network is on an
/// autodiff device.
pub fn training_losses(mut network: Classifier, fixture: &Fixture, steps: usize) -> Vec<f64> {
    let device = network.devices().remove(0);
    let input: Tensor<4> = fixture.array("trace.input").tensor(&device);
    let target = fixture.get("trace.target").clone();
    let target = Tensor::<1, Int>::from_data(target, &device).unsqueeze_dim::<2>(1);
    let mut velocities = HashMap::new();
    let mut losses = Vec::new();
    for _ in 0..steps {
        let logits = network.forward(input.clone());
        let loss = -log_softmax(logits, 1).gather(1, target.clone()).mean();
        losses.push(Array::from(loss.clone()).data[0]);
        let step = Step {
            // Only the DBB paper's MobileNet has such names.
            names_depthwise: matches!(network, Classifier::MobileNetV1(_)),
            gradients: &loss.backward(),
            velocities: &mut velocities,
            path: vec![],
        };
        network = network.map(&mut { step });
    }
    losses
}

/// One step with learning rate 0.01, doubled for biases, momentum 0.9 and weight decay 1e-4, none
/// of it for layers that the authors' code calls depthwise.
struct Step<'a> {
    names_depthwise: bool,
    gradients: &'a Gradients,
    velocities: &'a mut HashMap<ParamId, Tensor<1>>,
    path: Vec<String>,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // Running statistics have no gradient.
        let Some(gradient) = param.val().grad(self.gradients) else { return param };
        let is_bias = self.path.last().is_some_and(|name| name == "bias" || name == "beta");
        let rate = if is_bias { 0.02 } else { 0.01 };
        let is_depthwise =
            self.names_depthwise && self.path.iter().any(|name| name.contains("depth"));
        let decay = if is_depthwise { 0.0 } else { 1e-4 };

        let value = param.val().inner();
        let shape = value.shape();
        let mut velocity: Tensor<1> = (gradient + value.clone() * decay).flatten(0, D - 1);
        if let Some(last) = self.velocities.remove(&param.id) {
            velocity = velocity + last * 0.9;
        }
        self.velocities.insert(param.id, velocity.clone());
        let value = value - (velocity * rate).reshape(shape);
        Param::initialized(param.id, Tensor::from_inner(value).require_grad())
    }
}
