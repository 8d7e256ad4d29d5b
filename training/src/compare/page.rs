//! The page of a comparison.

use std::path::Path;

use super::charts::{Group, charts};
use super::contrast::Pairing;
use super::live::Live;
use super::plan::Arm;
use super::result::{Comparison, Outcome, Row};
use super::tables::{DELTA_HEADER, TOP1_HEADER};
use crate::report::Run;
use crate::report::format::Quantity::{Count, Duration, Epoch, Number, Percent};
use crate::report::format::signed;
use crate::report::frame::{State, environment, figures, open};
use crate::report::page::{Html, cards, details, paragraph, preformatted, table};
use crate::text::plural;

/// What is compared, and where.
pub(super) struct Compared<'a> {
    /// The arms.
    pub arms: &'a [Arm],
    /// The folder of the runs.
    pub folder: &'a Path,
    /// Runs planned in all.
    pub planned: usize,
}

impl Compared<'_> {
    /// The report: `runs` belong to the rows of the comparison, `live` are the runs under way.
    pub fn page(
        &self,
        comparison: &Comparison,
        runs: &[&Run],
        live: &[Live],
        state: &State,
    ) -> String {
        let groups: Vec<Group> = comparison
            .summary
            .iter()
            .map(|summary| {
                let own = comparison.rows.iter().zip(runs.iter().copied());
                let own = own.filter(|(row, _)| row.name == summary.name).collect();
                Group { summary, runs: own }
            })
            .collect();
        let names: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        let title = format!("{} compared", names.join(", "));
        // The runs under way count.
        let number = runs.len() + live.len();
        let mut page = open(title, state, &[("run", number, self.planned)]);
        if !live.is_empty() {
            let title = match live.len() {
                1 => format!("Run {number} of {}", self.planned),
                _ => format!("Runs {} to {number} of {}", runs.len() + 1, self.planned),
            };
            page.section(&title, live.iter().map(|live| self.under_way(live)).collect());
        }
        let result = match groups.is_empty() {
            true => paragraph("No run is finished."),
            false => Html::from_iter([
                summary_table(comparison, &groups),
                outcome_table(comparison),
                verdict(comparison),
                cost(&groups),
            ]),
        };
        page.section("Result", result);
        if !groups.is_empty() {
            let epochs = runs.iter().map(|run| run.records.len()).max().unwrap_or(0);
            page.section("Curves", figures(&charts(comparison, &groups), epochs));
        }
        let differences = comparison.contrasts.iter().map(|c| paragraph(c.describe() + "."));
        page.section("What differs", differences.collect());
        if !groups.is_empty() {
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
        // Usually the same for all runs.
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
fn verdict(comparison: &Comparison) -> Html {
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

fn summary_table(comparison: &Comparison, groups: &[Group]) -> Html {
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
fn outcome_table(comparison: &Comparison) -> Html {
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

fn run_table(comparison: &Comparison, runs: &[&Run], compared: &Compared) -> Html {
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
        let link = compared.link(&row.run_dir, &format!("{}, seed {}", row.name, row.seed));
        let cells = columns.map(|(_, cell)| cell(row, run).into());
        [link].into_iter().chain(cells).collect()
    });
    table("Every run", &head, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::Plan;
    use crate::compare::result::tests::row;
    use crate::compare::{Contrast, Difference};
    use crate::report::testing::{assert_well_formed, record, run};
    use dbb_models::BlockKind;
    use std::path::PathBuf;

    const BLOCKS: [BlockKind; 2] = [BlockKind::Base, BlockKind::Dbb];

    fn arms() -> Vec<Arm> {
        let recipe = |block: BlockKind| {
            let path = PathBuf::from(format!("resnet20-{block}.toml"));
            (path, run(block, 0, &[50.0]).config)
        };
        Plan::of(&BLOCKS.map(recipe), &[], 1).unwrap().arms
    }

    /// The page of two arms; each seed gives the top-1 of both after every epoch.
    fn page(seeds: &[[&[f64]; 2]], pairing: Pairing, live: &[Live], state: &State) -> String {
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
            is_primary: true,
        }];
        let mut rows = Vec::new();
        let mut runs = Vec::new();
        for (seed, top1) in seeds.iter().enumerate() {
            for ((block, top1), arm) in BLOCKS.into_iter().zip(top1).zip(&arms) {
                let run = run(block, seed as u64, top1);
                rows.push(Row {
                    block: block.to_string(),
                    params_train: run.summary.params_train,
                    params_deploy: run.summary.params_deploy,
                    seconds: 107.0,
                    epochs: top1.len(),
                    blocks_folded: 19,
                    fold_max_rel_diff: 3.8e-7,
                    run_dir: format!("out/{}-seed{seed}", arm.name).into(),
                    ..row(&arm.name, seed as u64, *top1.last().unwrap())
                });
                runs.push(run);
            }
        }
        let comparison = Comparison::of(rows, contrasts);
        let runs: Vec<&Run> = runs.iter().collect();
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
        let page = page(&THREE, Pairing::BySeed, &[], &State::Finished);
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
        assert_eq!(page.matches("class=\"band\"").count(), 8);
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
        let page = page(&THREE, unpaired, &[], &State::Finished);
        let text = "(95 % interval, unpaired, since they train on different images)";
        assert!(page.contains(text) && page.contains(", unpaired</td>"), "{page}");
        assert!(!page.contains("Difference by seed"));
        let none = Pairing::Incomparable("they validate on different images");
        let page = super::tests::page(&THREE, none, &[], &State::Finished);
        assert!(page.contains("<td>none: they validate on different images</td>"), "{page}");
        assert!(!page.contains("points of top-1"));
    }

    #[test]
    fn one_seed_claims_nothing() {
        let page = page(&THREE[..1], Pairing::BySeed, &[], &State::Running);
        assert!(page.contains("One seed: no interval, so no difference is claimed"), "{page}");
        assert!(page.contains("<td>+1.00 (one seed: no interval)</td>"), "{page}");
        assert!(page.contains("http-equiv=\"refresh\"") && !page.contains("Difference by seed"));
        assert!(!page.contains("class=\"band\"") && !page.contains("±</td>"));
    }

    /// With one epoch only the charts that have another axis than epochs are left.
    #[test]
    fn charts_of_one_epoch_are_left_out() {
        let one: [[&[f64]; 2]; 2] = [[&[80.0], &[81.0]], [&[70.0], &[72.0]]];
        let page = page(&one, Pairing::BySeed, &[], &State::Finished);
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
        let first = page(&[], Pairing::BySeed, &[live.clone()], &State::Running);
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
        let third = page(&THREE[..1], Pairing::BySeed, &[live.clone()], &State::Running);
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
        let equal = page(&equal, Pairing::BySeed, &[], &State::Finished);
        assert!(equal.contains("<td>+0.00 ± 0.00</td>"));
        let broken = both(&[50.0, f64::NAN], &[50.0, f64::INFINITY]);
        page(&broken, Pairing::BySeed, &[], &State::Finished);
    }
}
