//! Networks in 8 bits.

use std::fs;

use serde_json::Value;

use crate::calls::*;
use crate::finite::{input, spoilt};
use crate::setup::*;

const CALIBRATION: [&str; 5] = ["--int8", "--calibrate", "sample", "--images", "40"];

/// An export in 8 bits to a file, with further flags.
fn export<'a>(target: &'a str, out: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    let command = ["export", target, "--format", "onnx", "--out", out];
    [&command[..], &CALIBRATION, flags].concat()
}

fn layers(report: &Value) -> Vec<&str> {
    let layers = report["sensitivity"]["layers"].as_array().expect("a list");
    layers.iter().map(|layer| layer["layer"].as_str().expect("a name")).collect()
}

#[test]
fn an_export_in_8_bits_says_what_it_costs_and_which_layers_cost_it() {
    let run = Run::new(QUICK_DBB, &[]);
    let [out, again] = ["int8.onnx", "again.onnx"].map(|name| run.folder.at(name));
    let report = json(&export(&run.path, &out, &["--sensitivity", "20"]));
    // The run validates on 40 images.
    let eval = json(&["eval", &run.path, "--deploy"]);
    assert_eq!((&report["int8"]["top1"], &report["int8"]["images"]), (&eval["top1"], &eval["n"]));
    assert_eq!(report["calibration_images"], 40);
    assert_eq!(report["weight_range"], "full");
    let error = number(&report["int8"], "error");
    assert!(error > 1e-4 && error < 0.2, "{report}");
    let names = layers(&report);
    assert_eq!((names.len(), names[0], names[19]), (20, "stem", "linear"));
    assert_eq!(report["sensitivity"]["all_int8"]["images"], 20);

    // The same network gives the same file.
    let plain = dbb(&export(&run.path, &again, &[])).succeeds().stdout;
    assert_eq!(fs::read(&out).expect("a file"), fs::read(&again).expect("a file"));
    for part in ["8 bits, ranges from 40 images of sample (train)", "one layer in f32", "  none "] {
        assert!(plain.contains(part), "no {part:?} in {plain}");
    }

    let kept = export(&run.path, &out, &["--keep-float", "stem", "--keep-float", "stage1.*"]);
    let report = json(&[&kept[..], &["--reduce-range"]].concat());
    assert_eq!(report["weight_range"], "reduced");
    let floats = report["float_layers"].as_array().expect("a list").len();
    assert_eq!(floats, 7, "{report}");
    assert_eq!(layers(&report).len(), 13);
    assert_ne!(fs::read(&out).expect("a file"), fs::read(&again).expect("a file"));
    // A fifth of the values lies beyond the ranges.
    let clipped = json(&export(&run.path, &out, &["--clip", "20", "--sensitivity", "0"]));
    assert!(number(&clipped["int8"], "error") > 2.0 * error, "{clipped}");
}

/// With no layer in 8 bits, nothing is rounded.
#[test]
fn predictions_in_8_bits_come_from_the_same_integers() {
    let run = Run::new(QUICK_DBB, &[]);
    let image = input(&run.folder, [0.0, 1.0]);
    let predict = |flags: &[&str]| {
        let answer = json(&[&["predict", &run.path, &image, "--top", "10"], flags].concat());
        let first = &answer["predictions"][1]["top"].as_array().expect("a list")[0];
        number(first, "logit")
    };
    let [exact, rounded] = [predict(&[]), predict(&CALIBRATION)];
    let float = predict(&[&CALIBRATION[..], &["--keep-float", "*"]].concat());
    assert!(close(float, exact, 1e-5), "{float} {exact}");
    assert!(rounded != exact && close(rounded, exact, 0.5), "{rounded} {exact}");
}

#[test]
fn a_weights_file_is_measured_on_the_data_of_its_calibration() {
    let run = Run::new(QUICK_DBB, &[]);
    let file = run.deploy_weights();
    let [out, labels] = ["int8.onnx", "labels.txt"].map(|name| run.folder.at(name));
    let flags = ["--sensitivity", "0", "--labels", &labels];
    let report = json(&export(&file, &out, &flags));
    assert_eq!(report["int8"]["images"], 2000, "the validation images of the sample");
    assert!(report.get("sensitivity").is_none(), "{report}");
    let labels = fs::read_to_string(labels).expect("the labels");
    assert_eq!(labels.lines().count(), 10);
    assert_eq!(labels.lines().next(), Some("T-shirt/top"));
}

#[test]
fn what_cannot_be_brought_to_8_bits_is_refused() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.at("int8.onnx");
    fs::create_dir(run.folder.at("empty")).expect("a folder");
    let empty = run.folder.at("empty");
    let onnx = ["export", &run.path, "--format", "onnx", "--out", &out];
    let fails = |flags: &[&str], parts: &[&str]| {
        dbb(&[&onnx[..], flags].concat()).fails(1, parts);
        assert!(!exists(&out));
    };
    fails(&["--int8"], &["name data with --calibrate"]);
    fails(&["--calibrate", "sample"], &["--calibrate needs --int8"]);
    fails(&["--keep-float", "stem", "--reduce-range"], &["--reduce-range, --keep-float needs"]);
    fails(&["--sensitivity", "8"], &["--sensitivity needs --int8"]);
    fails(&["--int8", "--calibrate", &empty], &[&empty]);
    fails(&["--int8", "--calibrate", &run.folder.at("nothing")], &["nothing"]);
    fails(
        &[&CALIBRATION[..], &["--keep-float", "stage9.*"]].concat(),
        &["\"stage9.*\" matches no layer", "stem"],
    );
    // Data to calibrate on that has no validation images to compare on.
    for (class, place) in ["a", "b"].into_iter().flat_map(|c| [0, 1].map(|place| (c, place))) {
        let image = run.folder.file(&format!("photos/train/{class}/{place}.png"), b"");
        image::RgbImage::new(8, 8).save(&image).expect("an image");
    }
    let (weights, photos) = (run.deploy_weights(), run.folder.at("photos"));
    let file = run.folder.at("random.onnx");
    let int8 = ["--int8", "--calibrate", &photos, "--images", "4", "--out", &file];
    let call = dbb(&[&["export", &weights, "--format", "onnx"], &int8[..]].concat()).succeeds();
    call.says(&["note: the network is compared on random input", &photos]);
    for format in ["safetensors", "burnpack"] {
        let file = run.folder.at("weights");
        let export = ["export", &run.path, "--format", format, "--out", &file];
        dbb(&[&export[..], &CALIBRATION].concat()).fails(1, &["--int8 is for --format onnx"]);
        dbb(&[&export[..], &["--labels", "l.txt"]].concat()).fails(1, &["--labels is for"]);
    }
    fails(&["--labels", "names.csv"], &["names.csv does not end in .txt"]);
    dbb(&[&onnx[..], &["--int8", "--images", "0"]].concat()).fails(2, &["--images"]);
    dbb(&[&onnx[..], &["--int8", "--clip", "50"]].concat()).fails(2, &["below 50"]);

    let image = input(&run.folder, [0.0, 1.0]);
    dbb(&["predict", &run.path, &image, "--int8"]).fails(1, &["name data with --calibrate"]);
    let file = spoilt(&run, "stage2.0.conv1.origin.conv.weight", &[f32::NAN]);
    let predict = ["predict", &file, &image, "--allow-nonfinite"];
    dbb(&[&predict[..], &CALIBRATION].concat()).fails(3, &["stage2.0.conv1", "is NaN or infinite"]);
}

/// Beside `f32` weights, the card of timm's folder says what 8 bits would cost.
#[test]
fn a_model_card_has_the_top1_in_8_bits() {
    let keys = ["model.arch=mobilenet_v1", "model.width=1", "data.size=28"];
    let run = Run::new(QUICK_DBB, &keys);
    let out = run.folder.at("timm");
    let export = ["export", &run.path, "--format", "timm", "--out", &out];
    let report = json(&[&export[..], &CALIBRATION, &["--sensitivity", "0"]].concat());
    let card = fs::read_to_string(format!("{out}/README.md")).expect("a card");
    let top1 = number(&report["int8"], "top1_int8");
    let row =
        format!("| top-1, weights and maps in 8 bits | {top1:.2} % (calibrated on 40 images of");
    assert!(card.contains(&row), "no {row:?} in {card}");
    assert!(card.contains("top-1, 8 bits"), "{card}");
}
