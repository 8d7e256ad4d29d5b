//! The model card of timm's folder: `README.md` with the metadata that the Hugging Face Hub reads
//! (<https://huggingface.co/docs/hub/model-cards>).

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use dbb_models::Classifier;
use dbb_models::quantize::{Granularity, int8_weights};
use dbb_models::weights::Metadata;
use serde_json::json;

use crate::config::Config;
use crate::deploy::fold::FoldReport;
use crate::device;
use crate::error::Result;
use crate::inference::probe::Probe;
use crate::report::format::Quantity::{Count, Number, Percent};
use crate::run::metrics::Totals;

/// The license where none is given, as the Hub calls it.
pub const UNKNOWN_LICENSE: &str = "unknown";

/// What a card says.
pub struct ModelCard<'a> {
    /// What the network is.
    pub metadata: &'a Metadata,
    /// timm's name of the architecture.
    pub architecture: &'a str,
    /// The fold and its measured difference.
    pub fold: Option<&'a FoldReport>,
    /// Parameters.
    pub params: usize,
    /// Multiply-accumulate operations for an image of the network's input size.
    pub macs: u64,
    /// Channels, height and width of the input.
    pub input: [usize; 3],
    /// Its accuracy, if there was data to measure it on.
    pub accuracy: Option<Accuracy>,
    /// What it is in 8 bits, if that was measured.
    pub int8: Option<Int8Card<'a>>,
    /// The configuration of its run, if it comes from one.
    pub config: Option<&'a Config>,
    /// The license, by the Hub's identifier.
    pub license: &'a str,
}

/// Top-1 of a folded network.
#[derive(Clone, Debug)]
pub struct Accuracy {
    /// The images.
    pub data: String,
    /// How many.
    pub images: usize,
    /// Percent.
    pub top1: f64,
    /// Percent, with weights in 8 bits and one scale per output channel.
    pub top1_int8: f64,
}

/// A network in 8 bits, weights and maps.
#[derive(Clone, Copy, Debug)]
pub struct Int8Card<'a> {
    /// The images of the calibration.
    pub calibrated_on: &'a str,
    /// How many.
    pub images: usize,
    /// Layers that stay in `f32`.
    pub float_layers: &'a [String],
    /// Top-1 on the images of [`Accuracy`], percent, if their classes are known.
    pub top1: Option<f64>,
}

impl Accuracy {
    /// Measures a folded network on the images of a probe; `None` for random ones.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn measure(network: &Classifier, probe: &Probe) -> Result<Option<Self>> {
        if let Probe::Random(_) = probe {
            return Ok(None);
        }
        let device = device::of(network);
        let rounded = int8_weights(network, Granularity::PerChannel);
        let mut totals = [Totals::default(); 2];
        for batch in probe.batches() {
            let batch = batch?;
            let images: Tensor<4> = Tensor::from_data(batch.images, &device);
            for (totals, network) in totals.iter_mut().zip([network, &rounded]) {
                totals.add(network.forward(images.clone()), &batch.labels, 0.0);
            }
        }
        let [exact, rounded] = totals;
        Ok((exact.images() > 0).then(|| Self {
            data: without_folder(&probe.describe()),
            images: exact.images(),
            top1: exact.top1(),
            top1_int8: rounded.top1(),
        }))
    }
}

impl ModelCard<'_> {
    /// The card as Markdown.
    pub fn text(&self) -> String {
        [self.header(), self.facts(), self.origin(), USAGE.into()].join("\n")
    }

    fn name(&self) -> String {
        let model = &self.metadata.model;
        format!("{} ({} with {} blocks, folded)", self.architecture, model.arch, model.block)
    }

    /// The metadata in YAML, of which JSON is a part: strings are quoted as JSON quotes them.
    fn header(&self) -> String {
        let mut header = format!(
            "---\nlibrary_name: timm\npipeline_tag: image-classification\nlicense: {}\ntags:\n\
             - image-classification\n- timm\n- structural-reparameterization\n",
            json!(self.license)
        );
        if let Some(Accuracy { data, top1, top1_int8, .. }) = &self.accuracy {
            let mut metrics = vec![
                json!({"type": "accuracy", "name": "top-1", "value": top1}),
                json!({"type": "accuracy", "name": "top-1, weights in 8 bits", "value": top1_int8}),
            ];
            if let Some(top1) = self.int8.and_then(|int8| int8.top1) {
                metrics.push(json!({"type": "accuracy", "name": "top-1, 8 bits", "value": top1}));
            }
            let result = json!([{
                "name": self.name(),
                "results": [{
                    "task": {"type": "image-classification", "name": "Image classification"},
                    "dataset": {"type": "imagefolder", "name": data},
                    "metrics": metrics,
                }],
            }]);
            header += &format!("model-index: {result}\n");
        }
        header + "---\n"
    }

    fn facts(&self) -> String {
        let Self { fold, params, macs, input: [channels, height, width], .. } = self;
        let mut rows = vec![
            ("classes", self.metadata.model.num_classes.to_string()),
            ("input", format!("{channels} channels, {height}x{width}")),
            ("parameters", Count.show(*params as f64)),
            ("multiply-accumulates", Count.show(*macs as f64)),
        ];
        if let Some(accuracy) = &self.accuracy {
            rows.push(("top-1", Percent.show(accuracy.top1)));
            rows.push((
                "top-1, weights in 8 bits (one scale per output channel)",
                Percent.show(accuracy.top1_int8),
            ));
            rows.extend(self.int8.and_then(Int8Card::row));
            rows.push(("measured on", format!("{} ({} images)", accuracy.data, accuracy.images)));
        }
        if let Some(fold) = fold {
            rows.push(("parameters in training", Count.show(fold.params_train as f64)));
            let difference = Number.show(fold.max_rel_diff);
            let data = without_folder(&fold.compared_on);
            let text = format!("{difference} of the largest logit, on {data}");
            rows.push(("difference of the fold", text));
        }
        let rows: String = rows
            .into_iter()
            .map(|(name, value)| format!("| {name} | {} |\n", cell(&value)))
            .collect();
        format!("# {}\n\n| | |\n|---|---|\n{rows}", self.name())
    }

    fn origin(&self) -> String {
        let blocks = match self.fold.map(|fold| fold.blocks_folded) {
            None => "It comes from a file that was folded before.".to_string(),
            Some(0) => "It has no block of several branches.".to_string(),
            Some(blocks) => format!(
                "While it was trained, {blocks} of its convolutions were blocks of several branches; \
                 each is folded, exactly, into one convolution with bias."
            ),
        };
        let recipe = match self.config {
            Some(config) => format!(
                "The configuration of its run:\n\n```toml\n{}```\n",
                without_folders(config).to_toml()
            ),
            None => "It comes from a weights file that does not say how it was trained.\n".into(),
        };
        format!("## Training\n\n{blocks} {recipe}")
    }
}

impl Int8Card<'_> {
    /// Its top-1 as a row.
    fn row(self) -> Option<(&'static str, String)> {
        let top1 = Percent.show(self.top1?);
        let floats = match self.float_layers {
            [] => String::new(),
            layers => format!("; {} in f32", layers.join(", ")),
        };
        let text = format!(
            "{top1} (calibrated on {} images of {}{floats})",
            self.images,
            without_folder(self.calibrated_on)
        );
        Some(("top-1, weights and maps in 8 bits", text))
    }
}

/// How to use the folder.
const USAGE: &str = r#"## Use

With timm, from this folder or, once it is uploaded, as `hf-hub:NAME/REPOSITORY`:

```python
import timm

network = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(network.pretrained_cfg))
```

With dbb, which also writes it as ONNX for onnxruntime:

```sh
dbb predict model.safetensors IMAGE
dbb export model.safetensors --format onnx --out network.onnx
```

```python
import onnxruntime

session = onnxruntime.InferenceSession("network.onnx")
logits = session.run(["logits"], {"images": images})[0]
```
"#;

/// A configuration with the names of its files alone: where they lie on a disk is nobody's business.
fn without_folders(config: &Config) -> Config {
    let name = |path: &Path| path.file_name().map(PathBuf::from);
    let mut config = config.clone();
    if let Some(source) = name(config.data.source.as_ref()) {
        config.data.source = source.display().to_string();
    }
    config.model.init_from = config.model.init_from.as_deref().and_then(name);
    config.data.class_map = config.data.class_map.as_deref().and_then(name);
    config
}

/// The description of data without the folders above it; nothing that follows the path has a slash.
fn without_folder(description: &str) -> String {
    let name = Path::new(description).file_name();
    name.map_or_else(|| description.into(), |name| name.to_string_lossy().into_owned())
}

/// A cell of a table: one line without bars.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
