//! An arm against its baseline: what differs, and how the two can be compared.

use dbb_models::BlockKind;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::plan::Plan;
use crate::config::shown;
use crate::run::identity::Identity;

/// Keys that are not listed as differences: the name, and the block, which every table shows
/// anyway.
const SHOWN_KEYS: [&str; 2] = ["name", "model.block"];

/// A key of the configuration in which an arm differs from its baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The key, for example `train.epochs`.
    pub key: String,
    /// Its value in the baseline; null if it is not set there.
    pub baseline: Value,
    /// Its value in the arm; null if it is not set there.
    pub own: Value,
}

/// How an arm can be compared with its baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Seed by seed: runs of the same seed have seen the same images in the same order.
    BySeed,
    /// As independent runs, and why.
    Unpaired(&'static str),
    /// Not at all, and why.
    Incomparable(&'static str),
}

impl Pairing {
    fn of(own: &Identity, baseline: &Identity) -> Self {
        if own.val_data != baseline.val_data {
            Self::Incomparable("they validate on different images")
        } else if own.train_data != baseline.train_data {
            Self::Unpaired("they train on different images")
        } else if own.config.seed != baseline.config.seed {
            Self::Unpaired("they have different seeds")
        } else {
            Self::BySeed
        }
    }
}

/// In JSON: whether runs are paired, or null where nothing is compared.
impl Serialize for Pairing {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::BySeed => serializer.serialize_some(&true),
            Self::Unpaired(_) => serializer.serialize_some(&false),
            Self::Incomparable(_) => serializer.serialize_none(),
        }
    }
}

/// An arm against its baseline.
#[derive(Clone, Debug)]
pub struct Contrast {
    /// Name of the arm.
    pub arm: String,
    /// Name of its baseline.
    pub baseline: String,
    /// Block of the arm and of its baseline.
    pub blocks: [BlockKind; 2],
    /// What differs besides the block.
    pub differences: Vec<Difference>,
    /// How they can be compared.
    pub pairing: Pairing,
    /// Whether a study file declares it as the primary comparison.
    pub is_primary: bool,
}

impl Contrast {
    /// The contrasts of the comparisons of a plan; `identities` are those of the arms' runs with the
    /// first seed.
    pub fn of(plan: &Plan, identities: &[Identity]) -> Vec<Self> {
        let contrast = |(index, &[at, baseline]): (usize, &[usize; 2])| {
            let (own, other) = (&identities[at], &identities[baseline]);
            let differences = other.config.differences(&own.config).into_iter();
            Self {
                arm: plan.arms[at].name.clone(),
                baseline: plan.arms[baseline].name.clone(),
                blocks: [own, other].map(|identity| identity.config.model.block),
                differences: differences
                    .filter(|(key, ..)| !SHOWN_KEYS.contains(&key.as_str()))
                    .map(|(key, baseline, own)| Difference { key, baseline, own })
                    .collect(),
                pairing: Pairing::of(own, other),
                is_primary: plan.is_study && index == 0,
            }
        };
        plan.comparisons.iter().enumerate().map(contrast).collect()
    }

    /// What differs and how it is compared, in a line.
    pub fn describe(&self) -> String {
        let Self { arm, baseline, blocks: [own, other], differences, pairing, .. } = self;
        let list: Vec<String> = differences
            .iter()
            .map(|d| format!("{} = {} ({baseline}: {})", d.key, shown(&d.own), shown(&d.baseline)))
            .collect();
        let what = match (list.is_empty(), own == other) {
            (true, true) => "the configurations are the same".to_string(),
            (true, false) => "only the block differs".to_string(),
            (false, true) => format!("what differs: {}", list.join(", ")),
            (false, false) => format!("what differs besides the block: {}", list.join(", ")),
        };
        let how = match pairing {
            Pairing::BySeed => "paired by seed".to_string(),
            Pairing::Unpaired(why) => format!("not paired, since {why}"),
            Pairing::Incomparable(why) => format!("no delta, since {why}"),
        };
        format!("{arm} against {baseline}: {what}; {how}")
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;

    fn config(keys: &str) -> Config {
        let text = format!("{keys}\n[train]\nepochs = 1\nbatch_size = 8\n[optim]\nlr = 0.1\n");
        toml::from_str(&text).unwrap()
    }

    fn identity(keys: &str, train_data: &str, val_data: &str) -> Identity {
        Identity {
            config: config(keys),
            train_data: train_data.into(),
            val_data: val_data.into(),
            device: String::new(),
            threads: 1,
            instruction_set: String::new(),
            ranks: 1,
        }
    }

    #[test]
    fn what_differs_is_named_and_decides_the_pairing() {
        let base = "[model]\narch = \"resnet20\"\nblock = \"base\"";
        let cases = [
            (base, "t", "v", "the configurations are the same; paired by seed"),
            ("[model]\narch = \"resnet20\"", "t", "v", "only the block differs; paired by seed"),
            (
                "name = \"x\"\n[data]\nlimit_train = 9\n[model]\narch = \"resnet20\"\nwidth = 0.5",
                "other",
                "v",
                "what differs besides the block: data.limit_train = 9 (a: not set), \
                 model.width = 0.5 (a: 1.0); not paired, since they train on different images",
            ),
            (
                "seed = 7\n[model]\narch = \"resnet20\"\nblock = \"base\"",
                "t",
                "v",
                "what differs: seed = 7 (a: 0); not paired, since they have different seeds",
            ),
            (base, "t", "other", "no delta, since they validate on different images"),
        ];
        for (keys, train, val, text) in cases {
            let identities = [identity(base, "t", "v"), identity(keys, train, val)];
            let recipes: Vec<_> = ["a", "b"]
                .into_iter()
                .zip(&identities)
                .map(|(name, identity)| {
                    (
                        PathBuf::from(format!("{name}.toml")),
                        Config { name: None, ..identity.config.clone() },
                    )
                })
                .collect();
            let plan = Plan::of(&recipes, &[], 1).unwrap();
            let contrasts = Contrast::of(&plan, &identities);
            assert_eq!(contrasts.len(), 1);
            let said = contrasts[0].describe();
            assert!(said.starts_with("b against a: ") && said.ends_with(text), "{said}");
        }
    }
}
