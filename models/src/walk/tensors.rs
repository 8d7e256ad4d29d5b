//! The forward pass itself.

use std::fmt::Display;

use burn::nn::pool::{AdaptiveAvgPool2d, MaxPool2d};
use burn::nn::{Dropout, Linear};
use burn::tensor::{Tensor, s};

use super::Interpreter;
use crate::blocks::{Activation, ConvUnit, Epilogue, SqueezeExcite};
use crate::cpu_ops;
use crate::implementation::LayerCount;

/// Pixels of the images that go through the network at once in inference on a CPU: 8 images of 224x224.
/// The maps of more do not stay in the caches and in memory that is reused: MobileNetV2 infers 1.4 times
/// as many images per second with 8 as with 32.
/// Tests have small images.
const PIXELS: usize = if cfg!(test) { 2 * 32 * 32 } else { 8 * 224 * 224 };

/// Runs the network on a batch, in inference on a CPU part by part.
pub(super) fn in_parts(
    images: Tensor<4>,
    mut forward: impl FnMut(Tensor<4>) -> Tensor<2>,
) -> Tensor<2> {
    let [batch, _, height, width] = images.dims();
    let most = (PIXELS / (height * width).max(1)).max(1);
    if batch <= most || images.device().is_autodiff() || !cpu_ops::serves(&images) {
        return forward(images);
    }
    let size = batch.div_ceil(batch.div_ceil(most));
    let mut parts = images.split(size, 0).into_iter();
    let first = parts.next().map(&mut forward);
    // The units are counted once.
    let rest = parts.map(|part| LayerCount::during(|| forward(part)).0);
    Tensor::cat(first.into_iter().chain(rest).collect(), 0)
}

/// Computes every operation; keeps the map after each stage where it has a place for it.
#[derive(Default)]
pub(super) struct Forward {
    pub stage_maps: Option<Vec<Tensor<4>>>,
}

impl<'n> Interpreter<'n> for Forward {
    type Map = Tensor<4>;
    type Features = Tensor<2>;

    fn unit(
        &mut self,
        _: &dyn Display,
        unit: &'n ConvUnit,
        input: Tensor<4>,
        epilogue: Epilogue,
    ) -> Tensor<4> {
        unit.forward_then(input, epilogue)
    }

    fn separable(
        &mut self,
        _: [&dyn Display; 2],
        [depthwise, pointwise]: [&'n ConvUnit; 2],
        input: Tensor<4>,
        activation: Activation,
        epilogue: Epilogue,
    ) -> Tensor<4> {
        ConvUnit::forward_separable([depthwise, pointwise], input, activation, epilogue)
    }

    fn max_pool(&mut self, _: &dyn Display, pool: &'n MaxPool2d, input: Tensor<4>) -> Tensor<4> {
        cpu_ops::max_pool(pool, input)
    }

    fn subsample(
        &mut self,
        _: &dyn Display,
        zero_channels: [usize; 2],
        input: Tensor<4>,
    ) -> Tensor<4> {
        let map = input.slice(s![.., .., ..;2, ..;2]);
        let [batch, _, height, width] = map.dims();
        let [before, after] = zero_channels.map(|channels| {
            let zeros = || Tensor::zeros([batch, channels, height, width], &map.device());
            (channels > 0).then(zeros)
        });
        Tensor::cat([before, Some(map), after].into_iter().flatten().collect(), 1)
    }

    fn squeeze_excite(
        &mut self,
        _: &dyn Display,
        layer: &'n SqueezeExcite,
        input: Tensor<4>,
    ) -> Tensor<4> {
        layer.forward(input)
    }

    fn activation(
        &mut self,
        _: &dyn Display,
        activation: Activation,
        input: Tensor<4>,
    ) -> Tensor<4> {
        activation.forward(input)
    }

    fn stage(&mut self, _: usize, map: &Tensor<4>) {
        if let Some(maps) = &mut self.stage_maps {
            maps.push(map.clone());
        }
    }

    fn means(
        &mut self,
        _: &dyn Display,
        pool: &'n AdaptiveAvgPool2d,
        input: Tensor<4>,
    ) -> Tensor<2> {
        pool.forward(input).flatten(1, 3)
    }

    fn dropout(&mut self, dropout: &'n Dropout, input: Tensor<2>) -> Tensor<2> {
        dropout.forward(input)
    }

    fn linear(
        &mut self,
        _: &dyn Display,
        linear: &'n Linear,
        input: Tensor<2>,
        activation: Option<Activation>,
    ) -> Tensor<2> {
        let output = linear.forward(input);
        match activation {
            Some(activation) => activation.forward(output),
            None => output,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::blocks::BlockKind;
    use crate::walk::Walk;
    use crate::{Arch, Form, ModelConfig};

    #[test]
    fn images_in_parts_are_images_one_by_one() {
        let device = Device::default();
        let config =
            ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, 10) };
        let network = config.init(Form::Deploy, &device).unwrap();
        let images = Tensor::random([5, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device);
        let (whole, count) = LayerCount::during(|| network.forward(images.clone()));
        assert_eq!(whole.dims(), [5, 10]);
        assert_eq!(count, LayerCount { fast: network.units().len(), plain: 0 });
        for (index, image) in images.split(1, 0).into_iter().enumerate() {
            let expected = network.forward(image);
            let difference = (whole.clone().narrow(0, index, 1) - expected.clone()).abs().max();
            let [difference, largest] =
                [difference, expected.abs().max()].map(|value| value.into_scalar::<f32>());
            assert!(difference <= 1e-5 * largest, "image {index}: {difference} of {largest}");
        }
    }
}
