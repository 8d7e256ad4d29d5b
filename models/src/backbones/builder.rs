//! Decides which block stands where, and makes it.

use burn::tensor::Device;

use crate::blocks::{Block, BlockKind, BlockOptions, ConvSpec, ConvUnit, DbbConfig, NormConfig};
use crate::error::ConfigError;
use crate::zoo::Form;

/// Makes the units of a network.
#[derive(Debug)]
pub struct NetworkBuilder<'a> {
    /// Block of the layers that no pattern names.
    pub block: BlockKind,
    /// Blocks by layer pattern; the last match wins.
    pub patterns: &'a [(String, BlockKind)],
    /// What a Diverse Branch Block is made of, and the largest kernel that becomes a block.
    pub dbb: &'a DbbConfig,
    /// The constants of the batch norms.
    pub norm: NormConfig,
    /// Whether units are made in training form or folded.
    pub form: Form,
    /// Where the parameters live.
    pub device: &'a Device,
}

impl NetworkBuilder<'_> {
    /// The unit of a layer.
    ///
    /// # Errors
    /// If the chosen block cannot have this geometry.
    pub fn unit(&self, name: &str, spec: &ConvSpec) -> Result<ConvUnit, ConfigError> {
        let block = match self.form {
            Form::Deploy => Block::Folded,
            Form::Train => self.kind(name, spec).with_options(&BlockOptions { dbb: self.dbb }),
        };
        Ok(ConvUnit::new(spec, &block, self.device)?.with_norm(self.norm))
    }

    /// Which block a layer is in training form. As in the paper's code, 1x1 convolutions and
    /// kernels above `dbb.max_kernel` (the 7x7 stem) stay plain.
    pub fn kind(&self, name: &str, spec: &ConvSpec) -> BlockKind {
        let largest = spec.kernel_size[0].max(spec.kernel_size[1]);
        if largest == 1 || largest > self.dbb.max_kernel {
            return BlockKind::Base;
        }
        let named = self.patterns.iter().rev().find(|(pattern, _)| matches(pattern, name));
        named.map_or(self.block, |(_, kind)| *kind)
    }
}

/// Whether a layer name fits a pattern in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|&i| rest.is_char_boundary(i))
                .any(|i| matches(tail, &rest[i..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("stage4.*", "stage4.0.conv1", true),
            ("stage4.*", "stage3.0.conv1", false),
            ("*.conv2", "stage1.1.conv2", true),
            ("stage?.0", "stage1.0", false),
            ("*", "stem", true),
            ("s*e*1", "stage1.0.conv1", true),
            ("stem", "stem", true),
            ("stem", "stem.conv", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }
}
