//! A network, batches and their gradients, for tests of members.

#[path = "../../../../../tests/support/redraw.rs"]
mod redraw;

use super::super::testing::on_ranks;
use super::*;
use crate::inference::evaluate::cross_entropy;
use crate::train::gradients::number;
use burn::module::ModuleMapper;
use dbb_models::{Arch, BlockKind, Form, ModelConfig};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

pub fn forward(network: &Classifier, batch: &Batch, device: &Device) -> (Tensor<2>, Tensor<1>) {
    let (images, targets) = batch.to_tensors(device);
    let logits = network.forward(images);
    (logits.clone(), cross_entropy(logits, targets, 0.1))
}

pub fn batch(images: usize) -> Batch {
    let pixel = |i: usize| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * 1.5;
    Batch {
        images: (0..images * 3 * 64).map(pixel).collect(),
        shape: [images, 3, 8, 8],
        labels: (0..images).map(|i| i * 3 % 5).collect(),
        indices: (0..images).collect(),
        mixed: None,
        skipped: Vec::new(),
    }
}

/// Pixels and weights with about half of their last bits changed, another half for each `trial`.
pub fn nudged(network: &Classifier, batch: &Batch, trial: u64) -> (Classifier, Batch) {
    let mut nudge = Nudge(ChaCha8Rng::seed_from_u64(trial));
    let mut batch = batch.slice(0..batch.len());
    batch.images.iter_mut().for_each(|pixel| *pixel = nudge.value(*pixel));
    (network.clone().map(&mut nudge), batch)
}

struct Nudge(ChaCha8Rng);

impl Nudge {
    fn value(&mut self, value: f32) -> f32 {
        f32::from_bits(value.to_bits() ^ u32::from(self.0.random_bool(0.5)))
    }
}

impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|tensor| {
            let values = host(tensor.clone().into_data());
            let values: Vec<_> = values.into_iter().map(|value| self.value(value)).collect();
            let data = TensorData::new(values, tensor.dims());
            Tensor::from_data(data, &tensor.device()).require_grad()
        })
    }
}

pub fn network(form: Form, block: BlockKind) -> Classifier {
    let config = ModelConfig { width: 0.5, ..ModelConfig::new(Arch::ResNet20, block, 5) };
    let network = config.init(form, &Device::flex().autodiff()).unwrap();
    number(redraw::redraw(network, 7))
}

struct Collect(Vec<Vec<f32>>, GradientsParams);

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.1.remove::<D>(param.id) {
            self.0.push(host(gradient.into_data()));
        }
    }
}

pub fn collected(network: &Classifier, gradients: GradientsParams) -> Vec<Vec<f32>> {
    let mut collect = Collect(Vec::new(), gradients);
    network.visit(&mut collect);
    assert!(collect.0.len() > 20);
    collect.0
}

pub fn statistics(network: &mut Classifier) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    each_statistic(network, &mut |norm| {
        all.push(host(norm.running_mean.value().into_data()));
        all.push(host(norm.running_var.value().into_data()));
    });
    all
}

pub fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    assert!(one.iter().chain(other).all(|value| value.is_finite()));
    one.iter().zip(other).fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

/// Largest difference, relative to the largest value of each list.
pub fn apart(one: &[Vec<f32>], other: &[Vec<f32>]) -> f64 {
    assert_eq!(one.len(), other.len());
    let relative = |(one, other): (&Vec<f32>, &Vec<f32>)| {
        let largest = one.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        f64::from(largest_difference(one, other) / largest)
    };
    one.iter().zip(other).map(relative).fold(0.0, f64::max)
}

/// Gradients, totals and running statistics of a batch on ranks, the same on all.
pub fn on(
    ranks: usize,
    network: &Classifier,
    batch: &Batch,
    synchronised: bool,
) -> (Vec<Vec<f32>>, Totals, Vec<Vec<f32>>) {
    let mut results = on_ranks(ranks, |ranks| {
        let mut network = network.clone();
        let device = Device::flex().autodiff();
        let part = batch.slice(ranks.share().range(batch.len()));
        let others = synchronised.then(|| Arc::new(ranks.clone()) as Arc<dyn GroupSum>);
        let Gradients { gradients, totals } =
            gradients(&mut network, &part, batch.len(), &device, &forward, &ranks, others).unwrap();
        (collected(&network, gradients), totals, statistics(&mut network))
    });
    let first = results.remove(0);
    assert!(results.iter().all(|other| *other == first), "ranks differ");
    first
}
