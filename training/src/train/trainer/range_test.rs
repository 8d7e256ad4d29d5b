//! The learning-rate range test (Smith, "Cyclical Learning Rates for Training Neural Networks", WACV
//! 2017, section 3.3): a short training whose rate rises with every step.

use burn::tensor::Device;

use super::begin::fresh;
use super::plan::Plan;
use super::step::{gradients_of, seed_batch};
use crate::cancel::CancelToken;
use crate::config::Config;
use crate::device::on_pool;
use crate::error::{Error, Result};
use crate::run::directory::CheckpointId;
use crate::train::checkpoint::RunState;
use crate::train::gradients::{self, Accumulator};
use crate::train::range_curve::{Divergence, RangeCurve};
use crate::train::start;

/// Fewest steps that show a curve.
const FEWEST: usize = 10;

/// How the learning rate of a range test rises: by the same factor with every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeTest {
    /// Rate of the first step, above 0.
    pub from: f64,
    /// Rate of the last step.
    pub to: f64,
    /// Steps of the optimizer, at least 10.
    pub steps: usize,
}

impl Default for RangeTest {
    fn default() -> Self {
        Self { from: 1e-5, to: 10.0, steps: 100 }
    }
}

impl RangeTest {
    /// The rate of a step, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        self.from * (self.to / self.from).powf(step as f64 / (self.steps - 1) as f64)
    }

    /// Checks the range.
    ///
    /// # Errors
    /// Rates that are not positive or do not rise; too few steps.
    pub fn check(&self) -> Result<()> {
        let Self { from, to, steps } = *self;
        if !(from > 0.0 && from < to && to.is_finite()) {
            let text = format!("the learning rate cannot rise from {from} to {to}");
            return Err(Error::Unusable(format!(
                "{text}; expected two numbers above 0, the lower first"
            )));
        }
        if steps < FEWEST {
            let text = format!("{steps} steps do not show a curve; expected at least {FEWEST}");
            return Err(Error::Unusable(text));
        }
        Ok(())
    }

    /// Trains a fresh network of a configuration, on its augmented training images in their usual
    /// order and with its optimizer, epoch after epoch until all steps are done or training
    /// diverges. Its schedule and its number of epochs have no effect. Nothing is written;
    /// `each_step` is called after every step with the number of its images.
    ///
    /// Equal configurations have equal curves, with equal threads and instruction set.
    ///
    /// # Errors
    /// As [`Trainer::new`](super::Trainer::new); an image that cannot be read;
    /// [`Error::NotBegun`] if a stop was requested.
    pub fn run(
        &self,
        config: Config,
        device: &Device,
        stop: &CancelToken,
        mut each_step: impl FnMut(usize),
    ) -> Result<RangeCurve> {
        self.check()?;
        let plan = Plan::within_memory(config, &device.into())?;
        let Plan { config, model, metadata, identity, train, .. } = plan;
        let device = device.clone().autodiff();
        let state = fresh(&config, &model, &device, &identity)?;
        let start = start::from_weights(&config, &metadata, state.network.clone(), &device)?;
        let RunState { mut network, mut optimizer, .. } = state;
        if let Some(start) = start {
            network = start.network;
        }
        let section = &config.train;
        let mut mark = CheckpointId::default();
        let mut batches = train.epoch(0);
        let (mut steps, mut divergence) = (Vec::new(), Divergence::default());
        let mut images = 0;
        while steps.len() < self.steps {
            if let Some(signal) = stop.requested() {
                return Err(Error::NotBegun { signal });
            }
            if batches.len() == 0 {
                if images == 0 {
                    let data = train.dataset().describe();
                    return Err(Error::Unusable(format!("no image of {data} can be read")));
                }
                mark = CheckpointId { epoch: mark.epoch + 1, batch: 0 };
                batches = train.epoch(mark.epoch as u64);
            }
            let group = section.accumulate.min(batches.len());
            let mut gradient = Accumulator::new(group, train.batch_size());
            let (mut losses, mut of_step) = (0.0, 0);
            for batch in batches.by_ref().take(group) {
                let batch = batch?;
                seed_batch(&device, config.seed, mark, 0);
                mark.batch += 1;
                // A single image has no variance where the map is a single position.
                if batch.len() < 2 {
                    continue;
                }
                let (grads, _, mean) =
                    gradients_of(&network, &batch, &device, section.label_smoothing);
                gradient.add(&network, grads, batch.len());
                losses += mean * batch.len() as f64;
                of_step += batch.len();
            }
            let Some(mut grads) = gradient.finish(&network) else { continue };
            images += of_step;
            let (lr, loss) = (self.lr(steps.len()), losses / of_step as f64);
            let norm = gradients::global_norm(&grads, &network);
            // The first loss that is no number shows nothing and ends the curve.
            if !loss.is_finite() || !norm.is_finite() {
                if steps.is_empty() {
                    let text = "the loss or its gradient is not finite before the first step";
                    return Err(Error::Unusable(text.into()));
                }
                return Ok(RangeCurve::new(&steps, self.steps, true));
            }
            steps.push([lr, loss, norm]);
            if divergence.add(loss) {
                return Ok(RangeCurve::new(&steps, self.steps, true));
            }
            if let Some(most) = section.clip_norm {
                gradients::clip(&mut grads, &network, norm, most);
            }
            network = on_pool(&device, || optimizer.step(&network, grads, lr));
            each_step(of_step);
        }
        Ok(RangeCurve::new(&steps, self.steps, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_by_a_factor() {
        let test = RangeTest { from: 1e-3, to: 10.0, steps: 11 };
        assert_eq!(test.lr(0), 1e-3);
        assert!((test.lr(10) - 10.0).abs() < 1e-12 && (test.lr(5) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn ranges_that_do_not_rise_are_refused() {
        let test = RangeTest::default();
        assert!(test.check().is_ok());
        for bad in [
            RangeTest { from: 0.0, ..test },
            RangeTest { to: 1e-5, ..test },
            RangeTest { to: f64::INFINITY, ..test },
            RangeTest { from: f64::NAN, ..test },
            RangeTest { steps: 9, ..test },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
