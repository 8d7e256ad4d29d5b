//! The charts in the page of a comparison.

use super::contrast::Pairing;
use super::result::{Comparison, Outcome, Row, SummaryRow};
use crate::report::Run;
use crate::report::chart::Chart;
use crate::report::format::Quantity::{Count, Points};
use crate::report::scale::Axis;
use crate::report::series::{Point, Series};
use crate::run::metrics::EpochRecord;
use crate::statistics::difference::{Estimate, paired, welch};
use crate::statistics::mean;

/// An arm of the summary with its runs.
pub(super) struct Group<'a> {
    pub summary: &'a SummaryRow,
    pub runs: Vec<(&'a Row, &'a Run)>,
}

impl<'a> Group<'a> {
    /// The arms of a comparison; `runs` belong to its rows.
    pub fn all(comparison: &'a Comparison, runs: &[&'a Run]) -> Vec<Self> {
        let group = |summary: &'a SummaryRow| {
            let all = comparison.rows.iter().zip(runs.iter().copied());
            Self { summary, runs: all.filter(|(row, _)| row.name == summary.name).collect() }
        };
        comparison.summary.iter().map(group).collect()
    }

    /// Epochs of its runs.
    fn epochs(&self) -> usize {
        self.runs.first().map_or(0, |(row, _)| row.epochs)
    }
}

/// All charts; those with nothing to see are left out later.
pub(super) fn charts(comparison: &Comparison, groups: &[Group]) -> Vec<Chart> {
    let seeds = groups.iter().map(|group| group.summary.n).max().unwrap_or(0);
    let bands = match seeds {
        0 | 1 => "One seed each.".to_string(),
        2 => "Line: mean of two seeds; band: between them.".to_string(),
        n => format!("Line: mean of {n} seeds; band: ± one standard deviation; thin: every seed."),
    };
    let curves = |value: fn(&EpochRecord) -> f64| {
        let curve = |run: &Run| {
            run.records.iter().map(|record| [record.epoch as f64, value(record)]).collect()
        };
        let series = |group: &Group| {
            Series::mean(
                &group.summary.name,
                group.runs.iter().map(|(_, run)| curve(run)).collect(),
            )
        };
        groups.iter().map(series).collect::<Vec<_>>()
    };
    let ends = |place: fn(&Row, &Run) -> [f64; 2]| {
        let series = |group: &Group| Series {
            name: group.summary.name.clone(),
            dots: group.runs.iter().map(|(row, run)| place(row, run)).collect(),
            ..Series::default()
        };
        groups.iter().map(series).collect::<Vec<_>>()
    };
    let cost = |name| Axis { name, quantity: Count, from_zero: false };
    let chart = |title, note: &str, x, y, series| Chart { title, note: note.into(), x, y, series };
    let (over_epochs, over_epochs_note) = over_epochs(comparison, groups);
    let difference = Axis { name: "difference in top-1", quantity: Points, from_zero: true };
    vec![
        chart("Difference over epochs", &over_epochs_note, Axis::EPOCH, difference, over_epochs),
        chart(
            "Difference by seed",
            "A dot per seed: top-1 less that of the baseline with the same seed. Line: mean; band: 95 % \
             interval.",
            Axis { name: "seed", ..Axis::EPOCH },
            difference,
            by_seed(comparison),
        ),
        chart("Validation top-1", &bands, Axis::EPOCH, Axis::TOP1, curves(|record| record.top1)),
        chart("Validation loss", &bands, Axis::EPOCH, Axis::LOSS, curves(|record| record.val_loss)),
        chart("Training loss", &bands, Axis::EPOCH, Axis::LOSS, curves(|record| record.train_loss)),
        chart(
            "Top-1 against training time",
            "As training and validation go on, mean of the seeds; a dot where a run ended.",
            Axis::TIME,
            Axis::TOP1,
            over_time(groups),
        ),
        chart(
            "Top-1 against deployed parameters",
            "A dot per run, folded.",
            cost("deployed parameters"),
            Axis::TOP1,
            ends(|row, _| [row.params_deploy as f64, row.top1]),
        ),
        chart(
            "Top-1 against multiply-accumulates",
            "A dot per run, folded.",
            cost("multiply-accumulates"),
            Axis::TOP1,
            ends(|row, run| [run.summary.macs_deploy as f64, row.top1]),
        ),
    ]
}

/// Differences of early epochs that are more than so many times those at the end are left out: they
/// would leave nothing to see of the others.
const LARGE: f64 = 5.0;

/// The mean difference of every comparison after each epoch, with its interval, and how to read it.
fn over_epochs(comparison: &Comparison, groups: &[Group]) -> (Vec<Series>, String) {
    let runs = |name: &str| groups.iter().find(|group| group.summary.name == name);
    let mut is_shared = true;
    let line = |outcome: &Outcome| {
        let [own, baseline] = [runs(&outcome.arm)?, runs(&outcome.baseline)?];
        let epochs = [own, baseline].map(|group| group.epochs());
        is_shared &= epochs[0] == epochs[1];
        let points = (1..=epochs[0]).filter_map(|epoch| {
            // At the same share of its training.
            let other = epoch * epochs[1] / epochs[0];
            let (y, estimate) = difference([own, baseline], [epoch, other], outcome.paired?)?;
            let band = estimate.map(|estimate| [y - estimate.half, y + estimate.half]);
            Some(Point { x: epoch as f64, y, band })
        });
        Some(Series { name: name(outcome), line: points.collect(), ..Series::default() })
    };
    let mut series: Vec<Series> = comparison.comparisons.iter().filter_map(line).collect();
    let size = |point: &Point| {
        let [low, high] = point.band.unwrap_or([point.y; 2]);
        low.abs().max(high.abs())
    };
    let last = series.iter().filter_map(|series| series.line.last().map(size));
    let limit = LARGE * last.fold(0.0, f64::max);
    let large = series.iter().flat_map(|series| &series.line).filter(|point| size(point) > limit);
    let first = large.map(|point| point.x).fold(0.0, f64::max);
    let mut note =
        "Top-1 less that of the baseline, folded. Line: mean of the seeds; band: its 95 % \
                    interval."
            .to_string();
    if !is_shared {
        note +=
            " A baseline with another number of epochs is taken at the same share of its training.";
    }
    // Without a difference at the end there is nothing to measure the others by.
    if first > 0.0 && limit > 0.0 {
        series.iter_mut().for_each(|series| series.line.retain(|point| point.x > first));
        note += &format!(
            " From epoch {}; those before have differences more than {LARGE} times as large.",
            first + 1.0
        );
    }
    (series, note)
}

/// The difference of two arms after so many epochs of each.
fn difference(
    groups: [&Group; 2],
    epochs: [usize; 2],
    pairing: Pairing,
) -> Option<(f64, Option<Estimate>)> {
    let top1 = |(group, epoch): (&Group, usize)| -> Option<Vec<(u64, f64)>> {
        let of_run = |(row, run): &(&Row, &Run)| {
            Some((row.seed, run.records.get(epoch.checked_sub(1)?)?.top1))
        };
        group.runs.iter().map(of_run).collect()
    };
    let [own, baseline] = [0, 1].map(|at| top1((groups[at], epochs[at])));
    let (own, baseline) = (own?, baseline?);
    match pairing {
        Pairing::BySeed => {
            let pair = |(seed, top1): &(u64, f64)| {
                let other = baseline.iter().find(|(other, _)| other == seed)?;
                Some(top1 - other.1)
            };
            let differences: Vec<f64> = own.iter().filter_map(pair).collect();
            (!differences.is_empty()).then(|| (mean(&differences), paired(&differences)))
        }
        Pairing::Unpaired(_) => {
            let [own, baseline] = [own, baseline]
                .map(|runs| runs.into_iter().map(|(_, top1)| top1).collect::<Vec<_>>());
            Some((mean(&own) - mean(&baseline), welch(&own, &baseline)))
        }
        Pairing::Incomparable(_) => None,
    }
}

fn name(outcome: &Outcome) -> String {
    format!("{} − {}", outcome.arm, outcome.baseline)
}

/// The differences of every arm that is paired with its baseline.
fn by_seed(comparison: &Comparison) -> Vec<Series> {
    let series = |outcome: &Outcome| {
        let level = match (outcome.paired?, outcome.delta, outcome.delta_ci95) {
            (Pairing::BySeed, Some(delta), Some(half)) => [delta, delta - half, delta + half],
            _ => return None,
        };
        let pairs = comparison.pairs(outcome).into_iter();
        let dots = pairs.map(|(seed, difference)| [seed as f64, difference]).collect();
        Some(Series { name: name(outcome), dots, level: Some(level), ..Series::default() })
    };
    comparison.comparisons.iter().filter_map(series).collect()
}

/// Mean curves over the seconds spent, and the ends of the runs.
fn over_time(groups: &[Group]) -> Vec<Series> {
    let curve = |run: &Run| -> Vec<[f64; 2]> {
        let spent = run.records.iter().scan(0.0, |spent, record| {
            *spent += record.seconds;
            Some([*spent, record.top1])
        });
        spent.collect()
    };
    let series = |group: &Group| {
        let curves: Vec<_> = group.runs.iter().map(|(_, run)| curve(run)).collect();
        let dots = curves.iter().filter_map(|curve| curve.last().copied()).collect();
        let mut series =
            Series { dots, thin: Vec::new(), ..Series::mean(&group.summary.name, curves) };
        // Every seed has its own seconds, over which a band would mean nothing.
        series.line.iter_mut().for_each(|point| point.band = None);
        series
    };
    groups.iter().map(series).collect()
}

#[cfg(test)]
mod tests {
    use super::super::contrast::Contrast;
    use super::super::result::tests::{contrast, row};
    use super::*;
    use crate::report::testing;
    use dbb_models::BlockKind;

    /// The first chart of two arms, by the top-1 after every epoch of two seeds of each.
    fn first(arms: [[&[f64]; 2]; 2], contrast: Contrast) -> Chart {
        let names = ["base", "dbb"];
        let mut rows = Vec::new();
        let mut runs = Vec::new();
        for (name, seeds) in names.into_iter().zip(arms) {
            for (seed, top1) in seeds.into_iter().enumerate() {
                let last = *top1.last().unwrap();
                rows.push(Row { epochs: top1.len(), ..row(name, seed as u64, last) });
                runs.push(testing::run(BlockKind::Base, seed as u64, top1));
            }
        }
        let comparison = Comparison::of(rows, vec![contrast]);
        let runs: Vec<&Run> = runs.iter().collect();
        let groups = Group::all(&comparison, &runs);
        charts(&comparison, &groups).remove(0)
    }

    fn points(chart: &Chart) -> Vec<[f64; 2]> {
        chart.series[0].line.iter().map(|point| [point.x, point.y]).collect()
    }

    /// Differences of 1 and 2 at the end: 1.5 with the half width 12.706 x 0.5.
    #[test]
    fn the_first_chart_is_the_difference_over_epochs() {
        let base: [&[f64]; 2] = [&[40.0, 50.0, 60.0], &[42.0, 52.0, 62.0]];
        let dbb: [&[f64]; 2] = [&[38.0, 50.0, 61.0], &[39.0, 51.0, 64.0]];
        let chart = first([base, dbb], contrast("dbb", "base", Pairing::BySeed));
        assert_eq!(chart.title, "Difference over epochs");
        assert_eq!(chart.series[0].name, "dbb − base");
        assert_eq!(points(&chart), [[1.0, -2.5], [2.0, -0.5], [3.0, 1.5]]);
        let band = chart.series[0].line[2].band.unwrap();
        assert!((band[1] - band[0] - 12.7062).abs() < 1e-3, "{band:?}");
        assert!(!chart.note.contains("share") && !chart.note.contains("From epoch"));
        // Welch: means 61 and 62.5, variances 2 and 4.5, 1.74 degrees of freedom.
        let unpaired = first([base, dbb], contrast("dbb", "base", Pairing::Unpaired("seeds")));
        assert_eq!(points(&unpaired), points(&chart));
        let band = unpaired.series[0].line[2].band.unwrap();
        assert!((band[1] - band[0] - 2.0 * 4.9749 * 3.25_f64.sqrt()).abs() < 1e-2, "{band:?}");
        let none = first([base, dbb], contrast("dbb", "base", Pairing::Incomparable("images")));
        assert_eq!(points(&none), [[0.0; 2]; 0]);
    }

    /// A baseline of half as many epochs is compared after every second one; the last is the last.
    #[test]
    fn other_numbers_of_epochs_are_compared_at_the_same_share() {
        let base: [&[f64]; 2] = [&[50.0, 60.0], &[50.0, 60.0]];
        let dbb: [&[f64]; 2] = [&[51.0, 52.0, 63.0, 64.0], &[51.0, 52.0, 63.0, 64.0]];
        let chart = first([base, dbb], contrast("dbb", "base", Pairing::BySeed));
        assert_eq!(points(&chart), [[2.0, 2.0], [3.0, 13.0], [4.0, 4.0]]);
        assert!(chart.note.contains("at the same share"), "{}", chart.note);
    }

    #[test]
    fn large_differences_of_early_epochs_are_left_out() {
        let base: [&[f64]; 2] = [&[50.0, 60.0, 70.0, 80.0], &[50.0, 60.0, 70.0, 80.0]];
        let dbb: [&[f64]; 2] = [&[30.0, 59.0, 69.0, 81.0], &[30.0, 59.0, 69.0, 81.0]];
        let chart = first([base, dbb], contrast("dbb", "base", Pairing::BySeed));
        assert_eq!(points(&chart), [[2.0, -1.0], [3.0, -1.0], [4.0, 1.0]]);
        assert!(chart.note.contains("From epoch 2;"), "{}", chart.note);
    }
}
