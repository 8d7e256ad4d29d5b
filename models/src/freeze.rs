//! Layers that training leaves as they are.

use burn::module::{Flag, Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::Tensor;

use crate::backbones::Classifier;
use crate::error::ConfigError;
use crate::layer_path::LayerPath;
use crate::layer_pattern::{self, matches};
use crate::model_config::ModelConfig;
use crate::walk::Walk;

impl ModelConfig {
    /// Freezes the layers that fit one of the patterns (`*` stands for any text; layers are named
    /// as in [`Walk::layer_names`]): their weights have no
    /// gradient, and their batch norms normalise with the running statistics and keep them, in
    /// training as in evaluation.
    ///
    /// A weights file does not say which layers are frozen: freeze a network after loading it.
    ///
    /// # Errors
    /// [`ConfigError::Pattern`] for a pattern that fits no layer; [`ConfigError::NothingToTrain`] if
    /// every layer is frozen.
    pub fn freeze(
        &self,
        network: Classifier,
        patterns: &[String],
    ) -> Result<Classifier, ConfigError> {
        if patterns.is_empty() {
            return Ok(network);
        }
        let layers = network.layer_names();
        let names: Vec<_> = layers.iter().map(String::as_str).collect();
        layer_pattern::check(patterns, &names, self.arch.name())?;
        let is_frozen = |layer: &&String| patterns.iter().any(|pattern| matches(pattern, layer));
        let frozen: Vec<String> =
            layers.iter().filter(is_frozen).map(|layer| format!("{layer}.")).collect();
        if frozen.len() == layers.len() {
            return Err(ConfigError::NothingToTrain { patterns: patterns.to_vec() });
        }
        let mut below = Below { layers: frozen, path: LayerPath::default(), ids: Vec::new() };
        network.visit(&mut below);
        Ok(network.freeze_group(ParamGroup::from_ids(below.ids)))
    }
}

/// Collects the parameters and flags of some layers.
struct Below {
    layers: Vec<String>,
    path: LayerPath,
    ids: Vec<ParamId>,
}

impl Below {
    fn note(&mut self, id: ParamId) {
        let path = self.path.name();
        if self.layers.iter().any(|layer| path.starts_with(layer)) {
            self.ids.push(id);
        }
    }
}

impl ModuleVisitor for Below {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.note(param.id);
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.note(flag.id);
    }
}
