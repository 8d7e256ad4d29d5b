//! `plan.json`: the plan of a comparison in the folder of its runs, so that one that is started again
//! is known to be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::{Correction, Plan};
use super::timing::EqualTime;
use crate::error::{Error, Result};
use crate::run::directory::RunDir;
use crate::run::identity::{Identity, is_without_effect};

const NAME: &str = "plan.json";

/// The plan of a comparison as it began.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// What a study file fixes; `None` for a comparison without one.
    pub study: Option<Fixed>,
    /// Every arm by its name, as its run with the first seed.
    pub arms: BTreeMap<String, Identity>,
    /// SHA-256 of the weights files that arms start from.
    #[serde(default)]
    pub weights: BTreeMap<String, String>,
    /// The epochs of the arms that train as long as another one.
    pub equal_times: BTreeMap<String, EqualTime>,
}

/// What a study file fixes besides its arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fixed {
    seeds: u64,
    correction: Correction,
    /// `dbb against base`, the primary comparison first.
    comparisons: Vec<String>,
    /// The arms of equal time, each with the one whose time decides.
    same_time_as: BTreeMap<String, String>,
}

impl Record {
    pub fn new(
        plan: &Plan,
        identities: &[Identity],
        weights: BTreeMap<String, String>,
        equal_times: BTreeMap<String, EqualTime>,
    ) -> Self {
        let name = |at: usize| plan.arms[at].name.as_str();
        let comparisons = plan.comparisons.iter();
        let comparisons = comparisons.map(|&[a, b]| format!("{} against {}", name(a), name(b)));
        let same_time = plan
            .arms
            .iter()
            .filter_map(|arm| Some((arm.name.clone(), name(arm.same_time_as?).to_string())));
        let study = plan.is_study.then(|| Fixed {
            same_time_as: same_time.collect(),
            seeds: plan.seeds,
            correction: plan.correction,
            comparisons: comparisons.collect(),
        });
        let arms = plan.arms.iter().map(|arm| arm.name.clone()).zip(identities.iter().cloned());
        Self { study, arms: arms.collect(), weights, equal_times }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// The record in a folder; `None` if no comparison has begun there.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = Self::path(folder);
        let fail = |reason: String| {
            Error::Unusable(format!(
                "cannot read the plan of the comparison in {}: {reason}; hint: give another folder",
                path.display()
            ))
        };
        let text = match fs::read_to_string(&path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            text => text.map_err(|error| fail(error.to_string()))?,
        };
        serde_json::from_str(&text).map(Some).map_err(|error| fail(error.to_string()))
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        // Plain data always serialises.
        let text = serde_json::to_string_pretty(self).expect("a plan is plain data") + "\n";
        Ok(RunDir::new(folder).write(&Self::path(folder), &text)?)
    }

    /// Refuses arms of other names.
    pub fn check_names(&self, plan: &Plan, folder: &Path) -> Result<()> {
        let own: BTreeSet<&String> = plan.arms.iter().map(|arm| &arm.name).collect();
        let others: BTreeSet<&String> = self.arms.keys().collect();
        if own == others {
            return Ok(());
        }
        let list = |names: BTreeSet<&String>| {
            names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        Err(Error::OtherComparison { folder: folder.into(), others: list(others), own: list(own) })
    }

    /// What has changed so that results would not belong together, a sentence each.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        match (&self.study, &now.study) {
            (Some(was), Some(is)) => changes.extend(was.changes(is)),
            (Some(_), None) => changes.push("it was begun with a study file".to_string()),
            (None, Some(_)) => changes.push("it was begun without a study file".to_string()),
            (None, None) => {}
        }
        for (name, was) in &self.arms {
            let Some(is) = now.arms.get(name) else { continue };
            let mut is = is.clone();
            if self.study.is_none() {
                // Further seeds may join a comparison that is no study.
                is.config.seed = was.config.seed;
            }
            changes.extend(
                was.changes(&is, is_without_effect)
                    .into_iter()
                    .map(|change| format!("{name}: {change}")),
            );
            let [was, is] = [self, now].map(|record| record.weights.get(name));
            if was.zip(is).is_some_and(|(was, is)| was != is) {
                changes.push(format!("{name}: the file of model.init_from has changed"));
            }
        }
        // The same for all arms.
        if let Some((was, is)) = self.arms.values().next().zip(now.arms.values().next()) {
            if was.device != is.device {
                changes.push(format!("the device was {}, is {}", was.device, is.device));
            }
            if was.threads != is.threads {
                let (was, is) = (was.threads, is.threads);
                changes.push(format!("the threads of a run were {was}, are {is}"));
            }
        }
        changes
    }
}

impl Fixed {
    fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.seeds != now.seeds {
            changes.push(format!("seeds was {}, is {}", self.seeds, now.seeds));
        }
        if self.correction != now.correction {
            let (was, is) = (self.correction, now.correction);
            changes.push(format!("correction was {}, is {}", was.name(), is.name()));
        }
        if self.comparisons != now.comparisons {
            let [was, is] = [self, now].map(|fixed| fixed.comparisons.join(", "));
            changes.push(format!("the comparisons were {was}, are {is}"));
        }
        let arms: BTreeSet<&String> =
            self.same_time_as.keys().chain(now.same_time_as.keys()).collect();
        for arm in arms {
            let [was, is] = [self, now].map(|fixed| fixed.same_time_as.get(arm));
            if was != is {
                let [was, is] = [was, is].map(|name| name.map_or("not set", String::as_str));
                changes.push(format!("{arm}: same_time_as was {was}, is {is}"));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::tests::{identity, recipe};

    fn record(change: impl FnOnce(&mut Plan, &mut [Identity])) -> Record {
        let recipes =
            ["base", "dbb"].map(|block| recipe(&format!("{block}.toml"), "resnet20", block));
        let mut plan = Plan::of(&recipes, &[], 3).unwrap();
        plan.is_study = true;
        let mut identities: Vec<Identity> = plan.arms.iter().map(|a| identity(&a.config)).collect();
        change(&mut plan, &mut identities);
        Record::new(&plan, &identities, BTreeMap::new(), BTreeMap::new())
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Record::read(folder.path()).unwrap().is_none());
        let record = record(|_, _| {});
        record.write(folder.path()).unwrap();
        let read = Record::read(folder.path()).unwrap().unwrap();
        assert_eq!((&read.study, &read.arms), (&record.study, &record.arms));
        assert_eq!(record.changes(&read), Vec::<String>::new());
        fs::write(Record::path(folder.path()), "{}").unwrap();
        let error = Record::read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("cannot read the plan") && error.contains("missing field"),
            "{error}"
        );
    }

    #[test]
    fn what_changed_is_named() {
        let was = record(|_, _| {});
        let says = |now: Record| was.changes(&now).join("; ");
        assert_eq!(says(record(|plan, _| plan.seeds = 4)), "seeds was 3, is 4");
        let correction = record(|plan, _| plan.correction = Correction::None);
        assert_eq!(says(correction), "correction was holm, is none");
        let swapped = record(|plan, _| plan.comparisons = vec![[0, 1]]);
        assert_eq!(says(swapped), "the comparisons were dbb against base, are base against dbb");
        let time = record(|plan, _| plan.arms[1].same_time_as = Some(0));
        assert_eq!(says(time), "dbb: same_time_as was not set, is base");
        let lr = record(|_, identities| identities[1].config.optim.lr = 0.2);
        assert_eq!(says(lr), "dbb: optim.lr was 0.1, is 0.2");
        let data = record(|_, identities| identities[0].val_data = "other".into());
        assert!(says(data).starts_with("base: the validation images have changed"));
        let weights = |hash: &str| {
            let weights = [("dbb".to_string(), hash.to_string())].into();
            Record { weights, ..record(|_, _| {}) }
        };
        let changes = weights("aa").changes(&weights("bb"));
        assert_eq!(changes, ["dbb: the file of model.init_from has changed"]);
        // Recorded by a version that did not look at the file.
        assert_eq!(was.changes(&weights("bb")), Vec::<String>::new());
        let threads = record(|_, identities| identities.iter_mut().for_each(|i| i.threads = 2));
        assert_eq!(says(threads), "the threads of a run were 1, are 2");
        assert_eq!(says(record(|plan, _| plan.is_study = false)), "it was begun with a study file");
        let seed = |plan: &mut Plan, identities: &mut [Identity], is_study| {
            plan.is_study = is_study;
            identities.iter_mut().for_each(|identity| identity.config.seed = 7);
        };
        let study = says(record(|plan, identities| seed(plan, identities, true)));
        assert_eq!(study, "base: seed was 0, is 7; dbb: seed was 0, is 7");
        // Without a study file other seeds, and more of them, may join.
        let free = record(|plan, _| plan.is_study = false);
        let more = record(|plan, identities| seed(plan, identities, false));
        assert_eq!(free.changes(&more), Vec::<String>::new());
    }
}
