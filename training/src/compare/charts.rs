//! The charts in the page of a comparison.

use super::contrast::Pairing;
use super::result::{Comparison, Outcome, Row, SummaryRow};
use crate::report::Run;
use crate::report::chart::Chart;
use crate::report::format::Quantity::{Count, Points};
use crate::report::scale::Axis;
use crate::report::series::{Point, Series};
use crate::run::metrics::EpochRecord;
use crate::statistics::difference::{paired, welch};
use crate::statistics::mean;

/// An arm of the summary with its runs.
pub(super) struct Group<'a> {
    pub summary: &'a SummaryRow,
    pub runs: Vec<(&'a Row, &'a Run)>,
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
    let difference = Axis { name: "difference in top-1", quantity: Points, from_zero: true };
    vec![
        chart(
            "Difference over epochs",
            "Top-1 less that of the baseline, folded. Line: mean of the seeds; band: its 95 % interval, \
             of pairs where the runs are paired. Arms with other numbers of epochs are left out.",
            Axis::EPOCH,
            difference,
            over_epochs(comparison, groups),
        ),
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

/// The mean difference of every comparison after each epoch, with its interval.
fn over_epochs(comparison: &Comparison, groups: &[Group]) -> Vec<Series> {
    let runs = |name: &str| groups.iter().find(|group| group.summary.name == name);
    let series = |outcome: &Outcome| {
        let [own, baseline] = [runs(&outcome.arm)?, runs(&outcome.baseline)?];
        let epochs = own.runs.first()?.0.epochs;
        if [own, baseline]
            .iter()
            .any(|group| group.runs.iter().any(|(row, _)| row.epochs != epochs))
        {
            return None;
        }
        let line =
            (0..epochs).filter_map(|epoch| difference_after(epoch, outcome, [own, baseline]));
        Some(Series { name: name(outcome), line: line.collect(), ..Series::default() })
    };
    comparison.comparisons.iter().filter_map(series).collect()
}

/// The difference of a comparison after an epoch, from 0.
fn difference_after(epoch: usize, outcome: &Outcome, groups: [&Group; 2]) -> Option<Point> {
    let top1 = |group: &Group| -> Vec<(u64, f64)> {
        let of_run = |(row, run): &(&Row, &Run)| Some((row.seed, run.records.get(epoch)?.top1));
        group.runs.iter().filter_map(of_run).collect()
    };
    let [own, baseline] = groups.map(top1);
    let (y, estimate) = match outcome.paired? {
        Pairing::BySeed => {
            let pair = |(seed, top1): &(u64, f64)| {
                let other = baseline.iter().find(|(other, _)| other == seed)?;
                Some(top1 - other.1)
            };
            let differences: Vec<f64> = own.iter().filter_map(pair).collect();
            (mean(&differences), paired(&differences))
        }
        Pairing::Unpaired(_) => {
            let [own, baseline] = [own, baseline]
                .map(|runs| runs.into_iter().map(|(_, top1)| top1).collect::<Vec<_>>());
            (mean(&own) - mean(&baseline), welch(&own, &baseline))
        }
        Pairing::Incomparable(_) => return None,
    };
    let band = estimate.map(|estimate| [y - estimate.half, y + estimate.half]);
    Some(Point { x: (epoch + 1) as f64, y, band })
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
