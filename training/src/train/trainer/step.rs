//! One step of the optimizer: batches, their gradients, the update.

use std::time::Instant;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use dbb_datasets::{Batch, DataError, Epoch, label_tensor};
use dbb_models::Classifier;

use super::Trainer;
use crate::error::{Error, Result};
use crate::inference::evaluate::cross_entropy;
use crate::run::directory::CheckpointId;
use crate::run::metrics::host;
use crate::run::steps::StepPoint;
use crate::run::tensorboard::TensorBoard;
use crate::train::checkpoint::RunState;
use crate::train::gradients::{self, Accumulator};
use crate::train::observer::{Observer, Step};
use crate::train::schedule::Schedule;

impl Trainer {
    /// One step of the optimizer, on `train.accumulate` batches or what is left of the epoch.
    pub(super) fn step(
        &mut self,
        batches: &mut Epoch,
        schedule: &Schedule,
        board: &mut TensorBoard,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let started = Instant::now();
        let group = self.config.train.accumulate.min(batches.len());
        let mut gradient = Accumulator::new(group, self.train.batch_size());
        let (mut losses, mut images) = (0.0, 0);
        let mut waited = 0.0;
        for _ in 0..group {
            let waiting = Instant::now();
            let Some(batch) = batches.next() else { break };
            waited += waiting.elapsed().as_secs_f64();
            let batch = batch?;
            self.left_out(&batch.skipped, observer)?;
            self.state.progress.partial.skipped += batch.skipped.len();
            self.seed_forward();
            self.state.progress.mark.batch += 1;
            // A single image has no variance where the map is a single position.
            if batch.len() < 2 {
                self.state.progress.partial.skipped += batch.len();
                continue;
            }
            let (grads, logits, mean) = self.gradients(&batch)?;
            if !mean.is_finite() {
                return Err(self.non_finite("loss", mean, Some(&grads)));
            }
            let labels = batch.main_labels();
            self.state.progress.partial.totals.add(logits, labels, mean);
            gradient.add(&self.state.network, grads, batch.len());
            losses += mean * batch.len() as f64;
            images += batch.len();
        }
        let RunState { network, ema, optimizer, progress } = &mut self.state;
        let Some(mut grads) = gradient.finish(network) else { return Ok(()) };
        let grad_norm = gradients::global_norm(&grads, network);
        if !grad_norm.is_finite() {
            return Err(self.non_finite("gradient", grad_norm, Some(&grads)));
        }
        if let Some(most) = self.config.train.clip_norm {
            gradients::clip(&mut grads, network, grad_norm, most);
        }
        let rollbacks = i32::try_from(progress.rollbacks).unwrap_or(i32::MAX);
        let lr = schedule.lr(progress.step) * self.config.train.rollback_lr.powi(rollbacks);
        *network = optimizer.step(network, grads, lr);
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
        board.step(&point)?;
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

    /// Gradients, logits and mean loss of a batch, on one device or several.
    fn gradients(&self, batch: &Batch) -> Result<(GradientsParams, Tensor<2>, f64)> {
        let network = &self.state.network;
        if let Some(group) = &self.group {
            let together = group.gradients(network, batch)?;
            return Ok((together.gradients, together.logits, together.loss));
        }
        Ok(gradients_of(network, batch, &self.device, self.config.train.label_smoothing))
    }

    /// Dropout draws from the device's random stream. It is seeded for every batch, so that a
    /// resumed run draws what the uninterrupted one would have drawn.
    fn seed_forward(&self) {
        seed_batch(&self.device, self.config.seed, self.state.progress.mark);
    }

    /// Names each image that could not be read once, up to `data.max_bad_samples` of them.
    pub(super) fn left_out(
        &mut self,
        skipped: &[DataError],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let most = self.config.data.max_bad_samples;
        for reason in skipped {
            let reason = reason.to_string();
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

/// Seeds the device for the batch that follows a mark.
pub(super) fn seed_batch(device: &Device, seed: u64, mark: CheckpointId) {
    let CheckpointId { epoch, batch } = mark;
    let place = (epoch as u64) << 32 | batch as u64;
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
    let (logits, loss) = forward(network, batch, device, smoothing);
    let mean = f64::from(host(loss.clone().into_data())[0]);
    (GradientsParams::from_grads(loss.backward(), network), logits.detach(), mean)
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
