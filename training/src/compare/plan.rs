//! What is compared: the arms, their seeds, and which arm with which.

use std::path::{Path, PathBuf};

use dbb_models::{Arch, BlockKind};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Error, Result};

/// A configuration that is trained with every seed.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Its name, unique in the comparison.
    pub name: String,
    /// The configuration, with the first of the seeds.
    pub config: Config,
    /// Index of the arm whose training time decides its epochs.
    pub same_time_as: Option<usize>,
}

/// How p-values are corrected for the number of comparisons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Correction {
    /// By Holm's method, over all comparisons.
    #[default]
    Holm,
    /// Not at all.
    None,
}

impl Correction {
    /// Its name in study files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holm => "holm",
            Self::None => "none",
        }
    }
}

/// A whole comparison, before it is trained.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The arms.
    pub arms: Vec<Arm>,
    /// Indices of an arm and of the baseline that it is compared with. In a study the first is the
    /// primary comparison.
    pub comparisons: Vec<[usize; 2]>,
    /// Seeds of every arm, starting from that of its configuration.
    pub seeds: u64,
    /// How p-values are corrected.
    pub correction: Correction,
    /// The difference of top-1, in points, for which the number of seeds is told that resolve it.
    pub resolve: f64,
    /// Whether it was fixed in advance by a study file, so that nothing of it may change.
    pub is_study: bool,
}

/// The default of [`Plan::resolve`].
pub const RESOLVE: f64 = 0.5;

impl Plan {
    /// One arm per configuration or, with `blocks`, one per configuration and block.
    ///
    /// An arm has the `name` of its configuration, or else that of the file, prefixed with the
    /// folder where two files have the same name. With `blocks` the block is appended, or replaces
    /// the configuration's own block in the name.
    ///
    /// It is compared with the first arm of the same file, or else of the same architecture, or else
    /// the first of all.
    ///
    /// # Errors
    /// If two arms have the same name.
    pub fn of(recipes: &[(PathBuf, Config)], blocks: &[BlockKind], seeds: u64) -> Result<Self> {
        let mut arms: Vec<Arm> = Vec::new();
        let mut origins: Vec<(usize, Arch)> = Vec::new();
        let mut comparisons = Vec::new();
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
                comparisons.extend(baseline.map(|baseline| [arms.len(), baseline]));
                let mut config = config.clone();
                config.name = Some(name.clone());
                config.model.block = block;
                arms.push(Arm { name, config, same_time_as: None });
                origins.push(origin);
            }
        }
        let correction = Correction::default();
        Ok(Self { arms, comparisons, seeds, correction, resolve: RESOLVE, is_study: false })
    }

    /// Every run as the index of its arm and its seed: seed by seed, so that an early stop leaves whole
    /// pairs.
    pub fn runs(&self) -> Vec<(usize, u64)> {
        let of_seed =
            |seed| self.arms.iter().enumerate().map(move |(at, arm)| (at, arm.config.seed + seed));
        (0..self.seeds).flat_map(of_seed).collect()
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::run::identity::Identity;

    fn config(keys: &str) -> Config {
        let text = format!("{keys}\n[train]\nepochs = 1\nbatch_size = 8\n[optim]\nlr = 0.1\n");
        toml::from_str(&text).unwrap()
    }

    pub fn recipe(path: &str, arch: &str, block: &str) -> (PathBuf, Config) {
        (path.into(), config(&format!("[model]\narch = \"{arch}\"\nblock = \"{block}\"")))
    }

    /// The circumstances of a run of a configuration.
    pub fn identity(config: &Config) -> Identity {
        Identity {
            config: config.clone(),
            train_data: "t".into(),
            val_data: "v".into(),
            device: "flex".into(),
            threads: 1,
            instruction_set: String::new(),
            ranks: 1,
        }
    }

    /// The name of every arm, and of its baseline.
    fn names(plan: &Plan) -> Vec<(&str, Option<&str>)> {
        let name = |at: usize| plan.arms[at].name.as_str();
        let baseline = |at: usize| {
            let comparison = plan.comparisons.iter().find(|[arm, _]| *arm == at);
            comparison.map(|[_, baseline]| name(*baseline))
        };
        (0..plan.arms.len()).map(|at| (name(at), baseline(at))).collect()
    }

    #[test]
    fn arms_are_named_after_their_files() {
        let own = [
            recipe("a/resnet20-base.toml", "resnet20", "base"),
            recipe("a/resnet20-dbb.toml", "resnet20", "dbb"),
            recipe("a/mobile net.toml", "mobilenet_v1", "base"),
            recipe("b/resnet20-dbb.toml", "resnet20", "dbb"),
        ];
        let plan = Plan::of(&own, &[], 1).unwrap();
        let first = Some("resnet20-base");
        assert_eq!(
            names(&plan),
            [
                ("resnet20-base", None),
                ("a-resnet20-dbb", first),
                ("mobile-net", first),
                ("b-resnet20-dbb", first),
            ]
        );
        assert_eq!(plan.arms[1].config.name.as_deref(), Some("a-resnet20-dbb"));
        let mut named = own.to_vec();
        named[1].1.name = Some("wide".into());
        let plan = Plan::of(&named, &[], 1).unwrap();
        assert_eq!((&*plan.arms[1].name, &*plan.arms[3].name), ("wide", "resnet20-dbb"));
        let twice = Plan::of(&[own[0].clone(), own[0].clone()], &[], 1).unwrap_err().to_string();
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
        let plan = Plan::of(&recipes, &[BlockKind::Base, BlockKind::Dbb], 2).unwrap();
        assert_eq!(
            names(&plan),
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
        assert_eq!(plan.arms[3].config.model.block, BlockKind::Dbb);
    }

    #[test]
    fn runs_go_seed_by_seed() {
        let mut recipes =
            [recipe("a.toml", "resnet20", "base"), recipe("b.toml", "resnet20", "dbb")];
        recipes[1].1.seed = 5;
        let plan = Plan::of(&recipes, &[], 2).unwrap();
        assert_eq!(plan.runs(), [(0, 0), (1, 5), (0, 1), (1, 6)]);
    }
}
