//! A network in 8 bits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use burn::tensor::Tensor;
use dbb_kernels::int8::LARGEST_SUM;

use super::layer::{Int8Layer, WeightRange};
use super::range::Ranges;
use super::simulation::{Shared, Simulation};
use crate::error::ConfigError;
use crate::layer_pattern;
use crate::operators::{Evaluator, Lowered};
use crate::walk::{Operation, Walk, parts};

/// A folded network with the ranges of its values: what computes in 8 bits, and what stays in `f32`.
pub struct Int8Network<'n, N: ?Sized> {
    pub(crate) network: &'n N,
    pub(crate) ranges: Rc<Ranges>,
    pub(crate) weights: WeightRange,
    float_layers: BTreeSet<String>,
    /// The integers of layers that have been computed, by name.
    layers: Rc<RefCell<BTreeMap<String, Rc<Int8Layer>>>>,
}

impl<'n, N: Walk + ?Sized> Int8Network<'n, N> {
    /// A network all of whose layers compute in 8 bits, with the ranges of its calibration.
    ///
    /// # Errors
    /// [`ConfigError::Sum`] if a layer adds more products than 32 bits hold.
    pub fn new(network: &'n N, ranges: Ranges, weights: WeightRange) -> Result<Self, ConfigError> {
        for (layer, products) in sums(network) {
            if products > LARGEST_SUM {
                return Err(ConfigError::Sum { layer, products, most: LARGEST_SUM });
            }
        }
        let layers = Rc::default();
        let ranges = Rc::new(ranges);
        Ok(Self { network, ranges, weights, float_layers: BTreeSet::new(), layers })
    }

    /// The same network with further layers in `f32`: those that fit one of the patterns, in which `*`
    /// stands for any text.
    ///
    /// # Errors
    /// [`ConfigError::Pattern`] for a pattern that fits no layer.
    pub fn with_float_layers(&self, patterns: &[String]) -> Result<Self, ConfigError> {
        let names = self.network.layer_names();
        let shown: Vec<_> = names.iter().map(String::as_str).collect();
        layer_pattern::check(patterns, &shown, "the network")?;
        let fits = |name: &String| patterns.iter().any(|p| layer_pattern::matches(p, name));
        let float_layers = self.float_layers.iter().cloned().chain(names.into_iter().filter(fits));
        Ok(Self {
            network: self.network,
            ranges: self.ranges.clone(),
            weights: self.weights,
            float_layers: float_layers.collect(),
            layers: self.layers.clone(),
        })
    }

    /// The layers that compute in 8 bits, in order of computation.
    pub fn int8_layers(&self) -> Vec<String> {
        let names = self.network.layer_names().into_iter();
        names.filter(|name| !self.float_layers.contains(name)).collect()
    }

    /// The layers that compute in `f32`.
    pub fn float_layers(&self) -> &BTreeSet<String> {
        &self.float_layers
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`, in integers on the host.
    ///
    /// # Panics
    /// If the images have another size than those of the calibration and a layer was not calibrated.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut simulation =
            Simulation::new(&self.ranges, self.weights, &self.layers, images.device());
        let forward = |part| self.run(&mut simulation, part).flatten::<2>(1, 3);
        Tensor::cat(parts(images).into_iter().map(forward).collect(), 0)
    }

    /// The logits of [`Int8Network::forward`], and for each of these layers what they are where it alone
    /// stays in `f32` as well. What comes before a layer is computed once.
    ///
    /// # Panics
    /// As [`Int8Network::forward`].
    pub fn forward_sparing(&self, images: Tensor<4>, layers: &[String]) -> Vec<Tensor<2>> {
        let mut logits = vec![Vec::new(); layers.len() + 1];
        for part in parts(images) {
            let shared = Shared::default();
            let spared = std::iter::once(None).chain(layers.iter().map(Some));
            for (spared, logits) in spared.zip(&mut logits) {
                let mut simulation =
                    Simulation::new(&self.ranges, self.weights, &self.layers, part.device())
                        .sharing(&shared);
                let is_float = |name: &str| {
                    self.float_layers.contains(name) || spared.is_some_and(|spared| spared == name)
                };
                let found = Lowered::run(self.network, &mut simulation, &is_float, part.clone());
                logits.push(found.flatten::<2>(1, 3));
            }
        }
        logits.into_iter().map(|parts| Tensor::cat(parts, 0)).collect()
    }

    /// Has an evaluator run it.
    pub(crate) fn run<E: Evaluator>(&self, evaluator: &mut E, images: E::Real) -> E::Real {
        Lowered::run(self.network, evaluator, &|name| self.float_layers.contains(name), images)
    }
}

/// The layers of a network and how many products an output of each adds.
fn sums(network: &(impl Walk + ?Sized)) -> impl Iterator<Item = (String, usize)> {
    network.operations().into_iter().map(|(name, operation)| match operation {
        Operation::Conv(unit) => {
            let [_, inputs, height, width] = unit.spec().weight_shape();
            (name, inputs * height * width)
        }
        Operation::Linear { inputs, .. } => (name, inputs),
    })
}
