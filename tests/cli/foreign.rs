//! Pretrained weights, whose files do not describe their network: `dbb eval` and `dbb predict` of them.

use std::fs;
use std::path::Path;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use dbb_datasets::{Image, imagenet, transforms};
use dbb_models::weights::{Dialect, KeyMap, StateDict};
use dbb_models::{Arch, BlockKind, Classifier, Form, ModelConfig};

use crate::calls::*;
use crate::setup::*;
use crate::stored::*;
use crate::support::{Array, randomise};

#[test]
fn a_foreign_file_needs_flags_that_fit() {
    // At the size of the images, which is what a file without preprocessing is given.
    let run = Run::new(QUICK_DBB, &["model.arch=mobilenet_v1", "data.size=28"]);
    let (own, foreign) = (run.folder.at("own.safetensors"), run.folder.at("foreign.safetensors"));
    json(&["reparam", &run.path, "--keys", "official", "--out", &own]);
    let prefixed = tensors(&own).into_iter().map(|(name, t)| (format!("module.{name}"), t));
    write_tensors(&foreign, &prefixed.collect(), None);

    let eval = ["eval", &foreign, "--data", "sample"];
    let flags = ["--block", "dbb", "--width", "0.25", "--channels", "1"];
    let arch = ["--arch", "mobilenet_v1"];
    dbb(&eval).fails(1, &[&foreign, "does not describe its network", "--arch is missing"]);
    dbb(&[&eval[..], &arch].concat()).fails(1, &[&foreign, "--classes is missing"]);
    let all = [&eval[..], &arch, &flags].concat();
    assert_eq!(
        json(&[&all[..], &["--classes", "10"]].concat()),
        json(&["eval", &own, "--data", "sample"])
    );
    dbb(&[&all[..], &["--classes", "11"]].concat()).fails(
        1,
        &[&foreign, "2 misshapen", "linear.weight [10, 256] (expected [11, 256])", "hint"],
    );
    let other = [&eval[..], &flags, &["--arch", "resnet18", "--classes", "10"]].concat();
    dbb(&other).fails(1, &[&foreign, "missing: stage1.0", "unexpected: conv1.dbb_reparam.bias"]);
}

/// A CIFAR ResNet-20 of random weights and the keys of its tensors.
pub fn network(classes: usize) -> (Classifier, KeyMap) {
    let config =
        ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, classes) };
    let network = config.init(Form::Train, &Device::default()).expect("a network");
    let keys = KeyMap::new(Dialect::Native, &config, &network).expect("native names");
    (randomise(network, &keys, 7), keys)
}

/// Class folders of two of ImageNet's classes, with images of 50x40 to validate with.
pub fn photographs(folder: &Folder, classes: [&str; 2]) -> String {
    for (split, images) in [("train", 1), ("val", 2)] {
        for (class, shade) in classes.into_iter().zip([20, 90]) {
            for index in 0..images {
                let path = folder.file(&format!("data/{split}/{class}/{index}.png"), b"");
                image::RgbImage::from_fn(50, 40, |x, y| {
                    let [x, y] = [x, y].map(|v| v as u8);
                    image::Rgb([shade + 40 * index + x, y * 3, (x ^ y) * 2])
                })
                .save(path)
                .expect("an image");
            }
        }
    }
    folder.at("data")
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
    let folder = Folder::new();
    let (network, keys) = network(1000);
    let file = folder.at("foreign.safetensors");
    write_tensors(&file, &stored(&keys.save(&network)), None);
    let data = photographs(&folder, ["n01440764", "n03888257"]);
    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "1000"];
    let csv = folder.at("predictions.csv");
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
    dbb(&eval).fails(1, &["the network has 1000 classes", "has 2", "--class-map"]);
    for (name, text) in [
        ("map.tsv", "a tench\t0\nparachute\t701\n"),
        ("map.toml", "\"a tench\" = 0\nparachute = 701\nbassoon = 432\n"),
    ] {
        let map = folder.file(name, text.as_bytes());
        assert_eq!(json(&[&eval[..], &["--class-map", &map]].concat()), found);
    }
    let map = folder.at("map.tsv");
    let mapped = [&eval[..], &["--class-map", &map]].concat();
    for (text, fault) in [
        ("a tench\t0\n", "no index for \"parachute\""),
        ("a tench\t0\nparachute\t1000\n", "\"parachute\" the index 1000"),
        ("a tench\t0\nparachute 701\n", "map.tsv:2: "),
    ] {
        fs::write(&map, text).expect("a file");
        dbb(&mapped).fails(1, &[&map, fault]);
    }
}

#[test]
fn a_run_may_give_its_folders_other_indices() {
    let folder = Folder::new();
    let data = photographs(&folder, ["ant", "bee"]);
    let run = folder.at("run");
    let map = folder.file("map.tsv", b"# the other way round\nant\t1\nbee\t0\n");
    let [source, map] = [format!("data.source={data}"), format!("data.class_map={map}")];
    let keys = [&*source, &map, "data.size=8", "train.epochs=1", "train.batch_size=2"];
    json(&[&["train", QUICK_BASE, "--out", &run][..], &set(&keys)].concat());
    let csv = folder.at("predictions.csv");
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
    let folder = Folder::new();
    let (network, keys) = network(3);
    let file = folder.at("foreign.safetensors");
    write_tensors(&file, &stored(&keys.save(&network)), None);
    let data = photographs(&folder, ["a", "b"]);
    let broken = format!("{data}/val/a/0.png");
    fs::write(&broken, "no image").expect("a file");
    let tensor = folder.at("input.safetensors");
    let pixels = Array::random(&[2, 3, 16, 16], [-2.0, 2.0], 3);
    let input: Tensor<4> = pixels.tensor(&Device::default());
    let any = StateDict::from([("any".into(), input.clone().into_data())]);
    write_tensors(&tensor, &stored(&any), None);
    let [missing, val] = [folder.at("missing.jpg"), format!("{data}/val")];

    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "3", "--json"];
    let predict = [&["predict", &file, &missing, &val, &tensor, &file], &flags[..]].concat();
    let call = dbb(&predict);
    assert_eq!(call.code, Some(1), "{}", call.all());
    call.says(&[&missing, &broken, "none of them named input", "could not be used: 3"]);
    let result = call.json();
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

/// Non-finite weights are a failed check for every command.
#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let folder = Folder::new();
    let (network, keys) = network(10);
    let (file, out) = (folder.at("foreign.safetensors"), folder.at("out.safetensors"));
    let mut state = keys.save(&network);
    let mut values: Vec<f32> = state["stage1.0.conv1.bn.running_var"].iter().collect();
    values[1] = f32::INFINITY;
    let shape = [values.len()];
    state.insert("stage1.0.conv1.bn.running_var".into(), TensorData::new(values, shape));
    write_tensors(&file, &stored(&state), None);
    let image = folder.at("image.png");
    image::RgbImage::new(32, 32).save(&image).expect("an image");
    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "10"];
    for command in [
        &["eval", &file, "--data", "sample"][..],
        &["predict", &file, &image],
        &["reparam", &file, "--out", &out],
        &["export", &file, "--format", "safetensors", "--form", "train", "--out", &out],
    ] {
        let call = dbb(&[command, &flags].concat());
        call.fails(3, &[&file, "stage1.0.conv1.bn.running_var", "1 of 4 values", "inf"]);
    }
    assert!(!exists(&out), "nothing is written");
}

/// The error speaks of the dialect that was asked for, and of the network that the file holds.
#[test]
fn what_is_asked_for_in_vain_is_named() {
    let folder = Folder::new();
    let (network, keys) = network(10);
    let (file, out) = (folder.at("foreign.safetensors"), folder.at("out.safetensors"));
    write_tensors(&file, &stored(&keys.save(&network)), None);
    let flags = ["--width", "0.25", "--classes", "10"];
    let reparam = [&["reparam", &file, "--out", &out, "--arch", "resnet20"], &flags[..]].concat();
    dbb(&[&reparam[..], &["--keys", "timm"]].concat())
        .fails(1, &["resnet20 has no timm names; it has native, akamaster"]);
    let reparam = [&["reparam", &file, "--out", &out, "--arch", "resnet32"], &flags[..]].concat();
    dbb(&reparam).fails(
        1,
        &[
            "this looks like resnet20 with block base and 10 classes\n",
            "60 missing: stage1.3",
            " more",
            "hint: give --arch resnet20 --block base --classes 10",
        ],
    );
    let (train, out) = (["--form", "train", "--keys", "torchvision"], folder.at("own.safetensors"));
    let blocks = Run::new(QUICK_DBB, &["model.arch=resnet18", "model.width=0.0625"]);
    let export = ["export", &blocks.path, "--format", "safetensors", "--out", &out];
    dbb(&[&export[..], &train].concat()).fails(
        1,
        &["torchvision names exist for base blocks only", "hint: leave --form train out"],
    );
}
