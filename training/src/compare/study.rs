//! A study: a comparison that a TOML file fixes in advance.
//!
//! ```toml
//! seeds = 12
//! set = ["train.epochs=25"]          # overrides of every arm
//!
//! [primary]
//! arm = "dbb"
//! baseline = "base"
//!
//! [[comparisons]]
//! arm = "dbb"
//! baseline = "base-longer"
//!
//! [[arms]]
//! name = "base"
//! config = "resnet20-base.toml"      # relative to this file
//!
//! [[arms]]
//! name = "dbb"
//! config = "resnet20-dbb.toml"
//! set = ["optim.lr=0.1"]
//!
//! [[arms]]
//! name = "base-longer"
//! config = "resnet20-base.toml"
//! same_time_as = "dbb"               # as many epochs as fit in the training time of that arm
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::plan::{Arm, Correction, Plan, RESOLVE};
use crate::config::{Config, ConfigFileError, Document, ScheduleKind, is_name};
use crate::error::{Error, Result};

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StudyFile {
    /// Seeds of every arm.
    seeds: Option<u16>,
    /// Overrides of every arm, `KEY=VALUE`.
    #[serde(default)]
    set: Vec<String>,
    /// How p-values are corrected for the number of comparisons.
    #[serde(default)]
    correction: Correction,
    /// The difference, in points of top-1, for which the number of seeds is told.
    resolve: Option<f64>,
    /// The comparison that the study is made for.
    primary: Option<Pair>,
    /// The other comparisons.
    #[serde(default)]
    comparisons: Vec<Pair>,
    /// The arms.
    #[serde(default)]
    arms: Vec<ArmTable>,
}

/// A comparison.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    /// Name of an arm.
    arm: String,
    /// Name of the arm that it is compared with.
    baseline: String,
}

/// An arm.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArmTable {
    /// Its name.
    name: String,
    /// Its configuration, relative to the file of the study.
    config: PathBuf,
    /// Further overrides, `KEY=VALUE`.
    #[serde(default)]
    set: Vec<String>,
    /// The arm whose training time decides its epochs.
    same_time_as: Option<String>,
}

/// Most seeds of a study.
const MOST_SEEDS: u16 = 10_000;

impl Plan {
    /// The plan of a study file. Paths of configurations are relative to the file.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, an unknown key, a name that is no arm's, each with file, line
    /// and key; a configuration at fault.
    pub fn study(path: &Path) -> Result<Self> {
        let document = Document::read(path).map_err(|error| match error {
            ConfigFileError::Read { path, source } => {
                Error::Unusable(format!("cannot read the study {}: {source}", path.display()))
            }
            error => error.into(),
        })?;
        let file: StudyFile = document.parse()?;
        let folder = path.parent().unwrap_or(Path::new(""));
        file.plan(folder, &|key, text| document.fault(key, text).into())
    }
}

/// Makes an error at a key.
type Fault<'a> = &'a dyn Fn(&str, String) -> Error;

impl StudyFile {
    fn plan(&self, folder: &Path, fault: Fault) -> Result<Plan> {
        let seeds = match self.seeds {
            Some(seeds) if (1..=MOST_SEEDS).contains(&seeds) => seeds.into(),
            Some(seeds) => {
                let text = format!("{seeds} is out of range; expected 1 to {MOST_SEEDS}");
                return Err(fault("seeds", text));
            }
            None => {
                let text = "the key is missing; a study says in advance how many seeds it has";
                return Err(fault("seeds", text.into()));
            }
        };
        let resolve = self.resolve.unwrap_or(RESOLVE);
        if !(resolve > 0.0 && resolve.is_finite()) {
            let text = format!("{resolve} is out of range; expected a number above 0");
            return Err(fault("resolve", text));
        }
        self.check_names(fault)?;
        let comparisons = self.comparisons(fault)?;
        let arms = (0..self.arms.len()).map(|at| self.arm(at, folder, fault));
        let arms = arms.collect::<Result<Vec<_>>>()?;
        check_equal_times(&arms, fault)?;
        let correction = self.correction;
        Ok(Plan { arms, comparisons, seeds, correction, resolve, is_study: true })
    }

    fn check_names(&self, fault: Fault) -> Result<()> {
        if self.arms.len() < 2 {
            return Err(fault("arms", "a study has at least two tables [[arms]]".into()));
        }
        for (at, ArmTable { name, .. }) in self.arms.iter().enumerate() {
            let key = format!("arms[{at}].name");
            if !is_name(name) {
                let expected =
                    "letters, digits, \"-\", \"_\", \".\" and \"+\", a letter or digit first";
                return Err(fault(&key, format!("{name:?} is no name; expected {expected}")));
            }
            if self.arms[..at].iter().any(|other| other.name == *name) {
                return Err(fault(&key, format!("the name {name} is used twice")));
            }
        }
        Ok(())
    }

    /// The index of an arm that a key names.
    fn named(&self, key: &str, name: &str, fault: Fault) -> Result<usize> {
        self.arms.iter().position(|arm| arm.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
            fault(key, format!("there is no arm \"{name}\"; expected one of {}", names.join(", ")))
        })
    }

    /// The comparisons, the primary one first.
    fn comparisons(&self, fault: Fault) -> Result<Vec<[usize; 2]>> {
        let Some(primary) = &self.primary else {
            let text = "the table is missing; it names an arm and its baseline";
            return Err(fault("primary", text.into()));
        };
        let others = self.comparisons.iter().enumerate();
        let others = others.map(|(at, pair)| (format!("comparisons[{at}]"), pair));
        let mut comparisons: Vec<[usize; 2]> = Vec::new();
        for (key, pair) in std::iter::once(("primary".to_string(), primary)).chain(others) {
            let arm = self.named(&format!("{key}.arm"), &pair.arm, fault)?;
            let of_baseline = format!("{key}.baseline");
            let baseline = self.named(&of_baseline, &pair.baseline, fault)?;
            if arm == baseline {
                return Err(fault(&of_baseline, "an arm is not compared with itself".into()));
            }
            if comparisons.iter().any(|pair| [[arm, baseline], [baseline, arm]].contains(pair)) {
                return Err(fault(&key, "the two arms are compared already".into()));
            }
            comparisons.push([arm, baseline]);
        }
        Ok(comparisons)
    }

    fn arm(&self, at: usize, folder: &Path, fault: Fault) -> Result<Arm> {
        let ArmTable { name, config, set, same_time_as } = &self.arms[at];
        let set = [&self.set[..], set].concat();
        let config = Config::load(&folder.join(config), &set)
            .map_err(|error| Error::Arm { name: name.clone(), error: Box::new(error.into()) })?;
        let key = format!("arms[{at}].same_time_as");
        let same_time_as = match same_time_as {
            Some(other) => Some(self.named(&key, other, fault)?),
            None => None,
        };
        if let Some(reference) = same_time_as {
            if reference == at || self.arms[reference].same_time_as.is_some() {
                return Err(fault(&key, "it must name an arm with epochs of its own".into()));
            }
            if config.schedule.kind != ScheduleKind::Cosine {
                let text = "the milestones of schedule.kind = \"step\" do not follow the number of \
                            epochs; use \"cosine\"";
                return Err(fault(&key, text.into()));
            }
        }
        let config = Config { name: Some(name.clone()), ..config };
        Ok(Arm { name: name.clone(), config, same_time_as })
    }
}

/// Refuses early ends in arms of equal time, which is that of all epochs.
fn check_equal_times(arms: &[Arm], fault: Fault) -> Result<()> {
    for (at, arm) in arms.iter().enumerate() {
        let Some(reference) = arm.same_time_as else { continue };
        for arm in [arm, &arms[reference]] {
            if let Some(key) = arm.config.train.early_end() {
                let text =
                    format!("arms of equal time train all their epochs; {} sets {key}", arm.name);
                return Err(fault(&format!("arms[{at}].same_time_as"), text));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CONFIG: &str = "[model]\narch = \"resnet20\"\nblock = \"base\"\n[train]\nepochs = 2\n\
                          batch_size = 8\n[optim]\nlr = 0.1\n";

    const STUDY: &str = "seeds = 3\nset = [\"train.epochs=7\"]\n\
                         [primary]\narm = \"dbb\"\nbaseline = \"base\"\n\
                         [[comparisons]]\narm = \"dbb\"\nbaseline = \"longer\"\n\
                         [[arms]]\nname = \"base\"\nconfig = \"own/base.toml\"\n\
                         [[arms]]\nname = \"dbb\"\nconfig = \"own/base.toml\"\n\
                         set = [\"model.block=dbb\", \"optim.lr=0.2\"]\n\
                         [[arms]]\nname = \"longer\"\nconfig = \"own/base.toml\"\nsame_time_as = \"dbb\"\n";

    fn study(text: &str) -> Result<Plan> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("own")).unwrap();
        fs::write(folder.path().join("own/base.toml"), CONFIG).unwrap();
        let path = folder.path().join("study.toml");
        fs::write(&path, text).unwrap();
        Plan::study(&path)
    }

    #[test]
    fn a_study_is_read() {
        let plan = study(STUDY).unwrap();
        assert_eq!((plan.seeds, plan.correction, plan.resolve), (3, Correction::Holm, RESOLVE));
        assert_eq!(plan.comparisons, [[1, 0], [1, 2]]);
        assert!(plan.is_study);
        let arms: Vec<_> = plan.arms.iter().map(|arm| (&*arm.name, arm.same_time_as)).collect();
        assert_eq!(arms, [("base", None), ("dbb", None), ("longer", Some(1))]);
        let values = |at: usize| {
            let config = &plan.arms[at].config;
            (config.model.block.to_string(), config.optim.lr, config.train.epochs)
        };
        assert_eq!(values(0), ("base".into(), 0.1, 7));
        assert_eq!(values(1), ("dbb".into(), 0.2, 7));
        assert_eq!(plan.arms[2].config.name.as_deref(), Some("longer"));
    }

    /// Every mistake is told with its line and key.
    #[test]
    fn mistakes_are_told() {
        let cases = [
            ("seeds = 3", "seed = 3", "study.toml:1: seed: unknown field"),
            ("seeds = 3\n", "", "study.toml: seeds: the key is missing"),
            ("seeds = 3", "seeds = 0", "study.toml:1: seeds: 0 is out of range"),
            ("seeds = 3", "seeds = 3\nresolve = 0.0", "study.toml:2: resolve: 0 is out of range"),
            ("seeds = 3", "seeds = 3\ncorrection = \"bonferroni\"", "correction: unknown variant"),
            (
                "[primary]\narm = \"dbb\"\nbaseline = \"base\"\n",
                "",
                "primary: the table is missing",
            ),
            (
                "arm = \"dbb\"",
                "arm = \"dbd\"",
                "study.toml:4: primary.arm: there is no arm \"dbd\"",
            ),
            (
                "baseline = \"longer\"",
                "baseline = \"dbb\"",
                "study.toml:8: comparisons[0].baseline: an arm",
            ),
            (
                "baseline = \"longer\"",
                "baseline = \"base\"",
                "comparisons[0]: the two arms are compared",
            ),
            (
                "name = \"dbb\"",
                "name = \"base\"",
                "study.toml:13: arms[1].name: the name base is used",
            ),
            ("name = \"dbb\"", "name = \"d b\"", "study.toml:13: arms[1].name: \"d b\" is no name"),
            ("name = \"dbb\"", "nmae = \"dbb\"", "arms[1].nmae: unknown field `nmae`"),
            (
                "same_time_as = \"dbb\"",
                "same_time_as = \"x\"",
                "arms[2].same_time_as: there is no arm",
            ),
            ("same_time_as = \"dbb\"", "same_time_as = \"longer\"", "must name an arm with epochs"),
            (
                "\"optim.lr=0.2\"]",
                "\"optim.lr=0.2\", \"train.patience=3\"]",
                "arms[2].same_time_as: arms of equal time train all their epochs; dbb sets train.patience",
            ),
            (
                "same_time_as = \"dbb\"",
                "same_time_as = \"dbb\"\nset = [\"schedule.kind=step\"]",
                "the milestones of schedule.kind",
            ),
            ("optim.lr=0.2", "optim.rl=0.2", "dbb: the override of optim.rl"),
            ("own/base.toml", "own/none.toml", "base: cannot read the configuration"),
        ];
        for (right, wrong, says) in cases {
            assert!(STUDY.contains(right), "{right}");
            let error = study(&STUDY.replacen(right, wrong, 1)).unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: no {says:?} in {error}");
        }
        assert!(study("").unwrap_err().to_string().contains("seeds"));
        let nowhere = Plan::study("none.toml".as_ref()).unwrap_err().to_string();
        assert!(nowhere.contains("cannot read the study none.toml: "), "{nowhere}");
    }
}
