//! Folded networks in inference: maps that stay in the channel-blocked layout from layer to layer.

use std::sync::Arc;

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::nn::pool::MaxPool2d;
use burn::tensor::Tensor;
use dbb_kernels::ConvShape;
use dbb_kernels::blocked::{self as kernel, Map, Source};

use super::conv::{activation, shape_of};
use super::operation::{FlexTensor, serves, slice, untracked, values};
use super::pool::shape_of_pool;
use super::prepared::prepared;
use crate::implementation::Implementation;
use crate::layers::activation::Activation;
use crate::layers::conv_spec::ConvSpec;
use crate::layers::epilogue::Epilogue;
use crate::layers::feature_map::FeatureMap;

/// A map in the channel-blocked layout.
#[derive(Clone, Debug)]
pub(crate) struct Blocked(Arc<Map>);

impl Blocked {
    /// `[batch, channels, height, width]`.
    pub fn to_tensor(&self) -> Tensor<4> {
        untracked(self.0.to_planes().into_vec(), self.0.dims())
    }

    /// The map, as it is or in this layout.
    fn of(map: &FeatureMap) -> Self {
        match map {
            FeatureMap::Blocked(map) => map.clone(),
            FeatureMap::Planes(tensor) => {
                let dims = tensor.dims();
                Self::new(Map::from_planes(slice(&values(tensor.clone())), dims))
            }
        }
    }

    fn new(map: Map) -> Self {
        Self(Arc::new(map))
    }

    /// A folded convolution and its epilogue, if a kernel serves them: not on an autodiff device.
    pub fn conv(
        conv: &Conv2d,
        input: &FeatureMap,
        epilogue: &Epilogue<FeatureMap>,
    ) -> Option<Self> {
        let shape = served(&ConvSpec::find(conv)?, input)?;
        let Parameters { weight, bias } = Parameters::of(conv);
        let weight = prepared(&shape, &weight)?;
        let residual = epilogue.residual.as_ref().map(Self::of);
        let epilogue = kernel::Epilogue {
            bias: bias.as_ref().map(slice),
            residual: residual.as_ref().map(|map| &*map.0),
            activation: activation(epilogue.activation),
        };
        Some(Self::new(if weight.reads_planes() {
            let planes = values(input.clone().into_tensor());
            kernel::convolve(&shape, Source::Planes(slice(&planes)), &weight, epilogue)
        } else {
            kernel::convolve(&shape, Source::Blocked(&Self::of(input).0), &weight, epilogue)
        }))
    }

    /// A folded depthwise convolution with an activation and the folded 1x1 convolution that reads it, with
    /// its epilogue, if a kernel serves them. The map between them is not stored.
    pub fn separable(
        [depthwise, pointwise]: [&Conv2d; 2],
        input: &FeatureMap,
        between: Activation,
        epilogue: &Epilogue<FeatureMap>,
    ) -> Option<Self> {
        let [first, second] = [ConvSpec::find(depthwise)?, ConvSpec::find(pointwise)?];
        let fits = first.channels[1] == second.channels[0];
        if !first.is_depthwise() || !fits || second != ConvSpec::square(second.channels, 1, 1) {
            return None;
        }
        let shape = served(&first, input)?;
        let [batch, _, height, width] = shape.output_shape();
        let second_shape = shape_of(&second, [batch, second.channels[0], height, width])?;
        let [first, second] = [depthwise, pointwise].map(Parameters::of);
        let filters = prepared(&shape, &first.weight)?;
        let weight = prepared(&second_shape, &second.weight)?;
        if weight.reads_planes() {
            return None;
        }
        let depthwise = kernel::Depthwise {
            shape,
            weight: &filters,
            bias: first.bias.as_ref().map(slice),
            activation: activation(Some(between)),
        };
        let residual = epilogue.residual.as_ref().map(Self::of);
        let epilogue = kernel::Epilogue {
            bias: second.bias.as_ref().map(slice),
            residual: residual.as_ref().map(|map| &*map.0),
            activation: activation(epilogue.activation),
        };
        let channels = second_shape.out_channels;
        let map = Self::of(input);
        Some(Self::new(kernel::convolve_separable(&depthwise, &map.0, channels, &weight, epilogue)))
    }

    /// The largest value of every window, if the kernel has them.
    pub fn max_pool(&self, pool: &MaxPool2d) -> Option<Self> {
        let shape = shape_of_pool(pool, self.0.dims())?;
        Some(Self::new(kernel::max_pool(&shape, &self.0)))
    }

    pub fn activation(&self, function: Activation) -> Self {
        Self::new(kernel::activate(&self.0, activation(Some(function))))
    }

    /// Every channel times its weight, `[batch, channels, 1, 1]`.
    pub fn scale(&self, weights: Tensor<4>) -> Self {
        Self::new(kernel::scale(&self.0, slice(&values(weights))))
    }

    /// The means over all positions, `[batch, channels]`.
    pub fn means(&self) -> Tensor<2> {
        let [batch, channels, ..] = self.0.dims();
        untracked(kernel::means(&self.0), [batch, channels])
    }
}

/// Most images of a linear layer that the kernel serves.
const FEW_IMAGES: usize = 8;

/// A linear layer of few images, if the kernel serves it: not on an autodiff device.
pub(crate) fn linear(linear: &Linear, input: &Tensor<2>) -> Option<Tensor<2>> {
    let batch = input.dims()[0];
    if batch > FEW_IMAGES || input.device().is_autodiff() || !serves(input) {
        return None;
    }
    let outputs = linear.weight.dims()[1];
    let [input, weight] = [input.clone(), linear.weight.val()].map(values);
    let bias = linear.bias.as_ref().map(|bias| values(bias.val()));
    let zeros = vec![0.0; outputs];
    let bias = bias.as_ref().map_or(&zeros[..], slice);
    Some(untracked(kernel::linear(slice(&input), slice(&weight), bias), [batch, outputs]))
}

/// Runs the layers of a network where the kernels reach the other threads sooner than from outside their pool,
/// with the implementation of this scope.
pub(crate) fn in_team<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let implementation = Implementation::current();
    kernel::in_team(|| implementation.during(work))
}

/// The geometry of a convolution over an input, if there is one, in inference.
fn served(spec: &ConvSpec, input: &FeatureMap) -> Option<ConvShape> {
    match input {
        FeatureMap::Planes(input) if input.device().is_autodiff() || !serves(input) => None,
        FeatureMap::Planes(input) => shape_of(spec, input.dims()),
        FeatureMap::Blocked(input) => shape_of(spec, input.0.dims()),
    }
}

struct Parameters {
    weight: FlexTensor,
    bias: Option<FlexTensor>,
}

impl Parameters {
    fn of(conv: &Conv2d) -> Self {
        Self {
            weight: values(conv.weight.val()),
            bias: conv.bias.as_ref().map(|bias| values(bias.val())),
        }
    }
}
