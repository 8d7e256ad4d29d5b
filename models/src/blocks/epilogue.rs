//! What follows a convolution unit in a network.

use burn::tensor::Tensor;

use super::Activation;

/// What a network makes of the output of a unit: `activation(output + residual)`. The unit
/// applies it itself, so that it costs no pass over memory where a kernel serves.
#[derive(Clone, Debug, Default)]
pub struct Epilogue {
    /// Added to the output, of its shape.
    pub residual: Option<Tensor<4>>,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl Epilogue {
    /// A residual to add and an activation.
    pub fn new(residual: Tensor<4>, activation: Activation) -> Self {
        Self { residual: Some(residual), activation: Some(activation) }
    }

    /// Applies it to an output.
    pub fn forward(self, output: Tensor<4>) -> Tensor<4> {
        let sum = match self.residual {
            Some(residual) => output + residual,
            None => output,
        };
        match self.activation {
            Some(activation) => activation.forward(sum),
            None => sum,
        }
    }
}

impl From<Activation> for Epilogue {
    fn from(activation: Activation) -> Self {
        Self { residual: None, activation: Some(activation) }
    }
}
