//! Targets and flags that do not fit.

use std::fs;

use crate::calls::*;
use crate::setup::*;
use crate::stored::*;

#[test]
fn wrong_paths_are_named() {
    let run = Run::new(QUICK_BASE, &[]);
    let out = run.folder.at("out");
    let nowhere = run.folder.at("nowhere");
    train(&nowhere, &[], &out).fails(1, &["cannot read the configuration", &nowhere]);
    train(QUICK_DBB, &[&format!("data.source={nowhere}")], &out).fails(1, &[&nowhere, "exists"]);
    dbb(&["compare", &nowhere]).fails(1, &["cannot read the configuration", &nowhere]);
    dbb(&["config", "check", &nowhere]).fails(1, &["cannot read the configuration", &nowhere]);
    dbb(&["eval", &nowhere]).fails(1, &[&nowhere, "does not exist", "run directory"]);
    dbb(&["reparam", &nowhere, "--out", &out]).fails(1, &[&nowhere, "does not exist"]);
    dbb(&["eval", &run.path, "--data", &nowhere]).fails(1, &["cannot read", &nowhere]);
    dbb(&["train", &nowhere, "--resume"]).fails(1, &[&nowhere, "no run to resume"]);
    // A folder that is no run, a file that is no network, a file that has no data.
    let empty = run.file("export");
    dbb(&["eval", &empty]).fails(1, &[&empty, "not a run directory"]);
    let config = run.file("config.toml");
    dbb(&["eval", &config]).fails(1, &[&config, "not a weights file"]);
    let weights = run.deploy_weights();
    dbb(&["eval", &weights]).fails(1, &["a weights file has no data", "--data"]);
    dbb(&["eval", &run.path, "--data", &empty]).fails(1, &[&empty, "train/<class>", "idx"]);
    dbb(&["eval", &run.path, "--checkpoint", "7"]).fails(1, &[&run.path, "epoch 7", "only 00001"]);
    assert!(!exists(&out));
}

#[test]
fn a_file_that_contradicts_itself_is_named() {
    let run = Run::new(QUICK_BASE, &[]);
    let (weights, wrong) = (run.deploy_weights(), run.folder.at("wrong.safetensors"));
    let as_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    for (place, value, says) in [
        ("/preprocess/std", "[0.0]", "the preprocessing in this file cannot be used"),
        ("/preprocess", RGB, "makes 3 channels; the network takes 1"),
        ("/classes", r#"["a", "b"]"#, "it names 2 classes, but the network has 10 outputs"),
    ] {
        let mut table = table(&weights);
        // The hash is that of the metadata, too.
        table.remove("dbb_zoo_sha256");
        let metadata = table.get_mut("dbb_zoo").expect("our metadata");
        let mut whole = as_json(metadata);
        *whole.pointer_mut(place).expect("its place") = as_json(value);
        *metadata = whole.to_string();
        write_tensors(&wrong, &tensors(&weights), Some(table));
        dbb(&["eval", &wrong, "--data", "sample"]).fails(1, &[&wrong, says]);
    }
}

/// Of colour images.
const RGB: &str =
    r#"{"size": [8, 8], "resize": 8, "channels": 3, "mean": [0, 0, 0], "std": [1, 1, 1]}"#;

#[test]
fn nothing_is_written_over_what_is_read() {
    let run = Run::new(QUICK_DBB, &[]);
    let file = run.folder.at("file.safetensors");
    json(&["export", &run.path, "--format", "safetensors", "--form", "train", "--out", &file]);
    let before = fs::read(&file).expect("weights");
    let same = format!("{}/./file.safetensors", run.folder.at(""));
    for command in [&["reparam"][..], &["recalibrate", "--data", "sample"]] {
        dbb(&[command, &[&*file, "--out", &same]].concat())
            .fails(1, &[&same, "is the input", "write to another file"]);
    }
    let export = ["export", &file, "--format", "safetensors", "--out", &file];
    dbb(&export).fails(1, &["is the input"]);
    let (folder, inside) = (run.folder.at("timm"), run.folder.at("timm/model.safetensors"));
    let copy = run.folder.file("timm/model.safetensors", &before);
    let timm = ["export", &copy, "--format", "timm", "--out", &folder];
    dbb(&timm).fails(1, &[&inside, "is the input"]);
    let eval = ["eval", &file, "--data", "sample", "--predictions", &file];
    dbb(&eval).fails(1, &[&file, "does not end in .csv", "--predictions"]);
    assert_eq!(fs::read(&file).expect("weights"), before);
}

#[test]
fn arguments_that_have_changed_places_are_told() {
    let run = Run::new(QUICK_BASE, &[]);
    let photo = run.folder.file("photo.png", b"");
    image::RgbImage::new(4, 4).save(&photo).expect("an image");
    dbb(&["predict", &photo, &run.path]).fails(1, &[&photo, "is an image", "first"]);
    let images = run.folder.at("");
    dbb(&["predict", &images, &run.path]).fails(1, &["is a folder of images", "first"]);
    let data = format!("{REPOSITORY}/datasets/sample");
    dbb(&["eval", &data, "--data", &run.path]).fails(1, &[&data, "is a data set", "--data"]);
    dbb(&["eval", &run.path, "--data", &run.path]).fails(1, &[&run.path, "is a run directory"]);
    dbb(&["train", &run.path]).fails(1, &[&run.path, "is a folder", "--resume"]);
    for command in [&["compare"][..], &["config", "check"]] {
        let call = dbb(&[command, &[&*run.path]].concat());
        assert!(!call.stderr.contains("--resume"), "{}", call.all());
        call.fails(1, &[&run.path, "is a folder"]);
    }
    let page = run.folder.file("page.jpg", b"<html></html>");
    let call = dbb(&["predict", &run.path, &page]);
    assert_eq!(call.code, Some(1), "{}", call.all());
    call.says(&[&page, "it is not a JPEG, PNG, GIF, WebP, BMP or TIFF image"]);
}

#[test]
fn flags_that_contradict_a_file_are_refused() {
    let run = Run::new(QUICK_DBB, &[]);
    for (flag, wrong, right) in [
        ("--arch", "resnet18", "resnet20"),
        ("--block", "acb", "dbb"),
        ("--width", "0.5", "0.25"),
        ("--classes", "100", "10"),
        ("--channels", "3", "1"),
    ] {
        for target in [&run.path, &run.deploy_weights()] {
            let file = if *target == run.path { run.network() } else { target.clone() };
            let given =
                format!("{wrong} contradicts {file}, which holds {right}; hint: leave {flag} out");
            let eval = ["eval", target, "--data", "sample", flag];
            dbb(&[&eval[..], &[wrong]].concat()).fails(1, &[&given]);
        }
        dbb(&["eval", &run.path, flag, right]).succeeds();
    }
    let args = ["reparam", &run.path, "--keys", "official", "--out", "x"];
    dbb(&args).fails(1, &["resnet20 has no official names", "it has native"]);
}

#[test]
fn weights_that_end_too_early_are_named() {
    let run = Run::new(QUICK_DBB, &[]);
    let (deploy, network) = (run.deploy_weights(), run.network());
    for path in [&deploy, &network] {
        let whole = fs::read(path).expect("weights");
        let size = whole.len();
        for length in [0, 7, 100, size / 20, size / 2, size - 1] {
            fs::write(path, &whole[..length]).expect("weights");
            let target = if *path == network { &run.path } else { path };
            let eval = ["eval", target, "--data", "sample"];
            let name = path.rsplit('/').next().expect("a name");
            dbb(&eval).fails(1, &[name, "is damaged"]);
        }
        fs::write(path, &whole).expect("weights");
    }
    fs::remove_file(&network).expect("weights");
    dbb(&["eval", &run.path]).fails(1, &["network.bpk is missing"]);
}
