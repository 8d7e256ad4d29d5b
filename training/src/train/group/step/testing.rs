//! A network, batches and their gradients, for tests of members.

use super::super::testing::on_ranks;
use super::*;
use crate::inference::evaluate::cross_entropy;
use crate::train::gradients::number;
use dbb_models::{Arch, BlockKind, Form, ModelConfig};

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

/// The same with every other pixel, from the first or the second on, changed in its last bit.
pub fn nudged(images: usize, first: usize) -> Batch {
    let mut batch = batch(images);
    let every_other = batch.images.iter_mut().skip(first).step_by(2);
    every_other.for_each(|pixel| *pixel = f32::from_bits(pixel.to_bits() ^ 1));
    batch
}

pub fn network(form: Form, block: BlockKind) -> Classifier {
    let device = Device::flex().autodiff();
    device.seed(7);
    let config = ModelConfig { width: 0.5, ..ModelConfig::new(Arch::ResNet20, block, 5) };
    number(config.init(form, &device).unwrap())
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
