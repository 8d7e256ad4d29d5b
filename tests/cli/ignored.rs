//! Flags and keys without effect, and what the program assumes: none of it is
//! passed over in silence.

use std::fs;

use serde_json::json as value;

use crate::calls::*;
use crate::foreign::network;
use crate::setup::*;
use crate::stored::*;

#[test]
fn another_input_size_than_the_networks_own_is_announced() {
    let run = Run::new(QUICK_DBB, &[]);
    let size = |size: usize| value!([size, size]);
    let own = dbb(&["eval", &run.path, "--json"]).succeeds();
    assert_eq!(own.json()["input_size"], size(8));
    assert!(!own.stderr.contains("note:"), "{}", own.all());
    let other = dbb(&["eval", &run.path, "--size", "16", "--json"]).succeeds();
    assert_eq!(other.json()["input_size"], size(16));
    other.says(&["note: the input of", "is 8x8; it gets 16x16 instead"]);
    // The images have 28 pixels; the file knows better.
    let weights = run.deploy_weights();
    let file = dbb(&["eval", &weights, "--data", "sample", "--json"]).succeeds();
    assert_eq!(file.json()["input_size"], size(8));
    assert!(!file.stderr.contains("note:"), "{}", file.all());
    let text = dbb(&["eval", &weights, "--data", "sample", "--size", "12"]).succeeds();
    assert!(text.stdout.contains("(deploy form, input 12x12)"), "{}", text.all());
    let out = run.folder.at("out.safetensors");
    let fold = ["reparam", &weights, "--size", "12", "--out", &out];
    dbb(&fold).succeeds().says(&["is 8x8; it gets 12x12 instead"]);
}

/// Three folders of grey images of 12x12.
fn folders(folder: &Folder) -> String {
    for split in ["train", "val"] {
        for (class, grey) in [("ant", 20), ("bee", 120), ("cat", 220)] {
            let path = folder.file(&format!("data/{split}/{class}/0.png"), b"");
            image::RgbImage::from_pixel(12, 12, image::Rgb([grey; 3]))
                .save(path)
                .expect("an image");
        }
    }
    folder.at("data")
}

#[test]
fn what_a_foreign_file_does_not_say_is_said() {
    let folder = Folder::new();
    let (network, keys) = network(3);
    let file = folder.at("foreign.safetensors");
    write_tensors(&file, &stored(&keys.save(&network)), None);
    let data = folders(&folder);
    let flags = ["--arch", "resnet20", "--width", "0.25", "--classes", "3"];
    let eval = [&["eval", &file, "--data", &data][..], &flags].concat();
    let call = dbb(&[&eval[..], &["--json"]].concat()).succeeds();
    call.says(&[
        "does not name its classes",
        "in their order, output 0 for \"ant\"",
        "--class-map",
    ]);
    let map = folder.file("map.tsv", b"ant\t2\nbee\t1\ncat\t0\n");
    let mapped = dbb(&[&eval[..], &["--class-map", &map]].concat()).succeeds();
    assert!(!mapped.stderr.contains("does not name its classes"), "{}", mapped.all());

    // `predict` names the outputs by the map, and reads no map that is not there.
    let image = format!("{data}/val/ant/0.png");
    let predict = [&["predict", &file, &image, "--class-map"][..], &[&map], &flags].concat();
    let named = json(&predict);
    let labels = named["predictions"][0]["top"].as_array().expect("choices").iter();
    for choice in labels {
        let index = choice["index"].as_u64().expect("an index") as usize;
        assert_eq!(choice["label"], ["cat", "bee", "ant"][index]);
    }
    fs::remove_file(&map).expect("the map");
    dbb(&predict).fails(1, &["cannot read the class map", &map]);
    fs::write(&map, "ant\t3\n").expect("a map");
    dbb(&predict).fails(1, &["\"ant\" the index 3; the network has 3 outputs"]);
}

#[test]
fn images_without_a_known_size_are_announced() {
    let run = Run::new(QUICK_DBB, &["data.size=28"]);
    let foreign = run.folder.at("foreign.safetensors");
    write_tensors(&foreign, &tensors(&run.deploy_weights()), None);
    let flags = ["--arch", "resnet20", "--block", "dbb", "--width", "0.25", "--classes", "10"];
    let eval = [&["eval", &foreign, "--data", "sample", "--channels", "1"][..], &flags].concat();
    let call = dbb(&[&eval[..], &["--json"]].concat()).succeeds();
    assert_eq!(call.json()["input_size"], value!([28, 28]));
    call.says(&["does not say the size of its input; it gets 28x28, where its paper has 32x32"]);
    call.says(&["does not name its classes"]);
    let right = dbb(&[&eval[..], &["--size", "32"]].concat()).succeeds();
    assert!(!right.stderr.contains("the size of its input"), "{}", right.all());
}

#[test]
fn flags_that_change_nothing_are_refused() {
    let run = Run::new(QUICK_DBB, &[]);
    let weights = run.deploy_weights();
    let out = run.folder.at("out.safetensors");
    let none = run.folder.at("none.tsv");
    let refused = |args: &[&str], parts: &[&str]| dbb(args).fails(1, parts);
    let to = ["--out", &*out];

    let last = ["eval", &weights, "--data", "sample", "--checkpoint", "last"];
    refused(&last, &["only a run directory has checkpoints", "leave --checkpoint out"]);
    // No image is read.
    let reparam = [&["reparam", &weights][..], &to].concat();
    refused(&[&reparam[..], &["--class-map", &none]].concat(), &["--class-map", "without --data"]);
    refused(
        &[&reparam[..], &["--mean", "0.5", "--std", "0.5", "--resize", "9"]].concat(),
        &["no image is read without --data; leave --resize, --mean, --std out"],
    );
    let mapped = [&reparam[..], &["--data", "sample", "--class-map", &none]].concat();
    refused(&mapped, &["cannot read the class map", &none]);
    let export = ["export", &run.path, "--form", "train", "--format", "safetensors"];
    let export = [&export[..], &to].concat();
    refused(&[&export[..], &["--data", "sample"]].concat(), &["nothing to compare", "--data"]);
    refused(&[&export[..], &["--size", "9"]].concat(), &["no image is read; leave --size out"]);
    let tensor = run.folder.at("tensor.safetensors");
    refused(
        &["predict", &weights, &tensor, "--size", "9", "--std", "1"],
        &["tensors are a network's input as it is; leave --size, --std out"],
    );

    // A crop larger than the image.
    let eval = ["eval", &run.path, "--resize", "7"];
    refused(&eval, &["resized to 7, less than the input's 8x8", "padded with black"]);
    refused(&["eval", &run.path, "--std", "0"], &["--std"]);
    refused(&["eval", &run.path, "--mean", "0.5,0.5,0.5"], &["--mean"]);

    refused(&["bench", "infer", "--arch", "resnet20", "--cache-mb", "1"], &["--cache-mb"]);
    let train = ["bench", "train", "--arch", "resnet20", "--data", "sample", "--workers", "1"];
    refused(&train, &["leave --data, --workers out"]);
    let loader =
        ["bench", "loader", "--block", "dbb", "--batch", "2", "--res", "8", "--steps", "1"];
    dbb(&loader).succeeds().says(&["note: the loader is measured without a network; --block"]);
    dbb(&["bench", "infer", "--arch", "resnet20", "--res", "0"]).fails(2, &["--res"]);
    dbb(&["summary", "--arch", "resnet20", "--res", "0"]).fails(2, &["--res"]);
    dbb(&["eval", &run.path, "--size", "0"]).fails(2, &["--size"]);
    assert!(!exists(&out));
}

#[test]
fn groups_of_no_block_are_refused() {
    let folder = Folder::new();
    let out = folder.at("out.safetensors");
    let fixture = format!("{REPOSITORY}/tests/fixtures/resnet18_dbb_w0125.pth");
    let reparam = ["reparam", &fixture, "--out", &out];
    let groups =
        |pattern| [&reparam[..], &["--groups", "stage1.*=1", "--groups", pattern]].concat();
    dbb(&groups("neck.*=2")).fails(1, &["neck.*", "no block has such a name", "stage1.0.conv1"]);
    assert!(!exists(&out));
    dbb(&groups("stage2.0.conv1=1")).succeeds();
    // There is none left.
    let again = folder.at("again.safetensors");
    let folded = ["reparam", &out, "--out", &again, "--groups", "stage1.*=1"];
    dbb(&folded).fails(1, &["stage1.*", "no block to fold"]);
}

#[test]
fn a_name_that_promises_another_format_is_refused() {
    let run = Run::new(QUICK_DBB, &[]);
    for (command, name, parts) in [
        (&["reparam"][..], "x.onnx", ["this command writes safetensors", "export --format onnx"]),
        (&["reparam"], "x.BPK", ["this command writes safetensors", "export --format burnpack"]),
        (&["reparam"], "x.pth", ["this command writes safetensors", "PyTorch loads safetensors"]),
        (
            &["recalibrate"],
            "x.bpk",
            ["this command writes safetensors", "export --format burnpack"],
        ),
        (
            &["export", "--format", "onnx"],
            "x.safetensors",
            ["this command writes onnx", "export --format safetensors"],
        ),
        (&["export", "--format", "safetensors"], "x.pt", ["writes safetensors", "PyTorch"]),
        (&["export", "--format", "burnpack"], "x.onnx", ["writes burnpack", "--format onnx"]),
        (&["export", "--format", "timm"], "x.onnx", ["writes timm", "--format onnx"]),
    ] {
        let out = run.folder.at(name);
        let args = [&command[..1], &[&*run.path], &command[1..], &["--out", &out]].concat();
        dbb(&args).fails(1, &[&[&*out], &parts[..]].concat());
        assert!(!exists(&out));
    }
}

#[test]
fn keys_without_effect_are_refused() {
    for (key, fault) in [
        ("schedule.milestones=[1]", "no effect without schedule.kind = \"step\""),
        ("schedule.gamma=0.5", "no effect without schedule.kind = \"step\""),
        ("augment.rrc_scale=[0.5, 1]", "no effect without augment.random_resized_crop = true"),
        ("augment.rrc_ratio=[0.5, 1]", "no effect without augment.random_resized_crop = true"),
        ("augment.num_ops=3", "no effect without augment.policy = \"randaugment\""),
        ("augment.magnitude=3", "no effect without augment.policy = \"randaugment\""),
        ("train.rollback_lr=0.1", "no effect without train.rollbacks above 0"),
        ("data.max_bad_samples=3", "no effect without data.on_bad_sample = \"skip\""),
        ("model.dbb.max_kernel=1", "1 leaves no layer a block; expected at least 3"),
    ] {
        let (name, _) = key.split_once('=').expect("a key");
        let place = format!("error: --set {name}: ");
        dbb(&["config", "check", QUICK_DBB, "--set", key]).fails(1, &[&place, fault]);
    }
    let check = |keys: &[&str], fault: &str| {
        dbb(&[&["config", "check", QUICK_DBB][..], &set(keys)].concat()).fails(1, &[fault]);
    };
    check(&["schedule.kind=step", "schedule.min_lr=0.001"], "schedule.kind = \"cosine\"");
    check(&["optim.kind=adamw", "optim.nesterov=true"], "optim.kind = \"sgd\"");
    check(&["optim.kind=adamw", "optim.momentum=0.5"], "optim.momentum: it has no effect");
    check(&["optim.momentum=0", "optim.nesterov=true"], "optim.momentum above 0");
    let used = ["schedule.kind=step", "schedule.milestones=[1]", "schedule.gamma=0.5"];
    dbb(&[&["config", "check", QUICK_DBB][..], &set(&used)].concat()).succeeds();

    // A run that was trained with such a key is evaluated all the same.
    let run = Run::new(QUICK_DBB, &[]);
    let config = run.file("config.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    assert!(text.contains("gamma = 0.1"), "{text}");
    fs::write(&config, text.replace("gamma = 0.1", "gamma = 0.5")).expect("a configuration");
    let place = format!("{config}:");
    dbb(&["config", "check", &config]).fails(1, &[&place, "schedule.gamma: it has no effect"]);
    dbb(&["eval", &run.path]).succeeds();
}
