//! `dbb bench`.

use burn::tensor::Device;
use clap::ValueEnum;
use dbb_datasets::DataRef;
use dbb_models::{Arch, BlockKind, Form, Implementation, ModelConfig};

use crate::options::{DeviceOptions, arch, block};
use dbb_training::bench::{self, BenchResult, Workload};

/// Measure training steps, inference or the loader: images per second, time, memory.
///
/// Example: dbb bench train --arch resnet18-cifar --block dbb --batch 64
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure.
    what: What,
    /// Architecture; needed for train and infer.
    #[arg(long, value_parser = arch(), required_if_eq_any([("what", "train"), ("what", "infer")]))]
    arch: Option<Arch>,
    /// Block.
    #[arg(long, value_parser = block(), default_value = "base")]
    block: BlockKind,
    /// Width multiplier.
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Classes; by default 1000, or 10 for the CIFAR networks.
    #[arg(long)]
    classes: Option<usize>,
    /// Images in a step.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Height and width of the images; by default those of the paper, 224 for the loader.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    res: Option<u16>,
    /// Form of the network in infer; train uses its running statistics [default: deploy].
    #[arg(long, value_enum)]
    form: Option<FormOption>,
    /// Measured steps, after two of warm-up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// Implementation: fast (this project's CPU kernels, where there are any) or plain (the
    /// definition, in the backend's operations).
    #[arg(long = "impl", value_name = "IMPL", default_value_t = Implementation::Fast)]
    implementation: Implementation,
    /// Data of the loader: sample, a folder, or KIND:PATH with KIND folder, tar, idx,
    /// cifar10 or cifar100.
    #[arg(long, default_value = "sample")]
    data: DataRef,
    /// Threads of the loader; 0 decodes in the measuring thread.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u8,
    /// MiB of memory for images that later epochs reuse; one epoch fills it before measuring.
    #[arg(long, value_name = "N", default_value_t = 0)]
    cache_mb: u32,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum What {
    /// Whole training steps on random images: forward, loss, backward, SGD with momentum.
    Train,
    /// Inference on random images.
    Infer,
    /// Training images decoded, randomly cropped, mirrored and normalised, without a network.
    Loader,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum FormOption {
    /// Folded.
    Deploy,
    /// Not folded.
    Train,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let res = args.arch.map_or(224, Arch::default_resolution);
    let work = Workload {
        batch: args.batch.into(),
        resolution: args.res.map_or(res, usize::from),
        steps: args.steps.into(),
    };
    let result = args.implementation.during(|| args.measure(&work, &device))?;
    crate::print(args.json, &result, || args.table(&work, &result))
}

impl Args {
    fn measure(&self, work: &Workload, device: &Device) -> anyhow::Result<BenchResult> {
        Ok(match (self.what, self.arch) {
            (What::Train, Some(arch)) => {
                anyhow::ensure!(
                    self.form != Some(FormOption::Deploy),
                    "a folded network cannot be trained; leave --form out"
                );
                bench::train(&self.model(arch), work, device)?
            }
            (What::Infer, Some(arch)) => {
                let form = match self.form {
                    Some(FormOption::Train) => Form::Train,
                    _ => Form::Deploy,
                };
                bench::infer(&self.model(arch), form, work, device)?
            }
            // Without an architecture clap lets only the loader pass.
            _ => bench::loader(&self.data, self.workers.into(), self.cache_mb as usize, work)?,
        })
    }

    fn model(&self, arch: Arch) -> ModelConfig {
        let classes = if arch.default_resolution() > 32 { 1000 } else { 10 };
        let classes = self.classes.unwrap_or(classes);
        ModelConfig { width: self.width, ..ModelConfig::new(arch, self.block, classes) }
    }

    fn table(&self, work: &Workload, result: &BenchResult) -> String {
        let Workload { batch, resolution, steps } = work;
        let subject = match (self.what, self.arch) {
            (What::Train, Some(arch)) => format!("train {arch}, {}", self.block),
            (What::Infer, Some(arch)) => format!("infer {arch}, {}", self.block),
            _ => format!("load {}", self.data),
        };
        let mut rows = vec![
            ("images/s", format!("{:.2}", result.images_per_second)),
            ("step, median", format!("{:.2} ms", result.step_ms_median)),
            ("step, shortest", format!("{:.2} ms", result.step_ms_min)),
        ];
        if let Some(macs) = result.macs_per_image {
            // A backward costs two forwards: one for the input's gradient, one for the weights'.
            let passes = if self.what == What::Train { 3.0 } else { 1.0 };
            let flops = 2.0 * macs as f64 * passes * result.images_per_second;
            rows.push(("MMAC per image", format!("{:.1}", macs as f64 / 1e6)));
            rows.push(("GFLOP/s", format!("{:.1}", flops / 1e9)));
        }
        if let Some(peak) = result.peak_rss_mib {
            rows.push(("peak memory", format!("{peak:.0} MiB")));
        }
        if let (Some(fast), Some(plain)) = (result.layers_fast, result.layers_plain) {
            rows.push(("layers", format!("{fast} fast, {plain} plain")));
        }
        let rows = rows.iter().map(|(name, value)| format!("{name:<16}{value:>14}"));
        let title = format!("{subject}: {resolution}x{resolution}, batch {batch}, {steps} steps");
        [title].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }
}
