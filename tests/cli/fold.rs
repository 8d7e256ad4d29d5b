//! `dbb reparam` and `dbb export`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::calls::*;
use crate::setup::*;
use crate::stored::*;
use crate::support::{Array, assert_close};

const FOLD_KEYS: [&str; 8] = [
    "blocks_folded",
    "params_train",
    "params_deploy",
    "max_abs_diff",
    "max_rel_diff",
    "top1_agreement",
    "compared_on",
    "out",
];

#[test]
fn reparam_folds_every_block_and_reports_it() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.at("new/deploy.safetensors");
    let report = json(&["reparam", &run.path, "--out", &out]);
    assert_eq!(keys(&report), FOLD_KEYS);
    assert_eq!(report["out"], Value::from(&*out));
    // The stem and two blocks in each of nine residual blocks.
    assert_eq!(number(&report, "blocks_folded"), 19.0);
    let summary = json(&["summary", "--arch", "resnet20", "--width", "0.25", "--channels", "1"]);
    for key in ["params_train", "params_deploy"] {
        assert_eq!(report[key], summary[key]);
    }
    assert_eq!(number(&report, "top1_agreement"), 100.0);
    assert!(number(&report, "max_abs_diff") > 0.0, "{report}");
    assert!(number(&report, "max_rel_diff") <= 1e-4, "{report}");
    let on = report["compared_on"].as_str().expect("text");
    assert!(on.contains("sample (val)") && on.contains("40 images"), "{on}");

    // Nineteen kernels with biases and the classifier; nothing of a norm.
    let folded = tensors(&out);
    let layers: BTreeSet<_> =
        folded.keys().map(|name| name.rsplit_once('.').expect("a dot").0).collect();
    assert_eq!((folded.len(), layers.len()), (40, 20), "{layers:?}");
    for name in folded.keys() {
        let role = name.rsplit('.').next();
        assert!(matches!(role, Some("weight" | "bias")), "{name}");
        assert!(!name.contains("bn") && !name.contains("running"), "{name}");
    }
    let values: usize = folded.values().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    assert_eq!(values as f64, number(&report, "params_deploy"));
    assert_eq!(shapes(&out)["stem.weight"], [4, 1, 3, 3]);
    // The file of the training holds the same.
    assert!(folded == tensors(&run.deploy_weights()));

    let file = json(&["eval", &out, "--data", "sample"]);
    let network = json(&["eval", &run.path, "--data", "sample"]);
    assert_eq!((&file["form"], &file["top1"]), (&"deploy".into(), &network["top1"]));

    let text = dbb(&["reparam", &run.path, "--out", &out]).succeeds();
    assert!(text.stdout.starts_with("19 blocks folded: 41181 parameters became 17082"));
}

#[test]
fn folding_a_folded_network_changes_no_bit() {
    let run = Run::new(QUICK_DBB, &[]);
    let again = run.folder.at("again.safetensors");
    let report = json(&["reparam", &run.deploy_weights(), "--out", &again]);
    assert_eq!((number(&report, "blocks_folded"), number(&report, "max_abs_diff")), (0.0, 0.0));
    assert_eq!(report["params_train"], report["params_deploy"]);
    assert_eq!(report["compared_on"], "seeded random input (32 images)");
    assert!(tensors(&again) == tensors(&run.deploy_weights()));
}

#[test]
fn a_plain_network_folds_its_norms_and_counts_no_block() {
    let run = Run::new(QUICK_BASE, &[]);
    let out = run.folder.at("deploy.safetensors");
    let report = json(&["reparam", &run.path, "--data", "sample", "--out", &out]);
    assert_eq!(number(&report, "blocks_folded"), 0.0);
    // A scale and a shift per channel became one bias.
    let channels = 7.0 * (4.0 + 8.0 + 16.0) - (8.0 + 16.0);
    let saved = number(&report, "params_train") - number(&report, "params_deploy");
    assert_eq!(saved, channels, "{report}");
    let on = report["compared_on"].as_str().expect("text");
    assert!(on.contains("2000 images"), "{on}");
    assert_eq!(tensors(&out).len(), 40);
}

#[test]
fn a_training_form_survives_its_export() {
    let run = Run::new(QUICK_DBB, &[]);
    let (file, folded) = (run.folder.at("train.safetensors"), run.folder.at("deploy.safetensors"));
    let export = ["export", &run.path, "--format", "safetensors", "--form", "train"];
    let report = json(&[&export[..], &["--out", &file]].concat());
    assert_eq!(keys(&report), FOLD_KEYS);
    assert_eq!(number(&report, "blocks_folded"), 0.0);
    assert_eq!(number(&report, "params_train"), 41181.0);
    // Nothing is claimed of what was not compared.
    for key in ["max_abs_diff", "max_rel_diff", "top1_agreement", "compared_on"] {
        assert!(report[key].is_null(), "{report}");
    }
    let text = dbb(&[&export[..], &["--out", &file]].concat()).succeeds().stdout;
    assert!(text.contains("nothing was folded and nothing compared"), "{text}");
    assert!(!text.contains("difference") && !text.contains('%'), "{text}");
    let running = tensors(&file).keys().filter(|name| name.contains("running_")).count();
    assert_eq!(running, 19 * 6 * 2, "six norms in every block");

    let args = ["--data", "sample"];
    let own = json(&[&["eval", &run.path], &args[..]].concat());
    assert_eq!(json(&[&["eval", &file], &args[..]].concat()), own);
    assert_eq!(own["form"], "train");

    json(&["export", &file, "--format", "safetensors", "--out", &folded]);
    assert!(tensors(&folded) == tensors(&run.deploy_weights()));
    dbb(&["export", &folded, "--format", "safetensors", "--form", "train", "--out", &file])
        .fails(1, &[&folded, "folded already"]);
}

#[test]
fn burnpack_holds_the_same_network() {
    let run = Run::new(QUICK_DBB, &[]);
    let own = json(&["eval", &run.path, "--data", "sample", "--deploy"]);
    for (form, name) in [("deploy", "deploy.bpk"), ("train", "train.bpk")] {
        let file = run.folder.at(name);
        let export = ["export", &run.path, "--format", "burnpack", "--form", form];
        let report = json(&[&export[..], &["--out", &file]].concat());
        assert_eq!(keys(&report), FOLD_KEYS);
        let stored = json(&["eval", &file, "--data", "sample"]);
        assert_eq!(stored["form"], form);
        assert_eq!(stored["top1"], own["top1"], "{form}");

        let back = run.folder.at("back.safetensors");
        json(&["reparam", &file, "--out", &back]);
        assert!(tensors(&back) == tensors(&run.deploy_weights()), "{form}");
    }
    let out = run.folder.at("official.bpk");
    let export = ["export", &run.path, "--format", "burnpack", "--keys", "official"];
    dbb(&[&export[..], &["--out", &out]].concat()).fails(1, &["burnpack", "native names"]);
    assert!(!exists(&out));
}

#[test]
fn onnx_holds_the_folded_network() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.at("network.onnx");
    let export = ["export", &run.path, "--format", "onnx", "--out", &out];
    assert_eq!(keys(&json(&export)), FOLD_KEYS);
    let plain = fs::read(&out).expect("the file");
    json(&[&export[..], &["--with-preprocess"]].concat());
    let pixels = fs::read(&out).expect("the file");
    assert!(pixels.len() > plain.len(), "the graph does not normalise");

    let out = run.folder.at("refused.onnx");
    let export = ["export", &run.path, "--out", &out, "--format"];
    let refused =
        |more: &[&str], parts: &[&str]| dbb(&[&export[..], more].concat()).fails(1, parts);
    refused(&["onnx", "--form", "train"], &["folded", "--form"]);
    refused(&["onnx", "--keys", "official"], &["native names", "--keys"]);
    refused(&["burnpack", "--with-preprocess"], &["--format onnx"]);
    assert!(!exists(&out));
}

#[test]
fn mobilenet_v1_has_official_names() {
    let mut expected = BTreeMap::new();
    let mut channels = 8;
    let mut conv = |name: String, shape: [usize; 4]| {
        expected.insert(format!("{name}.bias"), vec![shape[0]]);
        expected.insert(format!("{name}.weight"), shape.to_vec());
    };
    conv("conv1.dbb_reparam".into(), [channels, 1, 3, 3]);
    for (index, outputs) in
        [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024].into_iter().enumerate()
    {
        let outputs = outputs / 4;
        conv(format!("stem.{index}.depthwise.dbb_reparam"), [channels, 1, 3, 3]);
        conv(format!("stem.{index}.pointwise.conv"), [outputs, channels, 1, 1]);
        channels = outputs;
    }
    expected.insert("linear.bias".into(), vec![10]);
    expected.insert("linear.weight".into(), vec![10, 256]);

    let run = Run::new(QUICK_DBB, &["model.arch=mobilenet_v1"]);
    let (official, native) = (run.folder.at("official.safetensors"), run.deploy_weights());
    let report = json(&["reparam", &run.path, "--keys", "official", "--out", &official]);
    assert_eq!(number(&report, "blocks_folded"), 14.0);
    assert_eq!(shapes(&official), expected);
    assert_eq!(shapes(&native)["linear.weight"], [256, 10], "Burn's own layout");
    same_accuracy(&official, &native);

    let trained = run.folder.at("train.safetensors");
    let export = ["export", &run.path, "--format", "safetensors", "--form", "train"];
    json(&[&export[..], &["--keys", "official", "--out", &trained]].concat());
    let trained = shapes(&trained);
    for (name, shape) in [
        ("conv1.dbb_origin.conv.weight", &[8, 1, 3, 3][..]),
        ("conv1.dbb_1x1.bn.running_mean", &[8]),
        ("conv1.dbb_avg.bn.bn.weight", &[8]),
        ("conv1.dbb_1x1_kxk.idconv1.weight", &[1, 1, 1, 1]),
        ("stem.0.depthwise.dbb_origin.bn.weight", &[8]),
        ("stem.0.depthwise.dbb_1x1_kxk.conv1.weight", &[16, 1, 1, 1]),
        ("stem.0.depthwise.dbb_1x1_kxk.bn1.bn.running_var", &[16]),
        ("stem.0.depthwise.dbb_1x1_kxk.conv2.weight", &[8, 2, 3, 3]),
        ("stem.0.depthwise.dbb_avg.avgbn.bias", &[8]),
        ("stem.0.pointwise.conv.weight", &[16, 8, 1, 1]),
        ("stem.0.pointwise.bn.running_var", &[16]),
        ("linear.weight", &[10, 256]),
    ] {
        assert_eq!(trained.get(name).map(Vec::as_slice), Some(shape), "{name}");
    }
    let absent = |name: &&String| name.starts_with("stem.0.depthwise.dbb_1x1.");
    assert_eq!(trained.keys().find(absent), None, "a depthwise block has no 1x1 branch");
}

#[test]
fn resnet18_has_official_names() {
    let run = Run::new(QUICK_DBB, &["model.arch=resnet18", "model.width=0.125"]);
    let (official, native) = (run.folder.at("official.safetensors"), run.deploy_weights());
    let report = json(&["reparam", &run.path, "--keys", "official", "--out", &official]);
    assert_eq!(number(&report, "blocks_folded"), 16.0);
    let shapes = shapes(&official);
    for (name, shape) in [
        ("stage0.conv1.conv.weight", &[8, 1, 7, 7][..]),
        ("stage0.conv1.conv.bias", &[8]),
        ("stage1.0.conv1.dbb_reparam.weight", &[8, 8, 3, 3]),
        ("stage1.0.conv1.dbb_reparam.bias", &[8]),
        ("stage2.0.shortcut.conv.weight", &[16, 8, 1, 1]),
        ("stage4.1.conv2.dbb_reparam.weight", &[64, 64, 3, 3]),
        ("linear.weight", &[10, 64]),
        ("linear.bias", &[10]),
    ] {
        assert_eq!(shapes.get(name).map(Vec::as_slice), Some(shape), "{name}");
    }
    // Stem, sixteen convolutions, three shortcuts and the classifier.
    assert_eq!(shapes.len(), 2 * 21);
    same_accuracy(&official, &native);
}

/// Two files hold the same network.
fn same_accuracy(a: &str, b: &str) {
    let (a, b) = (json(&["eval", a, "--data", "sample"]), json(&["eval", b, "--data", "sample"]));
    assert_eq!(a, b);
}

#[test]
fn a_fold_that_is_wrong_is_refused_and_writes_nothing() {
    let run = Run::new(QUICK_DBB, &[]);
    let (file, out) = (run.folder.at("train.safetensors"), run.folder.at("out"));
    let export = ["export", &run.path, "--format", "safetensors", "--form", "train"];
    json(&[&export[..], &["--out", &file]].concat());
    let mut spoilt = tensors(&file);
    let name = spoilt.keys().find(|name| name.ends_with("running_var")).expect("a norm").clone();
    let variance = spoilt.get_mut(&name).expect("the norm");
    // Finite, but no variance: the norm makes NaN of its channel.
    variance.bytes[..4].copy_from_slice(&(-1.0f32).to_le_bytes());
    let mut table = table(&file);
    write_tensors(&file, &spoilt, Some(table.clone()));
    dbb(&["reparam", &file, "--out", &out]).fails(1, &[&file, "SHA-256", "bytes have changed"]);
    // Whoever changes weights on purpose takes the digest away.
    table.remove("dbb_zoo_sha256").expect("a digest");
    write_tensors(&file, &spoilt, Some(table));

    let commands = [&["reparam", &file][..], &["export", &file, "--format", "burnpack"]];
    for command in commands {
        let args = [command, &["--allow-nonfinite", "--out", &out, "--json"]].concat();
        dbb(&args).fails(3, &["folded network differs", "NaN", "nothing was written"]);
        assert!(!exists(&out));
        // What was there before stays.
        fs::write(&out, "old").expect("a file");
        dbb(&args).fails(3, &["nothing was written"]);
        assert_eq!(fs::read_to_string(&out).expect("a file"), "old");
        fs::remove_file(&out).expect("a file");
    }
}

/// The values of a stored tensor of 32-bit floats.
fn array(tensor: &Stored) -> Array {
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let values = tensor.bytes.chunks_exact(4).map(|bytes| f64::from(value(bytes)));
    Array::new(&tensor.shape, values.collect())
}

/// A checkpoint of the paper's code, without a word on what network it holds.
#[test]
fn blocks_of_an_unknown_network_fold_one_by_one() {
    let folder = Folder::new();
    let out = folder.at("folded.safetensors");
    let fixture = format!("{REPOSITORY}/tests/fixtures/resnet18_dbb_w0125");
    let report = json(&["reparam", &format!("{fixture}.pth"), "--out", &out]);
    assert_eq!(keys(&report)[..8], FOLD_KEYS);
    assert_eq!(number(&report, "blocks_folded"), 16.0);
    assert!(number(&report, "max_rel_diff") <= 1e-5, "{report}");
    let (folded, fixture_tensors) = (tensors(&out), tensors(&format!("{fixture}.safetensors")));
    let mut kernels = 0;
    for (name, tensor) in &folded {
        // Blocks are what the paper's code folds them into; the rest is as it was.
        if name.contains("dbb_reparam") {
            let expected = array(&fixture_tensors[&format!("deploy.{name}")]);
            assert_close(name, &array(tensor), &expected, 2e-5, 0.0);
            kernels += usize::from(name.ends_with("weight"));
        } else {
            assert!(tensor == &fixture_tensors[name], "{name}");
        }
    }
    assert_eq!(kernels, 16);

    let text = dbb(&["reparam", &format!("{fixture}.pth"), "--out", &out]).succeeds().stdout;
    let line = "stage1.0.conv1: dbb 3x3, 8 to 8 channels, 1 group, difference";
    assert!(text.contains(line) && text.contains("16 blocks folded"), "{text}");
    // Folded already: nothing to do.
    let again = folder.at("again.safetensors");
    assert_eq!(number(&json(&["reparam", &out, "--out", &again]), "blocks_folded"), 0.0);
    assert!(tensors(&again) == folded);

    let other = folder.at("other.safetensors");
    let plain: BTreeMap<_, _> =
        folded.into_iter().filter(|(name, _)| name.starts_with("linear")).collect();
    write_tensors(&other, &plain, None);
    let refused = |extra: &[&str], parts: &[&str]| {
        dbb(&[&["reparam", &other, "--out", &again][..], extra].concat()).fails(1, parts);
    };
    refused(&[], &[&other, "no block under the names", "--arch"]);
    refused(&["--keys", "torchvision"], &[&other, "to use --keys, give --arch"]);
    refused(&["--data", "sample", "--mean", "0.5"], &["to use --data, --mean, give --arch"]);
    refused(&["--classes", "10"], &[&other, "--arch is missing"]);
    dbb(&["reparam", &other, "--out", &again, "--groups", "neck"]).fails(2, &["neck.*=2"]);
}
