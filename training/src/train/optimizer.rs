//! The optimizer and its parameter groups.

use burn::module::{ParamGroup, ParamId};
use burn::optim::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::store::ModuleSnapshot;
use dbb_models::descent::Rule;
use dbb_models::{Classifier, Walk};

use super::sgd::Sgd;
use crate::config::{DecayRule, OptimKind, OptimSection};

/// A parameter as the optimizer's rules see it.
#[derive(Clone, Debug)]
struct Parameter {
    id: ParamId,
    /// Last part of its path: `weight`, `bias`, `gamma` or `beta`.
    role: String,
    /// Whether it belongs to a depthwise layer, its norms included.
    depthwise: bool,
}

/// Everything in a network that has a gradient.
fn parameters(network: &Classifier) -> Vec<Parameter> {
    let units = network.units().into_iter();
    let depthwise: Vec<_> = units
        .filter(|(_, unit)| unit.spec().is_depthwise())
        .map(|(name, _)| format!("{name}."))
        .collect();
    network
        .collect(None, None, true)
        .into_iter()
        .filter_map(|tensor| {
            let role = tensor.name.rsplit('.').next().unwrap_or_default().to_string();
            let id = tensor.param_id?.into();
            let depthwise = depthwise.iter().any(|layer| tensor.name.starts_with(layer));
            (!role.starts_with("running_")).then_some(Parameter { id, role, depthwise })
        })
        .collect()
}

impl Parameter {
    fn decays(&self, rule: DecayRule) -> bool {
        match rule {
            DecayRule::All => true,
            DecayRule::Weights => self.role == "weight",
            DecayRule::Paper => !self.depthwise,
        }
    }

    fn is_bias(&self) -> bool {
        self.role == "bias" || self.role == "beta"
    }
}

/// An optimizer with its rules for single parameters.
pub struct Optimizer {
    /// Holds the momenta.
    pub inner: ModuleOptimizer,
    biases: ParamGroup,
    bias_lr: f64,
}

impl Optimizer {
    /// A fresh optimizer for a network.
    pub fn new(section: &OptimSection, network: &Classifier) -> Self {
        let parameters = parameters(network);
        let ids = |keep: &dyn Fn(&Parameter) -> bool| {
            ParamGroup::from_ids(parameters.iter().filter(|p| keep(p)).map(|p| p.id).collect())
        };
        let without_decay = ids(&|p| !p.decays(section.decay));
        let inner = match section.kind {
            OptimKind::Sgd => {
                let sgd = |decay: f64| {
                    Sgd(Rule {
                        rate: 0.0,
                        momentum: (section.momentum > 0.0).then_some(section.momentum as f32),
                        nesterov: section.nesterov,
                        weight_decay: decay as f32,
                    })
                };
                ModuleOptimizer::from(sgd(section.weight_decay)).with_group(
                    without_decay,
                    sgd(0.0),
                    None,
                )
            }
            OptimKind::AdamW => {
                let adamw = |decay: f64| {
                    AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(decay as f32).build()
                };
                ModuleOptimizer::from(adamw(section.weight_decay)).with_group(
                    without_decay,
                    adamw(0.0),
                    None,
                )
            }
        };
        Self { inner, biases: ids(&Parameter::is_bias), bias_lr: section.bias_lr }
    }

    /// The network after a step along a gradient.
    pub fn step(&mut self, network: &Classifier, grads: GradientsParams, lr: f64) -> Classifier {
        self.inner.step(self.learning_rates(lr), network.clone(), grads)
    }

    /// The learning rate of every parameter where the network's is `lr`.
    pub fn learning_rates(&self, lr: f64) -> ModuleLearningRate {
        ModuleLrScheduler::new(lr).with_group(self.biases.clone(), lr * self.bias_lr).step()
    }
}
