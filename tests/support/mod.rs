//! What the tests share: arrays on the host and their comparison, random values for every tensor
//! of a module, and gradients by name.

#![allow(dead_code)] // each test file uses its part

pub mod fixture;
pub mod redraw;
pub mod reference;
pub mod sgd;

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use dbb_models::weights::{KeyMap, StateDict, is_constant};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Values of any rank on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn new(shape: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "values for shape {shape:?}");
        Self { shape: shape.to_vec(), data }
    }

    /// Uniform values from a range.
    pub fn random(shape: &[usize], range: [f64; 2], seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let values = (0..shape.iter().product()).map(|_| random.random_range(range[0]..range[1]));
        Self::new(shape, values.collect())
    }

    /// The values rounded to what a network of `f32` can hold.
    pub fn rounded(mut self) -> Self {
        self.data.iter_mut().for_each(|value| *value = f64::from(*value as f32));
        self
    }

    pub fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        let values: Vec<_> = self.data.iter().map(|&value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, self.shape.clone()), device)
    }

    pub fn max_abs(&self) -> f64 {
        self.data.iter().fold(0.0, |max, value| value.abs().max(max))
    }
}

impl From<&TensorData> for Array {
    fn from(data: &TensorData) -> Self {
        Self::new(data.shape(), data.iter::<f64>().collect())
    }
}

impl<const D: usize> From<Tensor<D>> for Array {
    fn from(tensor: Tensor<D>) -> Self {
        Self::from(&tensor.into_data())
    }
}

/// Largest absolute difference; infinite where a value is NaN.
///
/// # Panics
/// If the shapes differ.
pub fn difference(actual: &Array, expected: &Array) -> f64 {
    assert_eq!(actual.shape, expected.shape, "shapes of the compared values");
    largest_difference(actual.data.iter().zip(&expected.data))
}

pub fn largest_difference<'a>(pairs: impl Iterator<Item = (&'a f64, &'a f64)>) -> f64 {
    pairs.fold(0.0, |largest, (actual, expected)| {
        let difference = (actual - expected).abs();
        if difference.is_nan() { f64::INFINITY } else { largest.max(difference) }
    })
}

/// That two arrays agree within `tolerance` times the larger of `floor` and the largest expected
/// value; returns the difference in that measure.
#[track_caller]
pub fn assert_close(
    what: &str,
    actual: &Array,
    expected: &Array,
    tolerance: f64,
    floor: f64,
) -> f64 {
    assert_eq!(actual.shape, expected.shape, "{what}: shapes");
    let error = difference(actual, expected) / expected.max_abs().max(floor);
    assert!(error <= tolerance, "{what}: error {error:.2e}, tolerance {tolerance:.0e}");
    error
}

/// Largest errors by kind of check, for a table at the end of a test.
#[derive(Debug, Default)]
pub struct Worst(BTreeMap<String, (f64, String)>);

impl Worst {
    pub fn note(&mut self, kind: &str, error: f64, place: &str) {
        let worst = self.0.entry(kind.to_string()).or_default();
        if worst.1.is_empty() || error > worst.0 {
            *worst = (error, place.to_string());
        }
    }

    pub fn print(&self) {
        for (kind, (error, place)) in &self.0 {
            println!("{kind:<28} {error:9.2e}   {place}");
        }
    }
}

/// A state dict of the same keys and shapes with random values: scales of both signs, shifts,
/// means, variances, weights in proportion to their fan-in.
pub fn randomised(state: &StateDict, seed: u64) -> StateDict {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = |low: f64, high: f64| random.random_range(low..high) as f32;
    let mut randomise = |key: &str, data: &TensorData| {
        let shape = data.shape().to_vec();
        let fan_in: usize = shape.iter().skip(1).product();
        let bound = (3.0 / fan_in as f64).sqrt();
        let values: Vec<f32> = (0..data.num_elements())
            .map(|_| match key.rsplit('.').next() {
                Some("running_var") => uniform(0.1, 3.0),
                Some("running_mean" | "bias" | "beta") => uniform(-1.0, 1.0),
                Some("weight" | "gamma") if shape.len() == 1 => {
                    uniform(0.5, 1.5) * uniform(-1.0, 1.0).signum()
                }
                _ => uniform(-bound, bound),
            })
            .collect();
        TensorData::new(values, shape)
    };
    state.iter().map(|(key, data)| (key.clone(), randomise(key, data))).collect()
}

/// A module with random values in every tensor.
pub fn randomise<M: Module>(module: M, keys: &KeyMap, seed: u64) -> M {
    let state = randomised(&keys.save(&module), seed);
    keys.load(module, &state).expect("the keys are the module's own")
}

/// The gradients of a module's parameters under the names and in the layouts of `keys`; not a
/// number where a parameter has none.
pub fn gradients<M: Module>(module: &M, keys: &KeyMap, gradients: &Gradients) -> StateDict {
    struct Replace<'a>(&'a Gradients);
    impl ModuleMapper for Replace<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let value = param.val();
            let missing = || value.clone().inner().full_like(f32::NAN);
            Param::initialized(param.id, value.grad(self.0).unwrap_or_else(missing))
        }
    }
    let mut named = keys.save(&module.clone().map(&mut Replace(gradients)));
    let is_constant_field = |key: &str| key.contains(".constant_");
    named.retain(|key, _| !(is_statistic(key) || is_constant(key) || is_constant_field(key)));
    named
}

/// Whether a key names a running statistic.
pub fn is_statistic(key: &str) -> bool {
    key.ends_with(".running_mean") || key.ends_with(".running_var")
}

/// The ids of all parameters and statistics.
pub fn param_ids(module: &impl Module) -> Vec<ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id);
        }
    }
    let mut ids = Ids(Vec::new());
    module.visit(&mut ids);
    ids.0
}

/// Whether no tensor of a module is on an autodiff device.
pub fn is_on_inference_device(module: &impl Module) -> bool {
    struct Autodiff(bool);
    impl ModuleVisitor for Autodiff {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.val().is_autodiff();
        }
    }
    let mut autodiff = Autodiff(false);
    module.visit(&mut autodiff);
    !autodiff.0
}
