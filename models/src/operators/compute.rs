//! Operators on tensors.

use burn::tensor::activation::{hard_sigmoid, sigmoid};
use burn::tensor::{Tensor, TensorData, s};

use super::Operator;
use crate::blocks::Gate;
use crate::cpu_ops;
use crate::layers::epilogue::Epilogue;

/// Real numbers, as a map `[batch, channels, height, width]`; features have one position.
pub(crate) type Map = Tensor<4>;

impl Operator<'_> {
    /// What the operator makes of its inputs.
    ///
    /// # Panics
    /// If there are fewer than it takes.
    pub fn compute(self, inputs: &[&Map]) -> Map {
        let input = inputs[0].clone();
        match self {
            Self::Conv(conv) if cpu_ops::serves_conv(conv, &input) => {
                cpu_ops::conv(conv, input, Epilogue::default())
            }
            Self::Conv(conv) => conv.forward(input),
            Self::Linear(linear) => as_map(linear.forward(input.flatten::<2>(1, 3))),
            Self::Add => input + inputs[1].clone(),
            Self::Activation(activation) => activation.forward(input),
            Self::Gate(Gate::HardSigmoid) => hard_sigmoid(input, 1.0 / 6.0, 0.5),
            Self::Gate(Gate::Sigmoid) => sigmoid(input),
            Self::Scale => input * inputs[1].clone(),
            Self::MaxPool(pool) => cpu_ops::max_pool(pool, input),
            Self::Subsample(zero_channels) => subsample(zero_channels, input),
            Self::Mean => input.mean_dim(3).mean_dim(2),
            Self::GridMeans(grid) => grid_means(grid, input),
            Self::Flatten => as_map(input.flatten::<2>(1, 3)),
        }
    }
}

/// Features as a map of one position.
fn as_map(features: Tensor<2>) -> Map {
    let [batch, channels] = features.dims();
    features.reshape([batch, channels, 1, 1])
}

/// Every second position, with so many channels of zeros before and after.
pub(crate) fn subsample(zero_channels: [usize; 2], input: Map) -> Map {
    let map = input.slice(s![.., .., ..;2, ..;2]);
    let [batch, _, height, width] = map.dims();
    let [before, after] = zero_channels.map(|channels| {
        let zeros = || Tensor::zeros([batch, channels, height, width], &map.device());
        (channels > 0).then(zeros)
    });
    Tensor::cat([before, Some(map), after].into_iter().flatten().collect(), 1)
}

fn grid_means([rows, columns]: [usize; 2], input: Map) -> Map {
    let [batch, channels, height, width] = input.dims();
    let device = input.device();
    let matrix = |areas: Vec<Vec<f32>>, shape: [usize; 2]| {
        Tensor::<2>::from_data(TensorData::new(areas.concat(), shape), &device)
    };
    let over_rows = matrix(areas(height, rows), [rows, height]);
    let over_columns = matrix(areas(width, columns), [columns, width]).transpose();
    let map = input.reshape([batch * channels, height, width]);
    let map = over_rows.unsqueeze::<3>().matmul(map).matmul(over_columns.unsqueeze::<3>());
    map.reshape([batch, channels, rows, columns])
}

/// The weights of the positions of a side in the means of its areas. Area `i` of `n` reaches from
/// `i / n` of the side, rounded down, to `(i + 1) / n`, rounded up.
pub(crate) fn areas(side: usize, count: usize) -> Vec<Vec<f32>> {
    let area = |index: usize| {
        let (start, end) = (index * side / count, ((index + 1) * side).div_ceil(count));
        let weight = 1.0 / (end - start) as f32;
        (0..side).map(|at| if (start..end).contains(&at) { weight } else { 0.0 }).collect()
    };
    (0..count).map(area).collect()
}
