//! The page of a run.

use dbb_datasets::Thumbnail;
use dbb_models::summary::Summary;
use serde_json::Value;

use super::chart::Chart;
use super::findings::{Findings, add_findings};
use super::format::Quantity::{self, Count, Duration, Epoch, Number, Percent};
use super::frame::{State, environment, figures, open};
use super::page::{Html, cards, details, paragraph, preformatted, table};
use super::picture::{picture, pictures};
use super::scale::Axis;
use super::series::Series;
use crate::config::Config;
use crate::run::metrics::EpochRecord;
use crate::run::steps::{StepPoint, Steps};

/// A run as a report shows it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its configuration.
    pub config: Config,
    /// Layers and cost of its network.
    pub summary: Summary,
    /// Program, device and data.
    pub env: Value,
    /// Every epoch so far.
    pub records: Vec<EpochRecord>,
    /// Loss, learning rate and gradient norm by step.
    pub steps: Steps,
    /// Steps done, and steps of the whole run.
    pub step: [usize; 2],
    /// What the last validation found.
    pub findings: Option<Findings>,
    /// The first training batch as the network got it, with the names of the classes.
    pub batch: Vec<(Thumbnail, String)>,
}

/// The report of a run.
pub fn train_page(run: &Run, state: &State) -> String {
    let (records, epochs) = (&run.records, run.config.train.epochs);
    let model = &run.config.model;
    let title = format!("{} with {} blocks, seed {}", model.arch, model.block, run.config.seed);
    let mut progress = vec![("epoch", records.len(), epochs)];
    if *state == State::Running {
        let [done, planned] = run.step;
        progress.push(("step", done, planned));
    }
    let mut page = open(title, state, &progress);
    page.add(headline(run, state));
    page.add(figures(&charts(records, &run.steps), records.len()));
    if let Some(findings) = &run.findings {
        add_findings(&mut page, findings);
    }
    if !run.batch.is_empty() {
        page.section("A training batch", batch(&run.batch));
    }
    page.section("Epochs", details("Every epoch in numbers", &epoch_table(records)));
    let config = preformatted(&run.config.to_toml());
    page.section("Configuration", details("config.toml", &config));
    page.section("Environment and data", environment(&run.env));
    page.render()
}

fn headline(run: &Run, state: &State) -> Html {
    let summary = &run.summary;
    let shared = [
        (
            "Parameters",
            Count.show(summary.params_deploy as f64),
            format!("deployed; {} in training", Count.show(summary.params_train as f64)),
        ),
        (
            "Multiply-accumulates",
            Count.show(summary.macs_deploy as f64),
            format!(
                "deployed, for an image of {0}×{1}",
                summary.resolution[0], summary.resolution[1]
            ),
        ),
    ];
    let records = &run.records;
    let Some(last) = records.last() else { return cards(&shared) };
    // The first of equal ones, as for checkpoints.
    let best = records.iter().reduce(|best, r| if r.top1 > best.top1 { r } else { best });
    let best = best.unwrap_or(last);
    let seconds: f64 = records.iter().map(|record| record.seconds).sum();
    let left = run.config.train.epochs.saturating_sub(records.len()) as f64;
    let per_epoch = seconds / records.len() as f64;
    let time = match state {
        State::Running => format!("about {} left", Duration.show(per_epoch * left)),
        _ => format!("{} per epoch", Duration.show(per_epoch)),
    };
    let skipped: usize = records.iter().map(|record| record.skipped).sum();
    let findings = run.findings.as_ref();
    let ece = findings.and_then(|findings| findings.classification.calibration.ece());
    let mut facts = vec![
        ("Top-1", Percent.show(last.top1), "folded network, validation".to_string()),
        ("Best top-1", Percent.show(best.top1), format!("after epoch {}", best.epoch)),
        ("Top-5", Percent.show(last.top5), "folded network, validation".to_string()),
        (
            "Loss",
            Number.show(last.val_loss),
            format!("validation; {} in training", Number.show(last.train_loss)),
        ),
        ("Time", Duration.show(seconds), time),
        (
            "Speed",
            Number.show(last.images_per_second),
            "images per second, training, last epoch".to_string(),
        ),
    ];
    if let Some(ece) = ece {
        let note = "expected, of the validation; 15 bins".to_string();
        facts.push(("Calibration error", Percent.show(ece), note));
    }
    facts.extend(shared);
    facts.push((
        "Fold difference",
        Number.show(last.fold_max_rel_diff),
        "of the largest logit, first validation batch".to_string(),
    ));
    if skipped > 0 {
        facts.push(("Left out", skipped.to_string(), "images that cannot be read".to_string()));
    }
    cards(&facts)
}

/// Images of a training batch, augmented.
fn batch(images: &[(Thumbnail, String)]) -> Html {
    let note = "The first images of the first batch of the run as the network got them, augmented and \
                without the normalisation.";
    let shown = images.iter().map(|(image, name)| picture(image, name, &name.as_str().into()));
    Html::from_iter([paragraph(note), pictures(shown.collect())])
}

fn charts(records: &[EpochRecord], steps: &Steps) -> [Chart; 7] {
    let by_step = |name, value: fn(&StepPoint) -> f64| {
        let points = steps.points().iter();
        vec![Series::line(name, points.map(|point| [point.step as f64, value(point)]))]
    };
    let each_point = || match steps.per_point() {
        1 => "Of every step.".to_string(),
        n => format!("Mean of every {n} steps."),
    };
    let line = |name, value: fn(&EpochRecord) -> f64| {
        Series::line(name, records.iter().map(|record| [record.epoch as f64, value(record)]))
    };
    let axis = |name, quantity| Axis { name, quantity, from_zero: true };
    [
        Chart {
            title: "Top-1 and top-5",
            note: "Validation of the folded network; training on augmented images while the \
                   weights change."
                .into(),
            x: Axis::EPOCH,
            y: Axis { name: "correct", ..Axis::TOP1 },
            series: vec![
                line("top-1", |r| r.top1),
                line("top-5", |r| r.top5),
                line("training top-1", |r| r.train_top1),
            ],
        },
        Chart {
            title: "Loss",
            note: "Mean over the images of an epoch.".into(),
            x: Axis::EPOCH,
            y: Axis::LOSS,
            series: vec![line("validation", |r| r.val_loss), line("training", |r| r.train_loss)],
        },
        Chart {
            title: "Training loss by step",
            note: each_point(),
            x: Axis::STEP,
            y: Axis::LOSS,
            series: by_step("training", |point| point.loss),
        },
        Chart {
            title: "Learning rate",
            note: each_point(),
            x: Axis::STEP,
            y: axis("learning rate", Quantity::Number),
            series: by_step("learning rate", |point| point.lr),
        },
        Chart {
            title: "Norm of the gradient",
            note: format!("{} Before clipping.", each_point()),
            x: Axis::STEP,
            y: Axis { from_zero: false, ..axis("norm", Quantity::Logarithmic) },
            series: by_step("norm", |point| point.grad_norm),
        },
        Chart {
            title: "Time per epoch",
            note: "Steps of training, waiting for the loader, and validation.".into(),
            x: Axis::EPOCH,
            y: axis("time", Quantity::Duration),
            series: vec![
                line("steps", EpochRecord::step_seconds),
                line("loader", |r| r.loader_seconds),
                line("validation", |r| r.validation_seconds),
            ],
        },
        Chart {
            title: "Speed",
            note: "Training alone, validation not counted.".into(),
            x: Axis::EPOCH,
            y: axis("images per second", Quantity::Number),
            series: vec![line("images per second", |r| r.images_per_second)],
        },
    ]
}

fn epoch_table(records: &[EpochRecord]) -> Html {
    type Cell = fn(&EpochRecord) -> String;
    let columns: [(&str, Cell); 13] = [
        ("epoch", |r| Epoch.show(r.epoch as f64)),
        ("top-1", |r| Percent.show(r.top1)),
        ("top-5", |r| Percent.show(r.top5)),
        ("training top-1", |r| Percent.show(r.train_top1)),
        ("loss", |r| Number.show(r.val_loss)),
        ("training loss", |r| Number.show(r.train_loss)),
        ("learning rate", |r| Number.show(r.lr)),
        ("images/s", |r| Number.show(r.images_per_second)),
        ("time", |r| Duration.show(r.seconds)),
        ("loader", |r| Duration.show(r.loader_seconds)),
        ("validation", |r| Duration.show(r.validation_seconds)),
        ("fold difference", |r| Number.show(r.fold_max_rel_diff)),
        ("skipped", |r| r.skipped.to_string()),
    ];
    let rows = records.iter().map(|record| columns.map(|(_, cell)| cell(record).into()).into());
    table("Every epoch", &columns.map(|(name, _)| name), rows)
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::super::testing::{assert_well_formed, run};
    use super::*;
    use dbb_datasets::Image;
    use dbb_models::BlockKind;

    #[test]
    fn a_run_is_told_with_its_numbers() {
        let run = run(BlockKind::Dbb, 3, &[70.0, 68.5]);
        let page = train_page(&run, &State::Finished);
        assert_well_formed(&page);
        for part in [
            "resnet20 with dbb blocks, seed 3",
            "epoch 2 of 2",
            "<dd>68.50 %",
            "<dd>70.00 %<small>after epoch 1<",
            "99.25 %",
            "1.234",
            "533.2",
            "1 min 47 s",
            "4.7e−7",
            "0123abcd",
            "a &lt;folder&gt; &amp; more",
            "role=\"img\"",
        ] {
            assert!(page.contains(part), "no {part:?}");
        }
        let summary = &run.summary;
        assert!(page.contains(&Count.show(summary.params_deploy as f64)));
        assert!(page.contains(&Count.show(summary.macs_deploy as f64)));
        assert!(!page.contains("refresh") && !page.contains("folder> &"));
    }

    #[test]
    fn a_run_that_goes_on_reads_itself_again() {
        let mut run = run(BlockKind::Dbb, 0, &[70.0]);
        let page = train_page(&run, &State::Running);
        assert!(page.contains("http-equiv=\"refresh\"") && page.contains("about 53.5 s left"));
        assert!(page.contains("One epoch is finished; curves") && !page.contains("<figure>"));
        assert_well_formed(&page);
        run.records.clear();
        let page = train_page(&run, &State::Running);
        assert!(page.contains("epoch 0 of 2") && page.contains("No epoch is finished"));
        assert_well_formed(&page);
        for step in 1..=3 {
            let loss = 2.5 / step as f64;
            run.steps.add(StepPoint { step, loss, lr: 0.1, grad_norm: 1.5 * loss });
        }
        run.step = [3, 16];
        let page = train_page(&run, &State::Running);
        assert!(page.contains("epoch 0 of 2, step 3 of 16") && page.contains("value=\"3\""));
        assert!(page.contains("training: at last 0.8333 (step 3)"), "the curve of the first epoch");
        assert!(page.contains("norm: at last 1.250 (step 3)") && page.contains("Learning rate"));
        assert_well_formed(&page);
    }

    #[test]
    fn a_run_shows_what_its_validation_found_and_what_the_network_got() {
        let mut run = run(BlockKind::Dbb, 0, &[70.0, 71.0]);
        let image = Image::new(2, 2, 3, vec![200; 12]).unwrap();
        run.batch = vec![(image.thumbnail(64), "70 % cat, 30 % <dog>".into())];
        run.findings = Some(findings::tests::of(10));
        let page = train_page(&run, &State::Finished);
        assert_well_formed(&page);
        for part in [
            "Worst mistakes",
            "Calibration error",
            "alt=\"70 % cat, 30 % &lt;dog&gt;\"",
            // 53.5 s in all.
            "steps: at last 40.0 s (epoch 2). loader: at last 4.5 s (epoch 2). validation: at last 9.0 s",
        ] {
            assert!(page.contains(part), "no {part}");
        }
    }

    #[test]
    fn a_run_that_broke_says_why() {
        let mut run = run(BlockKind::Base, 0, &[70.0, f64::NAN]);
        run.records[1].val_loss = f64::INFINITY;
        run.env = serde_json::Value::Null;
        let page = train_page(&run, &State::Stopped("loss is NaN & <gone>".into()));
        assert!(page.contains("loss is NaN &amp; &lt;gone&gt;") && !page.contains("refresh"));
        assert!(page.contains("<dd>NaN") && page.contains("<dd>70.00 %"));
        assert_well_formed(&page);
    }
}
