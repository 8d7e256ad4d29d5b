//! The comparison as files: JSON, CSV and Markdown.

use std::path::Path;

use super::contrast::Pairing;
use super::plan::Correction;
use super::result::{Comparison, Outcome, SummaryRow};
use crate::error::{Error, Result};
use crate::run::directory::RunDir;
use crate::statistics::mean;

/// Header of the top-1 column; says what ± means there.
pub(crate) const TOP1_HEADER: &str = "top-1 % (± standard deviation)";

/// Header of the column of differences; says what ± means there.
pub(crate) const DELTA_HEADER: &str = "delta (± 95 % interval)";

impl Comparison {
    /// Writes `compare.json`, `compare.csv` and `compare.md` into a folder.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write(&self, folder: &Path) -> Result<()> {
        // Plain data always serialises.
        let json = serde_json::to_string_pretty(self).expect("a comparison is plain data");
        for (name, text) in
            [("compare.json", json), ("compare.csv", self.csv()), ("compare.md", self.markdown())]
        {
            let path = folder.join(name);
            RunDir::new(folder).write(&path, &text).map_err(Error::Io)?;
        }
        Ok(())
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
                self.delta(&arm.name).unwrap_or_else(|| "-".into()),
                self.outcome_of(&arm.name).map_or("-", |outcome| &outcome.baseline),
                cost.params_train,
                cost.params_deploy,
                cost.seconds,
                cost.fold,
            );
        }
        for contrast in &self.contrasts {
            text += &format!("\n{}.\n", contrast.describe());
        }
        let tested: Vec<&Outcome> = self.comparisons.iter().filter(|o| o.p.is_some()).collect();
        if !tested.is_empty() {
            let head = self.outcome_header();
            text += &format!("\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
        }
        for outcome in tested {
            text += &format!("| {} |\n", outcome.cells().join(" | "));
        }
        text
    }

    /// The difference of an arm to its baseline, as a cell of a table; `None` for an arm without
    /// baseline.
    pub(super) fn delta(&self, arm: &str) -> Option<String> {
        let outcome = self.outcome_of(arm)?;
        let pairing = outcome.paired?;
        if let Pairing::Incomparable(why) = pairing {
            return Some(format!("none: {why}"));
        }
        if let (Some(delta), Some(half)) = (outcome.delta, outcome.delta_ci95) {
            let unpaired = if pairing == Pairing::BySeed { "" } else { ", unpaired" };
            return Some(format!("{delta:+.2} ± {half:.2}{unpaired}"));
        }
        let difference = match pairing {
            Pairing::BySeed => {
                let pairs = self.pairs(outcome).into_iter();
                mean(&pairs.map(|(_, difference)| difference).collect::<Vec<_>>())
            }
            _ => {
                let mean = |name: &str| {
                    self.summary.iter().find(|row| row.name == *name).map(|row| row.top1_mean)
                };
                mean(arm)? - mean(&outcome.baseline)?
            }
        };
        let why = match outcome.n {
            0 => return None,
            1 => "one seed",
            _ => "no spread",
        };
        Some(format!("{difference:+.2} ({why}: no interval)"))
    }

    /// The columns of [`Outcome::cells`].
    pub(super) fn outcome_header(&self) -> [String; 7] {
        let corrected = match self.correction {
            Correction::Holm => "p (Holm)",
            Correction::None => "p (not corrected)",
        };
        [
            "comparison".into(),
            "pairs".into(),
            DELTA_HEADER.into(),
            "unpaired (± 95 % interval)".into(),
            "p".into(),
            corrected.into(),
            match self.resolve {
                1.0 => "seeds to resolve 1 point".into(),
                points => format!("seeds to resolve {points} points"),
            },
        ]
    }
}

impl Outcome {
    /// The difference with its interval, of pairs where the runs are paired.
    pub(crate) fn interval(&self) -> String {
        self.delta
            .zip(self.delta_ci95)
            .map_or_else(|| "-".to_string(), |(delta, half)| format!("{delta:+.2} ± {half:.2}"))
    }

    /// The corrected p-value.
    pub(crate) fn p_shown(&self) -> String {
        self.p_corrected.map_or_else(|| "-".to_string(), p_value)
    }

    /// The comparison as cells of a table.
    pub(crate) fn cells(&self) -> [String; 7] {
        let none = || "-".to_string();
        let interval = |delta: Option<f64>, half: Option<f64>| {
            delta.zip(half).map_or_else(none, |(delta, half)| format!("{delta:+.2} ± {half:.2}"))
        };
        let is_paired = self.paired == Some(Pairing::BySeed);
        let own = if is_paired { interval(self.delta, self.delta_ci95) } else { none() };
        let primary = if self.primary { " (primary)" } else { "" };
        [
            format!("{} − {}{primary}", self.arm, self.baseline),
            if is_paired { self.n.to_string() } else { none() },
            own,
            interval(self.unpaired_delta, self.unpaired_ci95),
            self.p.map_or_else(none, p_value),
            self.p_corrected.map_or_else(none, p_value),
            self.seeds_needed.map_or_else(none, |seeds| seeds.to_string()),
        ]
    }
}

/// A p-value to three decimals.
fn p_value(p: f64) -> String {
    match p {
        ..0.001 => "< 0.001".into(),
        _ => format!("{p:.3}"),
    }
}

impl SummaryRow {
    /// Top-1 as a cell of a table.
    pub(crate) fn top1(&self) -> String {
        match self.top1_sd {
            Some(sd) => format!("{:.2} ± {sd:.2}", self.top1_mean),
            None => format!("{:.2}", self.top1_mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Row;
    use super::super::result::tests::{contrast, row};
    use super::*;

    fn table(rows: &[Row], pairing: Pairing) -> String {
        let contrasts = vec![contrast("dbb", "base", pairing)];
        Comparison::of(rows.to_vec(), contrasts).markdown()
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
        // Differences of 1 and 2: t = 3 has p = 1 - 2 atan(3) / pi with one degree of freedom; a
        // deviation of 0.7071 against 0.5 points takes 18 pairs.
        let line = "| dbb − base | 2 | +1.50 ± 6.35 | +1.50 ± 8.97 | 0.205 | 0.205 | 18 |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| 82.50 ± 2.12 | +1.50 ± 6.35 | base |"), "{text}");
        let text = table(&two, Pairing::Unpaired("they have different seeds"));
        assert!(text.contains("| +1.50 ± 8.97, unpaired | base |"), "{text}");
        let text = table(&two, Pairing::Incomparable("they validate on different images"));
        assert!(text.contains("| none: they validate on different images | base |"), "{text}");
    }
}
