//! From the rows of runs to those of arms and comparisons.

use super::contrast::{Contrast, Pairing};
use super::plan::Correction;
use super::result::{Comparison, Outcome, Row, SummaryRow};
use crate::statistics::difference::{
    Estimate, holm, paired, pairs_to_resolve, runs_to_resolve, welch,
};
use crate::statistics::{mean, standard_deviation};

impl Comparison {
    /// The comparison of some runs, in their order; `contrasts` say what is compared with what.
    pub fn new(
        rows: Vec<Row>,
        contrasts: Vec<Contrast>,
        correction: Correction,
        resolve: f64,
    ) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for row in &rows {
            if !names.contains(&row.name.as_str()) {
                names.push(&row.name);
            }
        }
        let summary = names.iter().map(|name| summarise(&runs_of(&rows, name))).collect();
        let comparisons = contrasts.iter().map(|contrast| compare(&rows, contrast, resolve));
        let mut comparisons: Vec<Outcome> = comparisons.collect();
        correct(&mut comparisons, correction);
        let command = String::new();
        Self { rows, summary, comparisons, correction, resolve, command, contrasts }
    }

    /// As [`Comparison::new`] where no study file says otherwise.
    #[cfg(test)]
    pub(super) fn of(rows: Vec<Row>, contrasts: Vec<Contrast>) -> Self {
        Self::new(rows, contrasts, Correction::default(), super::plan::RESOLVE)
    }

    /// Seed and difference of top-1 of the runs of an arm and its baseline with equal seeds.
    pub(super) fn pairs(&self, outcome: &Outcome) -> Vec<(u64, f64)> {
        let [own, baseline] =
            [&outcome.arm, &outcome.baseline].map(|name| runs_of(&self.rows, name));
        let pairs = pairs(&own, &baseline).into_iter();
        pairs.map(|[row, other]| (row.seed, row.top1 - other.top1)).collect()
    }
}

fn runs_of<'a>(rows: &'a [Row], name: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.name == name).collect()
}

/// The runs that have a counterpart of the same seed, with it.
fn pairs<'a>(own: &[&'a Row], baseline: &[&'a Row]) -> Vec<[&'a Row; 2]> {
    let pair = |row: &&'a Row| {
        let counterpart = baseline.iter().find(|base| base.seed == row.seed)?;
        Some([*row, *counterpart])
    };
    own.iter().filter_map(pair).collect()
}

fn summarise(runs: &[&Row]) -> SummaryRow {
    let top1: Vec<f64> = runs.iter().map(|row| row.top1).collect();
    SummaryRow {
        arch: runs[0].arch.clone(),
        block: runs[0].block.clone(),
        n: runs.len(),
        top1_mean: mean(&top1),
        top1_sd: standard_deviation(&top1),
        name: runs[0].name.clone(),
    }
}

fn compare(rows: &[Row], contrast: &Contrast, resolve: f64) -> Outcome {
    let [own, baseline] = [&contrast.arm, &contrast.baseline].map(|name| runs_of(rows, name));
    let [top1, other] =
        [&own, &baseline].map(|runs| runs.iter().map(|row| row.top1).collect::<Vec<_>>());
    let pairs = pairs(&own, &baseline);
    let differences: Vec<f64> = pairs.iter().map(|[row, other]| row.top1 - other.top1).collect();
    let apart = welch(&top1, &other);
    let (n, delta, estimate, unpaired, seeds_needed) = match contrast.pairing {
        Pairing::BySeed => {
            let sd = standard_deviation(&differences);
            let needed = sd.and_then(|sd| pairs_to_resolve(resolve, sd));
            let estimate = paired(&differences);
            (pairs.len(), mean(&differences), estimate, apart, estimate.and(needed))
        }
        Pairing::Unpaired(_) => {
            let sds = standard_deviation(&top1).zip(standard_deviation(&other));
            let needed = sds.and_then(|(a, b)| runs_to_resolve(resolve, [a, b]));
            let n = own.len().min(baseline.len());
            (n, mean(&top1) - mean(&other), apart, apart, apart.and(needed))
        }
        Pairing::Incomparable(_) => (0, 0.0, None, None, None),
    };
    let of = |estimate: Option<Estimate>, value: fn(Estimate) -> f64| estimate.map(value);
    Outcome {
        arm: contrast.arm.clone(),
        baseline: contrast.baseline.clone(),
        primary: contrast.is_primary,
        paired: Some(contrast.pairing),
        n,
        delta: (n > 1).then_some(delta),
        delta_ci95: of(estimate, |e| e.half),
        p: of(estimate, |e| e.p),
        p_corrected: None,
        unpaired_delta: of(unpaired, |e| e.delta),
        unpaired_ci95: of(unpaired, |e| e.half),
        seeds_needed,
        differences: contrast.differences.clone(),
    }
}

/// Corrects the p-values for the number of comparisons.
fn correct(comparisons: &mut [Outcome], correction: Correction) {
    let tested: Vec<&mut Outcome> = comparisons.iter_mut().filter(|o| o.p.is_some()).collect();
    let p: Vec<f64> = tested.iter().filter_map(|outcome| outcome.p).collect();
    let corrected = match correction {
        Correction::Holm => holm(&p),
        Correction::None => p,
    };
    for (outcome, p) in tested.into_iter().zip(corrected) {
        outcome.p_corrected = Some(p);
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::{contrast, row};
    use super::*;

    /// Against values worked out by hand: differences 1, 2, 3 have mean 2, deviation 1 and the
    /// half width 4.303 / sqrt(3); t = 2 sqrt(3) has p = 1 - t / sqrt(2 + t^2) = 0.0742 with two degrees
    /// of freedom. A deviation of 1 against 0.5 points takes 34 pairs (see `statistics::difference`).
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
        let paired = || vec![contrast("dbb", "base", Pairing::BySeed)];
        let found = Comparison::of(rows.to_vec(), paired());
        let base = &found.summary[0];
        assert_eq!((base.n, base.top1_mean, base.top1_sd), (3, 80.0, Some(10.0)));
        let outcome = &found.comparisons[0];
        assert_eq!((outcome.n, outcome.delta), (3, Some(2.0)));
        assert!((outcome.delta_ci95.unwrap() - 2.4843).abs() < 1e-3);
        assert!((outcome.p.unwrap() - 0.074_180).abs() < 1e-6);
        assert_eq!((outcome.p_corrected, outcome.seeds_needed), (outcome.p, Some(34)));
        // Unpaired the spread over the seeds hides the difference.
        assert_eq!(outcome.unpaired_delta, Some(2.0));
        assert!(outcome.unpaired_ci95.unwrap() > 20.0);
        // A run without its pair counts for the mean alone.
        let more = [&rows[..], &[row("base", 3, 10.0)]].concat();
        let found = Comparison::of(more, paired());
        assert_eq!((found.summary[0].n, found.comparisons[0].delta), (4, Some(2.0)));
        assert_eq!(found.comparisons[0].unpaired_delta, Some(19.5));
    }

    /// Worked out by hand: variances 111 and 70.667, hence 3.78986 degrees of freedom, whose t
    /// is 2.8382 by numerical integration of the density.
    #[test]
    fn other_runs_are_compared_without_pairs() {
        let base = [80.0, 70.0, 90.0, 84.0].into_iter().enumerate();
        let own = [81.0, 72.0, 93.0].into_iter().enumerate();
        let mut rows: Vec<_> = base.map(|(i, top1)| row("base", i as u64, top1)).collect();
        rows.extend(own.map(|(i, top1)| row("dbb", 5 + i as u64, top1)));
        let unpaired = contrast("dbb", "base", Pairing::Unpaired("seeds"));
        let outcome = &Comparison::of(rows.clone(), vec![unpaired]).comparisons[0];
        assert_eq!((outcome.n, outcome.delta), (3, Some(1.0)));
        let error = (111.0_f64 / 3.0 + 70.666_667 / 4.0).sqrt();
        assert!((outcome.delta_ci95.unwrap() - 2.8382 * error).abs() < 1e-2);
        let none = contrast("dbb", "base", Pairing::Incomparable("images"));
        let outcome = &Comparison::of(rows, vec![none]).comparisons[0];
        assert_eq!((outcome.delta, outcome.p, outcome.unpaired_delta), (None, None, None));
    }

    #[test]
    fn one_seed_has_no_spread_and_no_difference() {
        for pairing in [Pairing::BySeed, Pairing::Unpaired("seeds")] {
            let rows = vec![row("base", 0, 80.0), row("dbb", 0, 81.0)];
            let found = Comparison::of(rows, vec![contrast("dbb", "base", pairing)]);
            let outcome = &found.comparisons[0];
            assert_eq!((found.summary[1].top1_sd, outcome.delta, outcome.p), (None, None, None));
        }
    }

    /// Differences of 2 +- 1 and 0.5 +- 1 over three seeds: p = 0.0742 and, with t = 0.5 sqrt(3),
    /// 0.4778. Holm doubles the smaller one; one that cannot be tested does not count.
    #[test]
    fn p_values_are_corrected_for_the_number_of_comparisons() {
        let mut rows = Vec::new();
        for (seed, difference) in [1.0, 2.0, 3.0].into_iter().enumerate() {
            let seed = seed as u64;
            rows.push(row("base", seed, 80.0));
            rows.push(row("dbb", seed, 80.0 + difference));
            rows.push(row("acb", seed, 78.5 + difference));
        }
        let contrasts = || {
            vec![
                contrast("acb", "base", Pairing::BySeed),
                contrast("dbb", "base", Pairing::BySeed),
                contrast("dbb", "none", Pairing::BySeed),
            ]
        };
        let p = |correction| {
            let found = Comparison::new(rows.clone(), contrasts(), correction, 0.5);
            found.comparisons.iter().map(|outcome| outcome.p_corrected).collect::<Vec<_>>()
        };
        let holm = p(Correction::Holm);
        assert!((holm[1].unwrap() - 2.0 * 0.074_180).abs() < 1e-6);
        assert!((holm[0].unwrap() - 0.477_767).abs() < 1e-6, "{holm:?}");
        assert_eq!(holm[2], None);
        assert!((p(Correction::None)[1].unwrap() - 0.074_180).abs() < 1e-6);
    }
}
