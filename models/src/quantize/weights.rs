//! Weights rounded to 8 bits, to measure what that costs.
//!
//! Symmetric: a weight `w` becomes `s * round(w / s)` with the scale `s = max |w| / 127`, one for a
//! whole tensor or one for every output channel. Biases and activations stay as they are. A kernel
//! folded from several branches has a wider spread of values than a plainly trained one, and loses
//! more.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use serde::Serialize;

/// What shares a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// The weights of a layer.
    PerTensor,
    /// The weights of an output channel of a layer.
    PerChannel,
}

impl Granularity {
    /// Every granularity.
    pub const ALL: [Self; 2] = [Self::PerTensor, Self::PerChannel];

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::PerTensor => "per-tensor",
            Self::PerChannel => "per-channel",
        }
    }
}

/// Largest magnitude of a symmetric 8-bit weight.
const LEVELS: f64 = 127.0;

/// A copy of a module whose weights are rounded to 8 bits: kernels `[out, in, height, width]` and
/// Burn's linear weights `[in, out]`. Fold a network first: batch norms stay as they are.
pub fn int8_weights<M: Module>(module: &M, granularity: Granularity) -> M {
    struct Rounding(Granularity);
    impl ModuleMapper for Rounding {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let output = match D {
                4 => 0,
                2 => 1,
                _ => return param,
            };
            param.map(|weight| round(weight, (self.0 == Granularity::PerChannel).then_some(output)))
        }
    }
    module.clone().map(&mut Rounding(granularity))
}

/// Rounds a weight with one scale for every index of `axis`, or one for all.
fn round<const D: usize>(weight: Tensor<D>, axis: Option<usize>) -> Tensor<D> {
    let mut largest = weight.clone().abs();
    for other in (0..D).filter(|other| Some(*other) != axis) {
        largest = largest.max_dim(other);
    }
    // Where all weights are zero every scale does.
    let scale = largest.clamp_min(f32::MIN_POSITIVE).div_scalar(LEVELS);
    (weight / scale.clone()).round() * scale
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::blocks::{Block, ConvSpec, ConvUnit};

    const KERNEL: [f32; 4] = [1.0, -0.3, 127.0, 0.7];

    #[test]
    fn a_kernel_has_a_scale_for_all_or_for_every_output() {
        let device = Device::default();
        let spec = ConvSpec::square([2, 2], 1, 1);
        let ConvUnit::Folded(mut conv) = ConvUnit::new(&spec, &Block::Folded, &device).unwrap()
        else {
            unreachable!("asked for")
        };
        let kernel = TensorData::new(KERNEL.to_vec(), [2, 2, 1, 1]);
        conv.weight = Param::from_tensor(Tensor::from_data(kernel, &device));
        let rounded = |granularity| {
            let conv = int8_weights(&conv, granularity);
            conv.weight.val().into_data().iter::<f32>().collect::<Vec<_>>()
        };
        assert_eq!(rounded(Granularity::PerTensor), [1.0, 0.0, 127.0, 1.0]);
        // The scale of the first output is 1 / 127; -0.3 lies nearest to -38 of them.
        let expected = [1.0, -38.0 / 127.0, 127.0, 1.0];
        for (found, expected) in rounded(Granularity::PerChannel).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
        }
        assert_eq!(conv.weight.val().into_data().iter::<f32>().collect::<Vec<_>>(), KERNEL);
    }

    #[test]
    fn the_outputs_of_a_linear_layer_are_its_columns() {
        let device = Device::default();
        let mut linear = LinearConfig::new(2, 2).init(&device);
        // Columns (1, 127) and (-0.3, 0).
        let weight = TensorData::new(vec![1.0f32, -0.3, 127.0, 0.0], [2, 2]);
        linear.weight = Param::from_tensor(Tensor::from_data(weight, &device));
        let rounded = int8_weights(&linear, Granularity::PerChannel).weight.val().into_data();
        let rounded: Vec<f32> = rounded.iter().collect();
        for (found, expected) in rounded.iter().zip([1.0, -0.3, 127.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
        }
    }
}
