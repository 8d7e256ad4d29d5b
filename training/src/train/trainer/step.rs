//! One step of the optimizer: batches, their gradients, the update.

use std::sync::Arc;
use std::time::Instant;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use dbb_datasets::{Batch, DataError, Epoch, label_tensor};
use dbb_models::{Classifier, GroupSum};
use serde::{Deserialize, Serialize};

use super::Trainer;
use crate::device::on_pool;
use crate::error::{Error, Result};
use crate::inference::evaluate::cross_entropy;
use crate::run::directory::CheckpointId;
use crate::run::metrics::{Totals, host};
use crate::run::steps::StepPoint;
use crate::run::tensorboard::TensorBoard;
use crate::train::checkpoint::RunState;
use crate::train::gradients::{self, Accumulator};
use crate::train::group::step::{self, Gradients};
use crate::train::observer::{Observer, Step};
use crate::train::schedule::Schedule;

/// Fewest images that are trained on together: a single one has no variance where the map is a
/// single position.
const SMALLEST_PART: usize = 2;

/// What a rank says of its part of a batch.
#[derive(Serialize, Deserialize)]
struct Part {
    /// Images to train on.
    images: usize,
    /// An image left out because it is alone.
    alone: usize,
    /// Why images could not be read.
    unread: Vec<String>,
}

impl Part {
    fn of(batch: &Batch) -> Self {
        let enough = batch.len() >= SMALLEST_PART;
        let (images, alone) = if enough { (batch.len(), 0) } else { (0, batch.len()) };
        Self { images, alone, unread: batch.skipped.iter().map(DataError::to_string).collect() }
    }
}

impl Trainer {
    /// One step of the optimizer, on `train.accumulate` batches or what is left of the epoch.
    pub(super) fn step(
        &mut self,
        batches: &mut Epoch,
        schedule: &Schedule,
        board: &mut Option<TensorBoard>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let started = Instant::now();
        let group = self.config.train.accumulate.min(batches.len());
        let mut gradient = Accumulator::new(group, self.train.batch_size());
        let (mut losses, mut images) = (0.0, 0);
        let mut waited = 0.0;
        for _ in 0..group {
            let waiting = Instant::now();
            // Every rank has a part of every batch.
            let Some(batch) = batches.next() else { break };
            waited += waiting.elapsed().as_secs_f64();
            let (batch, parts) = self.ranks.agree_and_say(batch.map_err(Error::from), Part::of)?;
            let unread: Vec<_> = parts.iter().flat_map(|part| part.unread.clone()).collect();
            self.left_out(&unread, observer)?;
            self.seed_forward();
            let progress = &mut self.state.progress;
            progress.partial.skipped += unread.len();
            progress.partial.skipped += parts.iter().map(|part| part.alone).sum::<usize>();
            progress.mark.batch += 1;
            let whole = parts.iter().map(|part| part.images).sum();
            if whole == 0 {
                continue;
            }
            let Gradients { gradients: grads, totals } = self.gradients(batch, whole)?;
            let mean = totals.loss();
            if !mean.is_finite() {
                return Err(self.non_finite("loss", mean, Some(&grads)));
            }
            self.state.progress.partial.totals.join(&totals);
            gradient.add(&self.state.network, grads, whole);
            losses += mean * whole as f64;
            images += whole;
        }
        let RunState { network, ema, optimizer, progress } = &mut self.state;
        let Some(mut grads) = gradient.finish(network) else { return Ok(()) };
        // `GradientsParams` is `Send` and not `Sync`: the pool borrows it exclusively.
        let (all, parameters) = (&mut grads, &*network);
        let norm = move || gradients::global_norm(all, parameters);
        let grad_norm = on_pool(&self.device, norm);
        if !grad_norm.is_finite() {
            return Err(self.non_finite("gradient", grad_norm, Some(&grads)));
        }
        if let Some(most) = self.config.train.clip_norm {
            gradients::clip(&mut grads, network, grad_norm, most);
        }
        let rollbacks = i32::try_from(progress.rollbacks).unwrap_or(i32::MAX);
        let lr = schedule.lr(progress.step) * self.config.train.rollback_lr.powi(rollbacks);
        *network = on_pool(&self.device, || optimizer.step(network, grads, lr));
        progress.step += 1;
        if let Some(ema) = ema {
            ema.update(network, progress.step);
        }
        let step_loss = losses / images as f64;
        let partial = &mut progress.partial;
        if let Some(mean) = progress.spikes.add(step_loss) {
            partial.spikes += 1;
            observer.note(&format!(
                "the loss jumped to {step_loss:.4} at step {}, from a mean of {mean:.4}",
                progress.step
            ));
        }
        let point = StepPoint { step: progress.step, loss: step_loss, lr, grad_norm };
        if let Some(board) = board {
            board.step(&point)?;
        }
        progress.steps.add(point);
        partial.lr = lr;
        partial.loader_seconds += waited;
        let seconds = started.elapsed().as_secs_f64();
        partial.seconds += seconds;
        observer.step(&Step {
            epoch: progress.mark.epoch + 1,
            step: progress.mark.batch.div_ceil(self.config.train.accumulate),
            run_step: progress.step,
            lr,
            step_loss,
            grad_norm,
            loss: partial.totals.loss(),
            top1: partial.totals.top1(),
            images: partial.totals.images(),
            images_per_second: partial.totals.images() as f64 / partial.seconds,
        });
        if let Some(left) = self.pace(seconds) {
            observer.note(&left);
        }
        Ok(())
    }

    /// Gradients and totals of a batch of `images`, of which this rank has a part: on one device or
    /// several.
    fn gradients(&mut self, part: Batch, images: usize) -> Result<Gradients> {
        let network = &mut self.state.network;
        if let Some(group) = &self.group {
            return group.gradients(network, &part);
        }
        let smoothing = self.config.train.label_smoothing;
        if self.ranks.size() > 1 {
            let part = if part.len() < SMALLEST_PART { part.slice(0..0) } else { part };
            let forward = move |network: &Classifier, batch: &Batch, device: &Device| {
                forward(network, batch, device, smoothing)
            };
            let (device, ranks) = (&self.device, &self.ranks);
            let others = self.config.train.sync_batch_norm;
            let others = others.then(|| Arc::new(ranks.clone()) as Arc<dyn GroupSum>);
            return step::gradients(network, &part, images, device, &forward, ranks, others);
        }
        let (gradients, logits, mean) = gradients_of(network, &part, &self.device, smoothing);
        let mut totals = Totals::default();
        totals.add(logits, part.main_labels(), mean);
        Ok(Gradients { gradients, totals })
    }

    /// Dropout draws from the device's random stream. It is seeded for every batch, so that a
    /// resumed run draws what the uninterrupted one would have drawn. Ranks draw differently.
    fn seed_forward(&self) {
        seed_batch(&self.device, self.config.seed, self.state.progress.mark, self.ranks.rank());
    }

    /// Names each image that could not be read once, up to `data.max_bad_samples` of them.
    pub(super) fn left_out(
        &mut self,
        skipped: &[String],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let most = self.config.data.max_bad_samples;
        for reason in skipped.iter().cloned() {
            let bad = &mut self.state.progress.bad_samples;
            if bad.insert(reason.clone()) {
                observer.skipped(&reason);
                if bad.len() > most {
                    return Err(Error::BadSamples { count: bad.len(), most, last: reason });
                }
            }
        }
        Ok(())
    }

    pub(super) fn non_finite(
        &self,
        what: &'static str,
        value: f64,
        grads: Option<&GradientsParams>,
    ) -> Error {
        let kept = match self.saved.0 {
            None => "no checkpoint had been saved".to_string(),
            Some(mark) => {
                format!("the checkpoint {} is kept", self.run.checkpoint(mark).display())
            }
        };
        let progress = &self.state.progress;
        let layer = gradients::first_non_finite(&self.state.network, grads);
        Error::NonFinite {
            what,
            value,
            epoch: progress.mark.epoch + 1,
            step: progress.step + 1,
            batch: progress.mark.batch,
            layer: layer.map_or_else(String::new, |layer| format!("; first at {layer}")),
            kept,
        }
    }
}

/// Seeds the device of a rank for the batch that follows a mark.
pub(super) fn seed_batch(device: &Device, seed: u64, mark: CheckpointId, rank: usize) {
    let CheckpointId { epoch, batch } = mark;
    let place = (epoch as u64) << 32 | batch as u64;
    let place = place ^ (rank as u64).rotate_right(16);
    // The odd constant of Fibonacci hashing keeps neighbouring seeds and places apart.
    device.seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ place);
}

/// Gradients, logits and mean loss of a batch on one device.
pub(super) fn gradients_of(
    network: &Classifier,
    batch: &Batch,
    device: &Device,
    smoothing: f64,
) -> (GradientsParams, Tensor<2>, f64) {
    on_pool(device, || {
        let (logits, loss) = forward(network, batch, device, smoothing);
        let mean = f64::from(host(loss.clone().into_data())[0]);
        (GradientsParams::from_grads(loss.backward(), network), logits.detach(), mean)
    })
}

/// Logits `[batch, classes]` of a training batch and its mean loss, `[1]`. The loss of a mixed image
/// is that of both labels by their shares (Zhang et al., ICLR 2018; Yun et al., ICCV 2019).
pub(super) fn forward(
    network: &Classifier,
    batch: &Batch,
    device: &Device,
    smoothing: f64,
) -> (Tensor<2>, Tensor<1>) {
    let (images, labels) = batch.to_tensors(device);
    let logits = network.forward(images);
    let own = cross_entropy(logits.clone(), labels, smoothing);
    let Some(mixed) = &batch.mixed else { return (logits, own) };
    let other = cross_entropy(logits.clone(), label_tensor(&mixed.partners, device), smoothing);
    let share = f64::from(mixed.share);
    (logits, own.mul_scalar(share) + other.mul_scalar(1.0 - share))
}
