//! The comparison as files: JSON, CSV and Markdown.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::arm::Pairing;
use super::result::{Comparison, SummaryRow};
use crate::error::{Error, Result};
use crate::run::directory::RunDir;

/// The comparison as JSON.
const JSON: &str = "compare.json";

/// Header of the top-1 column; says what ± means there.
pub(super) const TOP1_HEADER: &str = "top-1 % (± standard deviation)";

/// Header of the column of differences; says what ± means there.
pub(super) const DELTA_HEADER: &str = "delta (± 95 % interval)";

/// Why a difference has no interval.
pub(super) const ONE_SEED: &str = "one seed: no interval";

impl Comparison {
    /// Writes `compare.json`, `compare.csv` and `compare.md` into a folder.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, folder: &Path) -> Result<()> {
        // Plain data always serialises.
        let json = serde_json::to_string_pretty(self).expect("a comparison is plain data");
        for (name, text) in
            [(JSON, json), ("compare.csv", self.csv()), ("compare.md", self.markdown())]
        {
            let path = folder.join(name);
            RunDir::new(folder).write(&path, &text).map_err(Error::Io)?;
        }
        Ok(())
    }

    /// Names of the arms in the tables of a folder; `None` if it holds none.
    pub(super) fn arms_in(folder: &Path) -> Option<BTreeSet<String>> {
        let text = fs::read_to_string(folder.join(JSON)).ok()?;
        // What is no comparison has no arms.
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let names = value["rows"].as_array().into_iter().flatten().map(|row| &row["name"]);
        Some(names.filter_map(Value::as_str).map(String::from).collect())
    }

    /// One line per run.
    pub fn csv(&self) -> String {
        let mut text = String::from(
            "arch,block,seed,top1,top1_deploy,params_train,params_deploy,seconds,name\n",
        );
        for row in &self.rows {
            text += &format!(
                "{},{},{},{:.4},{:.4},{},{},{:.1},{}\n",
                row.arch,
                row.block,
                row.seed,
                row.top1_train,
                row.top1_deploy,
                row.params_train,
                row.params_deploy,
                row.seconds,
                row.name
            );
        }
        text
    }

    /// One line per arm with the mean cost of its runs, and how the arms differ.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "| name | arch | block | seeds | {TOP1_HEADER} | {DELTA_HEADER} | baseline | parameters in \
             training | deployed | seconds per run | fold difference |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n"
        );
        for arm in &self.summary {
            let cost = self.cost(&arm.name);
            text += &format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.1e} |\n",
                arm.name,
                arm.arch,
                arm.block,
                arm.n,
                arm.top1(),
                self.delta(arm).unwrap_or_else(|| "-".into()),
                arm.baseline.as_deref().unwrap_or("-"),
                cost.params_train,
                cost.params_deploy,
                cost.seconds,
                cost.fold,
            );
        }
        for contrast in &self.contrasts {
            text += &format!("\n{}.\n", contrast.describe());
        }
        text
    }

    /// The difference of an arm to its baseline, as a cell of a table; `None` for an arm without
    /// baseline.
    pub(super) fn delta(&self, arm: &SummaryRow) -> Option<String> {
        let pairing = arm.paired?;
        if let Pairing::Incomparable(why) = pairing {
            return Some(format!("none: {why}"));
        }
        if let (Some(delta), Some(half)) = (arm.delta, arm.delta_ci95) {
            let unpaired = if pairing == Pairing::BySeed { "" } else { ", unpaired" };
            return Some(format!("{delta:+.2} ± {half:.2}{unpaired}"));
        }
        let baseline = self.summary.iter().find(|row| Some(&row.name) == arm.baseline.as_ref())?;
        Some(format!("{:+.2} ({ONE_SEED})", arm.top1_mean - baseline.top1_mean))
    }
}

impl SummaryRow {
    /// Top-1 as a cell of a table.
    pub(super) fn top1(&self) -> String {
        match self.top1_sd {
            Some(sd) => format!("{:.2} ± {sd:.2}", self.top1_mean),
            None => format!("{:.2}", self.top1_mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::{contrast, row};
    use super::super::{Row, summarise};
    use super::*;

    fn table(rows: &[Row], pairing: Pairing) -> String {
        let contrasts = vec![contrast("dbb", "base", pairing)];
        let summary = summarise(rows, &contrasts);
        Comparison { rows: rows.to_vec(), summary, contrasts }.markdown()
    }

    #[test]
    fn the_table_says_what_stands_behind_a_sign() {
        let one = [row("base", 0, 80.0), row("dbb", 0, 81.0)];
        let text = table(&one, Pairing::BySeed);
        assert!(text.contains("top-1 % (± standard deviation)"), "{text}");
        assert!(text.contains("delta (± 95 % interval)"), "{text}");
        assert!(text.contains("| 1 | 81.00 | +1.00 (one seed: no interval) | base |"), "{text}");
        assert!(text.contains("| base | resnet20 | base | 1 | 80.00 | - | - |"), "{text}");
        assert!(text.ends_with("\ndbb against base: only the block differs; paired by seed.\n"));

        let two = [&one[..], &[row("base", 1, 82.0), row("dbb", 1, 84.0)]].concat();
        let text = table(&two, Pairing::BySeed);
        assert!(text.contains("| 82.50 ± 2.12 | +1.50 ± 6.35 | base |"), "{text}");
        let text = table(&two, Pairing::Unpaired("they have different seeds"));
        assert!(text.contains("| +1.50 ± 10.00, unpaired | base |"), "{text}");
        let text = table(&two, Pairing::Incomparable("they validate on different images"));
        assert!(text.contains("| none: they validate on different images | base |"), "{text}");
    }
}
