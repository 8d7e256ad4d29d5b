//! The forward pass itself.

use std::fmt::Display;

use burn::nn::pool::{AdaptiveAvgPool2d, MaxPool2d};
use burn::nn::{Dropout, Linear};
use burn::tensor::{Tensor, s};

use super::Interpreter;
use crate::blocks::{Activation, ConvUnit, Epilogue, SqueezeExcite};
use crate::cpu_ops;

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
