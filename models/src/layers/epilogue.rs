//! The residual and the activation after a convolution unit.

use burn::tensor::Tensor;

use super::activation::Activation;

/// What a unit applies to its output: `activation(output + residual)`. It costs no pass over
/// memory of its own where a kernel serves the unit.
///
/// `Map` is what stands for a map: a tensor, or what another
/// [`Interpreter`](crate::walk::Interpreter) has in its place.
#[derive(Clone, Debug)]
pub struct Epilogue<Map = Tensor<4>> {
    /// Added to the output, of its shape.
    pub residual: Option<Map>,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl<Map> Epilogue<Map> {
    /// A residual to add and an activation.
    pub fn new(residual: Map, activation: Activation) -> Self {
        Self { residual: Some(residual), activation: Some(activation) }
    }
}

impl<Map> Default for Epilogue<Map> {
    fn default() -> Self {
        Self { residual: None, activation: None }
    }
}

impl Epilogue {
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

impl<Map> From<Activation> for Epilogue<Map> {
    fn from(activation: Activation) -> Self {
        Self { residual: None, activation: Some(activation) }
    }
}
