//! Every block in training form: a sum of branches as one operation.

use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use dbb_kernels::branches::{self as kernels, SumGrad, SumSaved, SumStatistics, Wanted};
use dbb_kernels::dense::PaddedNorm;
use dbb_kernels::{Activation, ConvShape, FixedStatistics, Norm, buffer};

use super::conv::{activation, shape_of};
use super::inputs::{BranchParams, ConvNormParams, Inputs, NormParams};
use super::norms::record;
use super::operation::{FlexTensor, Input, Operation, dispatch, run, serves, slice, values};
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_sum::{BranchMap, BranchSum, SumBranch};
use crate::layers::conv_spec::ConvSpec;
use crate::layers::epilogue::Epilogue;
use crate::whole_batch::{SumOverMembers, WholeBatch};

/// The sum of a block's branches, with its residual and activation. Norms use and record batch
/// statistics where [`BatchNorm`] does.
pub(crate) fn branch_sum(
    sum: &BranchSum<'_>,
    input: &Tensor<4>,
    epilogue: &Epilogue,
) -> Option<Tensor<4>> {
    let fits = |branch: &SumBranch<'_>| branch.map.fits(&sum.spec);
    if !serves(input) || !sum.branches.iter().all(fits) {
        return None;
    }
    let device = input.device();
    let shape = shape_of(&sum.spec, input.dims())?;
    let images = WholeBatch::current().map_or(shape.batch, |batch| batch.images());
    let count = images * shape.output_positions();
    let opening_count = images * shape.input_positions();
    let trains = |norm: &BatchNorm| norm.trains_on(&device);
    let too_few = |branch: &SumBranch<'_>| {
        let opening = branch.map.opening_norm();
        branch.norm.is_some_and(trains) && count < 2
            || opening.is_some_and(trains) && opening_count < 2
    };
    let norms = sum.branches.iter().flat_map(|branch| [branch.norm, branch.map.opening_norm()]);
    let any_trains = norms.chain([sum.outer]).flatten().any(trains);
    let members = WholeBatch::current().filter(|_| any_trains);
    if sum.outer.is_some_and(trains) && count < 2 || sum.branches.iter().any(too_few) {
        return None;
    }
    let operation = SumOperation {
        shape,
        activation: activation(epilogue.activation),
        branches: sum.branches.iter().map(|branch| BranchForm::new(branch, &device)).collect(),
        outer: sum.outer.map(|norm| NormForm::new(norm, &device)),
        members: members.map(|batch| batch.next_sum()),
    };
    let inputs = Inputs {
        map: dispatch(input.clone()),
        residual: epilogue.residual.clone().map(dispatch),
        branches: sum.branches.iter().map(params).collect(),
        outer: sum.outer.map(norm_params),
    };
    let (output, statistics) = run(operation, inputs, &device);
    for (branch, found) in sum.branches.iter().zip(statistics.branches) {
        if let (Some(norm), Some(found)) = (branch.map.opening_norm(), found.opening) {
            record(norm, &found, opening_count);
        }
        if let (Some(norm), Some(found)) = (branch.norm, found.closing) {
            record(norm, &found, count);
        }
    }
    if let (Some(norm), Some(found)) = (sum.outer, statistics.outer) {
        record(norm, &found, count);
    }
    Some(output)
}

impl BranchMap<'_> {
    /// Whether the convolutions are as the block has made them: their fields are public.
    fn fits(&self, spec: &ConvSpec) -> bool {
        let same =
            |conv: &Conv2d, of: ConvSpec| conv.bias.is_none() && ConvSpec::find(conv) == Some(of);
        match self {
            Self::Conv(conv) => {
                let margin = |axis: usize| {
                    spec.kernel_size[axis].checked_sub(conv.kernel_size[axis]).map(|rest| rest / 2)
                };
                let (Some(top), Some(left)) = (margin(0), margin(1)) else { return false };
                let [height, width] = spec.padding;
                let padding = [height.saturating_sub(top), width.saturating_sub(left)];
                same(conv, ConvSpec { kernel_size: conv.kernel_size, padding, ..spec.clone() })
            }
            Self::Kernel(kernel) => kernel.dims() == spec.weight_shape(),
            Self::Identity => spec.keeps_shape(),
            Self::Average => true,
            Self::PaddedConv(_, norm, conv) => {
                let [internal] = norm.gamma.dims();
                same(conv, ConvSpec { channels: [internal, spec.channels[1]], ..spec.clone() })
            }
            Self::PaddedAverage(first, _) => {
                let opening = ConvSpec::new(spec.channels, [1, 1]).with_groups(spec.groups);
                same(first, opening)
            }
        }
    }

    fn opening_norm(&self) -> Option<&BatchNorm> {
        match self {
            Self::PaddedConv(_, norm, _) | Self::PaddedAverage(_, norm) => Some(norm),
            Self::Conv(_) | Self::Kernel(_) | Self::Identity | Self::Average => None,
        }
    }
}

fn norm_params(norm: &BatchNorm) -> NormParams<Input> {
    NormParams { gamma: dispatch(norm.gamma.val()), beta: dispatch(norm.beta.val()) }
}

fn params(branch: &SumBranch<'_>) -> BranchParams<Input> {
    let (weight, opening) = match &branch.map {
        BranchMap::Conv(conv) => (Some(conv.weight.val()), None),
        BranchMap::Kernel(kernel) => (Some(Tensor::clone(kernel)), None),
        BranchMap::Identity | BranchMap::Average => (None, None),
        BranchMap::PaddedConv(first, norm, conv) => {
            (Some(conv.weight.val()), Some((first.effective_weight(), *norm)))
        }
        BranchMap::PaddedAverage(first, norm) => (None, Some((first.weight.val(), *norm))),
    };
    let opening = opening
        .map(|(weight, of)| ConvNormParams { weight: dispatch(weight), norm: norm_params(of) });
    BranchParams { weight: weight.map(dispatch), opening, norm: branch.norm.map(norm_params) }
}

#[derive(Clone, Debug)]
struct SumOperation {
    shape: ConvShape,
    activation: Activation,
    branches: Vec<BranchForm>,
    outer: Option<NormForm>,
    /// Those who have the rest of the batch.
    members: Option<SumOverMembers>,
}

/// A branch without what has a gradient.
#[derive(Clone, Debug)]
struct BranchForm {
    kind: Kind,
    opening: Option<NormForm>,
    norm: Option<NormForm>,
}

#[derive(Clone, Debug)]
enum Kind {
    Conv { kernel: [usize; 2] },
    Identity,
    Average,
    PaddedConv,
    PaddedAverage,
}

/// A norm without scale and shift.
#[derive(Clone, Debug)]
struct NormForm {
    running_mean: FlexTensor,
    running_var: FlexTensor,
    momentum: f64,
    epsilon: f64,
    /// Whether the running statistics normalise.
    fixed: bool,
}

impl NormForm {
    fn new(norm: &BatchNorm, device: &Device) -> Self {
        Self {
            running_mean: values(norm.running_mean.value()),
            running_var: values(norm.running_var.value()),
            momentum: norm.momentum,
            epsilon: norm.epsilon,
            fixed: !norm.trains_on(device),
        }
    }

    /// The norm, if there is one.
    fn of<'a>(form: &'a Option<Self>, params: &Option<NormParams<&'a [f32]>>) -> Option<Norm<'a>> {
        form.as_ref().zip(params.as_ref()).map(|(form, params)| form.norm(params))
    }

    fn norm<'a>(&'a self, params: &NormParams<&'a [f32]>) -> Norm<'a> {
        let fixed = self.fixed.then(|| FixedStatistics {
            mean: slice(&self.running_mean),
            var: slice(&self.running_var),
        });
        Norm { gamma: params.gamma, beta: params.beta, epsilon: self.epsilon, fixed }
    }

    fn padded<'a>(&'a self, params: &ConvNormParams<&'a [f32]>) -> PaddedNorm<'a> {
        PaddedNorm {
            weight: params.weight,
            gamma: params.norm.gamma,
            beta: params.norm.beta,
            running_mean: slice(&self.running_mean),
            running_var: slice(&self.running_var),
            momentum: self.momentum,
            epsilon: self.epsilon,
            fixed: self.fixed,
        }
    }
}

impl BranchForm {
    fn new(branch: &SumBranch<'_>, device: &Device) -> Self {
        let kind = match &branch.map {
            BranchMap::Conv(conv) => Kind::Conv { kernel: conv.kernel_size },
            BranchMap::Kernel(weight) => {
                let [.., height, width] = weight.dims();
                Kind::Conv { kernel: [height, width] }
            }
            BranchMap::Identity => Kind::Identity,
            BranchMap::Average => Kind::Average,
            BranchMap::PaddedConv(..) => Kind::PaddedConv,
            BranchMap::PaddedAverage(..) => Kind::PaddedAverage,
        };
        let opening = branch.map.opening_norm().map(|norm| NormForm::new(norm, device));
        Self { kind, opening, norm: branch.norm.map(|norm| NormForm::new(norm, device)) }
    }

    fn branch<'a>(&'a self, params: &BranchParams<&'a [f32]>) -> kernels::Branch<'a> {
        let weight = params.weight.unwrap_or_default();
        let opening = self.opening.as_ref().zip(params.opening.as_ref());
        let opening = opening.map(|(form, params)| form.padded(params));
        let map = match (&self.kind, opening) {
            (Kind::PaddedConv, Some(opening)) => kernels::BranchMap::PaddedConv { opening, weight },
            (Kind::PaddedAverage, Some(opening)) => kernels::BranchMap::PaddedAverage { opening },
            (&Kind::Conv { kernel }, _) => kernels::BranchMap::Conv { weight, kernel },
            (Kind::Identity, _) => kernels::BranchMap::Identity,
            _ => kernels::BranchMap::Average,
        };
        kernels::Branch { map, norm: NormForm::of(&self.norm, &params.norm) }
    }
}

impl SumOperation {
    fn branches<'a>(&'a self, inputs: &Inputs<&'a [f32]>) -> Vec<kernels::Branch<'a>> {
        let branches = self.branches.iter().zip(&inputs.branches);
        branches.map(|(form, params)| form.branch(params)).collect()
    }
}

impl Operation for SumOperation {
    type Saved = SumSaved;
    type Statistics = SumStatistics;

    fn output_shape(&self) -> [usize; 4] {
        self.shape.output_shape()
    }

    fn forward(&self, inputs: &Inputs<&[f32]>) -> (Vec<f32>, SumStatistics, SumSaved) {
        let branches = self.branches(inputs);
        let outer = NormForm::of(&self.outer, &inputs.outer);
        let sum = kernels::BranchSum { shape: self.shape, branches: &branches, outer };
        let mut y = buffer::take(self.shape.output_len());
        let (x, residual, activation) = (inputs.map, inputs.residual, self.activation);
        let (statistics, saved) = match &self.members {
            None => sum.forward(x, residual, activation, &mut y),
            Some(members) => sum.forward_in_group(x, residual, activation, &mut y, members),
        };
        (y.into_vec(), statistics, saved)
    }

    fn backward(
        &self,
        saved: &SumSaved,
        inputs: &Inputs<&[f32]>,
        y: &[f32],
        grad: &[f32],
        wanted: &Inputs<bool>,
    ) -> Inputs<Option<Vec<f32>>> {
        let branches = self.branches(inputs);
        let outer = NormForm::of(&self.outer, &inputs.outer);
        let sum = kernels::BranchSum { shape: self.shape, branches: &branches, outer };
        let parameters = Inputs { map: false, residual: None, ..wanted.clone() };
        let wanted = Wanted {
            input: wanted.map,
            residual: wanted.residual.is_some_and(|wanted| wanted),
            parameters: parameters.into_list().1.contains(&true),
        };
        let SumGrad { input, residual, branches, outer } = match &self.members {
            None => sum.backward(inputs.map, y, saved, grad, wanted),
            Some(members) => sum.backward_in_group(inputs.map, y, saved, grad, wanted, members),
        };
        let norm =
            |[gamma, beta]: [Vec<f32>; 2]| NormParams { gamma: Some(gamma), beta: Some(beta) };
        let branches =
            branches.into_iter().zip(&inputs.branches).map(|(grad, params)| BranchParams {
                weight: params.weight.map(|_| Some(grad.weight)),
                opening: grad.opening.map(|opening| ConvNormParams {
                    weight: Some(opening.weight),
                    norm: norm([opening.gamma, opening.beta]),
                }),
                norm: params.norm.as_ref().map(|_| norm(grad.norm.unwrap_or_default())),
            });
        Inputs {
            map: input,
            residual: inputs.residual.map(|_| residual),
            branches: branches.collect(),
            outer: inputs.outer.as_ref().map(|_| norm(outer.unwrap_or_default())),
        }
    }
}
