//! The page of a comparison.

use std::path::Path;

use super::tables::{DELTA_HEADER, TOP1_HEADER};
use super::{Arm, Comparison, Live, Pairing, Row, SummaryRow};
use crate::report::chart::{Chart, Series};
use crate::report::format::Quantity::{Count, Duration, Epoch, Number, Percent, Points};
use crate::report::format::{plural, signed};
use crate::report::page::{Html, cards, details, paragraph, preformatted, table};
use crate::report::scale::Axis;
use crate::report::{EPOCH, LOSS, Run, State, TIME, TOP1, environment, figures, open};
use crate::run::metrics::EpochRecord;
use crate::statistics::mean;

/// What is compared, and where.
pub(super) struct Compared<'a> {
    /// The arms.
    pub arms: &'a [Arm],
    /// The folder of the runs.
    pub folder: &'a Path,
    /// Runs that are to come in all.
    pub planned: usize,
}

/// An arm of the summary with its runs.
struct Group<'a> {
    summary: &'a SummaryRow,
    runs: Vec<(&'a Row, &'a Run)>,
}

impl Compared<'_> {
    /// The report: `runs` belong to the rows of the comparison, `live` is the run under way.
    pub fn page(
        &self,
        comparison: &Comparison,
        runs: &[Run],
        live: Option<&Live>,
        state: &State,
    ) -> String {
        let groups: Vec<Group> = comparison
            .summary
            .iter()
            .map(|summary| {
                let own = comparison.rows.iter().zip(runs);
                let own = own.filter(|(row, _)| row.name == summary.name).collect();
                Group { summary, runs: own }
            })
            .collect();
        let names: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        let title = format!("{} compared", names.join(", "));
        // The run under way counts as long as it is.
        let number = runs.len() + usize::from(live.is_some());
        let mut page = open(title, state, &[("run", number, self.planned)]);
        if let Some(live) = live {
            page.section(&format!("Run {number} of {}", self.planned), self.under_way(live));
        }
        let result = match groups.is_empty() {
            true => paragraph("No run is finished."),
            false => Html::from_iter([
                summary_table(comparison, &groups),
                verdict(&groups),
                cost(&groups),
            ]),
        };
        page.section("Result", result);
        let differences = comparison.contrasts.iter().map(|c| paragraph(c.describe() + "."));
        page.section("What differs", differences.collect());
        let epochs = runs.iter().map(|run| run.records.len()).max().unwrap_or(0);
        if !groups.is_empty() {
            page.section("Curves", figures(&charts(&groups), epochs));
            page.section("Runs", run_table(comparison, runs, self));
        }
        let configs = self.arms.iter().map(|arm| {
            let config = groups.iter().find(|group| group.summary.name == arm.name);
            // As it was resolved with the data, once there is a run.
            let config = config.and_then(|group| Some(&group.runs.first()?.1.config));
            let config = config.unwrap_or(&arm.config);
            let name = format!("{}, seed {}", arm.name, config.seed);
            details(&name, &preformatted(&config.to_toml()))
        });
        page.section("Configuration", configs.collect());
        // One for all, unless a run was made elsewhere or on other data.
        let mut envs: Vec<_> = runs.iter().map(|run| &run.env).collect();
        envs.dedup();
        if !envs.is_empty() {
            page.section("Environment and data", envs.into_iter().map(environment).collect());
        }
        page.render()
    }

    /// The run that is trained, with a link to its own report.
    fn under_way(&self, live: &Live) -> Html {
        let link = self.link(&live.run_dir, &format!("{}, seed {}", live.name, live.seed));
        let epoch = live.last.as_ref().map_or(0, |record| record.epoch);
        let mut facts = vec![(
            "Epochs",
            format!("{} of {}", Epoch.show(epoch as f64), live.epochs),
            "finished".to_string(),
        )];
        if let Some(last) = &live.last {
            let after = format!("folded network, validation, after epoch {epoch}");
            facts.push(("Top-1", Percent.show(last.top1), after));
            facts.push(("Loss", Number.show(last.val_loss), "validation".to_string()));
        }
        Html::from_iter([Html::raw(format!("<p>{link}</p>\n")), cards(&facts)])
    }

    /// A link to the report of a run.
    fn link(&self, run_dir: &Path, name: &str) -> Html {
        let place = run_dir.strip_prefix(self.folder).unwrap_or(run_dir);
        let report = Html::from(place.join("report.html").display().to_string());
        Html::raw(format!("<a href=\"{report}\">{}</a>", Html::from(name)))
    }
}

/// What may be concluded, and what may not.
fn verdict(groups: &[Group]) -> Html {
    let mut lines: Vec<String> = Vec::new();
    for Group { summary, .. } in groups {
        let (Some(delta), Some(half), Some(baseline), Some(pairing)) =
            (summary.delta, summary.delta_ci95, &summary.baseline, summary.paired)
        else {
            continue;
        };
        let meaning = match (delta - half > 0.0, delta + half < 0.0) {
            (true, _) => "the interval lies above zero",
            (_, true) => "the interval lies below zero",
            _ => "the interval contains zero, so no difference is shown",
        };
        let how = match pairing {
            Pairing::BySeed => plural(pairs(summary, groups).len(), "pair"),
            Pairing::Unpaired(why) | Pairing::Incomparable(why) => format!("unpaired, since {why}"),
        };
        lines.push(format!(
            "{} − {baseline}: {} ± {half:.2} points of top-1 (95 % interval, {how}): {meaning}.",
            summary.name,
            signed(delta),
        ));
    }
    if groups.iter().any(|group| group.summary.n == 1) {
        lines.push(
            "One seed: no interval, so no difference is claimed. Use several seeds before believing \
             one."
                .into(),
        );
    }
    lines.into_iter().map(paragraph).collect()
}

/// That the arms cost the same once deployed, where they do.
fn cost(groups: &[Group]) -> Html {
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

/// Seed and difference of top-1 to the baseline of the runs that have a counterpart there.
fn pairs(arm: &SummaryRow, groups: &[Group]) -> Vec<[f64; 2]> {
    let rows = |name: &str| {
        let group = groups.iter().find(|group| group.summary.name == name);
        group.into_iter().flat_map(|group| group.runs.iter().map(|(row, _)| *row))
    };
    let baseline = arm.baseline.as_deref().unwrap_or_default();
    let pair = |own: &Row| {
        let base = rows(baseline).find(|base| base.seed == own.seed)?;
        Some([own.seed as f64, own.top1_train - base.top1_train])
    };
    rows(&arm.name).filter_map(pair).collect()
}

fn summary_table(comparison: &Comparison, groups: &[Group]) -> Html {
    let head = [
        "name",
        "seeds",
        TOP1_HEADER,
        DELTA_HEADER,
        "baseline",
        "parameters in training",
        "deployed",
        "MACs",
        "time per run",
        "fold difference",
    ];
    let rows = groups.iter().map(|group| {
        let arm = group.summary;
        let seconds: Vec<f64> = group.runs.iter().map(|(row, _)| row.seconds).collect();
        let folds = group.runs.iter().map(|(row, _)| row.fold_max_rel_diff);
        let (params_train, params_deploy, macs) =
            group.runs.first().map_or((0, 0, 0), |(row, run)| {
                (row.params_train, row.params_deploy, run.summary.macs_deploy)
            });
        let cells = [
            arm.name.clone(),
            arm.n.to_string(),
            arm.top1(),
            comparison.delta(arm).unwrap_or_else(|| "baseline".into()).replace('-', "−"),
            arm.baseline.clone().unwrap_or_default(),
            Count.show(params_train as f64),
            Count.show(params_deploy as f64),
            Count.show(macs as f64),
            Duration.show(mean(&seconds)),
            Number.show(folds.fold(0.0, f64::max)),
        ];
        cells.map(Html::from).into()
    });
    table("Every configuration", &head, rows)
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
    vec![
        chart(
            "Difference by seed",
            "A dot per seed: top-1 less that of the baseline with the same seed. Line: mean; band: 95 % \
             interval.",
            Axis { name: "seed", ..EPOCH },
            Axis { name: "difference in top-1", quantity: Points, from_zero: true },
            by_seed(groups),
        ),
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
            "A dot per run, folded.",
            cost("deployed parameters"),
            TOP1,
            ends(|row, _| [row.params_deploy as f64, row.top1_deploy]),
        ),
        chart(
            "Top-1 against multiply-accumulates",
            "A dot per run, folded.",
            cost("multiply-accumulates"),
            TOP1,
            ends(|row, run| [run.summary.macs_deploy as f64, row.top1_deploy]),
        ),
    ]
}

/// The differences of every arm that is paired with its baseline.
fn by_seed(groups: &[Group]) -> Vec<Series> {
    let series = |group: &Group| {
        let arm = group.summary;
        let level = match (arm.paired?, arm.delta, arm.delta_ci95) {
            (Pairing::BySeed, Some(delta), Some(half)) => [delta, delta - half, delta + half],
            _ => return None,
        };
        let name = format!("{} − {}", arm.name, arm.baseline.as_ref()?);
        let dots = pairs(arm, groups);
        Some(Series { name, dots, level: Some(level), ..Series::default() })
    };
    groups.iter().filter_map(series).collect()
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

fn run_table(comparison: &Comparison, runs: &[Run], compared: &Compared) -> Html {
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
        let link = compared.link(&row.run_dir, &format!("{}, seed {}", row.name, row.seed));
        let best = run.records.iter().map(|record| record.top1).fold(f64::NAN, f64::max);
        let cells = [
            Percent.show(row.top1_train),
            Percent.show(row.top1_deploy),
            Percent.show(best),
            Duration.show(row.seconds),
            row.blocks_folded.to_string(),
            Number.show(row.fold_max_rel_diff),
        ];
        std::iter::once(link).chain(cells.map(Html::from)).collect()
    });
    table("Every run", &head, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Contrast, Difference, summarise};
    use crate::report::tests::{assert_well_formed, record, run};
    use dbb_models::BlockKind;
    use std::path::PathBuf;

    const BLOCKS: [BlockKind; 2] = [BlockKind::Base, BlockKind::Dbb];

    fn arms() -> Vec<Arm> {
        let recipe = |block: BlockKind| {
            let path = PathBuf::from(format!("resnet20-{block}.toml"));
            (path, run(block, 0, &[50.0]).config)
        };
        Arm::of(&BLOCKS.map(recipe), &[]).unwrap()
    }

    /// The page of two arms; each seed gives the top-1 of both after every epoch.
    fn page(seeds: &[[&[f64]; 2]], pairing: Pairing, live: Option<&Live>, state: &State) -> String {
        let arms = arms();
        let contrasts = vec![Contrast {
            arm: arms[1].name.clone(),
            baseline: arms[0].name.clone(),
            blocks: [BlockKind::Dbb, BlockKind::Base],
            differences: vec![Difference {
                key: "optim.lr".into(),
                baseline: 0.05.into(),
                own: 0.1.into(),
            }],
            pairing,
        }];
        let mut comparison = Comparison { contrasts, ..Comparison::default() };
        let mut runs = Vec::new();
        for (seed, top1) in seeds.iter().enumerate() {
            for ((block, top1), arm) in BLOCKS.into_iter().zip(top1).zip(&arms) {
                let run = run(block, seed as u64, top1);
                let last = *top1.last().unwrap();
                comparison.rows.push(Row {
                    arch: "resnet20".into(),
                    block: block.to_string(),
                    seed: seed as u64,
                    top1_train: last,
                    top1_deploy: last,
                    params_train: run.summary.params_train,
                    params_deploy: run.summary.params_deploy,
                    seconds: 107.0,
                    blocks_folded: 19,
                    fold_max_rel_diff: 3.8e-7,
                    run_dir: format!("out/{}-seed{seed}", arm.name).into(),
                    name: arm.name.clone(),
                });
                runs.push(run);
            }
        }
        comparison.summary = summarise(&comparison.rows, &comparison.contrasts);
        let folder = Path::new("out");
        let compared = Compared { arms: &arms, folder, planned: 6 };
        let page = compared.page(&comparison, &runs, live, state);
        assert_well_formed(&page);
        page
    }

    const THREE: [[&[f64]; 2]; 3] = [
        [&[50.0, 80.0], &[50.0, 81.0]],
        [&[50.0, 70.0], &[50.0, 72.0]],
        [&[50.0, 90.0], &[50.0, 93.0]],
    ];

    /// Differences 1, 2, 3: mean 2, half width 2.48.
    #[test]
    fn arms_are_compared_by_their_pairs() {
        let page = page(&THREE, Pairing::BySeed, None, &State::Finished);
        for part in [
            "<h1>resnet20-base, resnet20-dbb compared</h1>",
            "run 6 of 6",
            "80.00 ± 10.00",
            "resnet20-dbb − resnet20-base: +2.00 ± 2.48 points of top-1 (95 % interval, 3 pairs): the \
             interval contains zero, so no difference is shown.",
            "resnet20-dbb against resnet20-base: what differs besides the block: optim.lr = 0.1 \
             (resnet20-base: 0.05); paired by seed.",
            ">top-1 % (± standard deviation)<",
            ">delta (± 95 % interval)<",
            "<td>baseline</td>",
            "<td>+2.00 ± 2.48</td><td>resnet20-base</td>",
            "1 min 47 s",
            "3.8e−7",
            "<a href=\"resnet20-dbb-seed2/report.html\">resnet20-dbb, seed 2</a>",
            "mean of 3 seeds",
            "All fold to the same size",
            // The paired plot: a dot per seed, the mean and its interval.
            "<strong>Difference by seed</strong>",
            "resnet20-dbb − resnet20-base: +3.00 points, seed 2",
            "from +1.00 points to +3.00 points. Mean +2.00 points, interval −0.48 points to +4.48",
        ] {
            assert!(page.contains(part), "no {part:?} in {page}");
        }
        assert_eq!(page.matches("class=\"band\"").count(), 7);
        assert_eq!(page.matches("0123abcd").count(), 1, "one environment for all");
        assert!(!page.contains("One seed") && !page.contains("refresh"));
        // All cost the same: these charts would be dots above one place.
        assert!(
            !page.contains("Top-1 against deployed") && !page.contains("Top-1 against multiply")
        );
    }

    #[test]
    fn other_images_are_said() {
        let unpaired = Pairing::Unpaired("they train on different images");
        let page = page(&THREE, unpaired, None, &State::Finished);
        let text = "(95 % interval, unpaired, since they train on different images)";
        assert!(page.contains(text) && page.contains(", unpaired</td>"), "{page}");
        assert!(!page.contains("Difference by seed"));
        let none = Pairing::Incomparable("they validate on different images");
        let page = super::tests::page(&THREE, none, None, &State::Finished);
        assert!(page.contains("<td>none: they validate on different images</td>"), "{page}");
        assert!(!page.contains("points of top-1"));
    }

    #[test]
    fn one_seed_claims_nothing() {
        let page = page(&THREE[..1], Pairing::BySeed, None, &State::Running);
        assert!(page.contains("One seed: no interval, so no difference is claimed"), "{page}");
        assert!(page.contains("<td>+1.00 (one seed: no interval)</td>"), "{page}");
        assert!(page.contains("http-equiv=\"refresh\"") && !page.contains("Difference by seed"));
        assert!(!page.contains("class=\"band\"") && !page.contains("±</td>"));
    }

    /// With one epoch only the charts that have another axis than epochs are left.
    #[test]
    fn charts_of_one_epoch_are_left_out() {
        let one: [[&[f64]; 2]; 2] = [[&[80.0], &[81.0]], [&[70.0], &[72.0]]];
        let page = page(&one, Pairing::BySeed, None, &State::Finished);
        assert!(page.contains("One epoch is finished; curves over epochs begin with the second."));
        assert!(
            page.contains("Difference by seed") && !page.contains("Validation top-1"),
            "{page}"
        );
    }

    #[test]
    fn the_run_under_way_is_shown() {
        let arms = arms();
        let run_dir = PathBuf::from("out/resnet20-base-seed1");
        let mut live = Live::new(&arms[0].name, &arms[0].config, run_dir);
        live.seed = 1;
        let first = page(&[], Pairing::BySeed, Some(&live), &State::Running);
        for part in [
            "<h1>resnet20-base, resnet20-dbb compared</h1>",
            "<h2>Run 1 of 6</h2>",
            "No run is finished.",
            "<dd>0 of 2<small>finished<",
            "refresh",
        ] {
            assert!(first.contains(part), "no {part:?} in {first}");
        }
        live.last = Some(record(1, 70.0));
        let third = page(&THREE[..1], Pairing::BySeed, Some(&live), &State::Running);
        for part in [
            "run 3 of 6",
            "<h2>Run 3 of 6</h2>",
            "<a href=\"resnet20-base-seed1/report.html\">resnet20-base, seed 1</a>",
            "<dd>1 of 2<small>finished<",
            "<dd>70.00 %<small>folded network, validation, after epoch 1<",
        ] {
            assert!(third.contains(part), "no {part:?} in {third}");
        }
    }

    #[test]
    fn equal_seeds_and_no_numbers_do_no_harm() {
        let both = |a: &'static [f64], b: &'static [f64]| [[a, b], [a, b]];
        let equal = both(&[50.0, 80.0], &[50.0, 80.0]);
        let equal = page(&equal, Pairing::BySeed, None, &State::Finished);
        assert!(equal.contains("<td>+0.00 ± 0.00</td>"));
        let broken = both(&[50.0, f64::NAN], &[50.0, f64::INFINITY]);
        page(&broken, Pairing::BySeed, None, &State::Finished);
    }
}
