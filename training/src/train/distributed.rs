//! One step on several devices: data-parallel training on Burn's collective operations.
//!
//! Every device computes the gradient of its part of the batch, `burn::tensor::distributed` sums
//! them, and the first device, the leader, steps. It hands its network to the others before every
//! step, so that there is one optimizer, one state to save, and nothing that could drift apart.
//!
//! The loss of a part is weighted by its number of images. The summed gradient is that of the mean
//! loss of the whole batch, but for batch norm: **statistics are per device**. A part is normalised
//! by its own mean and variance, and the running statistics that are kept are the leader's, as in
//! PyTorch's `DistributedDataParallel` without `SyncBatchNorm`.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::distributed::{ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor, TensorData};
use dbb_datasets::Batch;
use dbb_models::{Classifier, Implementation};

use crate::device::{self, DeviceError};
use crate::error::{Error, Result};
use crate::run::metrics::host;

/// The devices of a list such as `cuda:0,cuda:1`, without autodiff.
///
/// # Errors
/// A device that cannot be opened or is named twice, or a kind that has no collective operations:
/// Burn 0.22 has them for CUDA (NCCL) alone.
pub fn open(names: &[String]) -> std::result::Result<Vec<Device>, DeviceError> {
    for (i, name) in names.iter().enumerate() {
        let kind = name.split(':').next().unwrap_or_default();
        if names.len() > 1 && kind != "cuda" {
            return Err(DeviceError::Alone(name.clone()));
        }
        if names[..i].contains(name) {
            return Err(DeviceError::Twice(name.clone()));
        }
    }
    names.iter().map(|name| device::open(name)).collect()
}

/// Logits `[batch, classes]` and mean loss of a batch.
pub type Forward = dyn Fn(&Classifier, &Batch, &Device) -> (Tensor<2>, Tensor<1>) + Send + Sync;

/// The result of a step before the optimizer uses it.
pub struct Gradients {
    /// Of the mean loss of the whole batch, on the leader.
    pub gradients: GradientsParams,
    /// Logits of the whole batch, on the leader, in the batch's order.
    pub logits: Tensor<2>,
    /// Mean loss of the whole batch.
    pub loss: f64,
}

/// Sums a tensor over the devices of a group; each of them calls with its own in the same order.
trait Sum: Clone + Send + 'static {
    fn sum<const D: usize>(&self, own: Tensor<D>) -> Tensor<D>;
}

/// Burn's collective operations.
#[derive(Clone)]
struct Collective(Vec<Device>);

impl Sum for Collective {
    fn sum<const D: usize>(&self, own: Tensor<D>) -> Tensor<D> {
        all_reduce(own, ReduceOperation::Sum, self.0.clone()).resolve()
    }
}

/// What a device other than the leader receives, and what it returns: logits and weighted loss.
type Task = (Classifier, Batch, f64);
type Answer = (TensorData, f64);

/// A step of a whole group.
type Together = dyn Fn(&Classifier, &Batch) -> Result<Gradients> + Send;

/// Devices that train together.
pub struct Group(Box<Together>);

impl Group {
    /// A group of two or more devices, the first of which leads; every other one gets a thread
    /// that lives as long as the group.
    pub fn new(devices: &[Device], forward: Arc<Forward>) -> Self {
        let inner = devices.iter().map(|device| device.clone().inner()).collect();
        Self::with(devices, forward, Collective(inner))
    }

    fn with(devices: &[Device], forward: Arc<Forward>, sum: impl Sum + Sync) -> Self {
        let devices: Vec<_> = devices.iter().map(|device| device.clone().autodiff()).collect();
        let leader = devices[0].clone();
        let others: Vec<_> = devices[1..]
            .iter()
            .map(|device| {
                let (tasks, inbox) = channel::<Task>();
                let (outbox, answers) = channel::<Answer>();
                let (device, forward, sum) = (device.clone(), Arc::clone(&forward), sum.clone());
                let implementation = Implementation::current();
                thread::spawn(move || {
                    implementation.during(|| follow(&device, &*forward, &sum, &inbox, &outbox))
                });
                (tasks, answers)
            })
            .collect();
        Self(Box::new(move |network, batch| {
            let parts = parts(batch.len(), devices.len());
            if parts.iter().any(|part| part.len() < 2) {
                return Err(Error::Unusable(format!(
                    "a batch of {} images is too small for {} devices, each of which needs two for \
                     its batch statistics; hint: raise train.batch_size or name fewer devices",
                    batch.len(),
                    devices.len()
                )));
            }
            let task = |part: &Range<usize>| {
                (batch.slice(part.clone()), part.len() as f64 / batch.len() as f64)
            };
            for ((tasks, _), part) in others.iter().zip(&parts[1..]) {
                let (images, share) = task(part);
                // A thread that is gone does not answer either, which is reported below.
                tasks.send((network.clone(), images, share)).ok();
            }
            let (images, share) = task(&parts[0]);
            let (gradients, logits, mut loss) =
                compute(network, &images, share, &leader, &*forward, &sum);
            let mut all = vec![logits];
            for (index, (_, answers)) in others.iter().enumerate() {
                let (logits, share) = answers.recv().map_err(|_| {
                    Error::Unusable(format!(
                        "device {} of {} failed in this step, for the reason given above; hint: NCCL \
                         must be installed, and the device must have enough memory",
                        index + 2,
                        others.len() + 1
                    ))
                })?;
                all.push(Tensor::from_data(logits, &leader.clone().inner()));
                loss += share;
            }
            Ok(Gradients { gradients, logits: Tensor::cat(all, 0), loss })
        }))
    }

    /// Gradients of a batch. The network is on the leader.
    ///
    /// # Errors
    /// A batch of fewer than two images for a device; a device that fails.
    pub fn gradients(&self, network: &Classifier, batch: &Batch) -> Result<Gradients> {
        (self.0)(network, batch)
    }
}

/// Computes the parts it is sent until the channel closes.
fn follow(
    device: &Device,
    forward: &Forward,
    sum: &impl Sum,
    inbox: &Receiver<Task>,
    outbox: &Sender<Answer>,
) {
    for (network, batch, share) in inbox {
        let network = network.fork(device);
        let (_, logits, loss) = compute(&network, &batch, share, device, forward, sum);
        if outbox.send((logits.into_data(), loss)).is_err() {
            return;
        }
    }
}

/// The summed gradients, and of this part the logits and its share of the mean loss.
fn compute(
    network: &Classifier,
    batch: &Batch,
    share: f64,
    device: &Device,
    forward: &Forward,
    sum: &impl Sum,
) -> (GradientsParams, Tensor<2>, f64) {
    let (logits, loss) = forward(network, batch, device);
    let loss = loss.mul_scalar(share);
    let own = GradientsParams::from_grads(loss.clone().backward(), network);
    let mut visitor = Summing { own, summed: GradientsParams::new(), sum };
    network.visit(&mut visitor);
    (visitor.summed, logits.inner(), f64::from(host(loss.into_data())[0]))
}

/// Walks the parameters in the order of the network, which is the same on every device.
struct Summing<'a, S> {
    own: GradientsParams,
    summed: GradientsParams,
    sum: &'a S,
}

impl<S: Sum> ModuleVisitor for Summing<'_, S> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(own) = self.own.remove::<D>(param.id) {
            self.summed.register(param.id, self.sum.sum(own));
        }
    }
}

/// Ranges of a batch for the devices, as equal as possible, the larger ones first.
fn parts(images: usize, devices: usize) -> Vec<Range<usize>> {
    let bound = |i: usize| i * (images / devices) + i.min(images % devices);
    (0..devices).map(|i| bound(i)..bound(i + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::evaluate::cross_entropy;
    use dbb_models::{Arch, BlockKind, Form, ModelConfig};
    use std::sync::{Barrier, Mutex};

    /// Stands in for Burn's operations, which no CPU backend has: threads that wait for each other.
    #[derive(Clone)]
    struct Waiting(Arc<(Barrier, Mutex<Vec<f64>>)>);

    impl Waiting {
        fn new(devices: usize) -> Self {
            Self(Arc::new((Barrier::new(devices), Mutex::default())))
        }
    }

    impl Sum for Waiting {
        fn sum<const D: usize>(&self, own: Tensor<D>) -> Tensor<D> {
            let (barrier, total) = &*self.0;
            let (shape, device) = (own.dims(), own.device());
            let values = host(own.into_data());
            {
                let mut total = total.lock().unwrap();
                total.resize(values.len(), 0.0);
                total.iter_mut().zip(&values).for_each(|(t, v)| *t += f64::from(*v));
            }
            barrier.wait();
            let summed: Vec<f32> = total.lock().unwrap().iter().map(|v| *v as f32).collect();
            if barrier.wait().is_leader() {
                total.lock().unwrap().clear();
            }
            barrier.wait();
            Tensor::from_data(TensorData::new(summed, shape), &device)
        }
    }

    fn forward(network: &Classifier, batch: &Batch, device: &Device) -> (Tensor<2>, Tensor<1>) {
        let (images, targets) = batch.to_tensors(device);
        let logits = network.forward(images);
        (logits.clone(), cross_entropy(logits, targets, 0.1))
    }

    fn batch(images: usize) -> Batch {
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

    struct Collect(Vec<(burn::module::ParamId, Vec<f32>)>, GradientsParams);

    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.1.remove::<D>(param.id) {
                self.0.push((param.id, host(gradient.into_data())));
            }
        }
    }

    /// Largest difference of the loss and the gradients of a group to those of one device on the
    /// same batch, relative to the loss and to the largest value of each parameter's.
    fn difference(form: Form, block: BlockKind, batch: &Batch, devices: usize) -> f64 {
        let config = ModelConfig::new(Arch::ResNet20, block, 5);
        let device = Device::flex().autodiff();
        device.seed(7);
        let network = config.init(form, &device).unwrap();
        let (logits, loss) = forward(&network.clone(), batch, &device);
        let single = GradientsParams::from_grads(loss.clone().backward(), &network);
        let loss = f64::from(host(loss.into_data())[0]);

        let waiting = Waiting::new(devices);
        let group = Group::with(&vec![Device::flex(); devices], Arc::new(forward), waiting);
        let together = group.gradients(&network, batch).unwrap();
        let of_loss = (together.loss - loss).abs() / loss;
        assert_eq!(together.logits.dims(), logits.dims());
        let [single, together] = [single, together.gradients].map(|gradients| {
            let mut collect = Collect(Vec::new(), gradients);
            network.visit(&mut collect);
            collect.0
        });
        assert!(single.len() > 20 && single.len() == together.len());
        let relative = |(one, all): (&(_, Vec<f32>), &(_, Vec<f32>))| {
            let largest = one.1.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
            let apart = one.1.iter().zip(&all.1).map(|(a, b)| (a - b).abs());
            f64::from(apart.fold(0.0f32, f32::max) / largest)
        };
        single.iter().zip(&together).map(relative).fold(of_loss, f64::max)
    }

    /// Without batch norm (folded, trained as plain convolutions) parts of any sizes give the
    /// gradient of the whole batch: 7 images on 3 devices are 3, 2 and 2.
    #[test]
    fn the_gradient_is_that_of_the_whole_batch() {
        assert_eq!(parts(7, 3), [0..3, 3..5, 5..7]);
        let apart = difference(Form::Deploy, BlockKind::Dbb, &batch(7), 3);
        assert!(apart < 1e-4, "{apart}");
    }

    /// With it, where the parts have the statistics of the whole; and not where they differ, which
    /// is the rule. (The border of a DBB holds running variances, whose m/(m-1) knows the size of
    /// the part.)
    #[test]
    fn statistics_are_per_device() {
        let half = batch(4);
        let twice = Batch {
            images: half.images.repeat(2),
            shape: [8, 3, 8, 8],
            labels: half.labels.repeat(2),
            indices: (0..8).collect(),
            mixed: None,
            skipped: Vec::new(),
        };
        let equal = difference(Form::Train, BlockKind::Base, &twice, 2);
        let other = difference(Form::Train, BlockKind::Base, &batch(8), 2);
        assert!(equal < 1e-3, "{equal}");
        assert!(other > 1e-2, "{other}");
    }

    #[test]
    fn too_few_images_and_devices_that_cannot_are_told() {
        let network = ModelConfig::new(Arch::ResNet20, BlockKind::Base, 5);
        let network = network.init(Form::Train, &Device::flex().autodiff()).unwrap();
        let group =
            Group::with(&[Device::flex(), Device::flex()], Arc::new(forward), Waiting::new(2));
        let error = group.gradients(&network, &batch(3)).err().unwrap().to_string();
        assert!(error.contains("3 images") && error.contains("train.batch_size"), "{error}");
        let error = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            open(&names).unwrap_err().to_string()
        };
        assert!(error(&["flex", "flex"]).contains("collective"));
        assert!(error(&["cuda:0", "cuda:0"]).contains("twice"));
    }
}
