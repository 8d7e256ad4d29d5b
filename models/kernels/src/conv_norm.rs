//! A convolution and its batch norm in training: the plain block, and the parts of others.

use crate::buffer::{self, Buffer};
use crate::closing::Closing;
use crate::shape::Geometry;
use crate::{ConvShape, conv, depthwise, norm};

/// Scale, shift and constant of a batch norm in training.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Scale, `[channels]`.
    pub gamma: &'a [f32],
    /// Shift, `[channels]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f64,
}

impl Norm<'_> {
    /// # Panics
    /// If there is not one scale and shift for each channel.
    #[track_caller]
    pub(crate) fn check(&self, channels: usize) {
        assert_eq!([self.gamma.len(), self.beta.len()], [channels; 2], "scale and shift of a norm");
    }
}

/// A convolution without bias and its norm.
#[derive(Clone, Copy, Debug)]
pub struct ConvNorm<'a> {
    /// Weight, `[out, in / groups, kh, kw]`.
    pub weight: &'a [f32],
    /// The norm.
    pub norm: Norm<'a>,
}

/// Mean and biased variance of a norm's input over the batch, `[channels]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchStatistics {
    /// Mean.
    pub mean: Vec<f32>,
    /// Biased variance.
    pub var: Vec<f32>,
}

/// What the backward pass needs besides input and output.
#[derive(Clone, Debug)]
pub struct ConvNormSaved(Saved);

#[derive(Clone, Debug)]
enum Saved {
    Dense {
        map: Buffer,
        closing: Closing,
    },
    /// The moments of a depthwise convolution's windows take the place of its map.
    Depthwise {
        saved: depthwise::DbbSaved,
        relu: bool,
    },
}

/// Gradients of a convolution and its norm.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvNormGrad {
    /// `[out, in / groups, kh, kw]`.
    pub weight: Vec<f32>,
    /// Scale and shift, `[out]` each.
    pub norm: [Vec<f32>; 2],
}

impl ConvNorm<'_> {
    /// `y = act(norm(conv(x)) + residual)` with `act` the identity or ReLU; `x` is
    /// `[batch, in, height, width]`, `y` and `residual` `[batch, out, height', width']`.
    ///
    /// # Panics
    /// If a length does not fit the shape, or the norm has but one value per channel.
    pub fn forward(
        &self,
        shape: &ConvShape,
        x: &[f32],
        residual: Option<&[f32]>,
        relu: bool,
        y: &mut [f32],
    ) -> (BatchStatistics, ConvNormSaved) {
        self.check(shape, x, y);
        if shape.is_depthwise() && residual.is_none() {
            let (statistics, saved) =
                depthwise::conv_bn_forward(shape, x, self.weight, self.norm, relu, y);
            return (statistics, ConvNormSaved(Saved::Depthwise { saved, relu }));
        }
        let mut map = buffer::take(shape.output_len());
        let found = conv::forward_with_stats(shape, x, self.weight, &mut map);
        let dims = shape.output_dims();
        let (closing, mut statistics) =
            Closing::forward(&[&map], &[found], &[self.norm], residual, relu, dims, y);
        let statistics = statistics.remove(0);
        (statistics, ConvNormSaved(Saved::Dense { map, closing }))
    }

    /// The gradients of the weight and the norm, and of input and residual where they are wanted,
    /// from that of `y`.
    ///
    /// # Panics
    /// If a length does not fit the shape.
    pub fn backward(
        &self,
        shape: &ConvShape,
        x: &[f32],
        y: &[f32],
        saved: &ConvNormSaved,
        grad: &[f32],
        [wants_input, wants_residual]: [bool; 2],
    ) -> (Option<Vec<f32>>, Option<Vec<f32>>, ConvNormGrad) {
        self.check(shape, x, y);
        assert_eq!(grad.len(), y.len(), "length of the output's gradient");
        let (map, closing) = match &saved.0 {
            Saved::Dense { map, closing } => (map, closing),
            Saved::Depthwise { saved, relu } => {
                let mut input = buffer::take(x.len());
                let output = relu.then_some(y);
                let (weight, norm) = (self.weight, self.norm);
                let block = depthwise::conv_bn_backward(
                    shape, x, output, grad, weight, norm, saved, &mut input,
                );
                return (wants_input.then(|| input.into_vec()), None, block);
            }
        };
        let dims = shape.output_dims();
        let mut closing = closing.backward(&[map], &[self.norm], y, grad, dims, wants_residual);
        let (norm, map_grad) = (closing.norms.remove(0), closing.maps.remove(0));
        let mut weight = vec![0.0; self.weight.len()];
        conv::backward_weight(shape, x, &map_grad, &mut weight);
        let input = wants_input.then(|| {
            let mut input = buffer::take(x.len());
            conv::backward_input(shape, &map_grad, self.weight, &mut input, false);
            input.into_vec()
        });
        (input, closing.residual.map(Buffer::into_vec), ConvNormGrad { weight, norm })
    }
    fn check(&self, shape: &ConvShape, x: &[f32], y: &[f32]) {
        let shape = Geometry::new(shape, x.len(), y.len()).with_weight(self.weight.len());
        self.norm.check(shape.out_channels);
        norm::check_count(shape.batch * shape.output_positions());
    }
}
