//! Weights for other programs: number types of 16 bits, and timm's folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use burn::tensor::{DType, Device, TensorData};
use dbb_models::blocks::Activation;
use dbb_models::weights::{Dialect, KeyMap, Metadata, StateDict, WeightsFile};
use dbb_models::weights::{write_foreign, write_safetensors};
use dbb_models::{Arch, BlockKind, Form, ModelConfig};
use serde_json::{Value, json};

#[path = "support/runs.rs"]
mod runs;
mod support;

use runs::{DBB, eval, fails, folder, number, succeeds, training};
use support::randomise;

/// A program's command on a file or run, with the path to write.
fn command(name: &str, target: &Path, args: &[&str], out: &Path) -> Command {
    let mut command = Command::new(DBB);
    command.arg(name).arg(target).args(args).args(["--json", "--out"]).arg(out);
    command
}

/// The native tensors of a random network.
fn tensors(model: &ModelConfig) -> StateDict {
    let network = model.init(Form::Train, &Device::default()).expect("a network");
    let keys = KeyMap::new(Dialect::Native, model, &network).expect("native names");
    keys.save(&randomise(network, &keys, 4))
}

fn read(path: &Path) -> StateDict {
    WeightsFile::read(path).expect("a weights file").tensors
}

#[test]
fn sixteen_bits_hold_the_nearest_value_and_what_they_cost_is_measured() {
    let folder = folder();
    let run = folder.path().join("run");
    succeeds(&mut training(&["train.epochs=1"], &run));
    let exact_path = folder.path().join("f32.safetensors");
    let report = succeeds(&mut command("reparam", &run, &[], &exact_path));
    assert!(report.get("dtype").is_none(), "{report}");
    let exact = read(&exact_path);

    // Half a unit in the last place; the spacing of f16 below its smallest normal number is 2^-24.
    for (name, dtype, precision, spacing) in [
        ("f16", DType::F16, 2f64.powi(-11), 2f64.powi(-25)),
        ("bf16", DType::BF16, 2f64.powi(-8), 0.0),
    ] {
        let path = folder.path().join(name);
        let report = succeeds(&mut command("reparam", &run, &["--dtype", name], &path));
        let rounded = read(&path);
        for (key, data) in &exact {
            assert_eq!(rounded[key].dtype(), dtype, "{key}");
            for (before, after) in data.iter::<f64>().zip(rounded[key].iter::<f64>()) {
                let bound = before.abs() * precision + spacing;
                assert!((before - after).abs() <= bound, "{key}: {before} became {after}");
            }
        }
        assert!(
            fs::metadata(&path).expect("a file").len() < fs::metadata(&exact_path).unwrap().len()
        );
        // The run validates on a part of the data; so does the report.
        assert_eq!(report["dtype"], name);
        assert_eq!(report["top1"], eval(&run, &["--deploy"])["top1"]);
        let difference = number(&report, "dtype_max_rel_diff");
        assert!(difference > 1e-5 && difference < 8.0 * precision, "{difference}");
        assert!(number(&report, "dtype_top1_agreement") >= 90.0, "{report}");

        // The file computes what the report says.
        let all = ["--data", "sample"];
        let measured = [&["--dtype", name], &all[..]].concat();
        let report = succeeds(&mut command(
            "export",
            &run,
            &[&["--format", "safetensors"], &measured[..]].concat(),
            &path,
        ));
        assert_eq!(report["top1_dtype"], eval(&path, &all)["top1"]);
    }
}

#[test]
fn what_f16_cannot_hold_is_refused() {
    let folder = folder();
    let model = ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, 3) };
    let mut state = tensors(&model);
    state.insert("linear.bias".into(), TensorData::new(vec![1.0f32, 65520.0, -2.0], [3]));
    let file = folder.path().join("large.safetensors");
    write_foreign(&file, &state).expect("a file");
    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "3", "--dtype"];
    let out = folder.path().join("out.safetensors");
    let mut half = command("reparam", &file, &[&flags[..], &["f16"]].concat(), &out);
    fails(&mut half, 3, &["linear.bias holds 6.552e4, beyond the range of f16"]);
    assert!(!out.exists());
    succeeds(&mut command("reparam", &file, &[&flags[..], &["bf16"]].concat(), &out));
    let bias: Vec<f64> = read(&out)["linear.bias"].iter().collect();
    assert_eq!(bias, [1.0, 65536.0, -2.0]);
    // 65519.99 would still be rounded to 65504, the largest.
    state.insert("linear.bias".into(), TensorData::new(vec![1.0f32, 65519.0, -2.0], [3]));
    write_foreign(&file, &state).expect("a file");
    succeeds(&mut half);
    assert_eq!(read(&out)["linear.bias"].iter::<f64>().nth(1), Some(65504.0));

    // A file of an unknown network keeps its types, other formats have one.
    fails(
        &mut command("reparam", &file, &["--dtype", "f16"], &out),
        1,
        &["in their own number type"],
    );
    for format in ["burnpack", "onnx"] {
        let args = [&flags[..], &["f16", "--format", format]].concat();
        fails(
            &mut command("export", &file, &args, &out),
            1,
            &["--dtype is for --format safetensors"],
        );
    }
}

/// What stands in `config.json`, with the weights beside it taken for the network they were.
fn timm_config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("config.json")).expect("a file")).expect("JSON")
}

#[test]
fn timm_gets_a_folder_with_classes_and_preprocessing() {
    let folder = folder();
    let out = folder.path().join("timm");
    let file = folder.path().join("weights.safetensors");
    // Published weights say nothing of themselves: ImageNet's classes and preprocessing.
    let model =
        ModelConfig { width: 0.5, ..ModelConfig::new(Arch::MobileNetV2, BlockKind::Base, 1000) };
    write_foreign(&file, &tensors(&model)).expect("a file");
    let flags =
        ["--arch", "mobilenet_v2", "--width", "0.5", "--classes", "1000", "--format", "timm"];
    succeeds(&mut command("export", &file, &flags, &out));
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
    assert!(read(&out.join("model.safetensors")).contains_key("blocks.6.0.conv_pwl.weight"));

    // A network of the zoo says what it is.
    let model = ModelConfig {
        in_channels: 1,
        activation: Some(Activation::Relu),
        ..ModelConfig::new(Arch::MobileNetV1, BlockKind::Dbb, 2)
    };
    let preprocess = json!({"size": [28, 28], "channels": 1, "mean": [0.5], "std": [0.25]});
    let classes = vec!["cat".to_string(), "dög \"x\"".into()];
    let metadata = Metadata {
        model: model.clone(),
        form: Form::Train,
        keys: Dialect::Native,
        preprocess,
        classes,
    };
    write_safetensors(&file, &tensors(&model), &metadata).expect("a file");
    succeeds(&mut command("export", &file, &["--format", "timm", "--dtype", "f16"], &out));
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
    let weights = read(&out.join("model.safetensors"));
    assert!(weights.values().all(|data| data.dtype() == DType::F16));
    assert!(weights.contains_key("blocks.0.0.conv_dw.weight"));
}

#[test]
fn networks_that_timm_has_not_are_refused() {
    let folder = folder();
    let out = folder.path().join("timm");
    let file = folder.path().join("weights.safetensors");
    for (arch, width, fault) in [
        (Arch::ResNet18, 0.25, "timm has no resnet18 of width 0.25, only of 1"),
        (Arch::MobileNetV1, 0.5, "timm has no mobilenet_v1 of width 0.5, only of 1, 1.25"),
        (Arch::ResNet20, 1.0, "timm has no resnet20 of these layers"),
        (Arch::MobileNetV3Small, 1.0, "timm has no mobilenet_v3_small of these layers"),
    ] {
        let model = ModelConfig { width, ..ModelConfig::new(arch, BlockKind::Base, 3) };
        write_foreign(&file, &tensors(&model)).expect("a file");
        let [arch, width] = [arch.to_string(), width.to_string()];
        let flags = ["--arch", &arch, "--width", &width, "--classes", "3", "--format", "timm"];
        fails(&mut command("export", &file, &flags, &out), 1, &[fault]);
        assert!(!out.exists(), "{arch} {width}");
    }
    fails(
        &mut command("export", &file, &["--format", "timm", "--keys", "native"], &out),
        1,
        &["timm's folder holds the folded network in timm's names"],
    );
    // A file in the place of the folder.
    fs::write(&out, "something else").expect("a file");
    let flags = ["--arch", "mobilenet_v2", "--classes", "3", "--format", "timm"];
    let model = ModelConfig::new(Arch::MobileNetV2, BlockKind::Base, 3);
    write_foreign(&file, &tensors(&model)).expect("a file");
    fails(&mut command("export", &file, &flags, &out), 1, &["cannot write the folder", "timm"]);
    assert_eq!(fs::read_to_string(&out).expect("the file"), "something else");
}
