//! The tables of the page of a comparison, and what may be concluded from them.

use std::path::Path;

use super::charts::Group;
use super::contrast::Pairing;
use super::result::{Comparison, Outcome, Row};
use super::tables::{DELTA_HEADER, TOP1_HEADER};
use crate::report::Run;
use crate::report::format::Quantity::{Count, Duration, Number, Percent};
use crate::report::format::signed;
use crate::report::page::{Html, paragraph, table};
use crate::text::plural;

/// What may be concluded, and what may not.
pub(super) fn verdict(comparison: &Comparison) -> Html {
    let mut lines: Vec<String> = Vec::new();
    for outcome in &comparison.comparisons {
        let (Some(delta), Some(half), Some(pairing)) =
            (outcome.delta, outcome.delta_ci95, outcome.paired)
        else {
            continue;
        };
        let meaning = match (delta - half > 0.0, delta + half < 0.0) {
            (true, _) => "the interval lies above zero",
            (_, true) => "the interval lies below zero",
            _ => "the interval contains zero, so no difference is shown",
        };
        let how = match pairing {
            Pairing::BySeed => plural(outcome.n, "pair"),
            Pairing::Unpaired(why) | Pairing::Incomparable(why) => format!("unpaired, since {why}"),
        };
        lines.push(format!(
            "{} − {}: {} ± {half:.2} points of top-1 (95 % interval, {how}): {meaning}.",
            outcome.arm,
            outcome.baseline,
            signed(delta),
        ));
    }
    if comparison.summary.iter().any(|arm| arm.n == 1) {
        lines.push(
            "One seed: no interval, so no difference is claimed. Use several seeds before believing \
             one."
                .into(),
        );
    }
    lines.into_iter().map(paragraph).collect()
}

/// Says that the arms cost the same once deployed, if they do.
pub(super) fn cost(groups: &[Group]) -> Html {
    let cost = |group: &Group| {
        let (row, run) = group.runs.first()?;
        Some((row.params_deploy, run.summary.macs_deploy))
    };
    match groups {
        [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|g| cost(g) == cost(first)) => {
            paragraph("All fold to the same size: they cost the same once deployed.")
        }
        _ => Html::default(),
    }
}

/// Every arm.
pub(super) fn summary_table(comparison: &Comparison, groups: &[Group]) -> Html {
    let cost = |group: &Group| comparison.cost(&group.summary.name);
    let delta = |group: &Group| comparison.delta(&group.summary.name);
    let baseline = |group: &Group| {
        let outcome = comparison.outcome_of(&group.summary.name);
        outcome.map_or_else(String::new, |outcome| outcome.baseline.clone())
    };
    let macs = |group: &Group| group.runs.first().map_or(0, |(_, run)| run.summary.macs_deploy);
    type Cell<'a> = &'a dyn Fn(&Group) -> String;
    let columns: [(&str, Cell); 10] = [
        ("name", &|group| group.summary.name.clone()),
        ("seeds", &|group| group.summary.n.to_string()),
        (TOP1_HEADER, &|group| group.summary.top1()),
        (DELTA_HEADER, &|group| delta(group).map_or("baseline".into(), |d| d.replace('-', "−"))),
        ("baseline", &baseline),
        ("parameters in training", &|group| Count.show(cost(group).params_train as f64)),
        ("deployed", &|group| Count.show(cost(group).params_deploy as f64)),
        ("MACs", &|group| Count.show(macs(group) as f64)),
        ("time per run", &|group| Duration.show(cost(group).seconds)),
        ("fold difference", &|group| Number.show(cost(group).fold)),
    ];
    let rows = groups.iter().map(|group| columns.map(|(_, cell)| cell(group).into()).into());
    table("Every configuration", &columns.map(|(name, _)| name), rows)
}

/// Every comparison that can be tested.
pub(super) fn outcome_table(comparison: &Comparison) -> Html {
    let tested: Vec<_> = comparison.comparisons.iter().filter(|o| o.p.is_some()).collect();
    if tested.is_empty() {
        return Html::default();
    }
    let head = comparison.outcome_header();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let row = |outcome: &Outcome| {
        outcome.cells().map(|cell| cell.replace('-', "−").into()).into_iter().collect()
    };
    let note = "p: two-sided t test of no difference. Seeds: so many resolve a true difference of that \
                size with a probability of 80 % at a two-sided level of 5 %, by the spread found here.";
    let table = table("Every comparison", &head, tested.into_iter().map(row));
    Html::from_iter([table, paragraph(note)])
}

/// Every run.
pub(super) fn run_table(comparison: &Comparison, runs: &[&Run], folder: &Path) -> Html {
    type Cell = fn(&Row, &Run) -> String;
    let columns: [(&str, Cell); 6] = [
        ("top-1, folded", |row, _| Percent.show(row.top1)),
        ("top-1, training form", |row, _| Percent.show(row.top1_train)),
        ("best top-1, folded", |_, run| {
            Percent.show(run.records.iter().map(|record| record.top1).fold(f64::NAN, f64::max))
        }),
        ("time", |row, _| Duration.show(row.seconds)),
        ("blocks folded", |row, _| row.blocks_folded.to_string()),
        ("fold difference", |row, _| Number.show(row.fold_max_rel_diff)),
    ];
    let head: Vec<&str> = ["run"].into_iter().chain(columns.map(|(name, _)| name)).collect();
    let rows = comparison.rows.iter().zip(runs.iter().copied()).map(|(row, run)| {
        let link = link(folder, &row.run_dir, &format!("{}, seed {}", row.name, row.seed));
        let cells = columns.map(|(_, cell)| cell(row, run).into());
        [link].into_iter().chain(cells).collect()
    });
    table("Every run", &head, rows)
}

/// A link from a folder to the report of a run below it.
pub(super) fn link(folder: &Path, run_dir: &Path, name: &str) -> Html {
    let place = run_dir.strip_prefix(folder).unwrap_or(run_dir);
    let report = Html::from(place.join("report.html").display().to_string());
    Html::raw(format!("<a href=\"{report}\">{}</a>", Html::from(name)))
}
