//! The nonlinearities between the units of a network.

use burn::tensor::Tensor;
use burn::tensor::activation::{hard_swish, relu, relu6};
use serde::{Deserialize, Serialize};

/// A nonlinearity without parameters.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x min(max(x + 3, 0), 6) / 6`.
    HardSwish,
}

impl Activation {
    /// Applies it to every value.
    pub fn forward<const D: usize>(self, input: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => relu(input),
            Self::Relu6 => relu6(input),
            Self::HardSwish => hard_swish(input),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::HardSwish => "hard_swish",
        }
    }

    /// Whether it moves a value to the nearest one between two bounds.
    pub(crate) fn is_clamp(self) -> bool {
        match self {
            Self::Relu | Self::Relu6 => true,
            Self::HardSwish => false,
        }
    }
}
