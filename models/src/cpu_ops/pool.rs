//! The max pool of a residual network's stem.

use burn::nn::PaddingConfig2d;
use burn::nn::pool::MaxPool2d;
use burn::tensor::Tensor;
use dbb_kernels::{ConvShape, buffer, pool as kernel};

use super::operation::{Operation, dispatch, give, run, serves, slice, untracked, values};

/// The largest value of every window, in training or in inference.
pub(crate) fn max_pool(pool: &MaxPool2d, input: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = input.dims();
    let PaddingConfig2d::Explicit(top, left, bottom, right) = pool.padding else {
        return pool.forward(input);
    };
    let symmetric = [top, left] == [bottom, right];
    if !symmetric || pool.dilation != [1, 1] || pool.ceil_mode || !serves(&input) {
        return pool.forward(input);
    }
    let shape = ConvShape {
        batch,
        in_channels: channels,
        out_channels: channels,
        input: [height, width],
        kernel: pool.kernel_size,
        stride: pool.stride,
        padding: [top, left],
        groups: channels,
    };
    if input.device().is_autodiff() {
        return run(MaxPool(shape), [dispatch(input)]).0;
    }
    let x = values(input);
    let mut y = buffer::take(shape.output_len());
    let mut places = vec![0; y.len()];
    kernel::max(&shape, slice(&x), &mut y, &mut places);
    give(x);
    untracked(y, shape.output_shape())
}

#[derive(Clone, Debug)]
struct MaxPool(ConvShape);

impl Operation<1, 0> for MaxPool {
    /// Which value of its window each output is.
    type Saved = Vec<u8>;

    fn output_shape(&self) -> [usize; 4] {
        self.0.output_shape()
    }

    fn forward(&self, [x]: [&[f32]; 1]) -> (Vec<f32>, [Vec<f32>; 0], Vec<u8>) {
        let mut y = buffer::take(self.0.output_len());
        let mut places = vec![0; y.len()];
        kernel::max(&self.0, x, &mut y, &mut places);
        (y, [], places)
    }

    fn backward(
        &self,
        places: &Vec<u8>,
        [x]: [&[f32]; 1],
        _: &[f32],
        grad: &[f32],
        _: [bool; 1],
    ) -> [Option<Vec<f32>>; 1] {
        let mut dx = buffer::take(x.len());
        kernel::max_backward(&self.0, grad, places, &mut dx);
        [Some(dx)]
    }
}
