//! The kernel of an OREPA block, computed from its branches.

use burn::tensor::Tensor;
use dbb_kernels::buffer;
use dbb_kernels::orepa::{OrepaConstants, OrepaParts, OrepaShape};

use super::inputs::{BranchParams, Inputs};
use super::operation::{FlexTensor, Operation, dispatch, run, serves, slice, values};
use crate::layers::orepa_kernel::OrepaBranches;

/// The kernel, `[out, in / groups, K, K]`, from the plain kernel, the scales and the other branches.
pub(crate) fn orepa_kernel(
    origin: &Tensor<4>,
    scales: &Tensor<2>,
    branches: &OrepaBranches,
    groups: usize,
) -> Option<Tensor<4>> {
    if !serves(origin) {
        return None;
    }
    let device = origin.device();
    let dims = origin.dims();
    let [outputs, per_group, height, width] = dims;
    let [filters, ..] = branches.depthwise.dims();
    let [internal, ..] = branches.sequence1.dims();
    let operation = OrepaOperation {
        shape: OrepaShape {
            outputs,
            per_group,
            taps: height * width,
            groups,
            internal: internal / groups,
            expansion: filters / (per_group * groups),
        },
        dims,
        window: values(branches.constant_window.value()),
        prior: values(branches.constant_prior.value()),
        identity: values(branches.constant_identity.value()),
    };
    let parts = OrepaParts {
        origin: dispatch(origin.clone()),
        average: dispatch(branches.average.val()),
        frequency: dispatch(branches.frequency.val()),
        first: dispatch(branches.sequence1.val()),
        second: dispatch(branches.sequence2.val()),
        pointwise: dispatch(branches.pointwise.val()),
        depthwise: dispatch(branches.depthwise.val()),
        separable: dispatch(branches.separable.val()),
        scales: dispatch(scales.clone()),
    };
    Some(run(operation, inputs(parts), &device).0)
}

/// The parts as the inputs of an operation: the first in the place of the map, the others as weights.
fn inputs<T>(parts: OrepaParts<T>) -> Inputs<T> {
    let [origin, others @ ..] = parts.into_list();
    let weight = |weight| BranchParams { weight: Some(weight), opening: None, norm: None };
    Inputs { branches: others.into_iter().map(weight).collect(), ..Inputs::of_map(origin) }
}

#[derive(Clone, Debug)]
struct OrepaOperation {
    shape: OrepaShape,
    dims: [usize; 4],
    window: FlexTensor,
    prior: FlexTensor,
    identity: FlexTensor,
}

impl OrepaOperation {
    fn parts<'a>(&self, inputs: &Inputs<&'a [f32]>) -> OrepaParts<&'a [f32]> {
        let mut weights = inputs.branches.iter().map(|branch| branch.weight.unwrap_or_default());
        let origin = std::iter::once(inputs.map);
        let mut list = origin.chain(&mut weights);
        OrepaParts::from_list(std::array::from_fn(|_| list.next().unwrap_or_default()))
    }

    fn constants(&self) -> OrepaConstants<'_> {
        OrepaConstants {
            window: slice(&self.window),
            prior: slice(&self.prior),
            identity: slice(&self.identity),
        }
    }
}

impl Operation for OrepaOperation {
    type Saved = ();
    type Statistics = ();

    fn output_shape(&self) -> [usize; 4] {
        self.dims
    }

    fn forward(&self, inputs: &Inputs<&[f32]>) -> (Vec<f32>, (), ()) {
        let mut kernel = buffer::take(self.dims.iter().product());
        self.shape.forward(&self.parts(inputs), &self.constants(), &mut kernel);
        (kernel.into_vec(), (), ())
    }

    fn backward(
        &self,
        (): &(),
        found: &Inputs<&[f32]>,
        _: &[f32],
        grad: &[f32],
        _: &Inputs<bool>,
    ) -> Inputs<Option<Vec<f32>>> {
        let grads = self.shape.backward(&self.parts(found), &self.constants(), grad);
        inputs(OrepaParts::from_list(grads.into_list().map(Some)))
    }
}
