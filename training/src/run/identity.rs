//! What must not change when a run is resumed, and what is reported if it does.

use serde::{Deserialize, Serialize};

use crate::config::{Config, shown};

/// Keys that decide where a run computes and how often it saves, but not its results.
const WITHOUT_EFFECT: [&str; 8] = [
    "name",
    "data.source",
    "data.workers",
    "data.cache_mb",
    "train.checkpoint_steps",
    "train.checkpoint_minutes",
    "train.keep_last",
    "train.memory_mb",
];

/// Keys that end a run early, and change nothing that it computes until then.
const EARLY_ENDS: [&str; 3] = ["train.patience", "train.min_delta", "train.max_minutes"];

/// Whether a key has no effect on results, so that it may differ between the runs of a comparison.
pub fn is_without_effect(key: &str) -> bool {
    WITHOUT_EFFECT.contains(&key)
}

/// Whether a key decides where, how often or how long, but not what a run computes, so that it may
/// change when the run is resumed.
pub fn is_free(key: &str) -> bool {
    is_without_effect(key) || EARLY_ENDS.contains(&key)
}

/// The circumstances in which a checkpoint was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The configuration, written out.
    pub config: Config,
    /// Fingerprint of the training images.
    pub train_data: String,
    /// Fingerprint of the validation images.
    pub val_data: String,
    /// The device.
    pub device: String,
    /// Threads of the CPU backends.
    pub threads: usize,
    /// Instruction set of the CPU kernels; empty in checkpoints that were saved without it.
    #[serde(default)]
    pub instruction_set: String,
    /// Processes that share every batch.
    #[serde(default = "one")]
    pub ranks: usize,
}

fn one() -> usize {
    1
}

impl Identity {
    /// What has changed so that it would be another run, a sentence each. Keys that are `free` may change.
    pub fn changes(&self, now: &Self, free: fn(&str) -> bool) -> Vec<String> {
        let mut changes: Vec<String> = self
            .config
            .differences(&now.config)
            .into_iter()
            .filter(|(key, ..)| !free(key))
            .map(|(key, was, is)| format!("{key} was {}, is {}", shown(&was), shown(&is)))
            .collect();
        for (what, was, is) in [
            ("training", &self.train_data, &now.train_data),
            ("validation", &self.val_data, &now.val_data),
        ] {
            if was != is {
                let short = |text: &str| text.chars().take(12).collect::<String>();
                let (was, is) = (short(was), short(is));
                changes.push(format!(
                    "the {what} images have changed (fingerprint was {was}, is {is})"
                ));
            }
        }
        changes
    }

    /// Whether the batches of an epoch are other ones, so that an epoch that has begun cannot go on.
    pub fn has_other_batches(&self, now: &Self) -> bool {
        let batch_size = |identity: &Self| identity.config.train.batch_size;
        batch_size(self) != batch_size(now) || self.train_data != now.train_data
    }

    /// What has changed and may alter the last bits of results, but not their meaning.
    pub fn notes(&self, now: &Self) -> Vec<String> {
        let facts = |identity: &Self| {
            [
                ("device", identity.device.clone()),
                ("number of threads", identity.threads.to_string()),
                ("instruction set", identity.instruction_set.clone()),
            ]
        };
        let pairs = facts(self).into_iter().zip(facts(now));
        let changed = pairs.filter(|((_, was), (_, is))| was != is && !was.is_empty());
        changed.map(|((what, was), (_, is))| format!("the {what} was {was}, is {is}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(lr: &str, workers: usize) -> Identity {
        let text = format!(
            "[model]\narch = \"resnet20\"\n[data]\nworkers = {workers}\n\
             [train]\nepochs = 1\nbatch_size = 8\n[optim]\nlr = {lr}\n"
        );
        Identity {
            config: toml::from_str(&text).unwrap(),
            train_data: "aa".into(),
            val_data: "bb".into(),
            device: "Flex".into(),
            threads: 2,
            instruction_set: "avx512".into(),
            ranks: 1,
        }
    }

    #[test]
    fn changes_are_named_by_key_and_place_is_free() {
        let (was, moved) = (identity("0.1", 1), identity("0.1", 4));
        assert!(was.changes(&moved, is_free).is_empty());
        assert_eq!(was.changes(&identity("0.2", 1), is_free), ["optim.lr was 0.1, is 0.2"]);
        let other = Identity { val_data: "cc".into(), threads: 3, ..was.clone() };
        let [change] = &was.changes(&other, is_free)[..] else { panic!("one change") };
        assert!(change.contains("validation images"), "{change}");
        assert_eq!(was.notes(&other), ["the number of threads was 2, is 3"]);
        let older = Identity { instruction_set: "avx2".into(), ..was.clone() };
        assert_eq!(was.notes(&older), ["the instruction set was avx512, is avx2"]);
        let unknown = Identity { instruction_set: String::new(), ..was.clone() };
        assert!(unknown.notes(&was).is_empty());
    }

    #[test]
    fn a_resumed_run_may_end_elsewhere_but_the_runs_of_a_comparison_may_not() {
        let was = identity("0.1", 1);
        let mut shorter = was.clone();
        shorter.config.train.max_minutes = Some(1.0);
        assert!(was.changes(&shorter, is_free).is_empty());
        let changes = was.changes(&shorter, is_without_effect);
        assert_eq!(changes, ["train.max_minutes was not set, is 1.0"]);
        assert!(was.changes(&identity("0.1", 4), is_without_effect).is_empty());
    }
}
