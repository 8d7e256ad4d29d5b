//! Data that cannot be used, or only in part.

use std::fs;

use serde_json::Value;

use crate::calls::*;
use crate::setup::*;

/// A folder of two classes, six images each to train on and three to validate with.
fn class_folder(folder: &Folder) -> String {
    for (split, images) in [("train", 6), ("val", 3)] {
        for (class, shade) in [("ant", 30), ("bee", 160)] {
            for index in 0..images {
                let path = folder.file(&format!("data/{split}/{class}/{index}.png"), b"");
                image::RgbImage::from_fn(12, 10, |x, _| {
                    image::Rgb([shade + 9 * index + x as u8; 3])
                })
                .save(path)
                .expect("an image");
            }
        }
    }
    folder.at("data")
}

/// A tiny training on a class folder.
fn train_on(data: &str, keys: &[&str], out: &str) -> Call {
    let recipe = ["data.size=8", "model.width=0.25", "train.epochs=1", "train.batch_size=4"];
    let source = format!("data.source={data}");
    let own = ["train", QUICK_DBB, "--out", out, "--json", "--set", &source];
    dbb(&[&own, &set(&recipe)[..], &set(keys)].concat())
}

#[test]
fn class_folders_are_checked_before_anything_is_written() {
    let folder = Folder::new();
    let (data, out) = (class_folder(&folder), folder.at("run"));
    let run = folder.at("good");
    let result = train_on(&data, &[], &run).succeeds().json();
    assert_eq!(number(&result, "top5"), 100.0, "two classes");
    let evaluation = json(&["eval", &run]);
    assert_eq!((number(&evaluation, "n"), number(&evaluation, "skipped")), (6.0, 0.0));
    dbb(&["eval", &run, "--data", "sample"])
        .fails(1, &["the network has 2 classes", "sample has 10"]);

    // What the data decides is told by its key.
    let size = "data.size is 15000: validation images would be resized to 17142";
    train_on(&data, &["data.size=15000"], &out).fails(1, &[size, "data.resize"]);
    train_on(&data, &["data.val_from_train=0.01"], &out)
        .fails(1, &["data.val_from_train is 0.01, expected a share of 12 images"]);

    fs::rename(format!("{data}/val/bee"), format!("{data}/val/cow")).expect("a class");
    train_on(&data, &[], &out).fails(1, &["only in train: bee", "only in val: cow"]);
    fs::rename(format!("{data}/val/cow"), format!("{data}/val/bee")).expect("a class");

    for (split, class) in [("train", "ant"), ("val", "bee")] {
        let (class, aside) = (format!("{data}/{split}/{class}"), folder.at("aside"));
        fs::rename(&class, &aside).expect("a class");
        fs::create_dir(&class).expect("a folder");
        train_on(&data, &[], &out).fails(1, &["class folder", &class, "holds no"]);
        fs::remove_dir(&class).expect("a folder");
        fs::rename(&aside, &class).expect("a class");
    }

    for name in ["ant", "bee"] {
        let other = format!("{}-other", name);
        for split in ["train", "val"] {
            let place = |class: &str| format!("{data}/{split}/{class}");
            fs::rename(place(name), place(&other)).expect("a class");
        }
    }
    dbb(&["eval", &run, "--data", &data]).fails(1, &["it does not know \"ant-other\" and 1 more"]);
    assert!(!exists(&out));
}

#[test]
fn a_damaged_image_ends_a_run_or_is_left_out_and_counted() {
    let folder = Folder::new();
    let data = class_folder(&folder);
    let png = fs::read(format!("{data}/train/ant/3.png")).expect("an image");
    folder.file("data/train/ant/3.png", &png[..png.len() / 2]);
    let (train_image, val_image) = ("train/ant/3.png", "val/bee/1.jpg");
    let failed = folder.at("failed");
    train_on(&data, &[], &failed)
        .fails(1, &[&format!("{data}/{train_image} is damaged"), "replace or remove"]);
    assert!(!exists(&format!("{failed}/export")));

    let jpeg = folder.at("whole.jpg");
    image::RgbImage::new(40, 40).save(&jpeg).expect("an image");
    let jpeg = fs::read(jpeg).expect("an image");
    folder.file(&format!("data/{val_image}"), &jpeg[..jpeg.len() / 3]);
    let run = folder.at("run");
    let call = train_on(&data, &["data.on_bad_sample=skip"], &run).succeeds();
    call.json();
    assert!(call.stderr.contains(&format!("skipped: {data}/{train_image}")), "{}", call.all());
    let metrics = fs::read_to_string(format!("{run}/metrics.jsonl")).expect("metrics");
    let record: Value = serde_json::from_str(&metrics).expect("one JSON line");
    assert_eq!(number(&record, "skipped"), 2.0, "{metrics}");
    let result = json(&["eval", &run]);
    assert_eq!((number(&result, "n"), number(&result, "skipped")), (6.0, 1.0));

    // Without a configuration that says so nothing is left out.
    let weights = format!("{run}/export/deploy.safetensors");
    let eval = ["eval", &weights, "--data", &data];
    dbb(&eval).fails(1, &[&format!("{data}/{val_image} is damaged")]);
    let out = folder.at("out.safetensors");
    dbb(&["reparam", &weights, "--data", &data, "--out", &out]).fails(1, &[val_image]);
    assert!(!exists(&out));
}

#[test]
fn results_of_no_image_are_refused() {
    let folder = Folder::new();
    let (data, run, out) = (class_folder(&folder), folder.at("run"), folder.at("out.safetensors"));
    let skip = ["data.on_bad_sample=skip"];
    train_on(&data, &skip, &run).succeeds();
    let spoil = |split: &str, images: usize| {
        for (class, index) in ["ant", "bee"].iter().flat_map(|c| (0..images).map(move |i| (c, i))) {
            folder.file(&format!("data/{split}/{class}/{index}.png"), b"no image");
        }
    };
    spoil("val", 3);
    let error = ["no image", &*data];
    dbb(&["reparam", &run, "--out", &out, "--json"]).fails(1, &error);
    assert!(!exists(&out), "the fold was not checked");
    dbb(&["eval", &run]).fails(1, &error);
    train_on(&data, &skip, &folder.at("blind")).fails(1, &error);
    spoil("train", 6);
    train_on(&data, &skip, &folder.at("untrained")).fails(1, &error);
}

#[test]
fn class_folders_without_validation_images_are_split() {
    let folder = Folder::new();
    let (data, out) = (class_folder(&folder), folder.at("run"));
    fs::remove_dir_all(format!("{data}/val")).expect("a folder");
    let flat = format!("{data}/train");
    for source in [&data, &flat] {
        train_on(source, &[], &out).fails(1, &[source, "no validation images", "val_from_train"]);
    }
    assert!(!exists(&out));
    train_on(&flat, &["data.val_from_train=0.5"], &out).succeeds().json();
    assert_eq!(number(&json(&["eval", &out]), "n"), 6.0);
    dbb(&["eval", &out, "--data", &flat]).fails(1, &[&flat, "--split train evaluates on them"]);
    let all = json(&["eval", &out, "--data", &flat, "--split", "train"]);
    assert_eq!(number(&all, "n"), 12.0);
}

#[test]
fn a_recipe_says_where_its_images_come_from() {
    let recipe = format!("{REPOSITORY}/configs/imagenette/resnet18-dbb.toml");
    let missing = "data.source=no/imagenette2-160";
    dbb(&["train", &recipe, "--set", missing])
        .fails(1, &["no/imagenette2-160 does not exist", "https://github.com/fastai/imagenette"]);
}

#[test]
fn what_cannot_fit_into_memory_is_refused_before_it_begins() {
    let folder = Folder::new();
    let out = folder.at("run");
    let large = ["data.size=16384", "train.batch_size=128"];
    train(QUICK_DBB, &large, &out)
        .fails(1, &["training needs about", "MiB are available", "train.batch_size (128)"]);
    assert!(!exists(&out));
    let run = Run::new(QUICK_DBB, &[]);
    let size = ["--size", "16384", "--batch-size", "1000"];
    dbb(&[&["eval", &run.path, "--data", "sample"], &size[..]].concat())
        .fails(1, &["inference needs about", "lower --batch-size or --size"]);
    let bench = ["--arch", "resnet18", "--res", "16384", "--batch", "1000"];
    for what in ["train", "infer"] {
        dbb(&[&["bench", what], &bench[..]].concat())
            .fails(1, &["needs about", "--batch or --res"]);
    }
    let loader = ["bench", "loader", "--res", "16384", "--batch", "9999"];
    dbb(&loader).fails(1, &["loading needs about", "lower --batch or --res"]);
    // A cache that takes most of it.
    dbb(&["bench", "loader", "--cache-mb", "4294967295"]).fails(1, &["lower --cache-mb"]);
    train(QUICK_DBB, &["data.cache_mb=4294967295"], &out).fails(1, &["lower data.cache_mb"]);
    dbb(&["eval", &run.path, "--mean", "nan"]).fails(1, &["error: --mean is [NaN]"]);
}

/// A PNG of a few hundred bytes whose short side is one pixel: it is enlarged only where it is seen.
#[test]
fn a_long_thin_image_takes_little_memory() {
    let run = Run::new(QUICK_BASE, &[]);
    let folder = Folder::new();
    let thin = folder.file("thin.png", b"");
    image::GrayImage::new(100_000, 1).save(&thin).expect("an image");
    let resized = ["--size", "8", "--resize", "16"];
    json(&[&["predict", &run.path, &thin], &resized[..]].concat());

    let data = class_folder(&folder);
    image::GrayImage::new(100_000, 1).save(format!("{data}/train/ant/thin.png")).expect("an image");
    image::GrayImage::new(100_000, 1).save(format!("{data}/val/bee/thin.png")).expect("an image");
    let keys = ["data.resize=16", "data.on_bad_sample=skip"];
    train_on(&data, &keys, &folder.at("run")).succeeds().json();
}
