//! `dbb train --plan`, and what a batch size that was found means for the learning rate.

use std::path::Path;

use burn::tensor::Device;

use crate::train::or_resume;
use dbb_training::config::{BatchSize, Config};
use dbb_training::text::{duration, plural};
use dbb_training::train::Forecast;

/// Prints what a run of a configuration will take.
pub fn run(path: &Path, set: &[String], device: &Device, json: bool) -> anyhow::Result<()> {
    let config = Config::load(path, set).map_err(or_resume)?;
    let rate = Rate::of(path, set, &config);
    let stop = crate::signals::stop()?;
    let forecast = Forecast::of(config, device, &stop)?;
    rate.announce(forecast.batch_size);
    crate::print(json, &forecast, || text(&forecast))
}

fn text(forecast: &Forecast) -> String {
    let Forecast { batch_size, epochs, steps_per_epoch, steps, lr, lr_per_256, .. } = forecast;
    let (memory, disk, time) = (&forecast.memory_mib, &forecast.disk_mib, &forecast.seconds);
    let share = 100.0 * time.loader / time.training;
    let mut in_memory = format!(
        "about {:.0} MiB in training, {:.0} in validation; batches of images {:.1} of it, their cache {:.0}",
        memory.training, memory.validation, memory.batches, memory.cache
    );
    if let Some(allowed) = memory.allowed {
        in_memory += &format!("; train.memory_mb allows {allowed}");
    }
    if let Some(measured) = memory.measured {
        in_memory += &format!("; measured so far: {measured:.0}");
    }
    let rows = [
        (
            "steps",
            format!(
                "{steps}: {} of {steps_per_epoch}, with batches of {batch_size} of {} images",
                plural(*epochs, "epoch"),
                forecast.train_images
            ),
        ),
        ("learning rate", format!("{lr}; {lr_per_256:.3} per 256 images by the linear rule")),
        (
            "time",
            format!(
                "about {}: training {}, {share:.0}% of it waiting for the loader, validation {}; from {} of \
                 {:.0} ms",
                duration(time.total),
                duration(time.training),
                duration(time.validation),
                plural(time.measured_steps, "step"),
                1000.0 * time.step
            ),
        ),
        ("memory", in_memory),
        (
            "disk",
            format!(
                "at most {:.1} MiB: {} of {:.1} MiB and one being written, folded weights {:.1}; the images stay \
                 where they are",
                disk.total,
                plural(disk.checkpoints, "checkpoint"),
                disk.checkpoint,
                disk.export
            ),
        ),
    ];
    rows.map(|(name, value)| format!("{name:<14}{value}")).join("\n")
}

/// What is told of the learning rate when a batch size was found. The rate itself is left as it is.
pub struct Rate {
    /// `optim.lr`; `None` if the batch size was given.
    lr: Option<f64>,
    /// The batch size that the file has without `--set`, and its learning rate.
    of_file: Option<(usize, f64)>,
}

impl Rate {
    /// Of a configuration that was loaded from a file with these changes.
    pub fn of(path: &Path, set: &[String], config: &Config) -> Self {
        let is_auto = config.train.batch_size == BatchSize::Auto;
        let others: Vec<String> = set
            .iter()
            .filter(|set| !set.trim_start().starts_with("train.batch_size"))
            .cloned()
            .collect();
        let file = Config::load(path, &others).ok().filter(|_| is_auto);
        let of_file = file.and_then(|file| Some((file.train.batch_size.images()?, file.optim.lr)));
        Self { lr: is_auto.then_some(config.optim.lr), of_file }
    }

    /// Notes on standard error which batch was found, and what the linear rule makes of the learning
    /// rate (Goyal et al., 2017, section 2.1).
    pub fn announce(&self, found: usize) {
        let Some(lr) = self.lr else { return };
        let rule = match self.of_file {
            Some((images, of_file)) => {
                let scaled = of_file * found as f64 / images as f64;
                format!(
                    "{of_file} for batches of {images}, as in the file, is {scaled:.4} for batches of \
                     {found} (--set optim.lr={scaled:.4})"
                )
            }
            None => format!("it is {:.4} per 256 images", lr * 256.0 / found as f64),
        };
        crate::say(&format!(
            "train.batch_size: {found} is the largest estimated to fit into train.memory_mb; optim.lr stays \
             {lr}; by the linear rule {rule}"
        ));
    }
}
