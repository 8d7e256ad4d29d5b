//! `[optim]`: the optimizer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{FROM_0_BELOW_1, Fault, require, require_positive};

/// The optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimSection {
    /// Kind of optimizer.
    #[serde(default)]
    pub kind: OptimKind,
    /// Highest learning rate.
    pub lr: f64,
    /// Momentum of SGD.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Nesterov's momentum.
    #[serde(default)]
    pub nesterov: bool,
    /// Weight decay; added to the gradient by SGD, decoupled in AdamW.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// Which parameters decay.
    #[serde(default)]
    pub decay: DecayRule,
    /// Factor on the learning rate of biases, those of batch norms included (2 in the paper).
    #[serde(default = "super::one")]
    pub bias_lr: f64,
}

/// Which optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimKind {
    /// Stochastic gradient descent as in PyTorch (no dampening).
    #[default]
    Sgd,
    /// Adam with decoupled weight decay; betas 0.9 and 0.999, epsilon 1e-8.
    AdamW,
}

/// Which parameters weight decay applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DecayRule {
    /// All parameters.
    All,
    /// Weights of convolutions and linear layers; not batch norms and biases.
    #[default]
    Weights,
    /// All parameters but those of depthwise layers, as in the DBB paper.
    Paper,
}

pub(super) fn momentum() -> f64 {
    0.9
}

fn weight_decay() -> f64 {
    1e-4
}

impl OptimSection {
    /// SGD with momentum and weight decay as configurations have them by default.
    pub fn sgd(lr: f64) -> Self {
        Self {
            kind: OptimKind::Sgd,
            lr,
            momentum: momentum(),
            nesterov: false,
            weight_decay: weight_decay(),
            decay: DecayRule::default(),
            bias_lr: 1.0,
        }
    }

    /// Checks the ranges of the keys.
    pub(super) fn check(&self) -> Result<(), Fault> {
        require_positive("optim.lr", self.lr)?;
        let unit = 0.0..1.0;
        require(unit.contains(&self.momentum), "optim.momentum", &self.momentum, FROM_0_BELOW_1)?;
        let decay = self.weight_decay;
        require(unit.contains(&decay), "optim.weight_decay", &decay, FROM_0_BELOW_1)?;
        require_positive("optim.bias_lr", self.bias_lr)
    }
}
