//! Gradients between the backward pass and the optimizer: accumulated, measured, clipped.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use dbb_models::descent::sum_of_squares;
use dbb_models::{Classifier, LayerPath};

use crate::run::metrics::host;

/// The gradient of the mean loss over the images of several batches.
pub struct Accumulator {
    /// Images of all batches, if every batch is full.
    planned: usize,
    images: usize,
    several: bool,
    sum: GradientsAccumulator<Classifier>,
}

impl Accumulator {
    /// For `batches` batches of `batch_size` images.
    pub fn new(batches: usize, batch_size: usize) -> Self {
        Self {
            planned: batches * batch_size,
            images: 0,
            several: batches > 1,
            sum: GradientsAccumulator::new(),
        }
    }

    /// Adds the gradient of the mean loss of a batch of `images`.
    pub fn add(&mut self, network: &Classifier, mut grads: GradientsParams, images: usize) {
        // Every image counts alike, whatever the size of its batch.
        if self.several {
            scale(&mut grads, network, images as f64 / self.planned as f64);
        }
        self.images += images;
        self.sum.accumulate(network, grads);
    }

    /// The gradient, or `None` if no batch had an image.
    pub fn finish(mut self, network: &Classifier) -> Option<GradientsParams> {
        let mut grads = self.sum.grads();
        if self.several && self.images != self.planned && self.images > 0 {
            scale(&mut grads, network, self.planned as f64 / self.images as f64);
        }
        (self.images > 0).then_some(grads)
    }
}

/// Euclidean norm of all gradients together.
pub fn global_norm(grads: &GradientsParams, network: &Classifier) -> f64 {
    struct Squares<'a> {
        grads: &'a GradientsParams,
        on_host: f64,
        on_device: Vec<Tensor<1>>,
    }
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(grad) = self.grads.get::<D>(param.id) else { return };
            match sum_of_squares(grad.clone()) {
                Some(sum) => self.on_host += sum,
                None => self.on_device.push((grad.clone() * grad).sum()),
            }
        }
    }
    let mut squares = Squares { grads, on_host: 0.0, on_device: Vec::new() };
    network.visit(&mut squares);
    let Squares { mut on_host, on_device, .. } = squares;
    if !on_device.is_empty() {
        // One transfer from the device for all.
        let sums = host(Tensor::cat(on_device, 0).into_data());
        on_host += sums.into_iter().map(f64::from).sum::<f64>();
    }
    on_host.sqrt()
}

/// Scales the gradients so that their [`global_norm`], which is `norm`, is at most `most`, as
/// PyTorch's `clip_grad_norm_` does.
pub fn clip(grads: &mut GradientsParams, network: &Classifier, norm: f64, most: f64) {
    let factor = most / (norm + 1e-6);
    if factor < 1.0 {
        scale(grads, network, factor);
    }
}

fn scale(grads: &mut GradientsParams, network: &Classifier, factor: f64) {
    struct Scale<'a> {
        grads: &'a mut GradientsParams,
        factor: f64,
    }
    impl ModuleVisitor for Scale<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.remove::<D>(param.id) {
                self.grads.register::<D>(param.id, grad.mul_scalar(self.factor));
            }
        }
    }
    network.visit(&mut Scale { grads, factor });
}

/// The first layer, in the order of the network, with a weight, a statistic or a gradient that is
/// not finite: its name and which of them.
pub fn first_non_finite(network: &Classifier, grads: Option<&GradientsParams>) -> Option<String> {
    struct Search<'a> {
        grads: Option<&'a GradientsParams>,
        path: LayerPath,
        found: Option<String>,
    }
    impl ModuleVisitor for Search<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.found.is_some() {
                return;
            }
            let bad = |tensor: Tensor<D>| {
                !host(tensor.sum().into_data()).iter().all(|value| value.is_finite())
            };
            let what = match self.grads {
                None if bad(param.val()) => "the value",
                Some(grads) if grads.get::<D>(param.id).is_some_and(bad) => "the gradient",
                _ => return,
            };
            self.found = Some(format!("{what} of {}", self.path.name()));
        }
    }
    let search = |grads| {
        let mut search = Search { grads, path: LayerPath::default(), found: None };
        network.visit(&mut search);
        search.found
    };
    search(None).or_else(|| grads.and_then(|grads| search(Some(grads))))
}

/// Numbers the parameters and statistics of a network in their order. Burn draws their
/// identities at random; with numbers, equal runs are equal files.
pub fn number(network: Classifier) -> Classifier {
    struct Number(u64);
    impl ModuleMapper for Number {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.0 += 1;
            let (_, value, mapper) = param.consume();
            Param::from_mapped_value(self.0.into(), value, mapper)
        }
    }
    network.map(&mut Number(0))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};
    use dbb_models::{Arch, BlockKind, Form, ModelConfig};

    use super::*;
    use crate::inference::evaluate::cross_entropy;

    fn network() -> Classifier {
        let model =
            ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, 4) };
        number(model.init(Form::Deploy, &Device::default().autodiff()).unwrap())
    }

    fn images(n: usize) -> (Tensor<4>, Tensor<1, Int>) {
        let device = Device::default().autodiff();
        let values = Tensor::<1, Int>::arange(0..(n * 3 * 64) as i64, &device).float();
        let labels = Tensor::<1, Int>::arange(0..n as i64, &device).remainder_scalar(4);
        ((values * 0.7).sin().reshape([n, 3, 8, 8]), labels)
    }

    fn flat(grads: &GradientsParams, network: &Classifier) -> Vec<f64> {
        struct All<'a>(&'a GradientsParams, Vec<f64>);
        impl ModuleVisitor for All<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let grad = self.0.get::<D>(param.id).map(|grad| host(grad.into_data()));
                self.1.extend(grad.into_iter().flatten().map(f64::from));
            }
        }
        let mut all = All(grads, Vec::new());
        network.visit(&mut all);
        all.1
    }

    /// A network without batch statistics, for which the mean over all images is the definition.
    #[test]
    fn batches_of_any_size_sum_to_the_gradient_of_the_whole() {
        let network = network();
        let (inputs, labels) = images(11);
        let whole = cross_entropy(network.forward(inputs.clone()), labels.clone(), 0.0);
        let whole = flat(&GradientsParams::from_grads(whole.backward(), &network), &network);
        let largest = whole.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        for parts in [vec![0..4, 4..8, 8..11], vec![0..6, 6..11]] {
            let mut sum = Accumulator::new(parts.len(), parts[0].len());
            for part in parts {
                let logits = network.forward(inputs.clone().slice([part.clone()]));
                let loss = cross_entropy(logits, labels.clone().slice([part.clone()]), 0.0);
                let grads = GradientsParams::from_grads(loss.backward(), &network);
                sum.add(&network, grads, part.len());
            }
            let sum = flat(&sum.finish(&network).unwrap(), &network);
            assert_eq!(sum.len(), whole.len());
            for (sum, whole) in sum.iter().zip(&whole) {
                assert!((sum - whole).abs() < 1e-5 * largest, "{sum} against {whole}");
            }
        }
        assert!(Accumulator::new(2, 4).finish(&network).is_none());
    }

    #[test]
    fn clipping_keeps_the_direction_and_bounds_the_norm_of_all() {
        let network = network();
        let (inputs, labels) = images(4);
        let loss = cross_entropy(network.forward(inputs), labels, 0.0);
        let mut grads = GradientsParams::from_grads(loss.backward(), &network);
        let before = flat(&grads, &network);
        let norm = before.iter().map(|value| value * value).sum::<f64>().sqrt();
        let measured = global_norm(&grads, &network);
        assert!((measured - norm).abs() < 1e-5 * norm, "{measured} against {norm}");
        clip(&mut grads, &network, norm, 2.0 * norm);
        assert_eq!(flat(&grads, &network), before);
        clip(&mut grads, &network, norm, 0.5 * norm);
        for (after, before) in flat(&grads, &network).iter().zip(&before) {
            assert!((after - 0.5 * before).abs() <= 1e-5 * before.abs(), "{after}, {before}");
        }
    }

    #[test]
    fn the_first_layer_that_is_no_number_is_named() {
        let network = network();
        let (inputs, labels) = images(4);
        let loss = cross_entropy(network.forward(inputs), labels, 0.0);
        let mut grads = GradientsParams::from_grads(loss.backward(), &network);
        assert_eq!(first_non_finite(&network, Some(&grads)), None);
        scale(&mut grads, &network, f64::INFINITY);
        let found = first_non_finite(&network, Some(&grads)).unwrap();
        assert!(found.starts_with("the gradient of stem"), "{found}");
    }
}
