//! `dbb eval`.

use std::path::PathBuf;

use dbb_datasets::{DataError, Loader, Split, open};
use dbb_models::quantize::{Granularity, int8_weights};
use dbb_models::weights::write_atomically;
use dbb_models::{Form, Reparameterize};
use serde::Serialize;

use crate::format::check_extension;
use crate::options::{DataOptions, DeviceOptions, TargetOptions, granularity};
use crate::page::{check_page, write_page};
use crate::progress::Batches;
use dbb_training::Error;
use dbb_training::inference::evaluate::{Evaluation, evaluate};
use dbb_training::inference::loaded_model::LoadedModel;
use dbb_training::inference::pictures::of_images;
use dbb_training::inference::predictions::Predictions;
use dbb_training::report::{Evaluated, Findings, eval_page};
use dbb_training::text::{displayed, plural};

/// Measure top-1, top-5 and loss of a run or a weights file.
///
/// Example: dbb eval runs/first --deploy
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    data: DataOptions,
    /// Split: train or val.
    #[arg(long, default_value = "val")]
    split: Split,
    /// Use only N images, balanced over the classes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Fold the network first.
    #[arg(long)]
    deploy: bool,
    /// Also evaluate the folded network with its weights rounded to 8 bits, with one scale per layer
    /// or per output channel.
    #[arg(long, value_parser = granularity(), value_name = "SCALES")]
    weights_int8: Option<Granularity>,
    /// Write the index, label, prediction and probability of every image as CSV, and its path, where
    /// each image is a file of its own.
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,
    /// Write a page with the worst mistakes, confused classes, precision and recall of each class, and
    /// calibration.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Result {
    n: usize,
    top1: f64,
    top5: f64,
    loss: f64,
    skipped: usize,
    form: Form,
    /// Height and width of the network's input.
    input_size: [usize; 2],
    #[serde(flatten)]
    int8: Option<Rounded>,
    #[serde(flatten)]
    reported: Option<Reported>,
}

/// What `--report` adds.
#[derive(Serialize)]
struct Reported {
    /// Expected calibration error, percentage points.
    ece: Option<f64>,
    #[serde(serialize_with = "displayed")]
    report: PathBuf,
}

/// The same of the network with rounded weights.
#[derive(Serialize)]
struct Rounded {
    weights_int8: Granularity,
    top1_int8: f64,
    top5_int8: f64,
    loss_int8: f64,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let check = |csv| check_extension("--predictions", csv, &["csv"], "comma-separated values");
    args.predictions.as_deref().map_or(Ok(()), check)?;
    args.report.as_deref().map_or(Ok(()), |page| check_page("--report", page))?;
    let target = args.target.open(&args.device)?;
    let loader = args.data.loader(&target, args.split, args.limit);
    let loader = loader.map_err(|error| args.name_other_split(error))?;
    let (network, form) = match args.deploy || args.weights_int8.is_some() {
        true => (target.network.reparameterize(), Form::Deploy),
        false => (target.network.clone(), target.metadata.form),
    };
    let dataset = loader.dataset();
    let mut predictions = Predictions::new(dataset);
    let mut progress = Batches::new(loader.batches_per_epoch());
    let evaluation = evaluate(&network, &loader, |batch, logits| {
        progress.add(batch.len());
        if args.predictions.is_some() {
            predictions.add(batch, logits);
        }
    })?;
    drop(progress);
    let evaluation = args.target.accept(evaluation)?;
    if let Some(path) = &args.predictions {
        write_atomically(path, predictions.into_csv().as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot write {}: {e}", path.display()))?;
    }
    for reason in &evaluation.skipped {
        crate::say(&format!("skipped: {reason}"));
    }
    let int8 = args.weights_int8.map(|scales| {
        let mut progress = Batches::new(loader.batches_per_epoch());
        let network = int8_weights(&network, scales);
        let evaluation = evaluate(&network, &loader, |batch, _| progress.add(batch.len()))?;
        args.target.accept(evaluation).map(|evaluation| Rounded::new(scales, &evaluation))
    });
    let int8 = int8.transpose()?;
    let reported = args.report.as_ref().map(|path| {
        write_page(path, &page(&target, &loader, form, &evaluation)?)?;
        let ece = evaluation.classification.calibration.ece();
        anyhow::Ok(Reported { ece, report: path.clone() })
    });
    let totals = &evaluation.totals;
    let result = Result {
        n: totals.images(),
        top1: totals.top1(),
        top5: totals.top5(),
        loss: totals.loss(),
        skipped: evaluation.skipped.len(),
        form,
        input_size: loader.pipeline().preprocess().size.into(),
        int8,
        reported: reported.transpose()?,
    };
    crate::print(args.json, &result, || {
        let rounded = result.int8.as_ref().map(Rounded::text);
        let [height, width] = result.input_size;
        let reported = result.reported.as_ref().map(Reported::text);
        format!(
            "{} ({} form, input {height}x{width}) on {}: top-1 {:.2}%, top-5 {:.2}%, loss {:.4}, {}{}{}{}",
            target.metadata.model.arch,
            form,
            dataset.describe(),
            result.top1,
            result.top5,
            result.loss,
            plural(result.n, "image"),
            if result.skipped > 0 {
                format!(", {} skipped", result.skipped)
            } else {
                String::new()
            },
            rounded.unwrap_or_default(),
            reported.unwrap_or_default()
        )
    })
}

/// The page of `--report`.
fn page(
    target: &LoadedModel,
    loader: &Loader,
    form: Form,
    evaluation: &Evaluation,
) -> dbb_training::Result<String> {
    let (dataset, preprocess) = (loader.dataset(), loader.pipeline().preprocess());
    let worst = evaluation.classification.mistakes.worst().iter();
    let findings = Findings {
        labels: target.labels()?,
        pictures: of_images(dataset, preprocess, worst.map(|mistake| mistake.index)),
        classification: evaluation.classification.clone(),
    };
    let model = &target.metadata.model;
    let (height, width) = preprocess.size;
    let facts = [
        ("Weights", target.path.display().to_string()),
        ("Network", format!("{} with {} blocks, {form} form", model.arch, model.block)),
        ("Input", format!("{height}x{width}")),
        ("Data", dataset.describe()),
    ];
    Ok(eval_page(&Evaluated {
        target: model.arch.to_string(),
        facts: facts.map(|(name, value)| (name.to_string(), value)).into(),
        totals: &evaluation.totals,
        skipped: evaluation.skipped.len(),
        findings: &findings,
    }))
}

impl Reported {
    fn text(&self) -> String {
        let ece = self.ece.map(|ece| format!("\nexpected calibration error {ece:.2}%"));
        format!("{}\nwritten to {}", ece.unwrap_or_default(), self.report.display())
    }
}

impl Args {
    /// Explains what can be evaluated on data without validation images.
    fn name_other_split(&self, error: Error) -> Error {
        match (&error, &self.data.data) {
            (Error::Data(DataError::Layout { .. }), Some(data))
                if self.split == Split::Val && open(data, Split::Train).is_ok() =>
            {
                let text = "has training images only; --split train evaluates on them";
                Error::Unusable(format!("{data} {text}"))
            }
            _ => error,
        }
    }
}

impl Rounded {
    fn new(scales: Granularity, evaluation: &Evaluation) -> Self {
        let totals = &evaluation.totals;
        Self {
            weights_int8: scales,
            top1_int8: totals.top1(),
            top5_int8: totals.top5(),
            loss_int8: totals.loss(),
        }
    }

    fn text(&self) -> String {
        let scales = match self.weights_int8 {
            Granularity::PerTensor => "layer",
            Granularity::PerChannel => "output channel",
        };
        format!(
            "\nweights in 8 bits, one scale per {scales}: top-1 {:.2}%, top-5 {:.2}%, loss {:.4}",
            self.top1_int8, self.top5_int8, self.loss_int8
        )
    }
}
