//! `dbb lr-find`.

use std::fs;

use serde_json::Value;

use crate::calls::*;
use crate::setup::*;

fn find(keys: &[&str], args: &[&str]) -> Call {
    let tiny = set(&[&TINY[..], keys].concat());
    dbb(&[&["lr-find", QUICK_DBB, "--steps", "20", "--json"], &tiny[..], args].concat())
}

fn points(curve: &Value) -> &Vec<Value> {
    curve["points"].as_array().expect("points")
}

#[test]
fn lr_find_tests_every_block_and_leaves_no_run() {
    let folder = Folder::new();
    let page = folder.at("rates.html");
    let args = ["--blocks", "base,dbb", "--from", "0.0001", "--to", "1", "--out", &page];
    let first = find(&[], &args).succeeds();
    let report = first.json();
    assert_eq!(keys(&report), ["config", "lr", "from", "to", "steps", "curves", "out"]);
    assert_eq!(number(&report, "lr"), 0.01);
    let curves = report["curves"].as_array().expect("curves");
    let blocks: Vec<_> = curves.iter().map(|curve| &curve["block"]).collect();
    assert_eq!(blocks, ["base", "dbb"]);
    for curve in curves {
        // 20 steps from 1e-4 to 1: more than an epoch of 10.
        for (i, point) in points(curve).iter().enumerate() {
            let lr = 1e-4 * 10f64.powf(4.0 * i as f64 / 19.0);
            assert!((number(point, "lr") / lr - 1.0).abs() < 1e-9, "{point}");
            assert!(number(point, "loss") > 0.0 && number(point, "grad_norm") > 0.0, "{point}");
        }
        assert!(points(curve).len() > 10);
        assert!(curve["why"].as_str().expect("a reason").contains("loss"));
    }
    assert_eq!(find(&[], &args).succeeds().json(), report, "equal to the bit");
    let html = fs::read_to_string(&page).expect("a page");
    assert!(html.contains("Learning rates for resnet20-dbb") && html.contains("role=\"img\""));
    let left: Vec<_> = fs::read_dir(folder.0.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "the page alone: {left:?}");
}

/// The first step is that of a run: the same network, images and loss.
#[test]
fn lr_find_begins_as_a_run_does() {
    let keys = ["data.limit_train=16", "schedule.warmup_epochs=0"];
    let found = find(&keys, &["--from", "0.01", "--to", "0.1"]).succeeds().json();
    let run = Run::new(QUICK_DBB, &keys);
    let loss = number(&points(&found["curves"][0])[0], "loss");
    assert!(close(loss, number(&run.result, "train_loss"), 1e-12), "{loss}: {}", run.result);
}

#[test]
fn lr_find_says_why_it_suggests_nothing() {
    // Too low a rate to learn anything: noise decides where the loss is lowest, unless it diverges.
    let found = find(&[], &["--from", "1e3", "--to", "1e9"]).succeeds().json();
    let curve = &found["curves"][0];
    assert_eq!((&curve["suggested"], &curve["diverged"]), (&Value::Null, &true.into()));
    assert!(points(curve).len() < 20, "{curve}");
}

#[test]
fn lr_find_refuses_what_it_cannot_use() {
    let folder = Folder::new();
    let rises = "cannot rise from 1 to 0.1";
    find(&[], &["--from", "1", "--to", "0.1"]).fails(1, &[rises, "the lower first"]);
    find(&[], &["--from", "0"]).fails(1, &["cannot rise from 0", "above 0"]);
    find(&[], &["--to", "NaN"]).fails(1, &["to NaN"]);
    dbb(&["lr-find", QUICK_DBB, "--steps", "3"]).fails(1, &["3 steps do not show a curve"]);
    find(&[], &["--blocks", "dbb,dbb"]).fails(1, &["names dbb twice"]);
    find(&["optim.lr=-1"], &[]).fails(1, &["--set optim.lr"]);
    dbb(&["lr-find", &folder.at("nothing.toml")]).fails(1, &["nothing.toml"]);
    let out = folder.at("rates.svg");
    find(&[], &["--out", &out]).fails(1, &[&out, "does not end in .html"]);
    let run = Run::new(QUICK_DBB, &[]);
    find(&[], &["--out", &run.file("report.html")]).fails(1, &["belongs to the run"]);
    dbb(&["lr-find", QUICK_DBB, "--blocks", "nonsense"]).fails(2, &["nonsense"]);
}
