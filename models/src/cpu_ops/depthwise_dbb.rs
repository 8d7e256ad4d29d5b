//! The depthwise Diverse Branch Block in training.

use burn::tensor::Tensor;
use dbb_kernels::depthwise::{Dbb, DbbSaved, Kxk, PointwiseKxk, dbb_backward, dbb_forward};
use dbb_kernels::{ConvShape, Norm, buffer};

use super::conv::{shape_of, split};
use super::norms::{Opening, all_train, record};
use super::operation::{Operation, dispatch, run, serves};
use crate::blocks::{ConvBlock, DiverseBranchBlock, Epilogue};

/// A depthwise block of all three branches, with its activation, in training.
pub(super) fn depthwise_dbb(
    block: &DiverseBranchBlock,
    input: &Tensor<4>,
    epilogue: &Epilogue,
) -> Option<Tensor<4>> {
    let (Some(kxk), Some(second), Some(average)) =
        (&block.origin, &block.pointwise_kxk, &block.average)
    else {
        return None;
    };
    let shape = shape_of(&block.spec(), input)?;
    let count = shape.batch * shape.output_positions();
    let opening_count = shape.batch * shape.input_positions();
    let norms = [&kxk.bn, &second.bn1.bn, &second.bn2, &average.avg_bn];
    let serves =
        count.min(opening_count) > 1 && all_train(&norms, &input.device()) && serves(input);
    if !serves || epilogue.residual.is_some() {
        return None;
    }
    let (_, relu, rest) = split(epilogue.clone());
    let operation = DepthwiseOperation {
        shape,
        relu,
        epsilons: norms.map(|norm| norm.epsilon),
        opening: Opening::new(&second.bn1.bn),
    };
    let inputs = [
        dispatch(input.clone()),
        dispatch(kxk.conv.weight.val()),
        dispatch(kxk.bn.gamma.val()),
        dispatch(kxk.bn.beta.val()),
        dispatch(second.conv1.effective_weight()),
        dispatch(second.bn1.bn.gamma.val()),
        dispatch(second.bn1.bn.beta.val()),
        dispatch(second.conv2.weight.val()),
        dispatch(second.bn2.gamma.val()),
        dispatch(second.bn2.beta.val()),
        dispatch(average.avg_bn.gamma.val()),
        dispatch(average.avg_bn.beta.val()),
    ];
    let (output, statistics) = run(operation, inputs);
    record(&norms, statistics, &[count, opening_count, count, count]);
    Some(rest.forward(output))
}

/// Inputs: map, then weights, scales and shifts in the order of the computation.
#[derive(Clone, Debug)]
struct DepthwiseOperation {
    shape: ConvShape,
    relu: bool,
    /// Of all norms in the order of the computation.
    epsilons: [f64; 4],
    opening: Opening,
}

impl DepthwiseOperation {
    fn block<'a>(&'a self, inputs: [&'a [f32]; 12]) -> Dbb<'a> {
        let [_, kxk, kxk_gamma, kxk_beta, inputs @ ..] = inputs;
        let [weight1, gamma1, beta1, weight2, gamma2, beta2, average_gamma, average_beta] = inputs;
        let norm = |gamma, beta, index: usize| Norm { gamma, beta, epsilon: self.epsilons[index] };
        let opening = self.opening.padded([weight1, gamma1, beta1]);
        Dbb {
            kxk: Some(Kxk { weight: kxk, norm: norm(kxk_gamma, kxk_beta, 0) }),
            pointwise_kxk: Some(PointwiseKxk {
                weight1,
                norm1: norm(gamma1, beta1, 1),
                running_mean: opening.running_mean,
                running_var: opening.running_var,
                momentum: opening.momentum,
                weight2,
                norm2: norm(gamma2, beta2, 2),
            }),
            average: Some(norm(average_gamma, average_beta, 3)),
        }
    }
}

impl Operation<12, 8> for DepthwiseOperation {
    type Saved = DbbSaved;

    fn output_shape(&self) -> [usize; 4] {
        self.shape.output_shape()
    }

    fn forward(&self, inputs: [&[f32]; 12]) -> (Vec<f32>, [Vec<f32>; 8], DbbSaved) {
        let mut y = buffer::take(self.shape.output_len());
        let block = self.block(inputs);
        let (found, saved) = dbb_forward(&self.shape, inputs[0], &block, self.relu, &mut y);
        let statistics = [
            found.kxk.mean,
            found.kxk.var,
            found.inner.mean,
            found.inner.var,
            found.pointwise_kxk.mean,
            found.pointwise_kxk.var,
            found.average.mean,
            found.average.var,
        ];
        (y.into_vec(), statistics, saved)
    }

    fn backward(
        &self,
        saved: &DbbSaved,
        inputs: [&[f32]; 12],
        y: &[f32],
        grad: &[f32],
        _: [bool; 12],
    ) -> [Option<Vec<f32>>; 12] {
        let y = self.relu.then_some(y);
        let mut dx = buffer::take(inputs[0].len());
        let block = self.block(inputs);
        let grads = dbb_backward(&self.shape, inputs[0], y, grad, &block, saved, &mut dx);
        [
            Some(dx.into_vec()),
            Some(grads.kxk_weight),
            Some(grads.kxk_gamma),
            Some(grads.kxk_beta),
            Some(grads.weight1),
            Some(grads.gamma1),
            Some(grads.beta1),
            Some(grads.weight2),
            Some(grads.gamma2),
            Some(grads.beta2),
            Some(grads.average_gamma),
            Some(grads.average_beta),
        ]
    }
}
