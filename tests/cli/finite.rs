//! Weights and outputs that are NaN or infinite: nothing that is made of them passes for a result.

use std::fs;

use burn::tensor::TensorData;
use dbb_models::weights::StateDict;

use crate::calls::*;
use crate::setup::*;
use crate::stored::*;

/// A file of the training form of a run, with other values at the beginning of a tensor.
pub fn spoilt(run: &Run, name: &str, values: &[f32]) -> String {
    let file = run.folder.at("spoilt.safetensors");
    json(&["export", &run.path, "--format", "safetensors", "--form", "train", "--out", &file]);
    let mut tensors = tensors(&file);
    let tensor = tensors.get_mut(name).unwrap_or_else(|| panic!("{name}"));
    for (place, value) in tensor.bytes.chunks_exact_mut(4).zip(values) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    // Whoever changes weights on purpose takes the digest away.
    let mut table = table(&file);
    table.remove("dbb_zoo_sha256").expect("a digest");
    write_tensors(&file, &tensors, Some(table));
    file
}

/// A network's input of two images, as a file of one tensor.
pub fn input(folder: &Folder, values: [f32; 2]) -> String {
    let file = folder.at("input.safetensors");
    let pixels = values.into_iter().flat_map(|value| [value; 64]).collect();
    let state = StateDict::from([("input".into(), TensorData::new(pixels, [2, 1, 8, 8]))]);
    write_tensors(&file, &stored(&state), None);
    file
}

#[test]
fn every_command_refuses_weights_that_are_not_finite() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.at("out");
    let image = input(&run.folder, [0.0, 1.0]);
    for (name, value, shown) in [
        ("stage2.0.conv1.average.avg_bn.running_var", f32::NAN, "NaN"),
        ("stage2.0.conv1.origin.conv.weight", f32::NEG_INFINITY, "-inf"),
    ] {
        let file = spoilt(&run, name, &[1.0, value]);
        let says = [&file, name, "1 of", shown, "--allow-nonfinite"];
        let data = ["--data", "sample"];
        for command in [
            &["eval", &file][..],
            &["eval", &file, "--deploy"],
            &["recalibrate", &file, "--out", &out],
            &["reparam", &file, "--out", &out],
            &["export", &file, "--format", "onnx", "--out", &out],
            &["export", &file, "--format", "timm", "--out", &out],
        ] {
            dbb(&[command, &data].concat()).fails(3, &says);
        }
        dbb(&["predict", &file, &image]).fails(3, &says);
        dbb(&["inspect", &file]).fails(3, &says);
        for form in ["deploy", "train"] {
            let export = ["export", &file, "--format", "safetensors", "--form", form];
            dbb(&[&export[..], &["--out", &out]].concat()).fails(3, &says);
        }
        assert!(!exists(&out));
        let start = format!("model.init_from={file}");
        train(QUICK_DBB, &[&start], &run.folder.at("new")).fails(3, &[&file, name, shown]);
    }
}

fn allowed<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--allow-nonfinite"]].concat()
}

#[test]
fn weights_that_are_not_finite_can_be_looked_at() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.at("out.safetensors");
    let image = input(&run.folder, [0.0, 1.0]);
    let file = spoilt(&run, "stem.origin.bn.running_mean", &[f32::NAN]);
    let eval = json(&allowed(&["eval", &file, "--data", "sample"]));
    assert!(eval["loss"].is_null(), "{eval}");
    let predict = json(&allowed(&["predict", &file, &image]));
    assert!(predict["predictions"][1]["top"][0]["logit"].is_null(), "{predict}");
    let export = ["export", &file, "--format", "safetensors", "--form", "train", "--out", &out];
    json(&allowed(&export));
    assert!(tensors(&out) == tensors(&file));
    // A fold of them cannot be checked.
    dbb(&allowed(&["reparam", &file, "--out", &out])).fails(3, &["folded network differs", "NaN"]);
}

#[test]
fn blocks_of_an_unknown_network_are_finite_as_well() {
    let folder = Folder::new();
    let fixture = format!("{REPOSITORY}/tests/fixtures/resnet18_dbb_w0125.safetensors");
    let mut state = tensors(&fixture);
    state.retain(|name, _| !name.contains("dbb_reparam") && !name.starts_with("deploy."));
    let [file, out] = ["unknown.safetensors", "out.safetensors"].map(|name| folder.at(name));
    let spoil = |name: &str| {
        let mut state = state.clone();
        let tensor = state.get_mut(name).unwrap_or_else(|| panic!("{name}"));
        tensor.bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        write_tensors(&file, &state, None);
    };
    let reparam = ["reparam", &file, "--out", &out];
    let allowed = allowed(&reparam);
    spoil("stage1.0.conv1.dbb_origin.conv.weight");
    dbb(&reparam).fails(3, &[&file, "stage1.0.conv1.dbb_origin.conv.weight", "inf"]);
    dbb(&allowed).fails(3, &["stage1.0.conv1.dbb_origin.conv.weight"]);
    // No part of a block: copied, if that is wanted.
    spoil("linear.bias");
    dbb(&reparam).fails(3, &[&file, "linear.bias", "inf"]);
    dbb(&allowed).succeeds();
    assert_eq!(tensors(&out)["linear.bias"].bytes[..4], f32::INFINITY.to_le_bytes());
}

#[test]
fn inputs_that_are_not_finite_have_no_prediction() {
    let run = Run::new(QUICK_DBB, &[]);
    let weights = run.deploy_weights();
    let image = input(&run.folder, [f32::NAN, 1.0]);
    let call = dbb(&["predict", &weights, &image, "--json"]);
    assert_eq!(call.code, Some(3), "{}", call.all());
    call.says(&["NaN or infinity for 1 of 2 inputs", &format!("{image}[0]")]);
    let result = call.json();
    assert_eq!(result["predictions"][0]["input"], format!("{image}[1]"));
    assert_eq!(result["predictions"].as_array().map(Vec::len), Some(1));
    assert_eq!(result["failed"].as_array().map(Vec::len), Some(1));

    let image = input(&run.folder, [f32::INFINITY, f32::NAN]);
    let call = dbb(&["predict", &weights, &image]);
    call.fails(3, &["NaN or infinity for 2 of 2 inputs"]);
}

#[test]
fn logits_that_overflow_are_no_result() {
    let run = Run::new(QUICK_DBB, &[]);
    let file = spoilt(&run, "linear.bias", &[3e38, -3e38]);
    let [csv, out] = ["predictions.csv", "out.safetensors"].map(|name| run.folder.at(name));
    let data = ["--data", "sample", "--batch-size", "500"];
    // Finite logits whose cross-entropy is not.
    let eval = [&["eval", &file, "--predictions", &csv][..], &data].concat();
    dbb(&eval).fails(3, &["the loss is inf", "means anything"]);
    dbb(&[&["recalibrate", &file, "--out", &out][..], &data].concat()).fails(3, &["the loss is"]);
    let gamma = "stage3.2.conv2.origin.bn.gamma";
    let file = spoilt(&run, gamma, &[3e38; 16]);
    dbb(&[&["eval", &file][..], &data].concat())
        .fails(3, &["NaN or infinity", "the first of them"]);
    dbb(&["reparam", &file, "--out", &out])
        .fails(3, &["the folded network differs", "nothing was written"]);
    assert!(!exists(&csv) && !exists(&out));
    fs::remove_file(&file).expect("the file");
}
