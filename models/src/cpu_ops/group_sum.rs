//! Sums over the members of a group, with their gradient.

use burn::tensor::{Device, Tensor};
use dbb_kernels::Members;

use super::inputs::Inputs;
use super::operation::{Operation, dispatch, run};
use crate::whole_batch::SumOverMembers;

/// Whether sums serve a device: flex, whose values the members have at hand.
pub(crate) fn serves_sums(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// The sum of `[channels]` over the members, on a device that [is served](serves_sums).
pub(crate) fn sum_over_members(own: Tensor<1>, sum: SumOverMembers) -> Tensor<1> {
    let (device, [channels]) = (own.device(), own.dims());
    let map = own.reshape([1, channels, 1, 1]);
    run(GroupSum { sum, channels }, Inputs::of_map(dispatch(map)), &device).0.reshape([channels])
}

impl SumOverMembers {
    /// The sums of values.
    fn sum_of(&self, values: &[f32]) -> Vec<f32> {
        let mut sums: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        self.sum(&mut sums);
        sums.into_iter().map(|sum| sum as f32).collect()
    }
}

impl Members for SumOverMembers {
    fn images(&self) -> usize {
        self.images()
    }

    fn sum(&self, values: &mut [f64]) {
        self.sum(values);
    }
}

#[derive(Clone, Debug)]
struct GroupSum {
    sum: SumOverMembers,
    channels: usize,
}

impl Operation for GroupSum {
    type Saved = ();
    type Statistics = ();

    fn output_shape(&self) -> [usize; 4] {
        [1, self.channels, 1, 1]
    }

    fn forward(&self, inputs: &Inputs<&[f32]>) -> (Vec<f32>, (), ()) {
        (self.sum.sum_of(inputs.map), (), ())
    }

    fn backward(
        &self,
        (): &(),
        _: &Inputs<&[f32]>,
        _: &[f32],
        grad: &[f32],
        _: &Inputs<bool>,
    ) -> Inputs<Option<Vec<f32>>> {
        Inputs::of_map(Some(self.sum.sum_of(grad)))
    }
}
