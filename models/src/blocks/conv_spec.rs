//! The geometry of a convolution, shared by every block.

use burn::config::Config;
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::MaxPool2d;
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};

use crate::algebra::{ConvParams, Kernel};
use crate::error::ConfigError;

/// Channels, kernel, stride, padding and groups of a convolution. What stands in its place, a
/// plain convolution or a block that folds into one, is chosen apart, by
/// [`Block`](super::Block).
#[derive(Config, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel height and width.
    pub kernel_size: [usize; 2],
    /// Stride over height and width.
    #[config(default = "[1, 1]")]
    pub stride: [usize; 2],
    /// Zero padding on both sides of height and width.
    #[config(default = "[0, 0]")]
    pub padding: [usize; 2],
    /// Groups; as many as channels for a depthwise convolution.
    #[config(default = 1)]
    pub groups: usize,
}

impl ConvSpec {
    /// A square `size` x `size` convolution with padding `size / 2`, as networks use it.
    pub fn square(channels: [usize; 2], size: usize, stride: usize) -> Self {
        Self::new(channels, [size; 2]).with_stride([stride; 2]).with_padding([size / 2; 2])
    }

    /// The geometry of an existing convolution with explicit, symmetric padding.
    pub(crate) fn of(conv: &Conv2d) -> Self {
        let [outputs, per_group, ..] = conv.weight.lazy_shape().dims::<4>();
        let padding = match conv.padding {
            PaddingConfig2d::Explicit(height, width, ..) => [height, width],
            _ => [0, 0],
        };
        Self::new([per_group * conv.groups, outputs], conv.kernel_size)
            .with_stride(conv.stride)
            .with_padding(padding)
            .with_groups(conv.groups)
    }

    /// The window of a max pool, as the geometry of a convolution over one channel.
    pub(crate) fn of_max_pool(pool: &MaxPool2d) -> Self {
        let padding = match pool.padding {
            PaddingConfig2d::Explicit(height, width, ..) => [height, width],
            _ => [0, 0],
        };
        Self::new([1, 1], pool.kernel_size).with_stride(pool.stride).with_padding(padding)
    }

    /// Whether every channel is convolved for itself (more than one channel, as many groups).
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.channels == [self.groups; 2]
    }

    /// Shape of the weight, `[out, in / groups, kh, kw]`.
    pub fn weight_shape(&self) -> [usize; 4] {
        let [inputs, outputs] = self.channels;
        [outputs, inputs / self.groups, self.kernel_size[0], self.kernel_size[1]]
    }

    /// Height and width of the output for an input of the given height and width.
    pub fn output_size(&self, input: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| {
            let padded = input[axis] + 2 * self.padding[axis];
            padded.saturating_sub(self.kernel_size[axis]) / self.stride[axis] + 1
        })
    }

    /// That such a convolution exists.
    ///
    /// # Errors
    /// [`ConfigError::Geometry`] on a zero or on groups that do not divide the channels.
    pub fn check(&self) -> Result<(), ConfigError> {
        let [inputs, outputs] = self.channels;
        let positive =
            self.channels.iter().chain(&self.kernel_size).chain(&self.stride).all(|&n| n > 0);
        let divides = |n: usize| self.groups > 0 && n.is_multiple_of(self.groups);
        if positive && divides(inputs) && divides(outputs) {
            return Ok(());
        }
        Err(ConfigError::Geometry {
            inputs,
            outputs,
            groups: self.groups,
            kernel: self.kernel_size,
            stride: self.stride,
        })
    }

    /// A convolution without bias, its weight drawn from the He normal distribution over the
    /// fan-out, as the ResNet paper does (He et al., ICCV 2015 and CVPR 2016).
    pub(crate) fn init_conv(&self, device: &Device) -> Conv2d {
        let [h, w] = self.padding;
        Conv2dConfig::new(self.channels, self.kernel_size)
            .with_stride(self.stride)
            .with_padding(PaddingConfig2d::Explicit(h, w, h, w))
            .with_groups(self.groups)
            .with_bias(false)
            .with_initializer(Initializer::KaimingNormal {
                gain: std::f64::consts::SQRT_2,
                fan_out_only: true,
            })
            .init(device)
    }

    /// The deploy convolution: kernel and bias of a fold in `f32` on `device`, with parameter
    /// ids of its own. Every folded convolution is made here.
    ///
    /// # Panics
    /// If the kernel has another shape than this geometry.
    pub(crate) fn folded_conv(&self, params: &ConvParams, device: &Device) -> Conv2d {
        assert_eq!(params.kernel.shape(), self.weight_shape(), "shape of the folded kernel");
        let to_f32 = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let weight = TensorData::new(to_f32(&params.kernel.data), self.weight_shape());
        let bias = TensorData::new(to_f32(&params.bias), [self.channels[1]]);
        let mut conv = self.init_conv(device);
        conv.weight = Param::from_tensor(Tensor::from_data(weight, device));
        conv.bias = Some(Param::from_tensor(Tensor::from_data(bias, device)));
        conv
    }
}

/// The values of a tensor on the host in `f64`.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The weight of a convolution on the host.
pub(crate) fn host_kernel(weight: Tensor<4>, groups: usize) -> Kernel {
    Kernel::new(weight.dims(), groups, host(weight))
}

/// Kernel and bias (zero where there is none) of a convolution on the host.
pub(crate) fn host_conv(conv: &Conv2d) -> ConvParams {
    let mut params = ConvParams::without_bias(host_kernel(conv.weight.val(), conv.groups));
    if let Some(bias) = &conv.bias {
        params.bias = host(bias.val());
    }
    params
}
