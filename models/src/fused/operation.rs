//! From a kernel on slices to an operation with a gradient.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, DispatchAutodiffContext, DispatchTensor,
    DispatchTensorKind, Flex, TensorMetadata,
};
use burn::tensor::{DType, Shape, Tensor, TensorData};

/// A tensor of the flex backend.
pub(crate) type FlexTensor = FloatTensor<Flex>;

/// An operation with `N` inputs whose forward and backward passes are kernels of ours.
pub(crate) trait Operation<const N: usize>: Clone + Debug + Send + 'static {
    /// What the backward pass needs of the forward pass.
    type Saved: Clone + Debug + Send + 'static;

    /// Output, statistics (without gradient) and what to keep. Every input is contiguous `f32`;
    /// an absent one is empty.
    fn forward(&self, inputs: &[FlexTensor; N]) -> Forward<Self::Saved>;

    /// The gradient of every input that is `wanted`.
    fn backward(
        self,
        saved: Self::Saved,
        grad: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// What a forward pass makes.
pub(crate) struct Forward<S> {
    /// The output map.
    pub output: FlexTensor,
    /// Per-channel statistics of the batch, in the operation's order.
    pub statistics: Vec<Vec<f32>>,
    /// For the backward pass.
    pub saved: S,
}

/// Runs a training operation on tensors of an autodiff flex device; see [`serves`]. Returns the
/// output and the statistics on that device.
pub(crate) fn run<O: Operation<N>, const N: usize>(
    operation: O,
    inputs: [Option<DispatchTensor>; N],
) -> (Tensor<4>, Vec<Tensor<1>>) {
    let context = inputs
        .iter()
        .flatten()
        .fold(DispatchAutodiffContext::Disabled, |context, tensor| context.merge(tensor.autodiff));
    let tracked = inputs.map(|input| match input {
        Some(tensor) => tracked(tensor),
        None => Autodiff::<Flex>::from_inner(FlexTensor::zeros(Shape::new([0]), DType::F32)),
    });
    let guards = tracked.each_ref().map(|tensor| tensor.node());
    let values = tracked.map(|tensor| tensor.into_primitive().to_contiguous());
    let Forward { output, statistics, saved } = operation.forward(&values);
    let output = match Step(operation).prepare::<NoCheckpointing>(guards).compute_bound().stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(saved, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    let dispatch = |tensor| DispatchTensor {
        kind: DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Flex(
            BackendTensor::Autodiff(tensor),
        ))),
        autodiff: context,
    };
    let statistics = statistics
        .into_iter()
        .map(|values| {
            let length = values.len();
            let tensor = Autodiff::<Flex>::from_inner(flex(values, [length]));
            Tensor::from_dispatch(dispatch(tensor))
        })
        .collect();
    (Tensor::from_dispatch(dispatch(output)), statistics)
}

/// Whether the kernels serve a tensor: `f32` on the flex backend.
pub(crate) fn serves<const D: usize>(tensor: &Tensor<D>) -> bool {
    fn is_flex(kind: &DispatchTensorKind) -> bool {
        match kind {
            DispatchTensorKind::Flex(_) => true,
            DispatchTensorKind::Autodiff(inner) => is_flex(inner),
            #[allow(unreachable_patterns)] // where flex is the only backend
            _ => false,
        }
    }
    tensor.dtype() == DType::F32 && is_flex(&tensor.clone().into_dispatch().kind)
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

/// A contiguous tensor of the flex backend.
pub(crate) fn flex<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
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

impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Step<O> {
    type State = O::Saved;

    fn backward(self, ops: Ops<O::Saved, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = self.0.backward(ops.state, grad, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
