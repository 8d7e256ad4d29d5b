//! The memory that a run needs, and the largest batch that fits.

use burn::tensor::Device;
use dbb_datasets::parts;
use dbb_models::summary::LayerSummary;

use crate::config::{Config, OptimKind};
use crate::error::Result;
use crate::memory::{Batches, Copies, Estimate, Limit};

/// Batches that are found are multiples of this, where they are larger.
const MULTIPLE: usize = 8;

/// What decides how much memory a run needs, but for the size of its batches.
pub(super) struct Need {
    /// The layers of its network.
    pub layers: Vec<LayerSummary>,
    /// Channels, height and width of an image.
    pub shape: [usize; 3],
    /// Images to train on and to validate with.
    pub images: [usize; 2],
    /// Processes that share every batch: the need is that of each.
    pub ranks: usize,
    /// Processes that share this machine's memory.
    pub on_machine: usize,
}

impl Need {
    /// What training takes with batches of so many images.
    pub fn training(&self, config: &Config, batch_size: usize, device: &Device) -> Estimate {
        let copies = Copies {
            optimizer: match config.optim.kind {
                OptimKind::Sgd => 1,
                OptimKind::AdamW => 2,
            },
            average: config.train.ema.is_some(),
            accumulated: config.train.accumulate > 1,
        };
        let batches = self.batches(config, batch_size, self.images[0]);
        let estimate = Estimate::training(&self.layers, &batches, &copies, device);
        estimate.with_cache(config.data.cache_mb)
    }

    /// What the validation of a folded copy takes, beside the state of the run.
    pub fn validation(&self, config: &Config, batch_size: usize, device: &Device) -> Estimate {
        let batches = self.batches(config, batch_size, self.images[1]);
        let validation = Estimate::inference(&self.layers, &batches);
        let Estimate { parameters, .. } = self.training(config, batch_size, device);
        Estimate { parameters, ..validation }.with_cache(config.data.cache_mb)
    }

    fn batches(&self, config: &Config, batch_size: usize, images: usize) -> Batches {
        // The first part is the largest.
        let part = parts(batch_size.min(images), self.ranks).next().map_or(0, |part| part.len());
        Batches { images: part, shape: self.shape, held: Batches::held(config.data.workers) }
    }

    /// The larger of both.
    fn most(&self, config: &Config, batch_size: usize, device: &Device) -> Estimate {
        let training = self.training(config, batch_size, device);
        let validation = self.validation(config, batch_size, device);
        if validation.bytes() > training.bytes() { validation } else { training }
    }

    /// Refuses a run that cannot fit, and says which batches would.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory).
    pub fn check(&self, config: &Config, batch_size: usize, device: &Device) -> Result<()> {
        let need = self.most(config, batch_size, device);
        let limit = Limit::of(config.train.memory_mb, device);
        let limit = limit.map(|limit| limit.shared_by(self.on_machine));
        let Some(limit) = limit.filter(|limit| !limit.has_room_for(&need)) else {
            return Ok(());
        };
        let lower = match need.is_mostly_cache() {
            true => "data.cache_mb".to_string(),
            false => match self.largest_within(config, limit.room(), device) {
                Some(fits) => format!("train.batch_size ({batch_size}) to {fits}, or data.size"),
                None => format!(
                    "data.size or model.width: of train.batch_size ({batch_size}) not even 2 fit"
                ),
            },
        };
        Err(limit.error("training", &need, lower))
    }

    /// The largest batch of `train.batch_size = "auto"`.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::Error::Memory) if no batch fits into `train.memory_mb`.
    pub fn largest_batch(&self, config: &Config, device: &Device) -> Result<usize> {
        let limit = Limit::allowed(config.train.memory_mb.unwrap_or(0));
        self.largest_within(config, limit.room(), device).ok_or_else(|| {
            let need = self.most(config, 2, device);
            let lower = match need.is_mostly_cache() {
                true => "data.cache_mb, or raise train.memory_mb",
                false => "data.size or model.width, or raise train.memory_mb",
            };
            limit.error("training with batches of 2", &need, lower.into())
        })
    }

    /// The largest batch whose estimate is within so many bytes: up to the number of training images,
    /// and a multiple of [`MULTIPLE`] where it is larger.
    fn largest_within(&self, config: &Config, bytes: u64, device: &Device) -> Option<usize> {
        let fits = |images: usize| self.most(config, images, device).bytes() <= bytes;
        if !fits(2) {
            return None;
        }
        // Every estimate grows with the batch, but for ranks with parts of two or three images.
        let (mut low, mut high) = (2, self.images[0].max(2));
        while low < high {
            let middle = (low + high).div_ceil(2);
            (low, high) = if fits(middle) { (middle, high) } else { (low, middle - 1) };
        }
        Some(if low > MULTIPLE { low / MULTIPLE * MULTIPLE } else { low })
    }
}

#[cfg(test)]
mod tests {
    use dbb_models::summary::Summary;
    use dbb_models::{Arch, BlockKind, ModelConfig};

    use super::*;

    fn need(images: usize) -> Need {
        let model = ModelConfig::new(Arch::ResNet20, BlockKind::Dbb, 10);
        let layers = Summary::new(&model, [32; 2]).unwrap().layers;
        Need { layers, shape: [3, 32, 32], images: [images, images / 5], ranks: 1, on_machine: 1 }
    }

    fn config(keys: &str) -> Config {
        let text = format!(
            "[model]\narch = \"resnet20\"\n[train]\nepochs = 1\nbatch_size = \"auto\"\n{keys}\n\
             [optim]\nlr = 0.1\n"
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn the_batch_that_is_found_fits_and_the_next_does_not() {
        let (device, need) = (Device::default(), need(50_000));
        let mut last = 0;
        for mib in [60, 100, 300, 1000, 4000] {
            let config = config(&format!("memory_mb = {mib}"));
            let found = need.largest_batch(&config, &device).unwrap();
            let bytes = |images| need.most(&config, images, &device).bytes();
            let room = (mib << 20) / 5 * 4;
            assert!(bytes(found) <= room, "{mib}: {found}");
            let step = if found < MULTIPLE { 1 } else { MULTIPLE };
            assert!(bytes(found + step) > room, "{mib}: {found} is not the largest");
            assert!(found > last && (found < MULTIPLE || found.is_multiple_of(MULTIPLE)));
            last = found;
            // It is accepted, and twice as much is refused, with the batch that fits.
            need.check(&config, found, &device).unwrap();
            let error = need.check(&config, found * 2, &device).unwrap_err().to_string();
            let allowed = format!("train.memory_mb allows {}", crate::text::thousands(mib as f64));
            for part in [&allowed, &format!("train.batch_size ({}) to {found}", found * 2)] {
                assert!(error.contains(part), "no {part:?} in {error}");
            }
        }
    }

    /// Two ranks hold a half of every batch each, so that a batch twice as large fits.
    #[test]
    fn the_need_is_that_of_a_rank() {
        let (device, one) = (Device::default(), need(50_000));
        let two = Need { ranks: 2, ..need(50_000) };
        let config = config("memory_mb = 300");
        assert_eq!(two.training(&config, 64, &device), one.training(&config, 32, &device));
        assert_eq!(two.training(&config, 65, &device), one.training(&config, 33, &device));
        let [found, of_two] =
            [&one, &two].map(|need| need.largest_batch(&config, &device).unwrap());
        assert!((of_two - 2 * found) <= 2 * MULTIPLE, "{of_two} for two ranks, {found} for one");
    }

    #[test]
    fn no_batch_is_larger_than_the_data_and_some_memory_holds_none() {
        let device = Device::default();
        let config = |mib| config(&format!("memory_mb = {mib}"));
        assert_eq!(need(203).largest_batch(&config(100_000), &device).unwrap(), 200);
        assert_eq!(need(7).largest_batch(&config(100_000), &device).unwrap(), 7);
        let error = need(203).largest_batch(&config(20), &device).unwrap_err().to_string();
        assert!(
            error.contains("batches of 2") && error.contains("raise train.memory_mb"),
            "{error}"
        );
        let error = need(203).check(&config(20), 64, &device).unwrap_err().to_string();
        assert!(error.contains("(64) not even 2 fit"), "{error}");
    }
}
