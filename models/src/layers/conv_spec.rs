//! The geometry of a convolution, shared by every block.

use burn::config::Config;
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::MaxPool2d;
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use dbb_kernels::ConvShape;

use crate::algebra::{ConvParams, Kernel};
use crate::error::ConfigError;

/// Channels, kernel, stride, padding and groups of a convolution. What stands in its place, a
/// plain convolution or a block that folds into one, is chosen apart, by
/// [`Block`](crate::blocks::Block).
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

    /// The geometry of an existing convolution, unless it has one that is not held here: dilation,
    /// or a padding that differs from side to side or follows from the input.
    pub(crate) fn find(conv: &Conv2d) -> Option<Self> {
        let [outputs, per_group, ..] = conv.weight.lazy_shape().dims::<4>();
        let spec = Self::new([per_group * conv.groups, outputs], conv.kernel_size)
            .with_stride(conv.stride)
            .with_padding(symmetric(&conv.padding)?)
            .with_groups(conv.groups);
        (conv.dilation == [1, 1]).then_some(spec)
    }

    /// The geometry of a convolution of a block.
    ///
    /// # Panics
    /// Where [`Self::find`] finds none: every constructor makes one that it does, but the
    /// convolution of a block is public.
    pub(crate) fn of(conv: &Conv2d) -> Self {
        Self::find(conv).unwrap_or_else(|| {
            panic!(
                "a block's convolution has no dilation and the same padding on both sides: {conv}"
            )
        })
    }

    /// The window of a max pool, as the geometry of a convolution over one channel, unless it has
    /// one that is not held here: as for [`Self::find`], or an output rounded up.
    pub(crate) fn find_max_pool(pool: &MaxPool2d) -> Option<Self> {
        let spec = Self::new([1, 1], pool.kernel_size)
            .with_stride(pool.stride)
            .with_padding(symmetric(&pool.padding)?);
        (pool.dilation == [1, 1] && !pool.ceil_mode).then_some(spec)
    }

    /// Whether every channel is convolved for itself (more than one channel, as many groups).
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.channels == [self.groups; 2]
    }

    /// Whether the output has the shape of the input, so that an identity can be added to it.
    pub fn keeps_shape(&self) -> bool {
        let [inputs, outputs] = self.channels;
        let centred = [0, 1].map(|axis| 2 * self.padding[axis] + 1);
        inputs == outputs && self.stride == [1, 1] && self.kernel_size == centred
    }

    /// The 1x1 convolution that reads the middle of every window whose padding is half of it.
    pub(crate) fn pointwise(&self) -> Self {
        Self { kernel_size: [1, 1], padding: [0, 0], ..self.clone() }
    }

    /// That the geometry exists and its window has a centre; returns its size.
    ///
    /// # Errors
    /// As [`Self::check`]; [`ConfigError::Kernel`] names the block.
    pub(crate) fn check_odd_square(&self, block: &'static str) -> Result<usize, ConfigError> {
        self.check()?;
        let [height, width] = self.kernel_size;
        if height != width || height.is_multiple_of(2) {
            return Err(ConfigError::Kernel { block, kernel: self.kernel_size });
        }
        Ok(height)
    }

    /// As [`Self::check_odd_square`], and that the centre of the window reads every position of the
    /// input that a 1x1 convolution reads.
    ///
    /// # Errors
    /// [`ConfigError::Padding`] names the block.
    pub(crate) fn check_centred(&self, block: &'static str) -> Result<(), ConfigError> {
        let kernel = self.check_odd_square(block)?;
        match self.padding == [kernel / 2; 2] {
            true => Ok(()),
            false => Err(ConfigError::Padding { block, kernel, padding: self.padding }),
        }
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

    /// The geometry over an input `[batch, channels, height, width]`, as the kernels take it.
    pub(crate) fn over(&self, [batch, _, height, width]: [usize; 4]) -> ConvShape {
        ConvShape {
            batch,
            in_channels: self.channels[0],
            out_channels: self.channels[1],
            input: [height, width],
            kernel: self.kernel_size,
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
        }
    }

    /// Whether the window is no larger than a padded map of the given height and width.
    pub(crate) fn fits(&self, input: [usize; 2]) -> bool {
        (0..2).all(|axis| input[axis] + 2 * self.padding[axis] >= self.kernel_size[axis])
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

/// The padding of height and width, if it is known and the same on both sides.
fn symmetric(padding: &PaddingConfig2d) -> Option<[usize; 2]> {
    match *padding {
        PaddingConfig2d::Valid => Some([0, 0]),
        PaddingConfig2d::Explicit(top, left, bottom, right) => {
            ([top, left] == [bottom, right]).then_some([top, left])
        }
        PaddingConfig2d::Same => None,
    }
}

/// Values of a weight.
pub(crate) fn weights(weight: &Param<Tensor<4>>) -> usize {
    weight.lazy_shape().num_elements()
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

#[cfg(test)]
mod tests {
    use burn::nn::pool::MaxPool2dConfig;

    use super::*;

    fn conv(change: impl Fn(Conv2dConfig) -> Conv2dConfig) -> Conv2d {
        let config = Conv2dConfig::new([2, 3], [3, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .with_bias(false);
        change(config).init(&Device::default())
    }

    #[test]
    fn a_geometry_comes_back() {
        let spec = ConvSpec::square([4, 6], 3, 2).with_groups(2);
        assert_eq!(ConvSpec::of(&spec.init_conv(&Device::default())), spec);
        let valid = conv(|config| config.with_padding(PaddingConfig2d::Valid));
        assert_eq!(ConvSpec::of(&valid), ConvSpec::new([2, 3], [3, 3]));
    }

    #[test]
    fn what_a_geometry_does_not_hold_is_not_lost() {
        let asymmetric = PaddingConfig2d::Explicit(1, 1, 2, 1);
        for conv in [
            conv(|config| config.with_dilation([2, 2])),
            conv(|config| config.with_padding(asymmetric.clone())),
            conv(|config| config.with_padding(PaddingConfig2d::Same)),
        ] {
            assert_eq!(ConvSpec::find(&conv), None);
        }
        let pool = MaxPool2dConfig::new([3, 3]);
        assert_eq!(
            ConvSpec::find_max_pool(&pool.clone().init()),
            Some(ConvSpec::new([1, 1], [3, 3]).with_stride([3, 3]))
        );
        for pool in [
            pool.clone().with_dilation([2, 2]),
            pool.clone().with_ceil_mode(true),
            pool.with_padding(asymmetric),
        ] {
            assert_eq!(ConvSpec::find_max_pool(&pool.init()), None);
        }
    }
}
