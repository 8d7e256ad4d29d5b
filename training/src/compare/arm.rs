//! The arms of a comparison: their names, baselines and differences.

use std::path::{Path, PathBuf};

use dbb_models::{Arch, BlockKind};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::config::{Config, shown};
use crate::error::{Error, Result};
use crate::run::identity::Identity;

/// Keys that are not listed as differences: the name, and the block, which every table shows
/// anyway.
const SHOWN_KEYS: [&str; 2] = ["name", "model.block"];

/// A configuration that is trained with every seed.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Its name, unique in the comparison.
    pub name: String,
    /// The configuration, with the first of the seeds.
    pub config: Config,
    /// Index of the arm that it is compared with.
    pub baseline: Option<usize>,
}

impl Arm {
    /// One arm per configuration or, with `blocks`, one per configuration and block.
    ///
    /// An arm has the `name` of its configuration, or else that of the file, prefixed with the
    /// folder where two files have the same name. With `blocks` the block is appended, or replaces
    /// the configuration's own block in the name.
    ///
    /// Its baseline is the first arm of the same file, or else of the same architecture, or else
    /// the first of all.
    ///
    /// # Errors
    /// If two arms have the same name.
    pub fn of(recipes: &[(PathBuf, Config)], blocks: &[BlockKind]) -> Result<Vec<Self>> {
        let mut arms: Vec<Self> = Vec::new();
        let mut origins: Vec<(usize, Arch)> = Vec::new();
        for (recipe, (path, config)) in recipes.iter().enumerate() {
            let name = match &config.name {
                Some(name) => name.clone(),
                None => file_name(path, recipes),
            };
            let named: Vec<_> = match blocks {
                [] => vec![(name, config.model.block)],
                _ => {
                    blocks.iter().map(|&b| (with_block(&name, config.model.block, b), b)).collect()
                }
            };
            for (name, block) in named {
                if arms.iter().any(|arm| arm.name == name) {
                    return Err(Error::Unusable(format!(
                        "{}: the name {name} is used twice; hint: leave one of the two out, or give the \
                         configuration another name, such as name = \"{name}-2\" at the top of the \
                         file",
                        path.display()
                    )));
                }
                let origin = (recipe, config.model.arch);
                let baseline = origins
                    .iter()
                    .position(|&(other, _)| other == recipe)
                    .or_else(|| origins.iter().position(|&(_, arch)| arch == config.model.arch))
                    .or((!origins.is_empty()).then_some(0));
                let mut config = config.clone();
                config.name = Some(name.clone());
                config.model.block = block;
                arms.push(Self { name, config, baseline });
                origins.push(origin);
            }
        }
        Ok(arms)
    }
}

/// `resnet20-base` as `resnet20-dbb`, `quick` as `quick-dbb`.
fn with_block(name: &str, own: BlockKind, block: BlockKind) -> String {
    let mut parts: Vec<&str> = name.split('-').collect();
    match parts.iter_mut().rfind(|part| **part == own.name()) {
        Some(part) => *part = block.name(),
        None => parts.push(block.name()),
    }
    parts.join("-")
}

/// The name of a file without its extension, prefixed with its folder where another file has the
/// same name.
fn file_name(path: &Path, recipes: &[(PathBuf, Config)]) -> String {
    let stem = path.file_stem();
    let shared = |(other, config): &(PathBuf, Config)| {
        config.name.is_none() && other != path && other.file_stem() == stem
    };
    let folder = path.parent().and_then(Path::file_name).filter(|_| recipes.iter().any(shared));
    let parts = folder.into_iter().chain(stem).map(|part| part.to_string_lossy());
    let text = parts.collect::<Vec<_>>().join("-");
    // Only characters that the key `name` allows.
    let allowed = |c: char| if c.is_alphanumeric() || "-_.+".contains(c) { c } else { '-' };
    let text: String = text.chars().map(allowed).collect();
    match text.trim_start_matches(['-', '_', '.', '+']) {
        "" => "config".into(),
        text => text.into(),
    }
}

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
}

impl Contrast {
    /// The contrast of every arm that has a baseline; `identities` are those of the arms' runs
    /// with the first seed.
    pub fn of(arms: &[Arm], identities: &[Identity]) -> Vec<Self> {
        let contrast = |(arm, own): (&Arm, &Identity)| {
            let at = arm.baseline?;
            let (baseline, other) = (&arms[at], &identities[at]);
            let differences = other.config.differences(&own.config).into_iter();
            Some(Self {
                arm: arm.name.clone(),
                baseline: baseline.name.clone(),
                blocks: [arm, baseline].map(|arm| arm.config.model.block),
                differences: differences
                    .filter(|(key, ..)| !SHOWN_KEYS.contains(&key.as_str()))
                    .map(|(key, baseline, own)| Difference { key, baseline, own })
                    .collect(),
                pairing: Pairing::of(own, other),
            })
        };
        arms.iter().zip(identities).filter_map(contrast).collect()
    }

    /// What differs and how it is compared, in a line.
    pub fn describe(&self) -> String {
        let Self { arm, baseline, blocks: [own, other], differences, pairing } = self;
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
    use super::*;

    fn config(keys: &str) -> Config {
        let text = format!("{keys}\n[train]\nepochs = 1\nbatch_size = 8\n[optim]\nlr = 0.1\n");
        toml::from_str(&text).unwrap()
    }

    fn recipe(path: &str, arch: &str, block: &str) -> (PathBuf, Config) {
        (path.into(), config(&format!("[model]\narch = \"{arch}\"\nblock = \"{block}\"")))
    }

    fn names(arms: &[Arm]) -> Vec<(&str, Option<&str>)> {
        let baseline = |arm: &Arm| arm.baseline.map(|at| arms[at].name.as_str());
        arms.iter().map(|arm| (arm.name.as_str(), baseline(arm))).collect()
    }

    #[test]
    fn arms_are_named_after_their_files() {
        let own = [
            recipe("a/resnet20-base.toml", "resnet20", "base"),
            recipe("a/resnet20-dbb.toml", "resnet20", "dbb"),
            recipe("a/mobile net.toml", "mobilenet_v1", "base"),
            recipe("b/resnet20-dbb.toml", "resnet20", "dbb"),
        ];
        let arms = Arm::of(&own, &[]).unwrap();
        let first = Some("resnet20-base");
        assert_eq!(
            names(&arms),
            [
                ("resnet20-base", None),
                ("a-resnet20-dbb", first),
                ("mobile-net", first),
                ("b-resnet20-dbb", first),
            ]
        );
        assert_eq!(arms[1].config.name.as_deref(), Some("a-resnet20-dbb"));
        let mut named = own.to_vec();
        named[1].1.name = Some("wide".into());
        let arms = Arm::of(&named, &[]).unwrap();
        assert_eq!((&*arms[1].name, &*arms[3].name), ("wide", "resnet20-dbb"));
        let twice = Arm::of(&[own[0].clone(), own[0].clone()], &[]).unwrap_err().to_string();
        assert!(twice.contains("is used twice") && twice.contains("name = \"resnet20-base-2\""));
    }

    /// With blocks the first of each file is the baseline of the others.
    #[test]
    fn blocks_follow_the_name() {
        let recipes = [
            recipe("resnet20-base.toml", "resnet20", "base"),
            recipe("slow.toml", "resnet20", "base"),
            recipe("dbb.toml", "mobilenet_v1", "dbb"),
            recipe("x-dbb-modern.toml", "mobilenet_v1", "dbb"),
        ];
        let arms = Arm::of(&recipes, &[BlockKind::Base, BlockKind::Dbb]).unwrap();
        assert_eq!(
            names(&arms),
            [
                ("resnet20-base", None),
                ("resnet20-dbb", Some("resnet20-base")),
                ("slow-base", Some("resnet20-base")),
                ("slow-dbb", Some("slow-base")),
                ("base", Some("resnet20-base")),
                ("dbb", Some("base")),
                ("x-base-modern", Some("base")),
                ("x-dbb-modern", Some("x-base-modern")),
            ]
        );
        assert_eq!(arms[3].config.model.block, BlockKind::Dbb);
    }

    fn identity(keys: &str, train_data: &str, val_data: &str) -> Identity {
        Identity {
            config: config(keys),
            train_data: train_data.into(),
            val_data: val_data.into(),
            device: String::new(),
            threads: 1,
            instruction_set: String::new(),
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
            let arms = Arm::of(&recipes, &[]).unwrap();
            let contrasts = Contrast::of(&arms, &identities);
            assert_eq!(contrasts.len(), 1);
            let said = contrasts[0].describe();
            assert!(said.starts_with("b against a: ") && said.ends_with(text), "{said}");
        }
    }
}
