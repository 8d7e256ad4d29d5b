//! `[model]`: the network.

use std::fmt::Display;
use std::path::PathBuf;

use dbb_models::blocks::{Activation, DbbConfig, MobileOneConfig, OrepaConfig};
use dbb_models::{Arch, BlockKind, ConfigError, LayerBlocks, ModelConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Fault, require};

/// Classes and channels assumed where the data has not been opened.
const ANY_CLASSES: usize = 1000;
pub(super) const ANY_CHANNELS: usize = 3;

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Architecture.
    pub arch: Arch,
    /// Block that replaces every KxK convolution.
    #[serde(default = "dbb")]
    pub block: BlockKind,
    /// Multiplies the channels of every layer.
    #[serde(default = "super::one")]
    pub width: f64,
    /// Weights file to start from. By default the initial weights are random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Classes; must agree with the data. By default the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// Channels of the images, 1 or 3. By default the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_channels: Option<usize>,
    /// Nonlinearity of MobileNetV1, `relu` or `relu6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Blocks of single layers, by pattern; the last match wins.
    #[serde(default, skip_serializing_if = "LayerBlocks::is_empty")]
    pub blocks: LayerBlocks,
    /// Parts of a Diverse Branch Block.
    #[serde(default)]
    pub dbb: DbbConfig,
    /// Parts of a MobileOne block.
    #[serde(default)]
    pub mobileone: MobileOneConfig,
    /// Parts of an OREPA block.
    #[serde(default)]
    pub orepa: OrepaConfig,
}

fn dbb() -> BlockKind {
    BlockKind::Dbb
}

impl ModelSection {
    /// The network for data of the given classes and channels.
    pub fn resolve(&self, num_classes: usize, in_channels: usize) -> ModelConfig {
        ModelConfig {
            arch: self.arch,
            block: self.block,
            blocks: self.blocks.clone(),
            dbb: self.dbb.clone(),
            mobileone: self.mobileone.clone(),
            orepa: self.orepa.clone(),
            activation: self.activation,
            width: self.width,
            num_classes: self.num_classes.unwrap_or(num_classes),
            in_channels: self.in_channels.unwrap_or(in_channels),
        }
    }

    /// The ranges of the keys; that the network can be built, with `train.freeze`, and takes images of
    /// `data.size`.
    pub(super) fn check(&self, size: Option<usize>, freeze: &[String]) -> Result<(), Fault> {
        if let Some(channels) = self.in_channels {
            require(matches!(channels, 1 | 3), "model.in_channels", &channels, "1 or 3")?;
        }
        let width = self.width;
        require(width > 0.0 && width <= 16.0, "model.width", &width, "above 0 and up to 16")?;
        let fault =
            |key: &str, error: &dyn Display| Fault { key: key.into(), text: error.to_string() };
        let network = self.resolve(ANY_CLASSES, ANY_CHANNELS);
        network.validate(size.map(|side| [side; 2]), freeze).map_err(|error| match &error {
            // Only a small width leaves a layer of the zoo without channels.
            ConfigError::Geometry { .. } => {
                let text = format!("{width} leaves a layer of {} without channels", self.arch);
                Fault { key: "model.width".into(), text }
            }
            ConfigError::InternalChannels { .. } => {
                let table = if self.orepa.internal_channels.is_some() { "orepa" } else { "dbb" };
                fault(&format!("model.{table}.internal_channels"), &error)
            }
            ConfigError::NoBranch | ConfigError::BranchTwice { .. } => {
                fault("model.dbb.branches", &error)
            }
            ConfigError::Pattern { pattern, .. } => {
                if self.blocks.patterns().any(|known| known == pattern) {
                    fault(&format!("model.blocks.{pattern}"), &error)
                } else if self.mobileone.layers.patterns().any(|known| known == pattern) {
                    fault(&format!("model.mobileone.layers.{pattern}"), &error)
                } else {
                    fault("train.freeze", &error)
                }
            }
            ConfigError::NothingToTrain { .. } => fault("train.freeze", &error),
            ConfigError::ImageSize { .. } => fault("data.size", &error),
            ConfigError::Option { option, .. } => fault(&format!("model.{option}"), &error),
            _ => fault("model.block", &error),
        })
    }
}
