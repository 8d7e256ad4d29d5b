//! From a kernel on slices to an operation with a gradient.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, DispatchAutodiffContext, DispatchTensor,
    DispatchTensorKind, Flex,
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use dbb_kernels::{buffer, profile};

use super::inputs::Inputs;
use super::prepared;
use crate::implementation::Implementation;

/// A tensor of the flex backend.
pub(crate) type FlexTensor = FloatTensor<Flex>;

/// A tensor as an input of an operation.
pub(crate) type Input = DispatchTensor;

/// An operation whose forward and backward passes are kernels on slices.
pub(crate) trait Operation: Clone + Debug + Send + Sync + 'static {
    /// What the backward pass needs besides inputs and output.
    type Saved: Debug + Send + Sync + 'static;

    /// What the forward pass finds besides the output, without gradient.
    type Statistics;

    /// Batch, channels, height and width of the output.
    fn output_shape(&self) -> [usize; 4];

    /// Output, statistics, and what to keep.
    fn forward(&self, inputs: &Inputs<&[f32]>) -> (Vec<f32>, Self::Statistics, Self::Saved);

    /// The gradients, at least those that are `wanted`, from that of the output.
    fn backward(
        &self,
        saved: &Self::Saved,
        inputs: &Inputs<&[f32]>,
        output: &[f32],
        grad: &[f32],
        wanted: &Inputs<bool>,
    ) -> Inputs<Option<Vec<f32>>>;
}

/// Most inputs of an operation: Burn's autodiff has their number in a type.
const MOST_INPUTS: usize = 64;

/// Runs an operation on tensors that the kernels serve. Returns the output on their device, and
/// the statistics.
pub(crate) fn run<O: Operation>(
    operation: O,
    inputs: Inputs<Input>,
    device: &Device,
) -> (Tensor<4>, O::Statistics) {
    let (form, inputs) = inputs.into_list();
    if !device.is_autodiff() {
        let inputs: Vec<_> =
            inputs.into_iter().map(|input| inner(input.kind).to_contiguous()).collect();
        let (output, statistics, _) = operation.forward(&form.name(inputs.iter().map(slice)));
        let output = untracked(output, operation.output_shape());
        inputs.into_iter().for_each(give);
        return (output, statistics);
    }
    prepared::release();
    match inputs.len() {
        0..=1 => run_tracked::<O, 1>(operation, form, inputs),
        2..=5 => run_tracked::<O, 5>(operation, form, inputs),
        6..=12 => run_tracked::<O, 12>(operation, form, inputs),
        13..=19 => run_tracked::<O, 19>(operation, form, inputs),
        20..=32 => run_tracked::<O, 32>(operation, form, inputs),
        count => {
            assert!(count <= MOST_INPUTS, "an operation of {count} inputs");
            run_tracked::<O, MOST_INPUTS>(operation, form, inputs)
        }
    }
}

/// [`run`] for up to `N` inputs of an autodiff device.
fn run_tracked<O: Operation, const N: usize>(
    operation: O,
    form: Inputs<()>,
    inputs: Vec<Input>,
) -> (Tensor<4>, O::Statistics) {
    let context = inputs
        .iter()
        .fold(DispatchAutodiffContext::Disabled, |context, input| context.merge(input.autodiff));
    let count = inputs.len();
    let mut tracked = inputs.into_iter().map(tracked);
    // The rest of the array stands for no tensor.
    let absent = || Autodiff::<Flex>::from_inner(flex(Vec::new(), [0]));
    let tracked: [_; N] = std::array::from_fn(|_| tracked.next().unwrap_or_else(absent));
    let guards = tracked.each_ref().map(|tensor| tensor.node());
    let primitive = |tensor: FloatTensor<Autodiff<Flex>>| tensor.into_primitive().to_contiguous();
    let inputs: Vec<_> = tracked.into_iter().take(count).map(primitive).collect();
    let (output, statistics, saved) = operation.forward(&form.name(inputs.iter().map(slice)));
    let output = flex(output, operation.output_shape());
    let prepared = Step(operation).prepare::<NoCheckpointing>(guards).compute_bound().stateful();
    let output = match prepared {
        OpsKind::Tracked(prep) => {
            let layer = profile::current_layer();
            let state =
                State { form, inputs, output: output.clone(), saved: Arc::new(saved), layer };
            prep.finish(state, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    let output = DispatchTensor {
        kind: DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Flex(
            BackendTensor::Autodiff(output),
        ))),
        autodiff: context,
    };
    (Tensor::from_dispatch(output), statistics)
}

/// Whether the kernels serve a tensor: `f32` on the flex backend, unless the plain implementation
/// is chosen.
pub(crate) fn serves<const D: usize>(tensor: &Tensor<D>) -> bool {
    fn is_flex(kind: &DispatchTensorKind) -> bool {
        match kind {
            DispatchTensorKind::Flex(_) => true,
            DispatchTensorKind::Autodiff(inner) => is_flex(inner),
            #[allow(unreachable_patterns)] // where flex is the only backend
            _ => false,
        }
    }
    Implementation::current() == Implementation::Fast
        && tensor.dtype() == DType::F32
        && is_flex(&tensor.clone().into_dispatch().kind)
}

/// A tensor as an input of an operation.
pub(crate) fn dispatch<const D: usize>(tensor: Tensor<D>) -> Input {
    tensor.into_dispatch()
}

/// The values of a tensor that the kernels serve, without its gradient.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    let tensor = inner(tensor.into_dispatch().kind);
    // Images of a batch lie side by side, too; Burn's function copies all that is not a whole buffer.
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

fn inner(kind: DispatchTensorKind) -> FlexTensor {
    match kind {
        DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => tensor.into_primitive(),
        DispatchTensorKind::Flex(tensor) => tensor.float(),
        DispatchTensorKind::Autodiff(tensor) => inner(*tensor),
        #[allow(unreachable_patterns)] // where flex is the only backend
        _ => unreachable!("the caller has asked whether the kernels serve the tensor"),
    }
}

/// The values of a contiguous tensor.
pub(crate) fn slice(tensor: &FlexTensor) -> &[f32] {
    // Every tensor here has been made contiguous.
    tensor.as_slice().expect("a contiguous tensor")
}

/// A contiguous tensor of the flex backend.
fn flex<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A tensor on the flex device without autodiff.
pub(crate) fn untracked<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_dispatch(DispatchTensor {
        kind: DispatchTensorKind::Flex(BackendTensor::Float(flex(values, shape))),
        autodiff: DispatchAutodiffContext::Disabled,
    })
}

fn tracked(tensor: DispatchTensor) -> FloatTensor<Autodiff<Flex>> {
    match tensor.kind {
        DispatchTensorKind::Autodiff(inner) => match *inner {
            DispatchTensorKind::Flex(tensor) => tensor.autodiff(),
            #[allow(unreachable_patterns)] // where flex is the only backend
            _ => unreachable!("the caller has asked whether the kernels serve the tensor"),
        },
        DispatchTensorKind::Flex(tensor) => Autodiff::<Flex>::from_inner(tensor.float()),
        #[allow(unreachable_patterns)] // where flex is the only backend
        _ => unreachable!("the caller has asked whether the kernels serve the tensor"),
    }
}

#[derive(Clone, Debug)]
struct Step<O>(O);

/// What an operation keeps for its backward pass.
#[derive(Debug)]
struct State<T> {
    form: Inputs<()>,
    inputs: Vec<FlexTensor>,
    output: FlexTensor,
    saved: Arc<T>,
    /// The layer that it belongs to, where a profile is recorded.
    layer: Option<profile::LayerId>,
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self {
            form: self.form.clone(),
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            saved: Arc::clone(&self.saved),
            layer: self.layer,
        }
    }
}

impl<O: Operation, const N: usize> Backward<Flex, N> for Step<O> {
    type State = State<O::Saved>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let State { form, inputs, output, saved, layer } = ops.state;
        let _layer = profile::within(layer);
        let gradients = self.0.backward(
            &saved,
            &form.name(inputs.iter().map(slice)),
            slice(&output),
            slice(&grad),
            &form.name(ops.parents.iter().map(Option::is_some)),
        );
        let (_, gradients) = gradients.into_list();
        for ((parent, gradient), input) in ops.parents.into_iter().zip(gradients).zip(&inputs) {
            match (parent, gradient) {
                (Some(parent), Some(gradient)) => {
                    let data = TensorData::new(gradient, input.layout().shape().clone());
                    grads.register::<Flex>(parent.id, FlexTensor::from_data(data));
                }
                (_, gradient) => buffer::give(gradient.unwrap_or_default()),
            }
        }
        [grad, output].into_iter().chain(inputs).for_each(give);
    }
}

/// Gives back the memory of a tensor that nobody else holds.
pub(crate) fn give(tensor: FlexTensor) {
    if tensor.is_unique()
        && let Ok(values) = tensor.into_data().try_into_vec::<f32>()
    {
        buffer::give(values);
    }
}
