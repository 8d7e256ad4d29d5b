//! Means, spreads and the intervals of differences.

use super::arm::{Contrast, Pairing};
use super::result::{Comparison, Row, SummaryRow};
use crate::statistics::{mean, standard_deviation};

/// Mean, spread and difference to its baseline of every arm that has runs, in their order;
/// `contrasts` say what is compared with what.
pub fn summarise(rows: &[Row], contrasts: &[Contrast]) -> Vec<SummaryRow> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    let of = |name: &str| rows.iter().filter(|row| row.name == name).collect::<Vec<_>>();
    let summarise = |name: &&str| {
        let own = of(name);
        let top1 = top1_of(&own);
        let contrast = contrasts.iter().find(|contrast| contrast.arm == **name);
        let interval = contrast.and_then(|contrast| {
            let baseline = of(&contrast.baseline);
            match contrast.pairing {
                Pairing::BySeed => {
                    let pairs = pairs(own.iter().copied(), baseline.iter().copied());
                    paired(&pairs.into_iter().map(|(_, delta)| delta).collect::<Vec<_>>())
                }
                Pairing::Unpaired(_) => welch(&top1, &top1_of(&baseline)),
                Pairing::Incomparable(_) => None,
            }
        });
        SummaryRow {
            arch: own[0].arch.clone(),
            block: own[0].block.clone(),
            n: own.len(),
            top1_mean: mean(&top1),
            top1_sd: standard_deviation(&top1),
            delta: interval.map(|(delta, _)| delta),
            delta_ci95: interval.map(|(_, half)| half),
            name: name.to_string(),
            baseline: contrast.map(|contrast| contrast.baseline.clone()),
            paired: contrast.map(|contrast| contrast.pairing),
            differences: contrast.map_or_else(Vec::new, |contrast| contrast.differences.clone()),
        }
    };
    names.iter().map(summarise).collect()
}

fn top1_of(rows: &[&Row]) -> Vec<f64> {
    rows.iter().map(|row| row.top1_train).collect()
}

impl Comparison {
    /// Seed and difference of top-1 to its baseline of the runs of an arm.
    pub(super) fn pairs(&self, arm: &SummaryRow) -> Vec<(u64, f64)> {
        let baseline = arm.baseline.as_deref().unwrap_or_default();
        pairs(self.rows_of(&arm.name), self.rows_of(baseline))
    }
}

/// Seed and difference of top-1 of the runs that have a counterpart of the same seed.
fn pairs<'a>(
    own: impl Iterator<Item = &'a Row>,
    baseline: impl Iterator<Item = &'a Row> + Clone,
) -> Vec<(u64, f64)> {
    let pair = |row: &Row| {
        let counterpart = baseline.clone().find(|base| base.seed == row.seed)?;
        Some((row.seed, row.top1_train - counterpart.top1_train))
    };
    own.filter_map(pair).collect()
}

/// The mean of paired differences and half the width of its 95 % interval (Student's t); `None`
/// for fewer than two.
fn paired(differences: &[f64]) -> Option<(f64, f64)> {
    let n = differences.len() as f64;
    let sd = standard_deviation(differences)?;
    Some((mean(differences), t_quantile(n - 1.0) * sd / n.sqrt()))
}

/// The difference of two means of independent runs and half the width of its 95 % interval, whose
/// degrees of freedom are those of Welch and Satterthwaite; `None` unless both have two runs.
fn welch(own: &[f64], baseline: &[f64]) -> Option<(f64, f64)> {
    let part = |values: &[f64]| {
        let (n, sd) = (values.len() as f64, standard_deviation(values)?);
        Some((sd * sd / n, n - 1.0))
    };
    let ((a, df_a), (b, df_b)) = (part(own)?, part(baseline)?);
    let delta = mean(own) - mean(baseline);
    let variance = a + b;
    if variance == 0.0 {
        return Some((delta, 0.0));
    }
    let freedom = variance * variance / (a * a / df_a + b * b / df_b);
    Some((delta, t_quantile(freedom) * variance.sqrt()))
}

/// The 97.5 % quantile of Student's t distribution for at least one degree of freedom
/// (NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2). Between two whole numbers it
/// is interpolated along their reciprocals, which makes it larger by up to a sixth below 2 degrees
/// of freedom and by 2 % above. Beyond the table it is the expansion around the normal distribution
/// (Abramowitz and Stegun, 26.7.5), exact to 1e-4 there.
fn t_quantile(degrees_of_freedom: f64) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    let (z, n) = (1.959_964f64, degrees_of_freedom);
    let whole = n.floor();
    // NaN, where a top-1 is NaN, takes the first value of the table.
    let at = (whole as usize).saturating_sub(1);
    match TABLE[at.min(TABLE.len())..] {
        [] | [_] => {
            z + (z.powi(3) + z) / (4.0 * n)
                + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        }
        [low, ..] if n.is_nan() || n == whole => low,
        [low, high, ..] => {
            let weight = (1.0 / n - 1.0 / (whole + 1.0)) * whole * (whole + 1.0);
            high + weight * (low - high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::{contrast, row};
    use super::*;

    /// Against values worked out by hand: differences 1, 2, 3 have mean 2, deviation 1 and the
    /// half width 4.303 / sqrt(3).
    #[test]
    fn differences_are_paired_by_seed() {
        let rows = [
            row("base", 0, 80.0),
            row("dbb", 0, 81.0),
            row("base", 1, 70.0),
            row("dbb", 1, 72.0),
            row("base", 2, 90.0),
            row("dbb", 2, 93.0),
        ];
        let summary = summarise(&rows, &[contrast("dbb", "base", Pairing::BySeed)]);
        assert_eq!((summary[0].n, summary[0].top1_mean, summary[0].top1_sd), (3, 80.0, Some(10.0)));
        assert_eq!((summary[0].delta, summary[0].delta_ci95), (None, None));
        assert_eq!((&summary[0].baseline, summary[0].paired), (&None, None));
        assert_eq!(summary[1].delta, Some(2.0));
        assert!((summary[1].delta_ci95.unwrap() - 2.4843).abs() < 1e-3);
        assert_eq!(summary[1].baseline.as_deref(), Some("base"));
        // A run without its pair counts for the mean alone.
        let more = [&rows[..], &[row("base", 3, 10.0)]].concat();
        let summary = summarise(&more, &[contrast("dbb", "base", Pairing::BySeed)]);
        assert_eq!((summary[0].n, summary[1].delta), (4, Some(2.0)));
    }

    /// Worked out by hand: variances 111 and 70.667, hence 3.78986 degrees of freedom, whose t
    /// is 3.182 - 0.833 (3.182 - 2.776).
    #[test]
    fn other_runs_are_compared_without_pairs() {
        let base = [80.0, 70.0, 90.0, 84.0].into_iter().enumerate();
        let own = [81.0, 72.0, 93.0].into_iter().enumerate();
        let mut rows: Vec<_> = base.map(|(i, top1)| row("base", i as u64, top1)).collect();
        rows.extend(own.map(|(i, top1)| row("dbb", 5 + i as u64, top1)));
        let unpaired = contrast("dbb", "base", Pairing::Unpaired("seeds"));
        let summary = summarise(&rows, &[unpaired]);
        assert_eq!(summary[1].delta, Some(1.0));
        let error = (111.0_f64 / 3.0 + 70.666_667 / 4.0).sqrt();
        assert!((summary[1].delta_ci95.unwrap() - 2.8435 * error).abs() < 1e-2);
        let none = contrast("dbb", "base", Pairing::Incomparable("images"));
        assert_eq!(summarise(&rows, &[none])[1].delta, None);
        assert_eq!(welch(&[5.0, 5.0], &[4.0, 4.0]), Some((1.0, 0.0)));
    }

    #[test]
    fn one_seed_has_no_spread_and_no_difference() {
        for pairing in [Pairing::BySeed, Pairing::Unpaired("seeds")] {
            let rows = [row("base", 0, 80.0), row("dbb", 0, 81.0)];
            let summary = summarise(&rows, &[contrast("dbb", "base", pairing)]);
            assert_eq!((summary[1].top1_sd, summary[1].delta), (None, None));
        }
    }

    /// NIST, the same table: 2.042 for 30, 2.021 for 40, 2.000 for 60, 1.984 for 100.
    #[test]
    fn quantiles_of_t() {
        for (freedom, t) in [(1.0, 12.706), (2.0, 4.303), (30.0, 2.042), (40.0, 2.021)] {
            assert!((t_quantile(freedom) - t).abs() < 6e-4, "{freedom}");
        }
        for (freedom, t) in [(60.0, 2.000), (100.0, 1.984), (1e9, 1.960)] {
            assert!((t_quantile(freedom) - t).abs() < 6e-4, "{freedom}");
        }
        // By numerical integration of the density.
        for (freedom, t) in [
            (1.25, 8.0280),
            (1.742, 4.9749),
            (2.5, 3.5747),
            (3.79, 2.8382),
            (10.5, 2.2138),
            (29.5, 2.0437),
        ] {
            let excess = t_quantile(freedom) / t - 1.0;
            assert!((-2e-4..0.17).contains(&excess), "{freedom}: {excess}");
        }
    }
}
