//! `dbb inspect`.

use std::fs;

use dbb_models::weights::StateDict;
use serde_json::Value;

use crate::calls::*;
use crate::setup::*;
use crate::stored::*;
use crate::support::fixture::{self, Fixture};

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().expect("an array")
}

/// A run, its weights under the official names without metadata, and the same with --arch.
#[test]
fn inspect_shows_the_branches_of_a_run_and_of_its_official_weights() {
    let run = Run::new(QUICK_DBB, &["model.arch=mobilenet_v1"]);
    let page = run.folder.at("branches.html");
    let report = json(&["inspect", &run.path, "--out", &page]);
    assert_eq!(keys(&report), ["file", "network", "layers", "windows", "out"]);
    assert_eq!(report["network"], "mobilenet_v1 with dbb blocks");
    let layers = array(&report["layers"]);
    assert_eq!(layers.len(), 14, "the 3x3 convolutions of MobileNetV1");
    let fields =
        ["name", "block", "kernel", "magnitude", "branches", "amplification", "fold_difference"];
    for layer in layers {
        assert_eq!(keys(layer), fields);
        let sum = |key| array(&layer["branches"]).iter().map(|b| number(b, key)).sum::<f64>();
        assert!(close(sum("share"), 1.0, 1e-9) && close(sum("projection"), 1.0, 1e-9), "{layer}");
        assert!(number(&layer["amplification"], "median") >= 1.0);
        assert!(number(layer, "fold_difference") < 1e-4, "{layer}");
    }
    let branches = |layer: &Value| -> Vec<String> {
        let names = array(&layer["branches"]).iter().map(|b| b["name"].as_str().expect("a name"));
        names.map(String::from).collect()
    };
    assert_eq!(branches(&layers[0]), ["kxk", "1x1", "1x1_kxk", "1x1_avg"]);
    assert_eq!(branches(&layers[1]), ["kxk", "1x1_kxk", "avg"], "depthwise");
    let [window] = &array(&report["windows"])[..] else { panic!("one kernel size") };
    assert_eq!((&window["kernel"], &window["layers"]), (&[3, 3].into(), &14.into()));

    let html = fs::read_to_string(&page).expect("the page");
    for part in ["<h1>Branches of mobilenet_v1 with dbb blocks</h1>", "1x1_kxk", "role=\"img\""] {
        assert!(html.contains(part), "no {part:?}");
    }

    let official = run.folder.at("official.safetensors");
    let export = ["export", &run.path, "--form", "train", "--keys", "official"];
    json(&[&export[..], &["--format", "safetensors", "--out", &official]].concat());
    let foreign = run.folder.at("foreign.safetensors");
    write_tensors(&foreign, &tensors(&official), None);
    let flags = "--arch mobilenet_v1 --block dbb --width 0.25 --classes 10 --channels 1";
    let flags: Vec<_> = flags.split(' ').collect();
    let named = json(&[&["inspect", &foreign][..], &flags].concat());
    assert_eq!(named["layers"], report["layers"]);
    let blocks = json(&["inspect", &foreign]);
    assert_eq!((&blocks["network"], array(&blocks["layers"]).len()), (&Value::Null, 14));
    // The shapes do not say how a block moves over its map, which is all that its difference depends
    // on besides.
    let without_names = |report: &Value| -> Vec<Value> {
        let mut layers = array(&report["layers"]).clone();
        for layer in &mut layers {
            let object = layer.as_object_mut().expect("an object");
            object.retain(|key, _| !["name", "fold_difference"].contains(&key.as_str()));
        }
        layers
    };
    assert_eq!(without_names(&blocks), without_names(&report), "in the same order");

    let text = dbb(&["inspect", &run.path]).succeeds().stdout;
    assert!(text.contains("mean over the layers") && text.contains("mean of 14 layers"), "{text}");
}

#[test]
fn inspect_reads_files_of_other_networks() {
    for name in ["resnet18_dbb_w0125.pth", "mobilenet_dbb_w0125_legacy.pth"] {
        let path = fixture::folder().join(name);
        let report = json(&["inspect", path.to_str().expect("a path")]);
        let kinds: Vec<_> = array(&report["layers"]).iter().map(|l| &l["block"]).collect();
        assert!(kinds.len() > 10 && kinds.iter().all(|kind| *kind == "dbb"), "{name}: {kinds:?}");
    }
    // One block by itself, with groups that its names do not say.
    let folder = Folder::new();
    let state = |name: &str| Fixture::read(&fixture::folder().join(name)).state();
    let path = folder.at("block.safetensors");
    let write = |state: &StateDict| {
        dbb_models::weights::write_foreign(path.as_ref(), state).expect("written")
    };
    write(&state("acb_k5_s1_g1_4to4.safetensors"));
    let report = json(&["inspect", &path, "--groups", "*=1"]);
    let branches = array(&report["layers"][0]["branches"]);
    let names: Vec<_> = branches.iter().map(|branch| &branch["name"]).collect();
    assert_eq!(names, ["kxk", "kx1", "1xk"]);
    // A strip has nothing but its middle row or column.
    let vertical = array(&branches[1]["magnitude"]);
    for row in vertical {
        let row: Vec<f64> =
            array(row).iter().map(|value| value.as_f64().expect("a number")).collect();
        assert!(row[2] > 0.0 && [0, 1, 3, 4].iter().all(|&column| row[column] == 0.0), "{row:?}");
    }
}

#[test]
fn inspect_of_plain_and_folded_networks_shows_their_kernels() {
    let run = Run::new(QUICK_BASE, &[]);
    for target in [&run.path, &run.deploy_weights()] {
        let page = run.folder.at("page.html");
        let report = json(&["inspect", target, "--out", &page]);
        assert_eq!(array(&report["layers"]).len(), 19);
        for layer in array(&report["layers"]) {
            let [branch] = &array(&layer["branches"])[..] else { panic!("one branch: {layer}") };
            assert_eq!(branch["magnitude"], layer["magnitude"]);
            assert_eq!(number(&layer["amplification"], "max"), 1.0);
        }
        assert!(!fs::read_to_string(&page).expect("a page").contains("Share of each branch"));
    }
}

#[test]
fn inspect_refuses_what_it_cannot_use() {
    let run = Run::new(QUICK_DBB, &[]);
    let file = run.file("report.html");
    dbb(&["inspect", &run.path, "--out", &file]).fails(1, &[&file, "belongs to the run"]);
    let out = run.folder.at("page.json");
    dbb(&["inspect", &run.path, "--out", &out]).fails(1, &[&out, "does not end in .html"]);
    let out = run.folder.at("folder.html");
    fs::create_dir(&out).expect("a folder");
    dbb(&["inspect", &run.path, "--out", &out]).fails(1, &["cannot write", &out]);
    dbb(&["inspect", &run.path, "--size", "32"]).fails(1, &["no image is read", "--size"]);
    dbb(&["inspect", &run.path, "--groups", "*=2"]).fails(1, &["--groups", "unknown networks"]);
    dbb(&["inspect", &run.folder.at("nothing")]).fails(1, &["does not exist"]);
    dbb(&["inspect", QUICK_DBB]).fails(1, &["a configuration, not a weights file"]);

    let folded = run.folder.at("folded.safetensors");
    let path = fixture::folder().join("resnet18_dbb_w0125.pth");
    let unfolded = path.to_str().expect("a path");
    json(&["reparam", unfolded, "--out", &folded]);
    dbb(&["inspect", &folded]).fails(1, &[&folded, "are folded; their branches are gone"]);
    let plain = run.folder.at("plain.safetensors");
    let mut others = tensors(&folded);
    others.retain(|key, _| !key.contains("reparam"));
    write_tensors(&plain, &others, None);
    dbb(&["inspect", &plain]).fails(1, &[&plain, "hint", "--arch"]);
}
