//! Keys that have no effect because of another key.

use dbb_datasets::{Augment, Policy};

use super::check::Fault;
use super::{Config, OnBadSample, OptimKind, ScheduleKind, ScheduleSection};

/// The smallest kernel of a convolution that becomes a block: 1x1 ones never do.
const SMALLEST_KERNEL: usize = 3;

impl Config {
    /// Refuses values without effect. Only values that differ from the default are found: a run
    /// writes out every key.
    pub(super) fn check_unused(&self) -> Result<(), Fault> {
        self.check_unused_schedule()?;
        self.check_unused_augment()?;
        let kernel = self.model.dbb.max_kernel;
        if kernel < SMALLEST_KERNEL {
            let text =
                format!("{kernel} leaves no layer a block; expected at least {SMALLEST_KERNEL}");
            return Err(Fault { key: "model.dbb.max_kernel".into(), text });
        }
        let (optim, train, data) = (&self.optim, &self.train, &self.data);
        if optim.kind != OptimKind::Sgd {
            let momentum = optim.momentum != super::optim::momentum();
            unused("optim.momentum", momentum, "optim.kind = \"sgd\"")?;
            unused("optim.nesterov", optim.nesterov, "optim.kind = \"sgd\"")?;
        }
        unused(
            "optim.nesterov",
            optim.nesterov && optim.momentum == 0.0,
            "optim.momentum above 0",
        )?;
        let min_delta = train.patience.is_none() && train.min_delta != 0.0;
        unused("train.min_delta", min_delta, "train.patience")?;
        let rollback_lr = train.rollbacks == 0 && train.rollback_lr != super::train::half();
        unused("train.rollback_lr", rollback_lr, "train.rollbacks above 0")?;
        let most = super::DataSection::default().max_bad_samples;
        let max_bad_samples =
            data.on_bad_sample == OnBadSample::Error && data.max_bad_samples != most;
        unused("data.max_bad_samples", max_bad_samples, "data.on_bad_sample = \"skip\"")
    }

    fn check_unused_schedule(&self) -> Result<(), Fault> {
        let (schedule, default) = (&self.schedule, ScheduleSection::default());
        match schedule.kind {
            ScheduleKind::Cosine => {
                let step = "schedule.kind = \"step\"";
                unused("schedule.milestones", schedule.milestones != default.milestones, step)?;
                unused("schedule.gamma", schedule.gamma != default.gamma, step)
            }
            ScheduleKind::Step => {
                let is_set = schedule.min_lr != default.min_lr;
                unused("schedule.min_lr", is_set, "schedule.kind = \"cosine\"")
            }
        }
    }

    fn check_unused_augment(&self) -> Result<(), Fault> {
        let (augment, default) = (&self.augment, Augment::default());
        if !augment.random_resized_crop {
            let crop = "augment.random_resized_crop = true";
            unused("augment.rrc_scale", augment.rrc_scale != default.rrc_scale, crop)?;
            unused("augment.rrc_ratio", augment.rrc_ratio != default.rrc_ratio, crop)?;
        }
        if augment.policy != Policy::RandAugment {
            let policy = "augment.policy = \"randaugment\"";
            unused("augment.num_ops", augment.num_ops != default.num_ops, policy)?;
            unused("augment.magnitude", augment.magnitude != default.magnitude, policy)?;
        }
        Ok(())
    }
}

fn unused(key: &str, is_set: bool, needs: &str) -> Result<(), Fault> {
    let fault = || Fault { key: key.into(), text: format!("it has no effect without {needs}") };
    (!is_set).then_some(()).ok_or_else(fault)
}
