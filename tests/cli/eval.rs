//! `dbb eval` of a run and its weights.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use burn::tensor::TensorData;
use dbb_models::weights::{StateDict, WeightsFile};

use crate::calls::*;
use crate::setup::*;
use crate::stored::*;

#[test]
fn eval_finds_the_accuracy_of_the_training_in_every_form() {
    let run = Run::new(QUICK_DBB, &[]);
    let result = json(&["eval", &run.path]);
    assert_eq!(keys(&result), ["n", "top1", "top5", "loss", "skipped", "form", "input_size"]);
    assert_eq!((number(&result, "n"), number(&result, "skipped")), (40.0, 0.0));
    assert_eq!((&result["form"], &result["input_size"]), (&"train".into(), &vec![8, 8].into()));

    // Training validates the folded network; so this is the same measurement.
    let folded = json(&["eval", &run.path, "--deploy"]);
    assert_eq!(folded["form"], "deploy");
    for key in ["top1", "top5"] {
        assert_eq!(folded[key], run.result[key], "{folded} against {}", run.result);
    }
    assert!(close(number(&folded, "loss"), number(&result, "loss"), 1e-4), "{folded} {result}");

    // All of the sample rather than the part that the run validated with.
    let all = json(&["eval", &run.path, "--deploy", "--data", "sample"]);
    assert_eq!(number(&all, "n"), 2000.0);
    for args in [&[][..], &["--deploy"]] {
        let weights = run.deploy_weights();
        let file = json(&[&["eval", &weights, "--data", "sample"], args].concat());
        assert_eq!(file["form"], "deploy");
        for key in ["n", "top1", "top5"] {
            assert_eq!(file[key], all[key], "{file} against {all}");
        }
    }

    for args in [["--checkpoint", "last"], ["--checkpoint", "best"], ["--checkpoint", "1"]] {
        assert_eq!(json(&[&["eval", &run.path], &args[..]].concat()), result, "{args:?}");
    }
    let train = json(&["eval", &run.path, "--split", "train", "--batch-size", "7"]);
    assert_eq!(number(&train, "n"), 160.0);
    let text = dbb(&["eval", &run.path]).succeeds();
    assert!(
        text.stdout.contains("resnet20 (train form, input 8x8) on sample (val)"),
        "{}",
        text.all()
    );
}

#[test]
fn predictions_add_up_to_the_accuracy() {
    let run = Run::new(QUICK_DBB, &[]);
    let csv = run.folder.at("tables/predictions.csv");
    let result = json(&["eval", &run.path, "--predictions", &csv]);
    let text = fs::read_to_string(&csv).expect("predictions");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("index,label,prediction,probability"));
    let rows: Vec<Vec<f64>> = lines
        .map(|line| line.split(',').map(|field| field.parse().expect("a number")).collect())
        .collect();
    assert_eq!(rows.len() as f64, number(&result, "n"), "{text}");
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row[0], index as f64, "{text}");
        // The largest of ten probabilities.
        assert!(row[3] >= 0.1 && row[3] <= 1.0, "{text}");
    }
    for class in 0..10 {
        let images = rows.iter().filter(|row| row[1] == f64::from(class)).count();
        assert_eq!(images, 4, "class {class} of {text}");
    }
    let classes: BTreeSet<_> = rows.iter().map(|row| row[2] as usize).collect();
    assert!(classes.len() > 1, "every prediction is the same: {text}");
    let right = rows.iter().filter(|row| row[1] == row[2]).count();
    let top1 = 100.0 * right as f64 / rows.len() as f64;
    assert!(close(top1, number(&result, "top1"), 1e-12), "{top1} against {result}");
}

/// The calibration error is computed once more, from the predictions of every image.
#[test]
fn a_report_shows_mistakes_classes_and_calibration() {
    let run = Run::new(QUICK_DBB, &[]);
    let (csv, page) = (run.folder.at("predictions.csv"), run.folder.at("pages/eval.html"));
    let result = json(&["eval", &run.path, "--predictions", &csv, "--report", &page]);
    assert_eq!(result["report"], page.as_str());
    let text = fs::read_to_string(&csv).expect("predictions");
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(|field| field.parse().expect("a number")).collect())
        .collect();
    let mut bins = [[0.0; 2]; 15];
    for row in &rows {
        let bin = &mut bins[(row[3] * 15.0).ceil() as usize - 1];
        bin[0] += f64::from(row[1] == row[2]);
        bin[1] += row[3];
    }
    let gaps: f64 = bins.iter().map(|[right, sure]| (right - sure).abs()).sum();
    let ece = 100.0 * gaps / rows.len() as f64;
    assert!(close(number(&result, "ece"), ece, 1e-4), "{ece} against {result}");

    let html = fs::read_to_string(&page).expect("a page");
    let wrong = rows.iter().filter(|row| row[1] != row[2]).count();
    let pictures = html.matches("src=\"data:image/png;base64,").count();
    assert_eq!(pictures, wrong.min(24), "the worst mistakes have pictures");
    for part in ["Ankle boot", "class=\"confusion\"", "Most confused pairs", "arXiv:1706.04599"] {
        assert!(html.contains(part), "no {part}");
    }
    // Weights from elsewhere have one as well, and names if their data have.
    let weights = run.deploy_weights();
    let other = run.folder.at("weights.html");
    let call = dbb(&["eval", &weights, "--data", "sample", "--limit", "50", "--report", &other]);
    let text = call.succeeds().stdout;
    assert!(text.contains("expected calibration error") && text.contains(&other), "{text}");
    assert!(fs::read_to_string(&other).expect("a page").contains("T-shirt/top"));
}

#[test]
fn a_report_goes_to_a_page_that_belongs_to_no_run() {
    let run = Run::new(QUICK_DBB, &[]);
    let eval = |out: &str| dbb(&["eval", &run.path, "--report", out]);
    eval(&run.file("report.html")).fails(1, &["belongs to the run"]);
    eval(&run.folder.at("page.csv")).fails(1, &["does not end in .html", "--report"]);
    let out = run.folder.at("folder.html");
    fs::create_dir(&out).expect("a folder");
    eval(&out).fails(1, &["cannot write", &out]);
}

#[test]
fn eight_bit_weights_are_rounded_to_their_scales() {
    let run = Run::new(QUICK_DBB, &[]);
    let deploy = run.deploy_weights();
    let mut table = table(&deploy);
    // Other weights than were written.
    table.remove("dbb_zoo_sha256").expect("a digest");
    let tensors = WeightsFile::read(Path::new(&deploy)).expect("weights").tensors;
    for (granularity, per_channel) in [("per-tensor", false), ("per-channel", true)] {
        let rounded = tensors.iter().map(|(name, data)| {
            let shape = data.shape().to_vec();
            let values: Vec<f32> = data.iter().collect();
            if !name.ends_with("weight") {
                return (name.clone(), data.clone());
            }
            // Kernels have the outputs in front, the classifier's columns are its outputs.
            let inner: usize = shape[1..].iter().product();
            let output = |i: usize| match (per_channel, shape.len()) {
                (false, _) => 0,
                (true, 2) => i % shape[1],
                (true, _) => i / inner,
            };
            let mut scales = HashMap::<usize, f32>::new();
            for (i, value) in values.iter().enumerate() {
                let scale = scales.entry(output(i)).or_default();
                *scale = scale.max(value.abs() / 127.0);
            }
            let round = |(i, value): (usize, &f32)| {
                (value / scales[&output(i)]).round() * scales[&output(i)]
            };
            let rounded: Vec<f32> = values.iter().enumerate().map(round).collect();
            (name.clone(), TensorData::new(rounded, shape))
        });
        let path = run.folder.at("rounded.safetensors");
        let rounded: StateDict = rounded.collect();
        write_tensors(&path, &stored(&rounded), Some(table.clone()));
        let expected = json(&["eval", &path, "--data", "sample"]);
        // The training form is folded first.
        let found = json(&["eval", &run.path, "--data", "sample", "--weights-int8", granularity]);
        assert_eq!(found["weights_int8"], granularity);
        assert_eq!(found["form"], "deploy");
        for key in ["top1", "top5", "loss"] {
            let found = number(&found, &format!("{key}_int8"));
            let expected = number(&expected, key);
            let difference = (found - expected).abs();
            assert!(difference <= 1e-3 * expected.abs(), "{key}: {found}, {expected}");
        }
        assert_ne!(found["loss_int8"], found["loss"]);
    }
}

#[test]
fn a_part_of_the_images_is_measured_if_asked() {
    let run = Run::new(QUICK_DBB, &[]);
    let result = json(&["eval", &run.path, "--data", "sample", "--limit", "30"]);
    assert_eq!(number(&result, "n"), 30.0);
    let csv = run.folder.at("predictions.csv");
    json(&["eval", &run.path, "--limit", "20", "--predictions", &csv]);
    let text = fs::read_to_string(&csv).expect("predictions");
    let labels: Vec<&str> = text.lines().skip(1).filter_map(|row| row.split(',').nth(1)).collect();
    for class in 0..10 {
        let name = class.to_string();
        assert_eq!(labels.iter().filter(|label| **label == name).count(), 2, "{text}");
    }
    dbb(&["eval", &run.path, "--limit", "0"]).fails(2, &["--limit"]);
}

/// The bundled images as IDX files, which number their classes, as Fashion-MNIST is published.
#[test]
fn a_network_of_the_sample_knows_the_classes_of_fashion_mnist() {
    let run = Run::new(QUICK_DBB, &[]);
    let files = format!("idx:{REPOSITORY}/datasets/sample");
    let own = json(&["eval", &run.path, "--data", "sample"]);
    assert_eq!(json(&["eval", &run.path, "--data", &files]), own);
    // And the other way round.
    let other = Run::new(QUICK_BASE, &[&format!("data.source={files}")]);
    let result = json(&["eval", &other.path, "--data", "sample"]);
    assert_eq!(result, json(&["eval", &other.path, "--data", &files]));
}

/// Off a terminal there is no progress; results come in order, each with its classes.
#[test]
fn predictions_of_a_folder_are_text_line_by_line() {
    let run = Run::new(QUICK_BASE, &[]);
    let folder = Folder::new();
    for index in 0..5 {
        let path = folder.file(&format!("images/{index}.png"), b"");
        image::GrayImage::from_pixel(28, 28, image::Luma([50 * index]))
            .save(path)
            .expect("an image");
    }
    let images = folder.at("images");
    let call = dbb(&["predict", &run.path, &images, "--top", "2", "--batch-size", "2"]).succeeds();
    assert!(call.stderr.is_empty(), "{}", call.all());
    let lines: Vec<&str> = call.stdout.lines().collect();
    assert_eq!(lines.len(), 15, "{}", call.all());
    for index in 0..5 {
        assert_eq!(lines[3 * index], format!("{images}/{index}.png"));
        assert!(lines[3 * index + 1].contains("%  "), "{}", call.all());
    }
    let predict = ["predict", &run.path, &images, "--top"];
    let all = json(&[&predict[..], &["10"]].concat());
    assert_eq!(all["predictions"][0]["top"].as_array().map(Vec::len), Some(10));
    dbb(&[&predict[..], &["11"]].concat()).fails(1, &["--top is 11", "has 10 classes"]);
}
