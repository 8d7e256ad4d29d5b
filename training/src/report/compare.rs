//! The page of a comparison.

use std::path::Path;

use super::chart::{Axis, Chart, Series};
use super::format::Quantity::{Count, Duration, Number, Percent};
use super::format::{plural, plus_minus, signed};
use super::page::{Html, details, paragraph, preformatted, table};
use super::{EPOCH, LOSS, Run, State, TIME, TOP1, environment, open};
use crate::compare::{Comparison, Row, SummaryRow, mean};
use crate::metrics::EpochRecord;

/// A block of the summary with its runs.
struct Group<'a> {
    name: String,
    summary: &'a SummaryRow,
    runs: Vec<(&'a Row, &'a Run)>,
}

/// The report of a comparison in `folder`: `runs` belong to its rows, `planned` are to come in
/// all.
pub fn compare_page(
    comparison: &Comparison,
    runs: &[Run],
    folder: &Path,
    planned: usize,
    state: &State,
) -> String {
    let summary = &comparison.summary;
    let alone = summary.iter().all(|block| block.arch == summary[0].arch);
    let groups: Vec<Group> = summary
        .iter()
        .map(|block| {
            let own = comparison
                .rows
                .iter()
                .zip(runs)
                .filter(|(row, _)| row.arch == block.arch && row.block == block.block);
            let name = match alone {
                true => block.block.clone(),
                false => format!("{} {}", block.arch, block.block),
            };
            Group { name, summary: block, runs: own.collect() }
        })
        .collect();
    let list = |name: fn(&SummaryRow) -> &str| {
        let mut names: Vec<&str> = Vec::new();
        for block in summary {
            if !names.contains(&name(block)) {
                names.push(name(block));
            }
        }
        names.join(", ")
    };
    let title = format!("{}: {} compared", list(|row| &row.arch), list(|row| &row.block));
    let mut page = open(title, state, &[("run", runs.len(), planned)]);
    page.section("Result", Html::from_iter([summary_table(&groups), verdict(&groups)]));
    page.section(
        "Curves",
        Html::raw(format!(
            "<div class=\"charts\">\n{}</div>\n",
            charts(&groups).iter().map(Chart::figure).collect::<Html>()
        )),
    );
    page.section("Runs", run_table(comparison, runs, folder));
    let configs = groups.iter().filter_map(|group| {
        let (row, run) = group.runs.first()?;
        let name = format!("{}, seed {}", group.name, row.seed);
        Some(details(&name, &preformatted(&run.config.to_toml())))
    });
    page.section("Configuration", configs.collect());
    // One for all, unless a run was made elsewhere or on other data.
    let mut envs: Vec<_> = runs.iter().map(|run| &run.env).collect();
    envs.dedup();
    page.section("Environment and data", envs.into_iter().map(environment).collect());
    page.render()
}

/// What may be concluded, and what may not.
fn verdict(groups: &[Group]) -> Html {
    let mut lines: Vec<String> = Vec::new();
    for group in groups {
        let SummaryRow { delta: Some(delta), delta_ci95: Some(ci), arch, n, .. } = group.summary
        else {
            continue;
        };
        let meaning = match (delta - ci > 0.0, delta + ci < 0.0) {
            (true, _) => "the interval lies above zero",
            (_, true) => "the interval lies below zero",
            _ => "the interval contains zero, so no difference is shown",
        };
        let base = groups.iter().find(|base| base.summary.arch == *arch);
        lines.push(format!(
            "{} − {}: {} ± {ci:.2} points of top-1 (95 % confidence, {}): {meaning}.",
            group.name,
            base.map_or("", |base| &base.name),
            signed(*delta),
            plural(*n, "pair"),
        ));
    }
    if groups.iter().any(|group| group.summary.n == 1) {
        lines.push(
            "One seed: no spread, no difference is claimed. Use several seeds before believing \
             one."
                .into(),
        );
    }
    lines.into_iter().map(paragraph).collect()
}

fn summary_table(groups: &[Group]) -> Html {
    let head = [
        "block",
        "seeds",
        "top-1 % (±\u{a0}sd)",
        "difference (±\u{a0}95\u{a0}%)",
        "parameters in training",
        "deployed",
        "MACs",
        "time per run",
        "fold difference",
    ];
    let rows = groups.iter().map(|group| {
        let block = group.summary;
        let seconds: Vec<f64> = group.runs.iter().map(|(row, _)| row.seconds).collect();
        let folds = group.runs.iter().map(|(row, _)| row.fold_max_rel_diff);
        let (params_train, params_deploy, macs) =
            group.runs.first().map_or((0, 0, 0), |(row, run)| {
                (row.params_train, row.params_deploy, run.summary.macs_deploy)
            });
        let first = groups.iter().find(|first| first.summary.arch == block.arch);
        let baseline = first.is_some_and(|first| first.summary.block == block.block);
        let difference = match (block.delta, block.delta_ci95) {
            (Some(delta), Some(ci)) => format!("{} ± {ci:.2}", signed(delta)),
            _ if baseline => "baseline".into(),
            _ => "one seed".into(),
        };
        let cells = [
            group.name.clone(),
            block.n.to_string(),
            match block.top1_sd {
                Some(sd) => plus_minus(block.top1_mean, sd),
                None => format!("{:.2}", block.top1_mean),
            },
            difference,
            Count.show(params_train as f64),
            Count.show(params_deploy as f64),
            Count.show(macs as f64),
            Duration.show(mean(&seconds)),
            Number.show(folds.fold(0.0, f64::max)),
        ];
        cells.map(Html::from).into()
    });
    table("Every block", &head, rows)
}

fn charts(groups: &[Group]) -> Vec<Chart> {
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
            Series::mean(&group.name, group.runs.iter().map(|(_, run)| curve(run)).collect())
        };
        groups.iter().map(series).collect::<Vec<_>>()
    };
    let ends = |place: fn(&Row, &Run) -> [f64; 2]| {
        let series = |group: &Group| Series {
            name: group.name.clone(),
            dots: group.runs.iter().map(|(row, run)| place(row, run)).collect(),
            ..Series::default()
        };
        groups.iter().map(series).collect::<Vec<_>>()
    };
    let cost = |name| Axis { name, quantity: Count, from_zero: false };
    let equal = groups.iter().all(|group| {
        let size = |group: &Group| group.runs.first().map(|(row, _)| row.params_deploy);
        size(group) == size(&groups[0])
    });
    let size = match equal {
        true => "A dot per run. All fold to the same size: they cost the same once deployed.",
        false => "A dot per run, folded.",
    };
    let chart = |title, note: &str, x, y, series| Chart { title, note: note.into(), x, y, series };
    vec![
        chart("Validation top-1", &bands, EPOCH, TOP1, curves(|record| record.top1)),
        chart("Validation loss", &bands, EPOCH, LOSS, curves(|record| record.val_loss)),
        chart("Training loss", &bands, EPOCH, LOSS, curves(|record| record.train_loss)),
        chart(
            "Top-1 against training time",
            "As training and validation go on, mean of the seeds; a dot where a run ended.",
            TIME,
            TOP1,
            over_time(groups),
        ),
        chart(
            "Top-1 against deployed parameters",
            size,
            cost("deployed parameters"),
            TOP1,
            ends(|row, _| [row.params_deploy as f64, row.top1_deploy]),
        ),
        chart(
            "Top-1 against multiply-accumulates",
            size,
            cost("multiply-accumulates"),
            TOP1,
            ends(|row, run| [run.summary.macs_deploy as f64, row.top1_deploy]),
        ),
    ]
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
        let mut series = Series { dots, thin: Vec::new(), ..Series::mean(&group.name, curves) };
        // Every seed has its own seconds, over which a band would mean nothing.
        series.line.iter_mut().for_each(|point| point.band = None);
        series
    };
    groups.iter().map(series).collect()
}

fn run_table(comparison: &Comparison, runs: &[Run], folder: &Path) -> Html {
    let head = [
        "run",
        "top-1, training form",
        "top-1, folded",
        "best top-1, folded",
        "time",
        "blocks folded",
        "fold difference",
    ];
    let rows = comparison.rows.iter().zip(runs).map(|(row, run)| {
        let name = format!("{} {}, seed {}", row.arch, row.block, row.seed);
        let place = row.run_dir.strip_prefix(folder).unwrap_or(&row.run_dir);
        let report = Html::from(place.join("report.html").display().to_string());
        let best = run.records.iter().map(|record| record.top1).fold(f64::NAN, f64::max);
        let cells = [
            Percent.show(row.top1),
            Percent.show(row.top1_deploy),
            Percent.show(best),
            Duration.show(row.seconds),
            row.blocks_folded.to_string(),
            Number.show(row.fold_max_rel_diff),
        ];
        let link = Html::raw(format!("<a href=\"{report}\">{}</a>", Html::from(name)));
        std::iter::once(link).chain(cells.map(Html::from)).collect()
    });
    table("Every run", &head, rows)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_well_formed, run};
    use super::*;
    use crate::compare::summarise;
    use dbb_models::BlockKind;

    fn page(seeds: &[[f64; 2]], state: &State) -> String {
        let mut comparison = Comparison::default();
        let mut runs = Vec::new();
        for (seed, top1) in seeds.iter().enumerate() {
            for (block, top1) in [BlockKind::Base, BlockKind::Dbb].into_iter().zip(top1) {
                let run = run(block, seed as u64, &[50.0, *top1]);
                comparison.rows.push(Row {
                    arch: "resnet20".into(),
                    block: block.to_string(),
                    seed: seed as u64,
                    top1: *top1,
                    top1_deploy: *top1,
                    params_train: run.summary.params_train,
                    params_deploy: run.summary.params_deploy,
                    seconds: 107.0,
                    blocks_folded: 19,
                    fold_max_rel_diff: 3.8e-7,
                    run_dir: format!("out/resnet20-{block}-seed{seed}").into(),
                });
                runs.push(run);
            }
        }
        comparison.summary = summarise(&comparison.rows);
        compare_page(&comparison, &runs, "out".as_ref(), 6, state)
    }

    /// Differences 1, 2, 3: mean 2, half width 2.48.
    #[test]
    fn blocks_are_compared_by_their_pairs() {
        let page = page(&[[80.0, 81.0], [70.0, 72.0], [90.0, 93.0]], &State::Finished);
        assert_well_formed(&page);
        for part in [
            "resnet20: base, dbb compared",
            "run 6 of 6",
            "80.00 ± 10.00",
            "dbb − base: +2.00 ± 2.48 points of top-1 (95 % confidence, 3 pairs): the \
             interval contains zero, so no difference is shown.",
            "<td>baseline</td>",
            "<td>+2.00 ± 2.48</td>",
            "1 min 47 s",
            "3.8e−7",
            "<a href=\"resnet20-dbb-seed2/report.html\">",
            "mean of 3 seeds",
            "All fold to the same size",
        ] {
            assert!(page.contains(part), "no {part:?}");
        }
        assert_eq!(page.matches("class=\"band\"").count(), 6);
        assert_eq!(page.matches("0123abcd").count(), 1, "one environment for all");
        assert!(!page.contains("One seed") && !page.contains("refresh"));
    }

    #[test]
    fn one_seed_claims_nothing() {
        let page = page(&[[80.0, 81.0]], &State::Running);
        assert_well_formed(&page);
        assert!(page.contains("One seed: no spread, no difference is claimed"));
        assert!(page.contains("<td>one seed</td>") && page.contains("http-equiv=\"refresh\""));
        assert!(!page.contains("class=\"band\"") && !page.contains("±</td>"));
    }

    #[test]
    fn equal_seeds_and_no_numbers_do_no_harm() {
        let equal = page(&[[80.0, 80.0], [80.0, 80.0]], &State::Finished);
        assert_well_formed(&equal);
        assert!(equal.contains("<td>+0.00 ± 0.00</td>"));
        let broken = page(&[[f64::NAN, 80.0], [f64::INFINITY, 80.0]], &State::Finished);
        assert_well_formed(&broken);
    }
}
