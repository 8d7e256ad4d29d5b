//! Max pools.

use burn::nn::pool::MaxPool2d;
use burn::tensor::Tensor;
use dbb_kernels::{ConvShape, buffer, pool as kernel};

use super::conv::shape_of;
use super::inputs::Inputs;
use super::operation::{Operation, dispatch, run, serves};
use crate::layers::conv_spec::ConvSpec;

/// The largest value of every window, in training or in inference.
pub(crate) fn max_pool(pool: &MaxPool2d, input: Tensor<4>) -> Tensor<4> {
    let Some(shape) = shape_of_pool(pool, input.dims()).filter(|_| serves(&input)) else {
        return pool.forward(input);
    };
    let device = input.device();
    run(MaxPool(shape), Inputs::of_map(dispatch(input)), &device).0
}

/// The geometry of a pool over an input, if the kernel has it.
pub(super) fn shape_of_pool(pool: &MaxPool2d, input: [usize; 4]) -> Option<ConvShape> {
    let channels = input[1];
    let spec =
        ConvSpec { channels: [channels; 2], groups: channels, ..ConvSpec::find_max_pool(pool)? };
    let inside = (0..2).all(|axis| spec.padding[axis] < spec.kernel_size[axis]);
    let small = spec.kernel_size.iter().product::<usize>() <= kernel::LARGEST_WINDOW;
    shape_of(&spec, input).filter(|_| inside && small)
}

#[derive(Clone, Debug)]
struct MaxPool(ConvShape);

impl Operation for MaxPool {
    /// Which value of its window each output is.
    type Saved = Vec<u8>;
    type Statistics = ();

    fn output_shape(&self) -> [usize; 4] {
        self.0.output_shape()
    }

    fn forward(&self, inputs: &Inputs<&[f32]>) -> (Vec<f32>, (), Vec<u8>) {
        let mut y = buffer::take(self.0.output_len());
        let mut places = vec![0; y.len()];
        kernel::max(&self.0, inputs.map, &mut y, &mut places);
        (y.into_vec(), (), places)
    }

    fn backward(
        &self,
        places: &Vec<u8>,
        inputs: &Inputs<&[f32]>,
        _: &[f32],
        grad: &[f32],
        _: &Inputs<bool>,
    ) -> Inputs<Option<Vec<f32>>> {
        let mut dx = buffer::take(inputs.map.len());
        kernel::max_backward(&self.0, grad, places, &mut dx);
        Inputs::of_map(Some(dx.into_vec()))
    }
}
