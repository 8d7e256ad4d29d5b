//! The page of a comparison.

use std::path::Path;

use super::charts::{Group, charts};
use super::live::Live;
use super::plan::Arm;
use super::result::Comparison;
use super::sections::{cost, link, outcome_table, run_table, summary_table, verdict};
use crate::report::Run;
use crate::report::format::Quantity::{Epoch, Number, Percent};
use crate::report::frame::{State, environment, figures, open};
use crate::report::page::{Html, cards, details, paragraph, preformatted};

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
        let groups = Group::all(comparison, runs);
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
            page.section("Runs", run_table(comparison, runs, self.folder));
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
        let link = link(self.folder, &live.run_dir, &format!("{}, seed {}", live.name, live.seed));
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::Plan;
    use crate::compare::result::tests::row;
    use crate::compare::{Contrast, Difference, Pairing, Row};
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
            // The first picture: differences 1, 2, 3 after the last epoch, none after the first.
            "<figcaption><strong>Difference over epochs</strong>",
            "resnet20-dbb − resnet20-base: at last +2.00 points (epoch 2; −0.48 points to +4.48",
            // The paired plot: a dot per seed, the mean and its interval.
            "<strong>Difference by seed</strong>",
            "resnet20-dbb − resnet20-base: +3.00 points, seed 2",
            "from +1.00 points to +3.00 points. Mean +2.00 points, interval −0.48 points to +4.48",
        ] {
            assert!(page.contains(part), "no {part:?} in {page}");
        }
        // There is none of the differences after the first epoch, which do not spread.
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
        assert!(equal.contains("<td>+0.00 (no spread: no interval)</td>"));
        let broken = both(&[50.0, f64::NAN], &[50.0, f64::INFINITY]);
        page(&broken, Pairing::BySeed, &[], &State::Finished);
    }
}
