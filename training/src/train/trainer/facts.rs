//! What must be equal on all ranks before a run begins.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use dbb_models::Classifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Config, shown};
use crate::run::directory::CheckpointId;
use crate::run::metrics::host;

/// What determines the run that a rank would train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RankFacts {
    /// Of the program.
    pub version: String,
    pub config: Config,
    /// Fingerprints of the training and the validation images.
    pub data: [String; 2],
    /// The kind of device.
    pub device: String,
    /// The checkpoint that the run resumes from.
    pub place: CheckpointId,
    /// Hash of the weights that the run starts with.
    pub weights: String,
}

impl RankFacts {
    /// How a rank differs from the first, a sentence each.
    pub fn differences(&self, first: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut add = |what: &str, own: &str, first: &str| {
            if own != first {
                differences.push(format!("its {what} is {own}, not {first}"));
            }
        };
        add("version of dbb", &self.version, &first.version);
        for (key, own, first) in self.config.differences(&first.config) {
            add(&key, &shown(&own), &shown(&first));
        }
        let short = |text: &str| text.chars().take(12).collect::<String>();
        for (what, own, first) in [
            ("training images' fingerprint", &self.data[0], &first.data[0]),
            ("validation images' fingerprint", &self.data[1], &first.data[1]),
        ] {
            add(what, &short(own), &short(first));
        }
        add("device", &self.device, &first.device);
        add("newest checkpoint", &self.place.to_string(), &first.place.to_string());
        // Other weights of another configuration are no news.
        if differences.is_empty() && self.weights != first.weights {
            differences.push(
                "its network starts with other weights; hint: model.init_from or the checkpoint is \
                 another file there"
                    .into(),
            );
        }
        differences
    }
}

/// Hash of all weights and statistics of a network.
pub(super) fn digest(network: &Classifier) -> String {
    struct Hash(Sha256);
    impl ModuleVisitor for Hash {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            host(param.val().into_data())
                .iter()
                .for_each(|value| self.0.update(value.to_le_bytes()));
        }
    }
    let mut hash = Hash(Sha256::new());
    network.visit(&mut hash);
    hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let config = |lr: &str| -> Config {
            let text =
                "[model]\narch = \"resnet20\"\n[train]\nepochs = 1\nbatch_size = 8\n[optim]\nlr = ";
            toml::from_str(&format!("{text}{lr}")).unwrap()
        };
        let first = RankFacts {
            version: "0.1.0".into(),
            config: config("0.1"),
            data: ["aa".into(), "bb".into()],
            device: "flex".into(),
            place: CheckpointId::default(),
            weights: "cc".into(),
        };
        assert!(first.differences(&first).is_empty());
        let other = RankFacts {
            version: "0.2.0".into(),
            config: config("0.2"),
            data: ["aa".into(), "dd".into()],
            weights: "ee".into(),
            ..first.clone()
        };
        assert_eq!(
            other.differences(&first),
            [
                "its version of dbb is 0.2.0, not 0.1.0",
                "its optim.lr is 0.2, not 0.1",
                "its validation images' fingerprint is dd, not bb",
            ]
        );
        let weights = RankFacts { weights: "ee".into(), ..first.clone() };
        assert_eq!(weights.differences(&first).len(), 1);
    }
}
