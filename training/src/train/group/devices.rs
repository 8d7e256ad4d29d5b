//! Devices of one process that train together, on Burn's collective operations.
//!
//! The first device, the leader, has the optimizer. It hands its network to the others before every
//! step, so that there is one state to save, and nothing that could drift apart.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use burn::module::Module;
use burn::tensor::distributed::{ReduceOperation, all_reduce};
use burn::tensor::{Device, Tensor};
use dbb_datasets::{Batch, parts};
use dbb_models::{Classifier, Implementation};

use super::Sum;
use super::step::{Forward, Gradients, gradients};
use crate::device::{self, DeviceError};
use crate::error::{Error, Result};

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

/// Burn's collective operations between devices.
#[derive(Clone)]
struct Collective(Vec<Device>);

impl Sum for Collective {
    fn sum(&self, own: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>> {
        let sum = |own: Tensor<1>| all_reduce(own, ReduceOperation::Sum, self.0.clone()).resolve();
        Ok(own.into_iter().map(sum).collect())
    }
}

/// What a device other than the leader receives: the network, its part, images of the batch.
type Task = (Classifier, Batch, usize);

/// A step of a whole group.
type Together = dyn Fn(&mut Classifier, &Batch) -> Result<Gradients> + Send;

/// Devices that train together.
pub(crate) struct Group(Box<Together>);

impl Group {
    /// A group of two or more devices, the first of which leads; every other one gets a thread
    /// that lives as long as the group.
    pub fn new(devices: &[Device], forward: Arc<Forward>) -> Self {
        let inner = devices.iter().map(|device| device.clone().inner()).collect();
        let sums = vec![Collective(inner); devices.len()];
        Self::with(devices, forward, sums)
    }

    /// A group with an engine for every device.
    fn with<S: Sum + Send + 'static>(
        devices: &[Device],
        forward: Arc<Forward>,
        sums: Vec<S>,
    ) -> Self {
        let mut members = devices.iter().map(|device| device.clone().autodiff()).zip(sums);
        // The caller names two devices or more, with as many engines.
        let (leader, sum) = members.next().expect("a group has a leader");
        let others: Vec<_> = members
            .map(|(device, sum)| {
                let (tasks, inbox) = channel::<Task>();
                let (outbox, answers) = channel::<Result<()>>();
                let forward = Arc::clone(&forward);
                let implementation = Implementation::current();
                thread::spawn(move || {
                    implementation.during(|| follow(&device, &*forward, &sum, &inbox, &outbox));
                });
                (tasks, answers)
            })
            .collect();
        Self(Box::new(move |network, batch| {
            let mut parts = parts(batch.len(), others.len() + 1).map(|part| batch.slice(part));
            let own = parts.next().unwrap_or_else(|| batch.slice(0..0));
            for ((tasks, _), part) in others.iter().zip(parts) {
                // A thread that is gone does not answer either, which is reported below.
                tasks.send((network.clone(), part, batch.len())).ok();
            }
            let together = gradients(network, &own, batch.len(), &leader, &*forward, &sum, None)?;
            for (index, (_, answers)) in others.iter().enumerate() {
                answers.recv().map_err(|_| {
                    Error::Unusable(format!(
                        "device {} of {} failed in this step, for the reason given above; hint: NCCL \
                         must be installed, and the device must have enough memory",
                        index + 2,
                        others.len() + 1
                    ))
                })??;
            }
            Ok(together)
        }))
    }

    /// Gradients of a batch. The network is on the leader.
    ///
    /// # Errors
    /// A device that fails.
    pub fn gradients(&self, network: &mut Classifier, batch: &Batch) -> Result<Gradients> {
        (self.0)(network, batch)
    }
}

/// Computes the parts it is sent until the channel closes.
fn follow(
    device: &Device,
    forward: &Forward,
    sum: &impl Sum,
    inbox: &Receiver<Task>,
    outbox: &Sender<Result<()>>,
) {
    for (network, part, images) in inbox {
        let mut network = network.fork(device);
        let done = gradients(&mut network, &part, images, device, forward, sum, None).map(|_| ());
        if outbox.send(done).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::step::testing::{batch, collected, forward, network};
    use super::super::testing::threads;
    use super::*;
    use dbb_models::{BlockKind, Form};

    /// Parts of a group are those of ranks, which are tested beside the step.
    #[test]
    fn a_group_computes_as_ranks_do() {
        let network = network(Form::Train, BlockKind::Base);
        let batch = batch(7);
        for members in [2, 3, 5] {
            let devices = vec![Device::flex(); members];
            let group = Group::with(&devices, Arc::new(forward), threads(members));
            let together = group.gradients(&mut network.clone(), &batch).unwrap();
            let found = collected(&network, together.gradients);
            let (expected, totals, _) =
                super::super::step::testing::on(members, &network, &batch, false);
            assert!(found == expected, "{members} devices");
            assert_eq!(together.totals, totals);
        }
    }

    #[test]
    fn devices_that_cannot_are_told() {
        let error = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            open(&names).unwrap_err().to_string()
        };
        assert!(error(&["flex", "flex"]).contains("collective"));
        assert!(error(&["cuda:0", "cuda:0"]).contains("twice"));
    }
}
