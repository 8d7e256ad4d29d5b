//! The parts that are tables.

use super::part::Study;
use crate::compare::{Comparison, DELTA_HEADER, Outcome, Row, TOP1_HEADER};
use crate::statistics::mean;

/// A table in Markdown.
fn table(head: &[String], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rows: String = rows.into_iter().map(|row| line(&row)).collect();
    format!("{}|{}\n{rows}", line(head), "---|".repeat(head.len()))
}

/// The arms with their top-1 and what they cost.
pub(super) fn arms(comparison: &Comparison) -> String {
    let head = [
        "arm",
        "block",
        "epochs",
        "seeds",
        TOP1_HEADER,
        "test loss",
        "training loss",
        "parameters in training",
        "deployed",
        "memory, MiB",
    ];
    let rows = comparison.summary.iter().map(|arm| {
        let rows: Vec<&Row> = comparison.rows.iter().filter(|row| row.name == arm.name).collect();
        let mean_of =
            |value: fn(&Row) -> f64| mean(&rows.iter().map(|row| value(row)).collect::<Vec<_>>());
        let first = rows[0];
        vec![
            arm.name.clone(),
            arm.block.clone(),
            epochs(&rows),
            arm.n.to_string(),
            arm.top1(),
            format!("{:.3}", mean_of(|row| row.test_loss)),
            format!("{:.3}", mean_of(|row| row.train_loss)),
            first.params_train.to_string(),
            first.params_deploy.to_string(),
            match rows.iter().all(|row| row.peak_memory_mib.is_some()) {
                true => format!("{:.0}", mean_of(|row| row.peak_memory_mib.unwrap_or(f64::NAN))),
                false => "-".into(),
            },
        ]
    });
    table(&head.map(String::from), rows)
}

/// The epochs of some runs, which differ where runs ended early.
pub(super) fn epochs(rows: &[&Row]) -> String {
    let epochs = || rows.iter().map(|row| row.epochs);
    match (epochs().min(), epochs().max()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (least, _) => least.unwrap_or(0).to_string(),
    }
}

/// The comparisons of some studies.
pub(super) fn comparisons(studies: &[Study]) -> String {
    let head = ["study", "comparison", "pairs", DELTA_HEADER, "p", "p (corrected)"];
    let rows = studies.iter().flat_map(|study| {
        study.comparison.comparisons.iter().map(|outcome: &Outcome| {
            let [comparison, pairs, delta, _, p, corrected, _] = outcome.cells();
            vec![study.name.clone(), comparison, pairs, delta, p, corrected]
        })
    });
    table(&head.map(String::from), rows)
}

/// Where the numbers come from.
pub(super) fn sources(studies: &[Study]) -> String {
    let head = ["file", "runs", "command", "commit", "machine", "threads of a run"];
    let rows = studies.iter().map(|study| {
        let rows = &study.comparison.rows;
        vec![
            format!("[{}]({})", study.name, study.place),
            rows.len().to_string(),
            format!("`{}`", study.comparison.command),
            different(rows, |row| row.commit.clone().unwrap_or_else(|| "unknown".into())),
            different(rows, |row| format!("{}, {}", row.machine, row.instruction_set)),
            different(rows, |row| row.threads.to_string()),
        ]
    });
    table(&head.map(String::from), rows)
}

/// The values of a column, each once.
fn different(rows: &[Row], value: fn(&Row) -> String) -> String {
    let mut values: Vec<String> = rows.iter().map(value).collect();
    values.sort();
    values.dedup();
    values.join("; ")
}
