//! Weights for other programs: number types of 16 bits, and timm's folder.

use std::fs;

use burn::tensor::{Device, TensorData};
use dbb_models::blocks::Activation;
use dbb_models::weights::{Dialect, KeyMap, Metadata, StateDict, write_foreign, write_safetensors};
use dbb_models::{Arch, BlockKind, Form, ModelConfig};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::calls::*;
use crate::foreign::photographs;
use crate::setup::*;
use crate::stored::tensors;
use crate::support::randomise;

/// The native tensors of a random network.
fn random(model: &ModelConfig) -> StateDict {
    let network = model.init(Form::Train, &Device::default()).expect("a network");
    let keys = KeyMap::new(Dialect::Native, model, &network).expect("native names");
    keys.save(&randomise(network, &keys, 4))
}

/// The value of 16 bits, by its definition.
fn value(bits: u16, exponent_bits: u32) -> f64 {
    let fraction_bits = 15 - exponent_bits;
    let bias = (1i32 << (exponent_bits - 1)) - 1;
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits & 0x7fff) >> fraction_bits;
    let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
    match exponent {
        0 => sign * fraction * 2f64.powi(1 - bias),
        _ => sign * (1.0 + fraction) * 2f64.powi(exponent - bias),
    }
}

#[test]
fn sixteen_bits_hold_the_nearest_value_and_what_they_cost_is_measured() {
    let run = Run::new(QUICK_DBB, &[]);
    let exact_path = run.folder.at("f32.safetensors");
    let report = json(&["reparam", &run.path, "--out", &exact_path]);
    assert!(report.get("dtype").is_none(), "{report}");

    // Half a unit in the last place; f16 below its smallest normal number is spaced by 2^-24.
    for (name, dtype, exponent_bits, precision, spacing) in [
        ("f16", Dtype::F16, 5, 2f64.powi(-11), 2f64.powi(-25)),
        ("bf16", Dtype::BF16, 8, 2f64.powi(-8), 0.0),
    ] {
        let path = run.folder.at(name);
        let report = json(&["reparam", &run.path, "--dtype", name, "--out", &path]);
        let rounded = tensors(&path);
        for (key, exact) in tensors(&exact_path) {
            assert_eq!((rounded[&key].dtype, &rounded[&key].shape), (dtype, &exact.shape), "{key}");
            let exact =
                exact.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let halves =
                rounded[&key].bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
            for (exact, half) in exact.map(f64::from).zip(halves) {
                let half = value(half, exponent_bits);
                let bound = exact.abs() * precision + spacing;
                assert!((exact - half).abs() <= bound, "{key}: {exact} became {half}");
            }
        }
        assert_eq!(report["dtype"], name);
        // The run validates on a part of its data; so does the report.
        assert_eq!(report["top1"], json(&["eval", &run.path, "--deploy"])["top1"]);
        let difference = number(&report, "dtype_max_rel_diff");
        assert!(difference > 1e-5 && difference < 8.0 * precision, "{report}");
        assert!(number(&report, "dtype_top1_agreement") >= 90.0, "{report}");

        // The file computes what the report says.
        let export =
            ["export", &run.path, "--format", "safetensors", "--dtype", name, "--out", &path];
        let report = json(&[&export[..], &["--data", "sample"]].concat());
        assert_eq!(report["top1_dtype"], json(&["eval", &path, "--data", "sample"])["top1"]);
    }
}

#[test]
fn what_f16_cannot_hold_is_refused() {
    let folder = Folder::new();
    let [file, out] = ["large.safetensors", "out.safetensors"].map(|name| folder.at(name));
    let model = ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, 3) };
    let mut state = random(&model);
    let mut write = |largest: f32| {
        state.insert("linear.bias".into(), TensorData::new(vec![1.0, largest, -2.0], [3]));
        write_foreign(file.as_ref(), &state).expect("a file");
    };
    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "3", "--dtype"];
    let reparam = |dtype| [&["reparam", &*file], &flags[..], &[dtype, "--out", &*out]].concat();
    let written = || tensors(&out)["linear.bias"].bytes[2..4].to_vec();

    write(65520.0);
    dbb(&reparam("f16")).fails(3, &["linear.bias holds 6.552e4, beyond the range of f16"]);
    assert!(!exists(&out));
    json(&reparam("bf16"));
    assert_eq!(written(), 0x4780u16.to_le_bytes(), "65536");
    // What lies nearer to 65504 is the largest number of f16.
    write(65519.0);
    json(&reparam("f16"));
    assert_eq!(written(), 0x7bffu16.to_le_bytes(), "65504");

    // A file of an unknown network keeps its types, other formats have one.
    let unknown = ["reparam", &file, "--dtype", "f16", "--out", &out];
    dbb(&unknown).fails(1, &["in their own number type"]);
    for format in ["burnpack", "onnx"] {
        let export = ["export", &file, "--format", format, "--dtype", "f16", "--out", &out];
        dbb(&export).fails(1, &["--dtype is for --format safetensors and timm"]);
    }
}

fn timm_config(folder: &str) -> Value {
    let json = fs::read(format!("{folder}/config.json")).expect("a file");
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn timm_gets_a_folder_with_classes_and_preprocessing() {
    let folder = Folder::new();
    let [file, out] = ["weights.safetensors", "timm"].map(|name| folder.at(name));
    let weights = format!("{out}/model.safetensors");
    // Published weights say nothing of themselves: ImageNet's classes and preprocessing.
    let model =
        ModelConfig { width: 0.5, ..ModelConfig::new(Arch::MobileNetV2, BlockKind::Base, 1000) };
    write_foreign(file.as_ref(), &random(&model)).expect("a file");
    let export = ["export", &file, "--format", "timm", "--out", &out];
    let flags = ["--arch", "mobilenet_v2", "--width", "0.5", "--classes", "1000"];
    json(&[&export[..], &flags].concat());
    let config = timm_config(&out);
    assert_eq!(config["architecture"], "mobilenetv2_050");
    assert_eq!(config["num_classes"], 1000);
    assert_eq!(config["label_names"][217], "n02102040");
    assert_eq!(config["label_descriptions"]["n02102040"], "English springer");
    assert_eq!(config["model_args"], json!({}));
    assert_eq!(
        config["pretrained_cfg"],
        json!({
            "input_size": [3, 224, 224], "interpolation": "bilinear", "crop_pct": 0.875,
            "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
            "num_classes": 1000, "first_conv": "conv_stem", "classifier": "classifier",
        })
    );
    assert!(tensors(&weights).contains_key("blocks.6.0.conv_pwl.weight"));

    // A network of the zoo says what it is.
    let model = ModelConfig {
        in_channels: 1,
        activation: Some(Activation::Relu),
        ..ModelConfig::new(Arch::MobileNetV1, BlockKind::Dbb, 2)
    };
    let metadata = Metadata {
        model: model.clone(),
        form: Form::Train,
        keys: Dialect::Native,
        preprocess: json!({"size": [28, 28], "channels": 1, "mean": [0.5], "std": [0.25]}),
        classes: vec!["cat".into(), "dög \"x\"".into()],
    };
    write_safetensors(file.as_ref(), &random(&model), &metadata).expect("a file");
    json(&[&export[..], &["--dtype", "f16"]].concat());
    let config = timm_config(&out);
    assert_eq!(config["architecture"], "mobilenetv1_100");
    assert_eq!(config["label_names"], json!(["cat", "dög \"x\""]));
    assert!(config.get("label_descriptions").is_none());
    assert_eq!(config["model_args"], json!({"in_chans": 1, "act_layer": "relu"}));
    let pretrained = &config["pretrained_cfg"];
    assert_eq!(pretrained["input_size"], json!([1, 28, 28]));
    assert_eq!(
        (&pretrained["crop_mode"], &pretrained["crop_pct"]),
        (&json!("squash"), &json!(1.0))
    );
    let weights = tensors(&weights);
    assert!(weights.values().all(|tensor| tensor.dtype == Dtype::F16));
    assert!(weights.contains_key("blocks.0.0.conv_dw.weight"));
}

/// timm's RepVGG reads the image with two convolutions; the second one is closed.
#[test]
fn a_folded_network_is_timms_block_with_closed_branches() {
    let folder = Folder::new();
    let [file, out] = ["weights.safetensors", "timm"].map(|name| folder.at(name));
    let model = ModelConfig::new(Arch::RepVggA0, BlockKind::Dbb, 3);
    write_foreign(file.as_ref(), &random(&model)).expect("a file");
    let flags = ["--arch", "repvgg_a0", "--block", "dbb", "--classes", "3"];
    json(&[&["export", &file, "--format", "timm", "--out", &out], &flags[..]].concat());
    let config = timm_config(&out);
    assert_eq!(config["architecture"], "repvgg_a0");
    let pretrained = &config["pretrained_cfg"];
    assert_eq!(pretrained["first_conv"], json!(["stem.conv_kxk.conv", "stem.conv_1x1.conv"]));
    assert_eq!(pretrained["classifier"], "head.fc");
    let weights = tensors(&format!("{out}/model.safetensors"));
    let is_zero = |key: &str| weights[key].bytes.iter().all(|byte| *byte == 0);
    for branch in ["stages.1.2.conv_1x1.bn", "stages.1.2.identity"] {
        assert!(is_zero(&format!("{branch}.weight")) && is_zero(&format!("{branch}.bias")));
    }
    assert!(!is_zero("stages.1.2.conv_kxk.conv.weight"));

    let train = ["export", &file, "--format", "safetensors", "--form", "train", "--keys", "timm"];
    dbb(&[&train[..], &["--out", &folder.at("train.safetensors")], &flags].concat())
        .fails(1, &["timm names exist for repvgg blocks only", "hint: leave --form train out"]);
}

#[test]
fn networks_that_timm_has_not_are_refused() {
    let folder = Folder::new();
    let [file, out] = ["weights.safetensors", "timm"].map(|name| folder.at(name));
    let export = ["export", &file, "--classes", "3", "--format", "timm", "--out", &out];
    for (arch, width, fault) in [
        (Arch::ResNet18, 0.25, "timm has no resnet18 of width 0.25, only of 1"),
        (Arch::MobileNetV1, 0.5, "timm has no mobilenet_v1 of width 0.5, only of 1, 1.25"),
        (Arch::ResNet20, 1.0, "timm has no resnet20 of these layers"),
        (Arch::MobileNetV3Small, 1.0, "timm has no mobilenet_v3_small of these layers"),
    ] {
        let model = ModelConfig { width, ..ModelConfig::new(arch, BlockKind::Base, 3) };
        write_foreign(file.as_ref(), &random(&model)).expect("a file");
        let [arch, width] = [arch.to_string(), width.to_string()];
        dbb(&[&export[..], &["--arch", &arch, "--width", &width]].concat()).fails(1, &[fault]);
        assert!(!exists(&out), "{arch} {width}");
    }
    dbb(&[&export[..], &["--keys", "native"]].concat())
        .fails(1, &["timm's folder holds the folded network in timm's names"]);

    // A file in the place of the folder.
    fs::write(&out, "something else").expect("a file");
    let model =
        ModelConfig { width: 0.35, ..ModelConfig::new(Arch::MobileNetV2, BlockKind::Base, 3) };
    write_foreign(file.as_ref(), &random(&model)).expect("a file");
    let flags = ["--arch", "mobilenet_v2", "--width", "0.35"];
    dbb(&[&export[..], &flags].concat()).fails(1, &["cannot write the folder", &out]);
    assert_eq!(fs::read_to_string(&out).expect("the file"), "something else");
}

/// Measured on data, the card says what `dbb eval` says.
#[test]
fn timms_folder_has_a_model_card() {
    let folder = Folder::new();
    let [file, out] = ["weights.safetensors", "timm"].map(|name| folder.at(name));
    let card = || fs::read_to_string(format!("{out}/README.md")).expect("a card");
    let model = ModelConfig {
        in_channels: 1,
        activation: Some(Activation::Relu),
        ..ModelConfig::new(Arch::MobileNetV1, BlockKind::Dbb, 10)
    };
    let metadata = Metadata {
        model: model.clone(),
        form: Form::Train,
        keys: Dialect::Native,
        preprocess: json!({"size": [28, 28], "channels": 1, "mean": [0.5], "std": [0.25]}),
        classes: Vec::new(),
    };
    write_safetensors(file.as_ref(), &random(&model), &metadata).expect("a file");
    let export = ["export", &file, "--format", "timm", "--out", &out];
    let report = json(&export);
    let text = card();
    let header =
        "---\nlibrary_name: timm\npipeline_tag: image-classification\nlicense: \"unknown\"\n";
    assert!(text.starts_with(header), "{text}");
    assert!(!text.contains("model-index") && !text.contains("| top-1"), "nothing was measured");
    for part in ["mobilenetv1_100", "14 of its convolutions", "local-dir:", "onnxruntime"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let millions = number(&report, "params_deploy") / 1e6;
    assert!(text.contains(&format!("| parameters | {millions:.2} M |")), "{text}");

    // People edit their cards.
    fs::write(format!("{out}/README.md"), "mine").expect("a file");
    let data = ["--data", "sample", "--license", "apache-2.0"];
    let again = dbb(&[&export[..], &data].concat()).succeeds();
    again.says(&["README.md is kept"]);
    assert_eq!(card(), "mine");
    fs::remove_file(format!("{out}/README.md")).expect("a file");
    dbb(&[&export[..], &data].concat()).succeeds();
    let text = card();
    let eval = json(&["eval", &file, "--data", "sample", "--weights-int8", "per-channel"]);
    let shown = |key| format!("{:.2} %", number(&eval, key));
    for part in [
        "license: \"apache-2.0\"".into(),
        format!("| top-1 | {} |", shown("top1")),
        format!("(one scale per output channel) | {} |", shown("top1_int8")),
        format!("\"value\":{}", eval["top1"]),
    ] {
        assert!(text.contains(&part), "no {part:?} in {text}");
    }
    dbb(&[&export[..], &["--license", "No license"]].concat()).fails(2, &["small letters"]);
    let onnx = folder.at("network.onnx");
    let onnx = ["export", &file, "--format", "onnx", "--out", &onnx, "--license", "mit"];
    dbb(&onnx).fails(1, &["--license is for --format timm"]);

    // A folded file does not know what it was in training.
    let [folded, again] = ["folded.safetensors", "again"].map(|name| folder.at(name));
    json(&["reparam", &file, "--out", &folded]);
    json(&["export", &folded, "--format", "timm", "--out", &again]);
    let text = fs::read_to_string(format!("{again}/README.md")).expect("a card");
    assert!(text.contains("from a file that was folded before"), "{text}");
    assert!(!text.contains("parameters in training"), "{text}");
}

/// What a network that says nothing of itself was measured with is what its folder says.
#[test]
fn timm_gets_the_preprocessing_that_was_measured() {
    let folder = Folder::new();
    let [file, out] = ["weights.safetensors", "timm"].map(|name| folder.at(name));
    let model =
        ModelConfig { in_channels: 1, ..ModelConfig::new(Arch::MobileNetV1, BlockKind::Base, 10) };
    write_foreign(file.as_ref(), &random(&model)).expect("a file");
    let flags = ["--arch", "mobilenet_v1", "--classes", "10", "--channels", "1"];
    let export = ["export", &file, "--format", "timm", "--out", &out, "--data", "sample"];
    json(&[&export[..], &flags].concat());
    let config = &timm_config(&out)["pretrained_cfg"];
    assert_eq!(config["input_size"], json!([1, 28, 28]));
    // Those of Fashion-MNIST.
    let close = |key: &str, expected: f64| {
        (config[key][0].as_f64().expect("a number") - expected).abs() < 5e-4
    };
    assert!(close("mean", 0.286) && close("std", 0.353), "{config}");
}

#[test]
fn a_model_card_tells_the_name_of_a_folder_and_not_where_it_is() {
    let folder = Folder::new();
    let [file, out] = ["weights.safetensors", "timm"].map(|name| folder.at(name));
    let model =
        ModelConfig { width: 0.5, ..ModelConfig::new(Arch::MobileNetV2, BlockKind::Base, 1000) };
    write_foreign(file.as_ref(), &random(&model)).expect("a file");
    let data = photographs(&folder, ["n01440764", "n02102040"]);
    let flags = ["--arch", "mobilenet_v2", "--width", "0.5", "--classes", "1000", "--data", &data];
    json(&[&["export", &file, "--format", "timm", "--out", &out], &flags[..]].concat());
    let card = fs::read_to_string(format!("{out}/README.md")).expect("a card");
    assert!(card.contains("| measured on | data (val): 4 images"), "{card}");
    assert!(!card.contains(&data) && !card.contains(&folder.at("")), "{card}");
}
