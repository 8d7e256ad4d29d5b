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
use burn::tensor::{DType, Tensor, TensorData};
use dbb_kernels::buffer;

use crate::implementation::Implementation;

/// A tensor of the flex backend.
pub(crate) type FlexTensor = FloatTensor<Flex>;

/// An operation of `N` inputs and `S` per-channel batch statistics whose forward and backward
/// passes are kernels on slices. An absent input is an empty slice.
pub(crate) trait Operation<const N: usize, const S: usize>:
    Clone + Debug + Send + Sync + 'static
{
    /// What the backward pass needs besides inputs and output.
    type Saved: Debug + Send + Sync + 'static;

    /// Batch, channels, height and width of the output.
    fn output_shape(&self) -> [usize; 4];

    /// Output, statistics (without gradient), and what to keep.
    fn forward(&self, inputs: [&[f32]; N]) -> (Vec<f32>, [Vec<f32>; S], Self::Saved);

    /// The gradients, at least those that are `wanted`, from that of the output.
    fn backward(
        &self,
        saved: &Self::Saved,
        inputs: [&[f32]; N],
        output: &[f32],
        grad: &[f32],
        wanted: [bool; N],
    ) -> [Option<Vec<f32>>; N];
}

/// Runs an operation on tensors that the kernels serve, of an autodiff device. Returns the output
/// on that device, and the statistics.
pub(crate) fn run<O: Operation<N, S>, const N: usize, const S: usize>(
    operation: O,
    inputs: [Option<DispatchTensor>; N],
) -> (Tensor<4>, [Vec<f32>; S]) {
    let context = inputs
        .iter()
        .flatten()
        .fold(DispatchAutodiffContext::Disabled, |context, tensor| context.merge(tensor.autodiff));
    let tracked = inputs.map(|input| match input {
        Some(tensor) => tracked(tensor),
        None => Autodiff::<Flex>::from_inner(flex(Vec::new(), [0])),
    });
    let guards = tracked.each_ref().map(|tensor| tensor.node());
    let inputs = tracked.map(|tensor| tensor.into_primitive().to_contiguous());
    let (output, statistics, saved) = operation.forward(inputs.each_ref().map(slice));
    let output = flex(output, operation.output_shape());
    let prepared =
        Step((operation, [(); S])).prepare::<NoCheckpointing>(guards).compute_bound().stateful();
    let output = match prepared {
        OpsKind::Tracked(prep) => {
            let state = State { inputs, output: output.clone(), saved: Arc::new(saved) };
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
pub(crate) fn dispatch<const D: usize>(tensor: Tensor<D>) -> Option<DispatchTensor> {
    Some(tensor.into_dispatch())
}

/// The values of a tensor that the kernels serve, without its gradient.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    fn inner(kind: DispatchTensorKind) -> FlexTensor {
        match kind {
            DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => tensor.into_primitive(),
            DispatchTensorKind::Flex(tensor) => tensor.float(),
            DispatchTensorKind::Autodiff(tensor) => inner(*tensor),
            #[allow(unreachable_patterns)] // where flex is the only backend
            _ => unreachable!("the caller has asked whether the kernels serve the tensor"),
        }
    }
    inner(tensor.into_dispatch().kind).to_contiguous()
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

#[derive(Debug)]
struct Step<O>(O);

/// What an operation keeps for its backward pass.
#[derive(Debug)]
struct State<T, const N: usize> {
    inputs: [FlexTensor; N],
    output: FlexTensor,
    saved: Arc<T>,
}

impl<T, const N: usize> Clone for State<T, N> {
    fn clone(&self) -> Self {
        Self {
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            saved: Arc::clone(&self.saved),
        }
    }
}

impl<O: Operation<N, S>, const N: usize, const S: usize> Backward<Flex, N> for Step<(O, [(); S])> {
    type State = State<O::Saved, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let State { inputs, output, saved } = ops.state;
        let gradients = self.0.0.backward(
            &saved,
            inputs.each_ref().map(slice),
            slice(&output),
            slice(&grad),
            ops.parents.each_ref().map(Option::is_some),
        );
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
