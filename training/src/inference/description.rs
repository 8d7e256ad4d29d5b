//! The description of a network, for a file that does not describe itself.

use std::path::Path;

use dbb_models::weights::Metadata;
use dbb_models::{Arch, BlockKind, ModelConfig};

use crate::error::{Error, Property, Result};

/// A user's description of a network. A file without metadata needs it; metadata take precedence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkDescription {
    /// Architecture.
    pub arch: Option<Arch>,
    /// Block; `base` by default.
    pub block: Option<BlockKind>,
    /// Width multiplier; 1 by default.
    pub width: Option<f64>,
    /// Number of classes.
    pub classes: Option<usize>,
    /// Channels of the images; 3 by default.
    pub channels: Option<usize>,
}

impl NetworkDescription {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The network it describes, for a file that does not describe itself.
    ///
    /// # Errors
    /// [`Error::Undescribed`] without an architecture or a number of classes.
    pub fn model(&self, file: &Path) -> Result<ModelConfig> {
        let missing = |missing| Error::Undescribed { file: file.into(), missing };
        let arch = self.arch.ok_or_else(|| missing(Property::Arch))?;
        let classes = self.classes.ok_or_else(|| missing(Property::Classes))?;
        Ok(ModelConfig {
            width: self.width.unwrap_or(1.0),
            in_channels: self.channels.unwrap_or(3),
            ..ModelConfig::new(arch, self.block.unwrap_or(BlockKind::Base), classes)
        })
    }

    /// Checks that it agrees with the metadata of a file.
    ///
    /// # Errors
    /// [`Error::Contradiction`] naming the first property that differs.
    pub fn check_against(&self, metadata: &Metadata, file: &Path) -> Result<()> {
        let model = &metadata.model;
        let pairs = [
            (Property::Arch, self.arch.map(|arch| arch.to_string()), model.arch.to_string()),
            (Property::Block, self.block.map(|block| block.to_string()), model.block.to_string()),
            (Property::Width, self.width.map(|width| width.to_string()), model.width.to_string()),
            (Property::Classes, self.classes.map(|n| n.to_string()), model.num_classes.to_string()),
            (
                Property::Channels,
                self.channels.map(|n| n.to_string()),
                model.in_channels.to_string(),
            ),
        ];
        for (property, given, own) in pairs {
            if let Some(given) = given.filter(|given| *given != own) {
                return Err(Error::Contradiction { file: file.into(), property, given, own });
            }
        }
        Ok(())
    }
}
