//! What our files say of themselves.

use serde::{Deserialize, Serialize};

use crate::dialects::Dialect;
use crate::form::Form;
use crate::model_config::ModelConfig;

/// Enough to rebuild and use a network without any flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The structure.
    pub model: ModelConfig,
    /// Training form or folded.
    pub form: Form,
    /// The names its keys are written in.
    pub keys: Dialect,
    /// How an image becomes the network's input, as the data crate describes it.
    #[serde(default)]
    pub preprocess: serde_json::Value,
    /// Names of the classes, in order of the logits.
    #[serde(default)]
    pub classes: Vec<String>,
}

impl Metadata {
    /// Key of the file's own metadata table that holds this as JSON.
    pub(crate) const KEY: &'static str = "dbb_zoo";
}
