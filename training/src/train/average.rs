//! The moving average of a network.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use dbb_models::Classifier;

/// An exponential moving average of weights *and* running statistics, on the inference device.
///
/// After update `t`, counted from 1, `average = d average + (1 - d) value` with `d = min(decay,
/// (1 + t) / (10 + t))`: the short memory of the beginning forgets the initial weights
/// (TensorFlow's `ExponentialMovingAverage`).
pub struct Ema {
    /// The average.
    pub network: Classifier,
    pub(crate) decay: f64,
}

impl Ema {
    /// The average that begins with a network.
    pub fn new(network: &Classifier, decay: f64) -> Self {
        Self { network: network.valid(), decay }
    }

    /// Takes in a network after its optimizer step `step`, from 1.
    pub fn update(&mut self, network: &Classifier, step: usize) {
        let t = step as f64;
        let decay = self.decay.min((1.0 + t) / (10.0 + t));
        let mut values = Values(HashMap::new());
        network.valid().visit(&mut values);
        let mut average = Average { values: values.0, decay };
        self.network = self.network.clone().map(&mut average);
    }
}

/// All values by parameter identity, flattened.
struct Values(HashMap<ParamId, Tensor<1>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id, param.val().flatten(0, D - 1));
    }
}

struct Average {
    values: HashMap<ParamId, Tensor<1>>,
    decay: f64,
}

impl ModuleMapper for Average {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.remove(&param.id) {
            Some(value) => param.map(|average| {
                let value = value.reshape(average.dims());
                average.mul_scalar(self.decay) + value.mul_scalar(1.0 - self.decay)
            }),
            None => param,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use dbb_models::{Arch, BlockKind, Form, ModelConfig};

    use super::*;
    use crate::run::metrics::host;

    /// The network with values in proportion to `scale`, each with a factor of its own.
    fn filled(network: Classifier, scale: f64) -> Classifier {
        struct Fill {
            scale: f64,
            values: usize,
        }
        impl ModuleMapper for Fill {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| {
                    let (scale, first) = (self.scale, self.values);
                    self.values += tensor.dims().iter().product::<usize>();
                    // Multiples of the golden ratio: neighbours are far apart, and none are equal.
                    let factor = |index: usize| 0.5 + (0.618_034 * index as f64).fract();
                    let values: Vec<_> =
                        (first..self.values).map(|i| (scale * factor(i)) as f32).collect();
                    Tensor::from_data(TensorData::new(values, tensor.dims()), &tensor.device())
                })
            }
        }
        network.map(&mut Fill { scale, values: 0 })
    }

    /// The values of every parameter and statistic.
    fn values(network: &Classifier) -> HashMap<ParamId, Vec<f32>> {
        let mut values = Values(HashMap::new());
        network.visit(&mut values);
        values.0.into_iter().map(|(id, tensor)| (id, host(tensor.into_data()))).collect()
    }

    /// Every value, statistics among them, against the recursion in `f64`.
    #[test]
    fn every_weight_and_statistic_follows_the_recursion() {
        let model =
            ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Dbb, 4) };
        let network = model.init(Form::Train, &Device::default()).unwrap();
        let mut ema = Ema::new(&filled(network.clone(), 1.0), 0.5);
        let mut expected = 1.0;
        for (step, value) in [3.0, -2.0, 0.25, 8.0, 1.5, 7.0, 2.0, 2.0, 4.0].into_iter().enumerate()
        {
            ema.update(&filled(network.clone(), value), step + 1);
            let t = step as f64 + 1.0;
            let decay = f64::min(0.5, (1.0 + t) / (10.0 + t));
            expected = decay * expected + (1.0 - decay) * value;
        }
        let (found, expected) = (values(&ema.network), values(&filled(network, expected)));
        assert_eq!(found.len(), expected.len());
        assert!(found.values().map(Vec::len).sum::<usize>() > 10_000);
        for (id, expected) in expected {
            assert_eq!(found[&id].len(), expected.len());
            for (found, expected) in found[&id].iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
            }
        }
    }
}
