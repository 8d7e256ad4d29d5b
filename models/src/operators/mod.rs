//! A walk in elementary operators, of real numbers or of 8-bit integers.
//!
//! [`Lowered`] is the one place that says what a network becomes outside of its own forward pass: which
//! operators a unit is made of, where values are rounded to 8 bits, and which layers stay in `f32`. An
//! [`Evaluator`] says what an operator does:
//!
//! | evaluator | a value is | result |
//! |---|---|---|
//! | `onnx::graph` | a value of a graph | an ONNX file |
//! | `quantize::calibration` | a tensor | the ranges of all values |
//! | `quantize::simulation` | a tensor, or integers | logits of the network in 8 bits |

mod compute;
mod lower;

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::nn::pool::MaxPool2d;

pub(crate) use compute::{Map, areas, subsample};
pub(crate) use lower::{IMAGES, Lowered};

use crate::blocks::{Activation, Gate};

/// What is computed of one value or two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operator<'a> {
    /// A convolution, with its bias if it has one.
    Conv(&'a Conv2d),
    /// A linear layer, with its bias if it has one.
    Linear(&'a Linear),
    /// The sum of two maps.
    Add,
    /// A nonlinearity.
    Activation(Activation),
    /// A nonlinearity from 0 to 1.
    Gate(Gate),
    /// A map times one weight per channel, `[batch, channels, 1, 1]`.
    Scale,
    /// The largest value of every window.
    MaxPool(&'a MaxPool2d),
    /// Every second position, with so many channels of zeros before and after.
    Subsample([usize; 2]),
    /// Mean over all positions, `[batch, channels, 1, 1]`.
    Mean,
    /// Means over the areas of a grid of this height and width, which divides those of the map as evenly
    /// as possible.
    GridMeans([usize; 2]),
    /// `[batch, channels, height, width]` to `[batch, channels * height * width]`.
    Flatten,
}

impl Operator<'_> {
    /// Whether every output is one of the inputs or zero, so that the range of the input is that of the
    /// output.
    pub fn keeps_range(self) -> bool {
        matches!(self, Self::MaxPool(_) | Self::Subsample(_) | Self::Flatten)
    }
}

/// What does the work of operators. Names are those of layers; an operator on integers has the value
/// `to`, whose name is that of its range.
pub(crate) trait Evaluator {
    /// Real numbers.
    type Real: Clone;
    /// Integers of 8 bits.
    type Integers: Clone;

    /// Applies an operator to real numbers.
    fn apply(&mut self, name: &str, operator: Operator<'_>, inputs: &[&Self::Real]) -> Self::Real;

    /// Height and width of a map.
    fn size(&self, map: &Self::Real) -> [usize; 2];

    /// Rounds real numbers to 8 bits, in the range that belongs to `value`.
    fn quantize(&mut self, value: &str, numbers: &Self::Real) -> Self::Integers;

    /// The real numbers that integers stand for.
    fn dequantize(&mut self, integers: &Self::Integers) -> Self::Real;

    /// Applies an operator, then a clamping activation, to integers. By definition: to the real numbers they
    /// stand for, rounded to the range of `to`, whose ends are the bounds of the activation.
    fn apply_to_integers(
        &mut self,
        name: &str,
        operator: Operator<'_>,
        inputs: &[&Self::Integers],
        clamp: Option<Activation>,
        to: &str,
    ) -> Self::Integers {
        // The range of the value ends at the bounds.
        let _ = clamp;
        let numbers: Vec<_> = inputs.iter().map(|input| self.dequantize(input)).collect();
        let inputs: Vec<_> = numbers.iter().collect();
        let output = self.apply(name, operator, &inputs);
        self.quantize(to, &output)
    }

    /// A linear layer that reads integers and gives real numbers.
    fn linear_of_integers(
        &mut self,
        name: &str,
        linear: &Linear,
        input: &Self::Integers,
    ) -> Self::Real {
        let numbers = self.dequantize(input);
        self.apply(name, Operator::Linear(linear), &[&numbers])
    }
}
