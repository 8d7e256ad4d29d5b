//! `dbb config`, the committed schema and the recipes.

use std::fs;

use dbb_training::config::Config;
use proptest::prelude::*;

use crate::calls::*;
use crate::setup::*;

const REAL: &str = include_str!("../../configs/imagenette/resnet18-dbb-modern.toml");

#[test]
fn config_show_prints_a_config() {
    let folder = Folder::new();
    for config in [QUICK_BASE, QUICK_DBB] {
        let check = dbb(&["config", "check", config]).succeeds();
        assert_eq!(check.stdout.trim(), format!("{config} is valid"));
        let result = json(&["config", "check", config]);
        assert_eq!((&result["config"], &result["valid"]), (&config.into(), &true.into()));

        let overrides = set(&["optim.lr=0.05", "model.blocks.stage3.*=acb"]);
        let shown = dbb(&[&["config", "show", config][..], &overrides].concat()).succeeds().stdout;
        assert!(shown.contains("lr = 0.05") && shown.contains("\"stage3.*\" = \"acb\""), "{shown}");
        let file = folder.file("shown.toml", shown.as_bytes());
        assert_eq!(dbb(&["config", "show", &file]).succeeds().stdout, shown);
    }
    let sections = ["seed", "model", "data", "augment", "train", "optim", "schedule"];
    assert_eq!(keys(&json(&["config", "show", QUICK_DBB])), sections);
    let args = ["config", "check", QUICK_DBB, "--set", "model.blocks.stage9.*=base"];
    dbb(&args).fails(1, &["stage9.*", "matches no layer", "stage1.0.conv1"]);
}

#[test]
fn configuration_mistakes_have_a_line() {
    let folder = Folder::new();
    let out = folder.at("run");
    let text = "[model]\narch = \"resnet20\"\n[data]\nsource = \"sample\"\n\
                [train]\nepochs = 5\nbatch_size = 64\n[optim]\nlr = 0.1\n\
                [schedule]\nkind = \"cosine\"\n";
    for (right, wrong, key, says) in [
        ("epochs = 5", "epoch = 5", "train.epoch", "did you mean `epochs`?"),
        ("lr = 0.1", "lr = \"fast\"", "optim.lr", "expected a number"),
        ("batch_size = 64", "batch_size = 1", "train.batch_size", "expected at least 2"),
        ("arch = \"resnet20\"", "arch = \"resnet21\"", "model.arch", "`resnet20`"),
        ("kind = \"cosine\"", "kind = \"cosin\"", "schedule.kind", "did you mean `cosine`?"),
        ("source = \"sample\"", "source = \"png:x\"", "data.source", "no kind `png`"),
    ] {
        let file = folder.file("wrong.toml", text.replace(right, wrong).as_bytes());
        let line = text.lines().position(|line| line == right).expect("the line") + 1;
        let place = format!("{file}:{line}: {key}");
        dbb(&["train", &file, "--out", &out]).fails(1, &[&place, says]);
        dbb(&["config", "check", &file]).fails(1, &[&place, says]);
    }
    let file = folder.file("wrong.toml", b"seed = 1\n[train\n");
    dbb(&["config", "check", &file]).fails(1, &[&format!("{file}:2: not valid TOML")]);
    train(QUICK_DBB, &["optim.lrr=1"], &out).fails(1, &["--set optim.lrr", "did you mean `lr`?"]);
    train(QUICK_DBB, &["optim.lr"], &out).fails(1, &["--set optim.lr", "KEY=VALUE"]);
    train(QUICK_DBB, &["optim.lr=-1"], &out).fails(1, &["--set optim.lr", "above 0"]);
    train(QUICK_DBB, &["augment.mixup=-1"], &out).fails(1, &["--set augment.mixup", "0 to 100"]);
    let wrong = "model.num_classes=7";
    train(QUICK_DBB, &[wrong], &out).fails(1, &["model.num_classes is 7", "sample has 10 classes"]);
    assert!(!exists(&out));
}

/// Each was accepted by `config check` and refused by `train`, or named without its key.
#[test]
fn the_check_refuses_what_training_refuses() {
    let folder = Folder::new();
    for (key, place) in [
        ("model.dbb.branches=[]", "model.dbb.branches"),
        ("model.width=0.01", "model.width"),
        ("data.std=[0]", "data.std"),
        ("augment.pad_crop=1000", "augment.pad_crop"),
        ("data.size=100000", "data.size"),
        ("data.resize=8", "data.resize"),
        ("train.epochs=9223372036854775807", "train.epochs"),
        ("train.accumulate=0", "train.accumulate"),
    ] {
        let place = format!("--set {place}: ");
        let call = |command: &[&str]| dbb(&[command, &[QUICK_DBB, "--set", key]].concat());
        call(&["config", "check"]).fails(1, &[&place]);
        call(&["train"]).fails(1, &[&place]);
    }
    // What a network cannot take, before and after the data are known.
    let vgg = ["--set", "model.arch=vgg16-cifar"];
    let small = [&["config", "check", QUICK_DBB, "--set", "data.size=16"], &vgg[..]].concat();
    dbb(&small).fails(1, &["--set data.size: images of 16x16", "the smallest images are 32x32"]);
    let out = folder.at("small");
    dbb(&[&["train", QUICK_DBB, "--out", &out], &vgg[..]].concat())
        .fails(1, &["images of 14x14", "the smallest images are 32x32"]);
    assert!(!exists(&out));
    let empty = folder.file("empty.toml", b"# nothing\n");
    dbb(&["config", "check", &empty]).fails(1, &[&empty, "holds no key", "model.arch", "optim.lr"]);
}

/// `--set` of several lines, of a table that is none, of numbers beyond their type.
#[test]
fn overrides_are_blamed_for_their_own_faults() {
    for (key, says) in [
        ("train.epochs=3\noptim.lr = \"nonsense\"", "--set train.epochs: invalid type: string"),
        ("a.b.c.d=1", "--set a.b.c.d: unknown field `a`"),
        ("seed.x=1", "--set seed.x: invalid type: map, expected a whole number from 0"),
        ("model={}", "--set model: model.arch: the key is missing"),
        ("seed=-1", "expected a whole number from 0 to 9223372036854775807"),
        ("seed=9223372036854775808", "expected a whole number from 0 to 9223372036854775807"),
        ("data.source=2024", "expected a string; hint: put the value in quotes"),
        ("train.checkpoint_minutes=1e300", "expected above 0 and up to 525600, a year"),
        ("train.checkpoint_minutes=1e19", "--set train.checkpoint_minutes: "),
        ("train.max_minutes=0", "--set train.max_minutes: 0 is out of range; expected above 0"),
        ("train.patience=0", "--set train.patience: 0 is out of range; expected at least 1"),
        ("train.min_delta=100", "expected at least 0 and below 100, percentage points"),
        ("train.min_delta=0.5", "it has no effect without train.patience"),
        ("train.label_smoothing=1", "expected at least 0 and below 1"),
        ("model.dbb.internal_channels=1000000000000", "--set model.dbb.internal_channels: "),
        ("model.orepa.internal_channels=1000000000000", "--set model.orepa.internal_channels: "),
    ] {
        dbb(&["config", "check", QUICK_DBB, "--set", key]).fails(1, &[says]);
    }
    // The file's own faults stay where they are.
    let folder = Folder::new();
    let file = folder.file("wrong.toml", b"[model]\narch = \"resnet20\"\n[train]\nepochs = 1\n");
    dbb(&["config", "check", &file, "--set", "train.batch_size=8"])
        .fails(1, &[&file, "the section [optim] is missing"]);
}

#[test]
fn layer_patterns_hold_dots() {
    let keys = set(&["model.block=mobileone", "model.mobileone.layers.stage1.*=2"]);
    let config = json(&[&["config", "show", QUICK_DBB][..], &keys].concat());
    assert_eq!(config["model"]["mobileone"]["layers"]["stage1.*"], 2);
}

#[test]
fn numbers_keep_their_decimals() {
    let keys = set(&["augment.mixup=0.2", "data.mean=[0.1]", "data.std=[0.3]"]);
    let shown = dbb(&[&["config", "show", QUICK_DBB][..], &keys].concat()).succeeds().stdout;
    for part in ["rrc_scale = [0.08, 1.0]", "mixup = 0.2\n", "mean = [0.1]", "std = [0.3]"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
}

/// Editors read the committed schema; it is the program's.
#[test]
fn the_committed_schema_is_fresh() {
    let printed = dbb(&["config", "schema"]).succeeds();
    let committed = fs::read_to_string(format!("{REPOSITORY}/configs/schema.json"));
    assert_eq!(
        printed.stdout.trim_end(),
        committed.expect("a schema").trim_end(),
        "run `dbb config schema > configs/schema.json`"
    );
}

#[test]
fn every_recipe_is_valid() {
    let mut recipes = 0;
    let folders = fs::read_dir(format!("{REPOSITORY}/configs")).expect("recipes").flatten();
    // Studies name recipes; `study.rs` checks them.
    for folder in folders.filter(|folder| folder.file_name() != "studies") {
        let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        for file in files {
            let path = file.path();
            dbb(&["config", "check", path.to_str().expect("a name")]).succeeds();
            recipes += 1;
        }
    }
    assert!(recipes >= 10, "{recipes} recipes");
}

proptest! {
    /// A real file, cut and with bytes changed, is read or refused with a sentence.
    #[test]
    fn a_damaged_file_is_read_or_refused(
        kept in 0usize..=REAL.len(),
        changes in prop::collection::vec((0usize..REAL.len(), any::<u8>()), 0..12),
        value in "[ -~]{0,12}",
    ) {
        let mut bytes = REAL.as_bytes().to_vec();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes.truncate(kept);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        for overrides in [vec![], vec![format!("train.ema={value}")], vec![value.clone()]] {
            if let Err(error) = Config::load(file.path(), &overrides) {
                prop_assert!(error.to_string().len() > 10);
            }
        }
    }
}
