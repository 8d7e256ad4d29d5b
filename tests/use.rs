//! Weights in use: foreign files, predictions, recalibrated norms, 8-bit weights.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use dbb_datasets::{Batch, Image, imagenet, transforms};
use dbb_models::weights::{Dialect, KeyMap, StateDict, WeightsFile};
use dbb_models::{Arch, BlockKind, Classifier, Form, ModelConfig};
use dbb_training::recalibrate::{Seen, recalibrate};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

mod support;

use support::{Array, assert_close, is_statistic, randomise};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Exit code, standard output and standard error of a call in the root of the repository.
fn dbb(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbb"));
    let output = command.args(args).current_dir(REPOSITORY).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let (code, stdout, stderr) = dbb(&[args, &["--json"]].concat());
    assert_eq!(code, Some(0), "{args:?}\n{stderr}");
    serde_json::from_str(&stdout).expect("one JSON object")
}

#[track_caller]
fn fails(args: &[&str], parts: &[&str]) {
    let (code, _, stderr) = dbb(args);
    assert_eq!(code, Some(1), "{args:?}\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

/// A path in a folder, as an argument.
fn at(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("a path of letters").to_owned()
}

/// A run of less than a second on images of 8x8.
fn tiny_run(folder: &tempfile::TempDir) -> String {
    let run = at(folder, "run");
    let mut args = vec!["train", "configs/quick/resnet20-dbb.toml", "--out", &run];
    for key in [
        "data.limit_train=160",
        "data.limit_val=40",
        "data.size=8",
        "model.width=0.25",
        "train.epochs=1",
        "train.batch_size=16",
    ] {
        args.extend(["--set", key]);
    }
    json(&args);
    run
}

/// Tensors without a word on what they are.
fn write_foreign(path: &str, tensors: &StateDict) {
    write(path, tensors, None);
}

fn write(path: &str, tensors: &StateDict, table: Option<HashMap<String, String>>) {
    let views = tensors.iter().map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes());
        (name, view.expect("a tensor"))
    });
    fs::write(path, safetensors::serialize(views, table).expect("safetensors")).expect("a file");
}

/// A CIFAR ResNet-20 of random weights and the keys of its tensors.
fn network(classes: usize) -> (Classifier, KeyMap) {
    let config =
        ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, classes) };
    let network = config.init(Form::Train, &Device::default()).expect("a network");
    let keys = KeyMap::new(Dialect::Native, &config, &network).expect("native names");
    (randomise(network, &keys, 7), keys)
}

/// Class folders of two of ImageNet's classes, with images of 50x40 to validate with.
fn photographs(folder: &tempfile::TempDir, classes: [&str; 2]) -> String {
    for (split, images) in [("train", 1), ("val", 2)] {
        for (class, shade) in classes.into_iter().zip([20, 90]) {
            let place = folder.path().join("data").join(split).join(class);
            fs::create_dir_all(&place).expect("a folder");
            for index in 0..images {
                image::RgbImage::from_fn(50, 40, |x, y| {
                    let [x, y] = [x, y].map(|v| v as u8);
                    image::Rgb([shade + 40 * index + x, y * 3, (x ^ y) * 2])
                })
                .save(place.join(format!("{index}.png")))
                .expect("an image");
            }
        }
    }
    at(folder, "data")
}

/// Softmax of a network for an image, prepared by hand as the CIFAR ResNets expect it.
fn probabilities(network: &Classifier, path: &Path) -> Vec<f32> {
    let image = Image::open(path).expect("an image");
    let image = transforms::center_crop(&transforms::resize_short_side(&image, 32), (32, 32));
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let mut pixels = Vec::new();
    for channel in 0..3 {
        for (y, x) in (0..32).flat_map(|y| (0..32).map(move |x| (y, x))) {
            let value = f32::from(image.pixel(y, x)[channel]) / 255.0;
            pixels.push((value - mean[channel]) / std[channel]);
        }
    }
    let input = TensorData::new(pixels, [1, 3, 32, 32]);
    let logits = network.forward(Tensor::from_data(input, &Device::default()));
    softmax(logits, 1).into_data().iter().collect()
}

fn best(probabilities: &[f32]) -> usize {
    let order = |a: &usize, b: &usize| probabilities[*a].total_cmp(&probabilities[*b]);
    (0..probabilities.len()).max_by(order).expect("a class")
}

#[test]
fn foreign_weights_know_imagenets_classes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (network, keys) = network(1000);
    let file = at(&folder, "foreign.safetensors");
    write_foreign(&file, &keys.save(&network));
    let data = photographs(&folder, ["n01440764", "n03888257"]);
    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "1000"];
    let csv = at(&folder, "predictions.csv");
    let eval = [&["eval", &file, "--data", &data], &flags[..]].concat();
    let found = json(&[&eval[..], &["--predictions", &csv]].concat());
    assert_eq!(found["n"], 4);

    let table = fs::read_to_string(&csv).expect("predictions");
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("index,label,prediction,probability,file"));
    for (line, (class, name)) in lines.zip([
        ("0", "n01440764/0.png"),
        ("0", "n01440764/1.png"),
        ("701", "n03888257/0.png"),
        ("701", "n03888257/1.png"),
    ]) {
        let path = format!("{data}/val/{name}");
        let fields: Vec<_> = line.split(',').collect();
        assert_eq!((fields[1], fields[4]), (class, &*format!("\"{path}\"")), "{table}");
        let expected = probabilities(&network, Path::new(&path));
        let index = best(&expected);
        assert_eq!(fields[2], index.to_string(), "{table}");
        let probability: f32 = fields[3].parse().expect("a number");
        assert!((probability - expected[index]).abs() < 2e-6, "{line}: {}", expected[index]);

        let predict = [&["predict", &file, &path, "--top", "1"], &flags[..]].concat();
        let choice = &json(&predict)["predictions"][0]["top"][0];
        assert_eq!(choice["index"], index);
        let synset = imagenet::synsets().nth(index).expect("a class");
        assert_eq!(choice["label"].as_str(), imagenet::name(synset));
    }

    // Folders of other names need a map, and are then the same data.
    for split in ["train", "val"] {
        for (synset, name) in [("n01440764", "a tench"), ("n03888257", "parachute")] {
            let place = |name| format!("{data}/{split}/{name}");
            fs::rename(place(synset), place(name)).expect("a folder");
        }
    }
    fails(&eval, &["the network has 1000 classes", "has 2", "--class-map"]);
    for (name, text) in [
        ("map.tsv", "a tench\t0\nparachute\t701\n"),
        ("map.toml", "\"a tench\" = 0\nparachute = 701\nbassoon = 432\n"),
    ] {
        let map = at(&folder, name);
        fs::write(&map, text).expect("a file");
        assert_eq!(json(&[&eval[..], &["--class-map", &map]].concat()), found);
    }
    let map = at(&folder, "map.tsv");
    let mapped = [&eval[..], &["--class-map", &map]].concat();
    for (text, fault) in [
        ("a tench\t0\n", "no index for \"parachute\""),
        ("a tench\t0\nparachute\t1000\n", "\"parachute\" the index 1000"),
        ("a tench\t0\nparachute 701\n", "map.tsv:2: "),
    ] {
        fs::write(&map, text).expect("a file");
        fails(&mapped, &[&map, fault]);
    }
}

#[test]
fn a_run_may_give_its_folders_other_indices() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = photographs(&folder, ["ant", "bee"]);
    let (run, map) = (at(&folder, "run"), at(&folder, "map.tsv"));
    fs::write(&map, "# the other way round\nant\t1\nbee\t0\n").expect("a file");
    let [source, map] = [format!("data.source={data}"), format!("data.class_map={map}")];
    let mut args = vec!["train", "configs/quick/resnet20-base.toml", "--out", &run];
    for key in [&*source, &map, "data.size=8", "train.epochs=1", "train.batch_size=2"] {
        args.extend(["--set", key]);
    }
    json(&args);
    let csv = at(&folder, "predictions.csv");
    let own = json(&["eval", &run, "--predictions", &csv]);
    // Its weights know the classes by name, so that other data needs no map.
    let deploy = format!("{run}/export/deploy.safetensors");
    let named = json(&["eval", &deploy, "--data", &data]);
    assert_eq!((&own["n"], &own["top1"]), (&named["n"], &named["top1"]));
    let table = fs::read_to_string(&csv).expect("predictions");
    let labels: Vec<_> = table.lines().skip(1).filter_map(|line| line.split(',').nth(1)).collect();
    assert_eq!(labels, ["1", "1", "0", "0"]);
}

#[test]
fn predictions_go_on_past_inputs_that_cannot_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (network, keys) = network(3);
    let file = at(&folder, "foreign.safetensors");
    write_foreign(&file, &keys.save(&network));
    let data = photographs(&folder, ["a", "b"]);
    let broken = format!("{data}/val/a/0.png");
    fs::write(&broken, "no image").expect("a file");
    let tensor = at(&folder, "input.safetensors");
    let pixels = Array::random(&[2, 3, 16, 16], [-2.0, 2.0], 3);
    let input: Tensor<4> = pixels.tensor(&Device::default());
    write_foreign(&tensor, &StateDict::from([("any".into(), input.clone().into_data())]));
    let [missing, val] = [at(&folder, "missing.jpg"), format!("{data}/val")];

    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "3", "--json"];
    let predict = [&["predict", &file, &missing, &val, &tensor, &file], &flags[..]].concat();
    let (code, stdout, stderr) = dbb(&predict);
    assert_eq!(code, Some(1), "{stderr}");
    for part in [&*missing, &broken, "none of them named input", "could not be used: 3"] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    let result: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(result["failed"].as_array().map(Vec::len), Some(3));
    let predictions = result["predictions"].as_array().expect("predictions");
    let inputs: Vec<_> = predictions.iter().filter_map(|row| row["input"].as_str()).collect();
    let expected = ["a/1.png", "b/0.png", "b/1.png"].map(|name| format!("{val}/{name}"));
    let rows = [0, 1].map(|row| format!("{tensor}[{row}]"));
    assert_eq!(inputs, [&expected[..], &rows].concat());

    // A tensor is the network's input as it is; all three classes are shown, the best first.
    let logits = network.forward(input);
    let softmax: Vec<f32> = softmax(logits, 1).into_data().iter().collect();
    for (prediction, expected) in predictions[3..].iter().zip(softmax.chunks(3)) {
        let top = prediction["top"].as_array().expect("choices");
        assert_eq!(top[0]["index"], best(expected));
        for choice in top {
            let index = choice["index"].as_u64().expect("an index") as usize;
            let probability = choice["probability"].as_f64().expect("a number");
            assert!((probability - f64::from(expected[index])).abs() < 1e-6, "{prediction}");
            assert_eq!(choice["label"], format!("class {index}"));
        }
        assert_eq!(top.len(), 3);
    }
}

/// `[batch, channels, ...]` to mean and unbiased variance of each channel.
fn moments(map: &Array) -> [Vec<f64>; 2] {
    let (batch, channels) = (map.shape[0], map.shape[1]);
    let size: usize = map.shape[2..].iter().product();
    let of_channel = |channel: usize| {
        let planes = (0..batch).map(move |n| (n * channels + channel) * size);
        let values: Vec<f64> = planes.flat_map(|at| map.data[at..at + size].to_vec()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (mean, squares / (values.len() - 1) as f64)
    };
    let (mean, var) = (0..channels).map(of_channel).unzip();
    [mean, var]
}

/// A 3x3 convolution of stride 1 over a border of zeros, as it is defined.
fn conv3x3(map: &Array, kernel: &Array) -> Array {
    let [batch, inputs, height, width] = map.shape[..] else { panic!("a map") };
    let outputs = kernel.shape[0];
    let mut out =
        Array::new(&[batch, outputs, height, width], vec![0.0; batch * outputs * height * width]);
    for (position, value) in out.data.iter_mut().enumerate() {
        let (x, y) = (position % width, position / width % height);
        let (output, n) =
            (position / (width * height) % outputs, position / (width * height * outputs));
        for (input, dy, dx) in
            (0..inputs).flat_map(|i| (0..3).flat_map(move |dy| (0..3).map(move |dx| (i, dy, dx))))
        {
            let (row, column) = ((y + dy).wrapping_sub(1), (x + dx).wrapping_sub(1));
            if row < height && column < width {
                let weight = kernel.data[((output * inputs + input) * 3 + dy) * 3 + dx];
                *value += weight * map.data[((n * inputs + input) * height + row) * width + column];
            }
        }
    }
    out
}

#[test]
fn recalibrated_statistics_are_averages_over_batches() {
    let (network, keys) = network(10);
    let before = keys.save(&network);
    let batches: Vec<Array> = [6, 6, 4]
        .into_iter()
        .zip(1..)
        .map(|(images, seed)| Array::random(&[images, 3, 8, 8], [-2.0, 2.0], seed).rounded())
        .collect();
    let as_batch = |map: &Array| {
        let images = map.data.iter().map(|&value| value as f32).collect();
        let shape = [map.shape[0], 3, 8, 8];
        let (labels, indices) = (vec![0; shape[0]], (0..shape[0]).collect());
        Ok(Batch { images, shape, labels, indices, mixed: None, skipped: Vec::new() })
    };
    let (new, seen) = recalibrate(&network, batches.iter().map(as_batch)).expect("statistics");
    assert_eq!(seen, Seen { batches: 3, images: 16 });
    assert!(support::is_on_inference_device(&new));

    // The stem's statistics, and those of the layer that reads what it makes of a batch.
    let tensor = |key: &str| Array::from(&before[key]);
    let mut expected = BTreeMap::<&str, Vec<f64>>::new();
    for batch in &batches {
        let stem = conv3x3(batch, &tensor("stem.conv.weight"));
        let [mean, var] = moments(&stem);
        let biased = (stem.data.len() / mean.len()) as f64;
        let (gamma, beta) = (tensor("stem.bn.gamma"), tensor("stem.bn.beta"));
        let normalised = stem.data.iter().enumerate().map(|(position, value)| {
            let channel = position / 64 % mean.len();
            let var = var[channel] * (biased - 1.0) / biased;
            let unit = (value - mean[channel]) / (var + 1e-5).sqrt();
            (unit * gamma.data[channel] + beta.data[channel]).max(0.0)
        });
        let map = Array::new(&stem.shape, normalised.collect());
        let [mean1, var1] = moments(&conv3x3(&map, &tensor("stage1.0.conv1.conv.weight")));
        for (key, values) in [
            ("stem.bn.running_mean", mean),
            ("stem.bn.running_var", var),
            ("stage1.0.conv1.bn.running_mean", mean1),
            ("stage1.0.conv1.bn.running_var", var1),
        ] {
            let sum = expected.entry(key).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value / 3.0);
        }
    }
    let after = keys.save(&new);
    for (key, values) in expected {
        let expected = Array::new(&[values.len()], values);
        assert_close(key, &Array::from(&after[key]), &expected, 1e-5, 1.0);
    }
    // Every norm has new statistics, and nothing else has changed; the network itself not at all.
    for (key, value) in &before {
        assert_eq!(after[key] == *value, !is_statistic(key), "{key}");
    }
    assert_eq!(keys.save(&network), before);
    assert_eq!(new.clone().norms_mut()[0].momentum, 0.1);
    let single = new.valid();
    assert!(recalibrate(&single, std::iter::empty()).is_err(), "no image");
}

#[test]
fn recalibrate_writes_a_network_beside_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (run, out) = (tiny_run(&folder), at(&folder, "precise.safetensors"));
    let network = format!("{run}/checkpoints/00001/network.bpk");
    let bytes = fs::read(&network).expect("weights");
    let before = json(&["eval", &run]);
    let result =
        json(&["recalibrate", &run, "--batch-size", "16", "--batches", "4", "--out", &out]);
    assert_eq!((&result["batches"], &result["images"]), (&Value::from(4), &Value::from(64)));
    assert_eq!(result["top1_before"], before["top1"]);
    assert_eq!(fs::read(&network).expect("weights"), bytes, "the run is left as it is");

    // Of the whole validation set, which the run has forty images of.
    let after = json(&["eval", &out, "--data", "sample"]);
    assert_eq!((&after["form"], &after["n"]), (&Value::from("train"), &Value::from(2000)));
    let whole = ["recalibrate", &out, "--data", "sample", "--batches", "1", "--out", &out];
    assert_eq!(json(&whole)["loss_before"], after["loss"]);

    let deploy = format!("{run}/export/deploy.safetensors");
    let folded = ["recalibrate", &deploy, "--data", "sample", "--out", &out];
    fails(&folded, &["is folded and has no batch norm left"]);
    fails(&[&folded[..], &["--batch-size", "1"]].concat(), &["--batch-size is 1"]);
}

#[test]
fn eight_bit_weights_are_rounded_to_their_scales() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = tiny_run(&folder);
    let deploy = format!("{run}/export/deploy.safetensors");
    let bytes = fs::read(&deploy).expect("weights");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
    let mut table = header.metadata().clone().expect("metadata");
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
        let path = at(&folder, "rounded.safetensors");
        write(&path, &rounded.collect(), Some(table.clone()));
        let expected = json(&["eval", &path, "--data", "sample"]);
        // The training form is folded first.
        let found = json(&["eval", &run, "--data", "sample", "--weights-int8", granularity]);
        assert_eq!(found["weights_int8"], granularity);
        assert_eq!(found["form"], "deploy");
        for key in ["top1", "top5", "loss"] {
            let [found, expected] = [&found[format!("{key}_int8")], &expected[key]]
                .map(|v| v.as_f64().expect("a number"));
            assert!(
                (found - expected).abs() <= 1e-3 * expected.abs(),
                "{key}: {found}, {expected}"
            );
        }
        assert_ne!(found["loss_int8"], found["loss"]);
    }
}
