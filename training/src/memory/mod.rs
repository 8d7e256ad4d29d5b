//! How much memory a training step, an evaluation or a measurement takes, estimated from the layers
//! of the network before anything is computed.
//!
//! The model has a few terms, with factors fitted to the peak resident memory of `dbb bench` on the
//! CPU backend flex (23 runs of training, 13 of inference: ResNets and MobileNets at 32 to 224
//! pixels, with the blocks base, dbb and acb; the other blocks are taken for acb). All of them were within a factor of 1.4 of the estimate; [`ACCURACY`] is
//! the factor that is promised.

use burn::tensor::Device;
use dbb_datasets::LoaderConfig;
use dbb_models::Implementation;
use dbb_models::summary::LayerSummary;
use serde::Serialize;

mod available;
mod limit;

pub use available::{available, peak};
pub use limit::Limit;

use crate::device;
use crate::error::Result;
use crate::text::thousands;

/// The memory that is really used is within this factor of the estimate.
pub const ACCURACY: f64 = 1.5;

/// Bytes of a value.
const VALUE: u64 = 4;

/// The program itself and its threads.
const PROGRAM: u64 = 30 << 20;

const MIB: f64 = (1 << 20) as f64;

/// Batches of images of one size.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// Images of a batch.
    pub images: usize,
    /// Channels, height and width of an image.
    pub shape: [usize; 3],
    /// Batches held at a time, including those read ahead.
    pub held: usize,
}

impl Batches {
    /// Batches held at a time by a loader with this many threads: those being built, the one in use
    /// and its copy on the device.
    pub fn held(workers: usize) -> usize {
        let ahead = if workers == 0 { 0 } else { workers.max(LoaderConfig::default().prefetch) };
        ahead + 2
    }

    fn bytes(&self) -> u64 {
        product([self.images, self.held].into_iter().chain(self.shape)).saturating_mul(VALUE)
    }
}

/// Copies of the parameters that training keeps.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// States of the optimizer: 1 for SGD's momentum, 2 for AdamW's moments.
    pub optimizer: usize,
    /// Whether there is an average of the weights.
    pub average: bool,
    /// Whether gradients of several batches are summed.
    pub accumulated: bool,
}

/// Memory in bytes, by what it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Weights, gradients, the optimizer's state and copies of the network.
    pub parameters: u64,
    /// Maps of the network, for the forward and the backward pass.
    pub maps: u64,
    /// Batches of images.
    pub batches: u64,
    /// The cache of images.
    pub cache: u64,
    /// The program itself.
    pub program: u64,
}

impl Estimate {
    /// A training step and the validation of a folded copy between steps, whichever takes more.
    pub fn training(
        layers: &[LayerSummary],
        batches: &Batches,
        copies: &Copies,
        device: &Device,
    ) -> Self {
        let kernels = device::is_flex(device) && Implementation::current() == Implementation::Fast;
        let trained = parameters(layers, |layer| layer.params_train);
        let folded = parameters(layers, |layer| layer.params_deploy);
        // Weights and gradients.
        let copies =
            2 + copies.optimizer as u64 + u64::from(copies.average) + u64::from(copies.accumulated);
        let kept = |layer| (elements(layer)[1] as f64 * kept_maps(layer, kernels)) as u64;
        let kept = sum(layers.iter().map(kept));
        // The gradients of a layer's maps during its backward pass.
        let maps = kept.saturating_add(largest(layers, |_| 3.0));
        Self {
            parameters: trained.saturating_mul(copies).saturating_add(folded),
            maps: maps.saturating_mul(VALUE).saturating_mul(batches.images as u64),
            batches: batches.bytes(),
            cache: 0,
            program: PROGRAM,
        }
    }

    /// A forward pass without gradients.
    pub fn inference(layers: &[LayerSummary], batches: &Batches) -> Self {
        let maps = largest(layers, working_maps);
        Self {
            // A folded copy may exist beside the network.
            parameters: parameters(layers, |layer| layer.params_train + layer.params_deploy),
            maps: maps.saturating_mul(VALUE).saturating_mul(batches.images as u64),
            batches: batches.bytes(),
            cache: 0,
            program: PROGRAM,
        }
    }

    /// Batches of images without a network.
    pub fn loading(batches: &Batches) -> Self {
        Self { batches: batches.bytes(), program: PROGRAM, ..Self::default() }
    }

    /// The same with a cache of `mib` MiB.
    pub fn with_cache(self, mib: usize) -> Self {
        Self { cache: (mib as u64).saturating_mul(1 << 20), ..self }
    }

    /// The total.
    pub fn bytes(&self) -> u64 {
        sum([self.parameters, self.maps, self.batches, self.cache, self.program])
    }

    /// Whether the cache of images takes more than everything else.
    pub fn is_mostly_cache(&self) -> bool {
        self.cache > self.bytes() / 2
    }

    /// Refuses what cannot fit on a CPU even if the estimate is too high by [`ACCURACY`]. Other
    /// devices have their own memory, of which nothing is known. `what` needs the memory, `lower`
    /// says what would need less.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn check(&self, device: &Device, what: &'static str, lower: &str) -> Result<()> {
        self.check_within(Limit::of(None, device), what, lower)
    }

    /// The same for data in the memory of the process, whatever the device.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn check_host(&self, what: &'static str, lower: &str) -> Result<()> {
        self.check_within(available().map(Limit::available), what, lower)
    }

    fn check_within(&self, limit: Option<Limit>, what: &'static str, lower: &str) -> Result<()> {
        match limit {
            Some(limit) if !limit.has_room_for(self) => Err(limit.error(what, self, lower.into())),
            _ => Ok(()),
        }
    }

    /// The sum and its parts in MiB.
    pub fn describe(&self) -> String {
        format!(
            "{} MiB of memory (maps {}, batches of images {}, weights and optimizer {}, cache of images {})",
            mib(self.bytes()),
            mib(self.maps),
            mib(self.batches),
            mib(self.parameters),
            mib(self.cache)
        )
    }
}

/// MiB, rounded up, with commas between the thousands.
pub(crate) fn mib(bytes: u64) -> String {
    thousands((bytes as f64 / MIB).ceil())
}

/// How many maps of the size of its output a layer keeps for the backward pass: the inputs of its
/// norm and activation and, in a block, the maps of its branches.
fn kept_maps(layer: &LayerSummary, kernels: bool) -> f64 {
    match (layer.block.as_str(), kernels) {
        ("linear", _) => 1.0,
        ("base", true) => 2.25,
        ("base", false) => 3.0,
        ("dbb", true) if is_depthwise(layer) => 2.25,
        ("dbb", true) => 4.5,
        ("dbb", false) => 11.0,
        _ => 5.5,
    }
}

/// How many maps of the size of its input and output together a layer holds at a time in inference.
fn working_maps(layer: &LayerSummary) -> f64 {
    match layer.block.as_str() {
        "folded" => 2.0,
        // In training form it is computed branch by branch.
        "dbb" if is_depthwise(layer) => 4.5,
        _ => 1.3,
    }
}

fn is_depthwise(layer: &LayerSummary) -> bool {
    layer.groups > 1
}

/// Values of a layer's input and output for one image.
fn elements(layer: &LayerSummary) -> [u64; 2] {
    let [height, width] = layer.output;
    let [above, beside] = layer.stride;
    let [inputs, outputs] = layer.channels;
    [product([inputs, height, above, width, beside]), product([outputs, height, width])]
}

/// The largest number of values in the input and output of a layer for one image, times a factor.
fn largest(layers: &[LayerSummary], factor: impl Fn(&LayerSummary) -> f64) -> u64 {
    layers
        .iter()
        .map(|layer| (sum(elements(layer)) as f64 * factor(layer)) as u64)
        .max()
        .unwrap_or(0)
}

fn parameters(layers: &[LayerSummary], count: impl Fn(&LayerSummary) -> usize) -> u64 {
    sum(layers.iter().map(|layer| count(layer) as u64)).saturating_mul(VALUE)
}

fn sum(parts: impl IntoIterator<Item = u64>) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

fn product(factors: impl IntoIterator<Item = usize>) -> u64 {
    factors.into_iter().fold(1, |product: u64, factor| product.saturating_mul(factor as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dbb_models::summary::{self, Summary};
    use dbb_models::{Arch, BlockKind, Form, ModelConfig};

    fn layers(arch: Arch, block: BlockKind, size: usize) -> Vec<LayerSummary> {
        Summary::new(&ModelConfig::new(arch, block, 1000), [size; 2]).unwrap().layers
    }

    const SGD: Copies = Copies { optimizer: 1, average: false, accumulated: false };

    fn ratio(estimate: Estimate, peak: u32) -> f64 {
        estimate.bytes() as f64 / MIB / f64::from(peak)
    }

    /// Architecture, block, images, pixels and the peak resident memory of `dbb bench`, MiB, with two
    /// threads on an AMD EPYC with AVX-512.
    #[test]
    fn ranks_of_a_machine_share_what_is_available_and_each_has_what_is_allowed() {
        assert_eq!(Limit::Available(900).shared_by(3), Limit::Available(300));
        assert_eq!(Limit::allowed(5).shared_by(3), Limit::allowed(5));
    }

    #[test]
    fn estimates_are_near_what_was_measured() {
        use Arch::*;
        use BlockKind::*;
        let training = [
            (ResNet20, Base, 128, 32, 260),
            (ResNet20, Base, 512, 32, 1031),
            (ResNet18Cifar, Base, 32, 32, 353),
            (ResNet18Cifar, Base, 128, 32, 939),
            (MobileNetV1, Base, 16, 96, 217),
            (MobileNetV1, Base, 16, 224, 813),
            (MobileNetV2, Base, 16, 224, 1497),
            (MobileNetV3Large, Base, 16, 224, 1030),
            (ResNet50, Base, 8, 160, 690),
            (ResNet18, Base, 16, 224, 677),
            (ResNet20, Dbb, 128, 32, 527),
            (ResNet20, Dbb, 512, 32, 1987),
            (ResNet18Cifar, Dbb, 32, 32, 715),
            (ResNet18Cifar, Dbb, 128, 32, 1821),
            (MobileNetV1, Dbb, 16, 96, 204),
            (MobileNetV1, Dbb, 16, 224, 818),
            (MobileNetV2, Dbb, 16, 224, 1477),
            (MobileNetV3Large, Dbb, 16, 224, 1018),
            (ResNet50, Dbb, 8, 160, 962),
            (ResNet18, Dbb, 16, 224, 1132),
            (ResNet20, Acb, 128, 32, 598),
            (MobileNetV1, Acb, 8, 128, 270),
            (ResNet18, Acb, 8, 160, 429),
        ];
        let inference = [
            (ResNet18, Base, Form::Deploy, 64, 224, 611),
            (MobileNetV1, Base, Form::Deploy, 64, 224, 560),
            (ResNet18, Base, Form::Train, 64, 224, 422),
            (MobileNetV1, Base, Form::Train, 64, 224, 389),
            (MobileNetV2, Base, Form::Deploy, 64, 224, 764),
            (ResNet20, Base, Form::Deploy, 512, 32, 195),
            (ResNet18, Dbb, Form::Deploy, 64, 224, 663),
            (MobileNetV1, Dbb, Form::Deploy, 64, 224, 563),
            (ResNet18, Dbb, Form::Train, 64, 224, 530),
            (MobileNetV1, Dbb, Form::Train, 64, 224, 1187),
            (MobileNetV2, Dbb, Form::Deploy, 64, 224, 765),
            (ResNet20, Dbb, Form::Deploy, 512, 32, 199),
            (ResNet18, Acb, Form::Train, 16, 160, 147),
        ];
        let mut ratios = Vec::new();
        for (arch, block, images, size, peak) in training {
            let batches = Batches { images, shape: [3, size, size], held: 2 };
            let layers = layers(arch, block, size);
            let estimate = Estimate::training(&layers, &batches, &SGD, &Device::default());
            ratios.push((format!("train {arch} {block} {images} {size}"), ratio(estimate, peak)));
        }
        for (arch, block, form, images, size, peak) in inference {
            let batches = Batches { images, shape: [3, size, size], held: 2 };
            let network =
                ModelConfig::new(arch, block, 1000).init(form, &Device::default()).unwrap();
            let estimate =
                Estimate::inference(&summary::layers(&network, [size; 2]).unwrap(), &batches);
            ratios.push((format!("infer {arch} {block} {images} {size}"), ratio(estimate, peak)));
        }
        let wrong = ratios.iter().filter(|(_, ratio)| !(1.0 / 1.4..1.4).contains(ratio));
        assert_eq!(wrong.collect::<Vec<_>>(), [] as [&(String, f64); 0]);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_numbers() {
        let batches = Batches { images: 64, shape: [3, 6000, 6000], held: 2 };
        let layers = layers(Arch::ResNet18, BlockKind::Dbb, 6000);
        let estimate = Estimate::training(&layers, &batches, &SGD, &Device::default());
        let check = |available: Option<u64>| {
            estimate.check_within(available.map(Limit::available), "a training step", "x")
        };
        let text = check(Some(16 << 30)).unwrap_err().to_string();
        for part in ["a training step needs about", "16,384 MiB are available", "lower x"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        check(Some(estimate.bytes())).unwrap();
        // Where the system does not tell, and on a device with memory of its own.
        check(None).unwrap();
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let batches = Batches { images: usize::MAX, shape: [3, 16_384, 16_384], held: 258 };
        let layers = layers(Arch::ResNet152, BlockKind::Dbb, 16_384);
        let estimate =
            Estimate::training(&layers, &batches, &SGD, &Device::default()).with_cache(usize::MAX);
        assert_eq!(estimate.bytes(), u64::MAX);
    }
}
