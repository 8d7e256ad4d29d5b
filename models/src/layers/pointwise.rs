//! The 1x1 convolution that opens the 1x1-KxK branch.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};

use super::conv_spec::{ConvSpec, host_kernel};
use crate::algebra::ConvParams;

/// A 1x1 convolution without bias; identity-based, `y = (I + W) x`, where it keeps the number
/// of channels (paper, section 3.3: `W` starts at zero, so that the branch starts as its KxK).
#[derive(Module, Debug)]
pub struct PointwiseConv {
    /// `W`, shape `[out, in / groups, 1, 1]`.
    pub weight: Param<Tensor<4>>,
    groups: usize,
    identity: bool,
}

impl PointwiseConv {
    /// A convolution from `inputs` to `outputs` channels, identity-based if they are equal.
    pub(crate) fn new(inputs: usize, outputs: usize, groups: usize, device: &Device) -> Self {
        let spec = ConvSpec::new([inputs, outputs], [1, 1]).with_groups(groups);
        let identity = inputs == outputs;
        let weight = if identity {
            Initializer::Zeros.init(spec.weight_shape(), device)
        } else {
            spec.init_conv(device).weight
        };
        Self { weight, groups, identity }
    }

    /// Whether the identity is added to the weight.
    pub fn is_identity_based(&self) -> bool {
        self.identity
    }

    /// `[batch, in, height, width]` to `[batch, out, height, width]`.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([1, 1], [0, 0], [1, 1], self.groups);
        conv2d(input, self.effective_weight(), None, options)
    }

    /// The equivalent kernel, the identity included, and a bias of zero.
    pub fn equivalent(&self) -> ConvParams {
        ConvParams::without_bias(host_kernel(self.effective_weight(), self.groups))
    }

    /// `I + W` or `W`. In the identity of a grouped convolution output `o` reads input
    /// `o mod (in / groups)` of its group, which is channel `o` itself.
    pub(crate) fn effective_weight(&self) -> Tensor<4> {
        let weight = self.weight.val();
        if !self.identity {
            return weight;
        }
        let [out, per_group, ..] = weight.dims();
        let identity = Tensor::<2>::eye(per_group, &weight.device()).repeat(&[self.groups, 1]);
        weight + identity.reshape([out, per_group, 1, 1])
    }
}
