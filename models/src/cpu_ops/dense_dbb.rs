//! The dense Diverse Branch Block in training.

use burn::tensor::Tensor;
use dbb_kernels::dense::{DenseBlock, DenseSaved, DenseStatistics};
use dbb_kernels::{ConvNorm, ConvShape, Norm, buffer};

use super::conv::{shape_of, split};
use super::norms::{Opening, all_train, record};
use super::operation::{Operation, dispatch, run, serves};
use crate::blocks::{ConvBlock, DiverseBranchBlock, Epilogue};

/// A block of all four branches and one group, with its residual and activation, in training.
pub(super) fn dense_dbb(
    block: &DiverseBranchBlock,
    input: &Tensor<4>,
    epilogue: &Epilogue,
) -> Option<Tensor<4>> {
    let (Some(kxk), Some(pointwise), Some(second), Some(average)) =
        (&block.origin, &block.pointwise, &block.pointwise_kxk, &block.average)
    else {
        return None;
    };
    let (Some(average_conv), Some(average_bn)) = (&average.conv, &average.bn) else {
        return None;
    };
    let shape = shape_of(&block.spec(), input)?;
    let count = shape.batch * shape.output_positions();
    let opening_count = shape.batch * shape.input_positions();
    let norms =
        [&kxk.bn, &pointwise.bn, &second.bn1.bn, &second.bn2, &average_bn.bn, &average.avg_bn];
    if shape.groups > 1
        || count.min(opening_count) < 2
        || !all_train(&norms, &input.device())
        || !serves(input)
    {
        return None;
    }
    let (residual, relu, rest) = split(epilogue.clone());
    let operation = DenseOperation {
        shape,
        relu,
        epsilons: norms.map(|norm| norm.epsilon),
        openings: [&second.bn1.bn, &average_bn.bn].map(Opening::new),
    };
    let (output, statistics) = run(
        operation,
        [
            dispatch(input.clone()),
            residual.and_then(dispatch),
            dispatch(kxk.conv.weight.val()),
            dispatch(kxk.bn.gamma.val()),
            dispatch(kxk.bn.beta.val()),
            dispatch(pointwise.conv.weight.val()),
            dispatch(pointwise.bn.gamma.val()),
            dispatch(pointwise.bn.beta.val()),
            dispatch(second.conv1.effective_weight()),
            dispatch(second.bn1.bn.gamma.val()),
            dispatch(second.bn1.bn.beta.val()),
            dispatch(second.conv2.weight.val()),
            dispatch(second.bn2.gamma.val()),
            dispatch(second.bn2.beta.val()),
            dispatch(average_conv.weight.val()),
            dispatch(average_bn.bn.gamma.val()),
            dispatch(average_bn.bn.beta.val()),
            dispatch(average.avg_bn.gamma.val()),
            dispatch(average.avg_bn.beta.val()),
        ],
    );
    let counts = [count, count, opening_count, count, opening_count, count];
    record(&norms, statistics, &counts);
    Some(rest.forward(output))
}

/// Inputs: map, residual, then weights, scales and shifts in the order of the computation.
#[derive(Clone, Debug)]
struct DenseOperation {
    shape: ConvShape,
    relu: bool,
    /// Of all norms in the order of the computation.
    epsilons: [f64; 6],
    openings: [Opening; 2],
}

impl DenseOperation {
    fn block<'a>(&'a self, inputs: [&'a [f32]; 19]) -> DenseBlock<'a> {
        let [_, _, kxk @ .., w, wg, wb, o, og, ob, s, sg, sb, a, ag, ab, cg, cb] = inputs;
        let norm = |gamma, beta, index: usize| Norm { gamma, beta, epsilon: self.epsilons[index] };
        let [kxk, kxk_gamma, kxk_beta] = kxk;
        DenseBlock {
            shape: self.shape,
            kxk: ConvNorm { weight: kxk, norm: norm(kxk_gamma, kxk_beta, 0) },
            pointwise: ConvNorm { weight: w, norm: norm(wg, wb, 1) },
            pointwise_kxk: (
                self.openings[0].padded([o, og, ob]),
                ConvNorm { weight: s, norm: norm(sg, sb, 3) },
            ),
            average: (self.openings[1].padded([a, ag, ab]), norm(cg, cb, 5)),
        }
    }
}

impl Operation<19, 12> for DenseOperation {
    type Saved = DenseSaved;

    fn output_shape(&self) -> [usize; 4] {
        self.shape.output_shape()
    }

    fn forward(&self, inputs: [&[f32]; 19]) -> (Vec<f32>, [Vec<f32>; 12], DenseSaved) {
        let [x, residual, ..] = inputs;
        let residual = (!residual.is_empty()).then_some(residual);
        let mut y = buffer::take(self.shape.output_len());
        let (statistics, saved) = self.block(inputs).forward(x, residual, self.relu, &mut y);
        let DenseStatistics { kxk, pointwise, pointwise_kxk, average } = statistics;
        let [opening, second] = pointwise_kxk;
        let [average_opening, average] = average;
        let mut statistics = [kxk, pointwise, opening, second, average_opening, average]
            .into_iter()
            .flat_map(|statistics| [statistics.mean, statistics.var]);
        // Twelve vectors of six norms.
        let statistics = std::array::from_fn(|_| statistics.next().unwrap_or_default());
        (y.into_vec(), statistics, saved)
    }

    fn backward(
        &self,
        saved: &DenseSaved,
        inputs: [&[f32]; 19],
        y: &[f32],
        grad: &[f32],
        wanted: [bool; 19],
    ) -> [Option<Vec<f32>>; 19] {
        let [wants_input, wants_residual, ..] = wanted;
        let block = self.block(inputs);
        let grad = block.backward(inputs[0], y, saved, grad, [wants_input, wants_residual]);
        let [kxk_gamma, kxk_beta] = grad.kxk.norm;
        let [pointwise_gamma, pointwise_beta] = grad.pointwise.norm;
        let (opening, second) = grad.pointwise_kxk;
        let [second_gamma, second_beta] = second.norm;
        let (average, [average_gamma, average_beta]) = grad.average;
        [
            grad.input,
            grad.residual,
            Some(grad.kxk.weight),
            Some(kxk_gamma),
            Some(kxk_beta),
            Some(grad.pointwise.weight),
            Some(pointwise_gamma),
            Some(pointwise_beta),
            Some(opening.weight),
            Some(opening.gamma),
            Some(opening.beta),
            Some(second.weight),
            Some(second_gamma),
            Some(second_beta),
            Some(average.weight),
            Some(average.gamma),
            Some(average.beta),
            Some(average_gamma),
            Some(average_beta),
        ]
    }
}
