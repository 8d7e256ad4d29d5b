//! The folder that timm loads (`timm.create_model("local-dir:FOLDER", pretrained=True)`) and that
//! can be uploaded to the Hugging Face Hub as it is: `model.safetensors` in timm's names,
//! `config.json` with the architecture, the classes and the preprocessing, and a model card.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dbb_datasets::{Preprocess, imagenet};
use dbb_models::backbones::ForeignModel;
use dbb_models::blocks::Activation;
use dbb_models::weights::{Dialect, Metadata, write_atomically, write_safetensors};
use dbb_models::{Arch, ModelConfig};
use serde::{Serialize, Serializer};

use crate::deploy::weights::ExportedWeights;
use crate::error::{Error, Result};
use crate::inference::labels;

/// The file of the weights in the folder.
pub const WEIGHTS: &str = "model.safetensors";

/// The content of `config.json`.
#[derive(Debug, Serialize)]
pub struct Config {
    architecture: String,
    num_classes: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    label_names: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    label_descriptions: BTreeMap<String, &'static str>,
    model_args: ModelArgs,
    pretrained_cfg: PretrainedConfig,
}

/// How the network differs from timm's network of that name.
#[derive(Debug, Serialize)]
struct ModelArgs {
    #[serde(skip_serializing_if = "Option::is_none")]
    in_chans: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act_layer: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct PretrainedConfig {
    /// Channels, height, width.
    input_size: [usize; 3],
    interpolation: &'static str,
    crop_pct: f64,
    crop_mode: &'static str,
    mean: Vec<f32>,
    std: Vec<f32>,
    num_classes: usize,
    #[serde(serialize_with = "one_or_many")]
    first_conv: Vec<String>,
    classifier: String,
}

impl Config {
    /// The description of a network whose input is made by `preprocess`.
    ///
    /// # Errors
    /// If timm has no such network.
    pub fn new(metadata: &Metadata, preprocess: &Preprocess) -> Result<Self> {
        let model = &metadata.model;
        let classes = labels::classes(&metadata.classes, model.num_classes);
        let described = |class: &String| Some((class.clone(), imagenet::name(class)?));
        let (crop_pct, crop_mode) = match preprocess.resize {
            Some(side) => (crop_pct(preprocess.size.0, side), "center"),
            None => (1.0, "squash"),
        };
        let (architecture, foreign) = architecture(model)?;
        Ok(Self {
            architecture,
            num_classes: model.num_classes,
            label_descriptions: classes.iter().filter_map(described).collect(),
            label_names: classes,
            model_args: ModelArgs {
                in_chans: (model.in_channels != 3).then_some(model.in_channels),
                act_layer: act_layer(model, &foreign),
            },
            pretrained_cfg: PretrainedConfig {
                input_size: preprocess.shape(),
                interpolation: "bilinear",
                crop_pct,
                crop_mode,
                mean: preprocess.mean.clone(),
                std: preprocess.std.clone(),
                num_classes: model.num_classes,
                first_conv: foreign.first_convs,
                classifier: foreign.classifier,
            },
        })
    }

    /// timm's name of the architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Writes the folder `out`: this, the weights, stored in timm's names, and the model card,
    /// unless the folder has a README.md: people edit it. Returns whether the card was written.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, out: &Path, weights: &ExportedWeights, card: &str) -> Result<bool> {
        let failed =
            |error| Error::Unusable(format!("cannot write the folder {}: {error}", out.display()));
        fs::create_dir_all(out).map_err(failed)?;
        let file = out.join(WEIGHTS);
        write_safetensors(&file, &weights.tensors, &weights.metadata)?;
        // Plain data with string keys always serialises.
        let json = serde_json::to_string_pretty(self).expect("a config is plain data");
        write_atomically(&out.join("config.json"), json.as_bytes()).map_err(failed)?;
        let readme = out.join("README.md");
        let is_new = !readme.exists();
        if is_new {
            write_atomically(&readme, card.as_bytes()).map_err(failed)?;
        }
        Ok(is_new)
    }
}

/// One string as such, several as a list.
fn one_or_many<S: Serializer>(
    names: &[String],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match names {
        [name] => serializer.serialize_str(name),
        names => names.serialize(serializer),
    }
}

/// What timm calls a network.
fn architecture(model: &ModelConfig) -> Result<(String, ForeignModel)> {
    let arch = model.arch;
    let Some(foreign) = arch.foreign_model(Dialect::Timm, model.width) else {
        let known = |arch: &Arch| Dialect::Timm.supports(*arch);
        let known: Vec<_> = Arch::ALL.into_iter().filter(known).map(Arch::name).collect();
        return Err(Error::Unusable(format!(
            "timm has no {arch} of these layers; its folder is for {}",
            known.join(", ")
        )));
    };
    let Some(name) = &foreign.name else {
        let widths: Vec<_> = foreign.widths.iter().map(f64::to_string).collect();
        return Err(Error::Unusable(format!(
            "timm has no {arch} of width {}, only of {}; safetensors in timm's names hold the weights \
             alone",
            model.width,
            widths.join(", ")
        )));
    };
    Ok((name.clone(), foreign))
}

/// The nonlinearity of a network, where it is not that of timm's.
fn act_layer(model: &ModelConfig, foreign: &ForeignModel) -> Option<&'static str> {
    let own = model.activation.unwrap_or(Activation::Relu);
    (foreign.activation? != own).then_some("relu")
}

/// The share of the resized side that the crop keeps. timm divides by it and rounds down, which
/// must give `side` again.
fn crop_pct(size: usize, side: usize) -> f64 {
    let share = size as f64 / side as f64;
    if (size as f64 / share).floor() < side as f64 { share.next_down() } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_before_the_crop_comes_back() {
        for size in 1..600 {
            for side in size..size + 120 {
                let found = (size as f64 / crop_pct(size, side)).floor();
                assert_eq!(found, side as f64, "{size} of {side}");
            }
        }
        assert_eq!(crop_pct(224, 256), 0.875);
    }
}
