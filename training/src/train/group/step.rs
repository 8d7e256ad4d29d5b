//! The step of a member of a group: its part of a batch, and sums over all members.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use dbb_datasets::Batch;
use dbb_models::blocks::BatchNorm;
use dbb_models::{Classifier, GroupSum, Reparameterize, WholeBatch};

use super::Sum;
use crate::error::Result;
use crate::run::metrics::{Totals, host};

/// Logits `[batch, classes]` and mean loss of a batch.
pub(crate) type Forward =
    dyn Fn(&Classifier, &Batch, &Device) -> (Tensor<2>, Tensor<1>) + Send + Sync;

/// What a batch gives a step of the optimizer.
pub(crate) struct Gradients {
    /// Of the mean loss of the whole batch.
    pub gradients: GradientsParams,
    /// Loss and top-1 of the whole batch.
    pub totals: Totals,
}

/// Gradients of a batch of `images`, of which `part` is this member's.
///
/// The loss of the part is weighted by its number of images, so that the sum over the members is
/// the gradient of the mean loss of the whole batch, but for batch norm: a part is normalised by its
/// own mean and variance, and the running statistics of the network become the mean over the members,
/// by images. With `synchronised` members, batch norm takes the statistics of the whole batch. Either
/// way the running statistics are the same on all members after every batch.
///
/// A member without images computes the gradient of two black ones and weights it by zero: it takes
/// part in everything that the others wait for.
pub(crate) fn gradients(
    network: &mut Classifier,
    part: &Batch,
    images: usize,
    device: &Device,
    forward: &Forward,
    members: &impl Sum,
    synchronised: Option<Arc<dyn GroupSum>>,
) -> Result<Gradients> {
    let share = part.len() as f64 / images as f64;
    let stand_in = part.is_empty().then(|| part.black(2));
    let batch = stand_in.as_ref().unwrap_or(part);
    let statistics_differ = synchronised.is_none();
    let (logits, loss) = match synchronised {
        None => forward(network, batch, device),
        Some(members) => WholeBatch { images, counts: !part.is_empty(), members }
            .during(|| forward(network, batch, device)),
    };
    let mean = f64::from(host(loss.clone().into_data())[0]);
    let mut own = Totals::default();
    if !part.is_empty() {
        own.add(logits.detach(), part.main_labels(), mean);
    }
    let loss = loss.mul_scalar(share);
    let mut grads = Taken {
        from: GradientsParams::from_grads(loss.backward(), network),
        ids: Vec::new(),
        values: Vec::new(),
    };
    network.visit(&mut grads);
    let Taken { ids, mut values, .. } = grads;
    if part.is_empty() {
        // Synchronised norms gave the stand-ins a gradient.
        values = values.into_iter().map(|gradient| gradient.zeros_like()).collect();
    }
    let inner = device.clone().inner();
    let tensor = |values: Vec<f32>| {
        let len = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [len]), &inner)
    };
    let gradients = values.len();
    let mut weigh = |norm: &BatchNorm| {
        for statistic in [&norm.running_mean, &norm.running_var] {
            let values_of = host(statistic.value().into_data());
            let weighted = values_of.into_iter().map(|value| (f64::from(value) * share) as f32);
            values.push(tensor(weighted.collect()));
        }
    };
    if statistics_differ {
        each_statistic(network, &mut weigh);
    }
    // Counts are exact in f32: no batch has 16 million images.
    let (top1, top5) = own.hits();
    let loss = if part.is_empty() { 0.0 } else { mean * share };
    values.push(tensor(vec![loss as f32, top1 as f32, top5 as f32]));

    let mut sums = members.sum(values)?.into_iter();
    let summed: Vec<_> = sums.by_ref().take(gradients).collect();
    let mut put =
        Put { sums: ids.into_iter().zip(summed).peekable(), gradients: GradientsParams::new() };
    network.visit(&mut put);
    let gradients = put.gradients;
    let mut replace = |norm: &BatchNorm| {
        for statistic in [&norm.running_mean, &norm.running_var] {
            if let Some(sum) = sums.next() {
                let device = statistic.value().device();
                statistic.set(Tensor::from_data(sum.into_data(), &device));
            }
        }
    };
    if statistics_differ {
        each_statistic(network, &mut replace);
    }
    let counts = sums.next().map(|sum| host(sum.into_data())).unwrap_or_default();
    let [loss, top1, top5] = counts[..] else { unreachable!("as many sums as values") };
    let totals = Totals::of(images, f64::from(loss), top1 as usize, top5 as usize);
    Ok(Gradients { gradients, totals })
}

/// Every norm that takes batch statistics.
fn each_statistic(network: &mut Classifier, with: &mut dyn FnMut(&BatchNorm)) {
    network.each_unit(&mut |unit| {
        let norms = unit.norms_mut().into_iter().filter(|norm| norm.training.is_enabled());
        norms.for_each(|norm| with(norm));
    });
}

/// Takes the gradients in the order of the network, which is the same on every member.
struct Taken {
    from: GradientsParams,
    ids: Vec<ParamId>,
    values: Vec<Tensor<1>>,
}

impl ModuleVisitor for Taken {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.from.remove::<D>(param.id) {
            self.ids.push(param.id);
            self.values.push(gradient.flatten(0, D - 1));
        }
    }
}

/// Puts sums in the places of the gradients that were taken.
struct Put<I: Iterator<Item = (ParamId, Tensor<1>)>> {
    sums: std::iter::Peekable<I>,
    gradients: GradientsParams,
}

impl<I: Iterator<Item = (ParamId, Tensor<1>)>> ModuleVisitor for Put<I> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some((id, sum)) = self.sums.next_if(|(id, _)| *id == param.id) {
            self.gradients.register(id, sum.reshape(param.dims()));
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use dbb_datasets::parts;
    use dbb_models::{BlockKind, Form, Implementation};

    /// Without batch norm (folded, trained as plain convolutions) parts of any sizes give the
    /// gradient of the whole batch, ranks without images among them.
    #[test]
    fn the_gradient_is_that_of_the_whole_batch() {
        let network = network(Form::Deploy, BlockKind::Dbb);
        let batch = batch(7);
        let device = Device::flex().autodiff();
        let (logits, loss) = forward(&network, &batch, &device);
        let mean = f64::from(host(loss.clone().into_data())[0]);
        let single = GradientsParams::from_grads(loss.backward(), &network);
        let single = collected(&network, single);
        let mut expected = Totals::default();
        expected.add(logits, &batch.labels, mean);
        for ranks in 1..=5 {
            let (gradients, totals, _) = on(ranks, &network, &batch, false);
            let apart = apart(&single, &gradients);
            assert!(apart < 1e-4, "{ranks} ranks: {apart}");
            assert_eq!(totals.hits(), expected.hits());
            assert_eq!(totals.images(), 7);
            assert!((totals.loss() - mean).abs() < 1e-5 * mean);
        }
    }

    /// Each part has its own statistics: the gradient is the mean of those of the parts, by images,
    /// and so are the running statistics.
    #[test]
    fn statistics_are_those_of_the_parts() {
        let network = network(Form::Train, BlockKind::Base);
        let device = Device::flex().autodiff();
        for (images, ranks) in [(8, 2), (7, 3), (5, 4)] {
            let batch = batch(images);
            let mut expected: Option<[Vec<Vec<f32>>; 2]> = None;
            for part in parts(images, ranks).filter(|part| !part.is_empty()) {
                let part = batch.slice(part);
                let mut network = network.clone();
                let (_, loss) = forward(&network, &part, &device);
                let grads = GradientsParams::from_grads(loss.backward(), &network);
                let own = [collected(&network, grads), statistics(&mut network)];
                let share = part.len() as f32 / images as f32;
                let zero = own.each_ref().map(|of| of.iter().map(|v| vec![0.0; v.len()]).collect());
                let sum = expected.get_or_insert(zero);
                for (sum, own) in
                    sum.iter_mut().flatten().flatten().zip(own.iter().flatten().flatten())
                {
                    *sum += own * share;
                }
            }
            let [gradients, running] = expected.unwrap();
            let (found, _, statistics) = on(ranks, &network, &batch, false);
            assert!(apart(&gradients, &found) < 1e-4, "{}", apart(&gradients, &found));
            assert!(apart(&running, &statistics) < 1e-5, "{}", apart(&running, &statistics));
        }
    }

    /// Gradients and running statistics of parts are those of the whole batch, by the definition and
    /// by the kernels, ranks without images among them.
    ///
    /// The sums of parts are rounded otherwise, relative to their terms. Some gradients are small sums
    /// of large terms, or zero but for rounding: where a window covers the map, as in the last stage,
    /// the closing norm of an average branch cancels scale and shift of the opening one. How much is
    /// lost in each is measured by changes of the last bits of pixels and weights.
    #[test]
    fn synchronised_norms_are_those_of_the_whole_batch() {
        let device = Device::flex().autodiff();
        let whole = |network: &Classifier, batch: &Batch| {
            let mut network = network.clone();
            let (_, loss) = forward(&network, batch, &device);
            let grads = GradientsParams::from_grads(loss.backward(), &network);
            [collected(&network, grads), statistics(&mut network)]
        };
        let lists = |of: [Vec<Vec<f32>>; 2]| of.into_iter().flatten().collect::<Vec<_>>();
        for block in BlockKind::ALL {
            let network = network(Form::Train, block);
            for (images, ranks) in [(8, 2), (7, 3), (5, 4)] {
                let batch = batch(images);
                let kernels = lists(whole(&network, &batch));
                let (plain, nudged) = Implementation::Plain.during(|| {
                    let trial = |trial| {
                        let (network, batch) = nudged(&network, &batch, trial);
                        lists(whole(&network, &batch))
                    };
                    (lists(whole(&network, &batch)), [1, 2, 3, 4].map(trial))
                });
                let (gradients, _, statistics) = on(ranks, &network, &batch, true);
                let synchronised = lists([gradients, statistics]);
                for (list, expected) in plain.iter().enumerate() {
                    let largest = expected.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
                    let from = |other: &[Vec<f32>]| largest_difference(expected, &other[list]);
                    let lost =
                        nudged.each_ref().map(|other| from(other)).into_iter().fold(0.0, f32::max);
                    let bound = 2e-5 * largest + 10.0 * lost;
                    for (what, found) in [("parts", &synchronised), ("kernels", &kernels)] {
                        let apart = from(found);
                        assert!(
                            apart <= bound,
                            "{block}, {ranks} ranks, list {list}, {what}: {apart:e} of {largest:e}, \
                             bound {bound:e}"
                        );
                    }
                }
                // The test could not fail if the parts had the statistics of the whole.
                let (parted, ..) = on(ranks, &network, &batch, false);
                assert!(apart(&plain[..parted.len()], &parted) > 1e-2);
            }
        }
    }
}
