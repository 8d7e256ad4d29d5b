//! The forward pass itself.

use std::fmt::Display;

use burn::nn::pool::{AdaptiveAvgPool2d, MaxPool2d};
use burn::nn::{Dropout, Linear};
use burn::tensor::Tensor;
use dbb_kernels::profile;

use super::{Interpreter, one_by_one};
use crate::blocks::{Activation, ConvUnit, Epilogue, SqueezeExcite};
use crate::cpu_ops::{self, Blocked};
use crate::implementation::LayerCount;
use crate::layers::feature_map::FeatureMap;
use crate::operators::subsample;

/// Pixels of the images that go through the network at once in inference on a CPU: 4 images of 224x224.
/// The maps of more do not stay in the caches, and weights are read from memory for every part: ResNet-18
/// infers 0.91 times as many images per second in parts of 1, 0.98 of 2 and 0.85 of 8.
/// Tests have small images.
const PIXELS: usize = if cfg!(test) { 2 * 32 * 32 } else { 4 * 224 * 224 };

/// Runs the network on a batch, in inference on a CPU part by part and on a thread of the kernels.
pub(super) fn in_parts(
    images: Tensor<4>,
    forward: impl Fn(Tensor<4>) -> Tensor<2> + Sync,
) -> Tensor<2> {
    if images.device().is_autodiff() || !cpu_ops::serves(&images) {
        return forward(images);
    }
    let (logits, count) = cpu_ops::in_team(|| {
        let mut parts = parts(images).into_iter();
        // The units are counted once.
        let (first, count) = LayerCount::during(|| parts.next().map(&forward));
        let rest = parts.map(|part| LayerCount::during(|| forward(part)).0);
        (Tensor::cat(first.into_iter().chain(rest).collect(), 0), count)
    });
    count.add();
    logits
}

/// A batch in parts whose maps are not too large.
pub(crate) fn parts(images: Tensor<4>) -> Vec<Tensor<4>> {
    let [batch, _, height, width] = images.dims();
    let most = (PIXELS / (height * width).max(1)).max(1);
    match batch <= most {
        true => vec![images],
        false => images.split(batch.div_ceil(batch.div_ceil(most)), 0),
    }
}

/// The layer of a profile, where one is recorded.
fn enter(name: &dyn Display) -> profile::Span {
    profile::layer(|| name.to_string())
}

/// Computes every operation; keeps the map after each stage where it has a place for it.
#[derive(Default)]
pub(super) struct Forward {
    pub stage_maps: Option<Vec<Tensor<4>>>,
}

impl<'n> Interpreter<'n> for Forward {
    type Map = FeatureMap;
    type Features = Tensor<2>;

    fn unit(
        &mut self,
        name: &dyn Display,
        unit: &'n ConvUnit,
        input: FeatureMap,
        epilogue: Epilogue<FeatureMap>,
    ) -> FeatureMap {
        let _layer = enter(name);
        if let ConvUnit::Folded(conv) = unit
            && let Some(map) = Blocked::conv(conv, &input, &epilogue)
        {
            LayerCount::fast(1);
            return FeatureMap::Blocked(map);
        }
        let Epilogue { residual, activation } = epilogue;
        let epilogue = Epilogue { residual: residual.map(FeatureMap::into_tensor), activation };
        FeatureMap::Planes(unit.forward_then(input.into_tensor(), epilogue))
    }

    fn separable(
        &mut self,
        names: [&dyn Display; 2],
        units: [&'n ConvUnit; 2],
        input: FeatureMap,
        activation: Activation,
        epilogue: Epilogue<FeatureMap>,
    ) -> FeatureMap {
        if let [ConvUnit::Folded(depthwise), ConvUnit::Folded(pointwise)] = units {
            let _layer = enter(&format_args!("{} + {}", names[0], names[1]));
            let convs = [depthwise, pointwise];
            if let Some(map) = Blocked::separable(convs, &input, activation, &epilogue) {
                LayerCount::fast(2);
                return FeatureMap::Blocked(map);
            }
        }
        one_by_one(self, names, units, input, activation, epilogue)
    }

    fn max_pool(
        &mut self,
        name: &dyn Display,
        pool: &'n MaxPool2d,
        input: FeatureMap,
    ) -> FeatureMap {
        let _layer = enter(name);
        if let FeatureMap::Blocked(map) = &input
            && let Some(map) = map.max_pool(pool)
        {
            return FeatureMap::Blocked(map);
        }
        FeatureMap::Planes(cpu_ops::max_pool(pool, input.into_tensor()))
    }

    fn subsample(
        &mut self,
        name: &dyn Display,
        zero_channels: [usize; 2],
        input: FeatureMap,
    ) -> FeatureMap {
        let _layer = enter(name);
        FeatureMap::Planes(subsample(zero_channels, input.into_tensor()))
    }

    fn squeeze_excite(
        &mut self,
        name: &dyn Display,
        layer: &'n SqueezeExcite,
        input: FeatureMap,
    ) -> FeatureMap {
        let _layer = enter(name);
        match input {
            FeatureMap::Planes(input) => FeatureMap::Planes(layer.forward(input)),
            FeatureMap::Blocked(map) => {
                let means = map.means().unsqueeze_dims(&[2, 3]);
                FeatureMap::Blocked(map.scale(layer.weights(means)))
            }
        }
    }

    fn activation(
        &mut self,
        name: &dyn Display,
        activation: Activation,
        input: FeatureMap,
    ) -> FeatureMap {
        let _layer = enter(name);
        match input {
            FeatureMap::Planes(input) => FeatureMap::Planes(activation.forward(input)),
            FeatureMap::Blocked(map) => FeatureMap::Blocked(map.activation(activation)),
        }
    }

    fn stage(&mut self, _: usize, map: &FeatureMap) {
        if let Some(maps) = &mut self.stage_maps {
            maps.push(map.clone().into_tensor());
        }
    }

    fn means(
        &mut self,
        name: &dyn Display,
        pool: &'n AdaptiveAvgPool2d,
        input: FeatureMap,
    ) -> Tensor<2> {
        let _layer = enter(name);
        match input {
            FeatureMap::Blocked(map) if pool.output_size == [1, 1] => map.means(),
            input => pool.forward(input.into_tensor()).flatten(1, 3),
        }
    }

    fn dropout(&mut self, dropout: &'n Dropout, input: Tensor<2>) -> Tensor<2> {
        dropout.forward(input)
    }

    fn linear(
        &mut self,
        name: &dyn Display,
        linear: &'n Linear,
        input: Tensor<2>,
        activation: Option<Activation>,
    ) -> Tensor<2> {
        let _layer = enter(name);
        let output = cpu_ops::linear(linear, &input).unwrap_or_else(|| linear.forward(input));
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
