//! A convolution and its batch norm in training.

use burn::tensor::Tensor;
use dbb_kernels::{ConvNorm, ConvNormGrad, ConvNormSaved, ConvShape, Norm, buffer};

use super::conv::{shape_of_conv, split};
use super::norms::record;
use super::operation::{Operation, dispatch, run, serves};
use crate::blocks::{ConvBn, Epilogue};

/// Convolution, batch norm, residual and activation, in training.
pub(crate) fn conv_bn(block: &ConvBn, input: &Tensor<4>, epilogue: &Epilogue) -> Option<Tensor<4>> {
    let shape = shape_of_conv(&block.conv, input)?;
    let count = shape.batch * shape.output_positions();
    if !block.bn.trains_on(&input.device()) || !serves(input) || count < 2 {
        return None;
    }
    let (residual, relu, rest) = split(epilogue.clone());
    let operation = ConvBnOperation { shape, relu, epsilon: block.bn.epsilon };
    let inputs = [
        dispatch(input.clone()),
        dispatch(block.conv.weight.val()),
        dispatch(block.bn.gamma.val()),
        dispatch(block.bn.beta.val()),
        residual.and_then(dispatch),
    ];
    let (output, statistics) = run(operation, inputs);
    record(&[&block.bn], statistics, &[count]);
    Some(rest.forward(output))
}

/// Inputs: map, weight, scale, shift, residual.
#[derive(Clone, Debug)]
struct ConvBnOperation {
    shape: ConvShape,
    relu: bool,
    epsilon: f64,
}

impl ConvBnOperation {
    fn block<'a>(&self, [_, weight, gamma, beta, _]: [&'a [f32]; 5]) -> ConvNorm<'a> {
        ConvNorm { weight, norm: Norm { gamma, beta, epsilon: self.epsilon } }
    }
}

impl Operation<5, 2> for ConvBnOperation {
    type Saved = ConvNormSaved;

    fn output_shape(&self) -> [usize; 4] {
        self.shape.output_shape()
    }

    fn forward(&self, inputs: [&[f32]; 5]) -> (Vec<f32>, [Vec<f32>; 2], ConvNormSaved) {
        let [x, .., residual] = inputs;
        let residual = (!residual.is_empty()).then_some(residual);
        let mut y = buffer::take(self.shape.output_len());
        let (statistics, saved) =
            self.block(inputs).forward(&self.shape, x, residual, self.relu, &mut y);
        (y.into_vec(), [statistics.mean, statistics.var], saved)
    }

    fn backward(
        &self,
        saved: &ConvNormSaved,
        inputs: [&[f32]; 5],
        y: &[f32],
        grad: &[f32],
        wanted: [bool; 5],
    ) -> [Option<Vec<f32>>; 5] {
        let [wants_input, .., wants_residual] = wanted;
        let (input, residual, ConvNormGrad { weight, norm: [gamma, beta] }) = self
            .block(inputs)
            .backward(&self.shape, inputs[0], y, saved, grad, [wants_input, wants_residual]);
        [input, Some(weight), Some(gamma), Some(beta), residual]
    }
}
