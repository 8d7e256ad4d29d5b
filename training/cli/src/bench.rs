//! `dbb bench`.

use burn::tensor::Device;
use clap::ValueEnum;
use dbb_datasets::DataRef;
use dbb_models::{Arch, BlockKind, Form, Implementation, ModelConfig};

use crate::options::{DeviceOptions, arch, block, data_kinds, form, given, implementation};
use dbb_training::bench::{self, BenchResult, LayerTime, StepProfile, WorkTime, Workload};

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
    /// Block [default: base].
    #[arg(long, value_parser = block())]
    block: Option<BlockKind>,
    /// Width multiplier [default: 1].
    #[arg(long)]
    width: Option<f64>,
    /// Classes; by default 1000, or 10 for the CIFAR networks.
    #[arg(long)]
    classes: Option<usize>,
    /// Images in a step.
    #[arg(long, visible_alias = "batch-size", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Height and width of the images; by default those of the paper, 224 for the loader.
    #[arg(long, visible_alias = "size", value_parser = clap::value_parser!(u16).range(1..))]
    res: Option<u16>,
    /// Form of the network for `infer`: deploy, or train, evaluated with its running statistics
    /// [default: deploy].
    #[arg(long, value_parser = form())]
    form: Option<Form>,
    /// Measured steps, after two of warm-up.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// Implementation: fast (this project's CPU kernels, where there are any) or plain (the
    /// definition, in the backend's operations) [default: fast].
    #[arg(long = "impl", value_name = "IMPL", value_parser = implementation())]
    implementation: Option<Implementation>,
    /// Data of the loader.
    #[arg(long, help = data_kinds("Data of the loader", " [default: sample]"))]
    data: Option<DataRef>,
    /// Threads of the loader; 0 decodes in the measuring thread [default: 1].
    #[arg(long, value_name = "N")]
    workers: Option<u8>,
    /// MiB of memory for images that later epochs reuse; one epoch fills it before measuring
    /// [default: 0].
    #[arg(long, value_name = "N")]
    cache_mb: Option<u32>,
    /// Also tell what the time was spent on, by kind of work and by layer: of a training step or inference
    /// on the CPU kernels.
    #[arg(long)]
    profile: bool,
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

pub fn run(args: &Args) -> anyhow::Result<()> {
    args.refuse_unused()?;
    let device = args.device.open()?;
    let res = args.arch.map_or(224, Arch::default_resolution);
    let work = Workload {
        batch: args.batch.into(),
        resolution: args.res.map_or(res, usize::from),
        steps: args.steps.into(),
        profile: args.profile,
    };
    let implementation = args.implementation.unwrap_or(Implementation::Fast);
    let result = implementation.during(|| args.measure(&work, &device))?;
    crate::print(args.json, &result, || args.table(&work, &result))
}

impl Args {
    fn measure(&self, work: &Workload, device: &Device) -> dbb_training::Result<BenchResult> {
        match (self.what, self.arch) {
            (What::Train, Some(arch)) => bench::train(&self.model(arch), work, device),
            (What::Infer, Some(arch)) => {
                let form = self.form.unwrap_or(Form::Deploy);
                bench::infer(&self.model(arch), form, work, device)
            }
            // Without an architecture clap lets only the loader pass.
            _ => {
                let (workers, cache_mb) = (self.workers.unwrap_or(1), self.cache_mb.unwrap_or(0));
                bench::loader(&self.data(), workers.into(), cache_mb as usize, work)
            }
        }
    }

    /// Refuses flags of the loader where a network is measured. Some scripts pass the flags of a
    /// network in every call: for the loader they are only noted as unused.
    fn refuse_unused(&self) -> anyhow::Result<()> {
        let of_network = [
            ("--arch", self.arch.is_some()),
            ("--block", self.block.is_some()),
            ("--width", self.width.is_some()),
            ("--classes", self.classes.is_some()),
            ("--form", self.form.is_some()),
            ("--impl", self.implementation.is_some()),
            ("--profile", self.profile),
        ];
        let of_loader = [
            ("--data", self.data.is_some()),
            ("--workers", self.workers.is_some()),
            ("--cache-mb", self.cache_mb.is_some()),
        ];
        if self.what == What::Loader {
            let unused = given(of_network).join(", ");
            if !unused.is_empty() {
                crate::say(&format!(
                    "note: the loader is measured without a network; {unused} unused"
                ));
            }
            return Ok(());
        }
        let unused = given(of_loader).join(", ");
        anyhow::ensure!(
            unused.is_empty(),
            "a network is measured on random images; leave {unused} out, which bench loader takes"
        );
        anyhow::ensure!(
            self.what != What::Train || self.form != Some(Form::Deploy),
            "a folded network cannot be trained; leave --form out"
        );
        Ok(())
    }

    fn block(&self) -> BlockKind {
        self.block.unwrap_or(BlockKind::Base)
    }

    fn data(&self) -> DataRef {
        self.data.clone().unwrap_or(DataRef::Sample)
    }

    fn model(&self, arch: Arch) -> ModelConfig {
        let classes = self.classes.unwrap_or(arch.default_classes());
        let width = self.width.unwrap_or(1.0);
        ModelConfig { width, ..ModelConfig::new(arch, self.block(), classes) }
    }

    fn table(&self, work: &Workload, result: &BenchResult) -> String {
        let Workload { batch, resolution, steps, .. } = work;
        let subject = match (self.what, self.arch) {
            (What::Train, Some(arch)) => format!("train {arch}, {}", self.block()),
            (What::Infer, Some(arch)) => format!("infer {arch}, {}", self.block()),
            _ => format!("load {}", self.data()),
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
        let profile = result.profile.as_ref().map(profile_table);
        [title].into_iter().chain(rows).chain(profile).collect::<Vec<_>>().join("\n")
    }
}

/// Mean times of a step by kind of work and by layer.
fn profile_table(profile: &StepProfile) -> String {
    let StepProfile { total_ms, work, layers, outside_ms, unattributed_ms } = profile;
    let widest = layers.iter().map(|layer| layer.layer.len()).chain([24]).max().unwrap_or(24);
    let percent = |ms: f64| format!("{:>5.1} %", 100.0 * ms / total_ms.max(f64::MIN_POSITIVE));
    let mut text = format!("\n{:<widest$} {:>10} {:>7}\n", "work, mean of a step", "ms", "share");
    for WorkTime { work, ms, .. } in work {
        text += &format!("{work:<widest$} {ms:>10.2} {}\n", percent(*ms));
    }
    text += &format!("{:<widest$} {total_ms:>10.2} {}\n", "total", percent(*total_ms));
    text += &format!(
        "\n{:<widest$} {:>10} {:>10} {:>7}  most of it\n",
        "layer", "forward ms", "backward", "share"
    );
    for LayerTime { layer, forward_ms, backward_ms, work, .. } in layers {
        let mut work: Vec<_> = work.iter().collect();
        work.sort_by(|a, b| b.1.total_cmp(a.1));
        let most: Vec<_> =
            work.iter().take(3).map(|(name, ms)| format!("{name} {ms:.2}")).collect();
        text += &format!(
            "{layer:<widest$} {forward_ms:>10.2} {backward_ms:>10.2} {}  {}\n",
            percent(forward_ms + backward_ms),
            most.join(", ")
        );
    }
    for (name, ms) in [("outside of layers", *outside_ms), ("not attributed", *unattributed_ms)] {
        text += &format!("{name:<widest$} {ms:>21.2} {}\n", percent(ms));
    }
    text += &format!("{:<widest$} {total_ms:>21.2} {}", "total", percent(*total_ms));
    text
}
