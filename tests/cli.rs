//! The program `dbb` as a user calls it: every command with its JSON, its files and its exit
//! code, and every mistake with a message that names it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
#[cfg(target_os = "linux")]
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

const DBB: &str = env!("CARGO_BIN_EXE_dbb");
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const QUICK_BASE: &str = "configs/quick/resnet20-base.toml";
const QUICK_DBB: &str = "configs/quick/resnet20-dbb.toml";

/// Small enough for half a second, and yet predictions differ from image to image.
const TINY: [&str; 7] = [
    "data.limit_train=160",
    "data.limit_val=40",
    "data.size=8",
    "model.width=0.25",
    "train.epochs=1",
    "train.batch_size=16",
    "optim.lr=0.01",
];

// ---- Calls, files and folders --------------------------------------------------------------

/// A call of the program and what came of it.
struct Call {
    text: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn call(command: &mut Command) -> Call {
    let output = command.output().expect("the program starts");
    Call {
        text: format!("{command:?}"),
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Calls the program in the root of the repository.
fn dbb(args: &[&str]) -> Call {
    call(Command::new(DBB).args(args).current_dir(REPOSITORY))
}

impl Call {
    fn all(&self) -> String {
        let Self { text, code, stdout, stderr } = self;
        format!("{text}\nexit code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }

    fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.all());
        self
    }

    /// The one JSON object on standard output.
    fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.all());
        let value: Value = serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.all()));
        assert!(value.is_object(), "{}", self.all());
        value
    }

    /// A failure with this exit code and a message that contains each of `parts`.
    fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.all());
        assert!(!self.stderr.contains("panicked"), "{}", self.all());
        assert!(self.stdout.is_empty(), "{}", self.all());
        let message = self.stderr.lines().any(|line| line.starts_with("error: "));
        assert!(message, "{}", self.all());
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?}\n{}", self.all());
        }
    }
}

/// Calls `dbb` and reads its JSON.
fn json(args: &[&str]) -> Value {
    dbb(&[args, &["--json"]].concat()).succeeds().json()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {object}"))
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

/// A temporary folder.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path of letters").to_string()
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.at(name);
        fs::create_dir_all(Path::new(&path).parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("a file");
        path
    }
}

/// Every file of a folder with its content.
fn snapshot(folder: impl AsRef<Path>) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        }
        files.insert(path.display().to_string(), fs::read(&path).unwrap_or_default());
    }
    files
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

/// `--set` before every key.
fn set<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    keys.iter().flat_map(|key| ["--set", key]).collect()
}

/// A tiny training with further keys, to `out`.
fn train(config: &str, keys: &[&str], out: &str) -> Call {
    dbb(&[&["train", config, "--out", out, "--json"], &set(&TINY)[..], &set(keys)].concat())
}

/// A run directory of a tiny training.
struct Run {
    folder: Folder,
    path: String,
    result: Value,
}

impl Run {
    fn new(config: &str, keys: &[&str]) -> Self {
        let folder = Folder::new();
        let path = folder.at("run");
        let result = train(config, keys, &path).succeeds().json();
        Self { folder, path, result }
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    fn deploy_weights(&self) -> String {
        self.file("export/deploy.safetensors")
    }

    fn network(&self) -> String {
        self.file("checkpoints/00001/network.bpk")
    }
}

/// A tensor of a safetensors file as it is stored.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// The tensors of a safetensors file.
fn tensors(path: &str) -> BTreeMap<String, Stored> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let stored = |view: TensorView| Stored {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.iter().map(|(name, view)| (name.to_string(), stored(view))).collect()
}

fn shapes(path: &str) -> BTreeMap<String, Vec<usize>> {
    tensors(path).into_iter().map(|(name, tensor)| (name, tensor.shape)).collect()
}

/// What a safetensors file says of itself.
fn table(path: &str) -> HashMap<String, String> {
    let bytes = fs::read(path).expect("a file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
    header.metadata().clone().unwrap_or_default()
}

fn write_tensors(
    path: &str,
    tensors: &BTreeMap<String, Stored>,
    table: Option<HashMap<String, String>>,
) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (name, view.expect("a tensor"))
    });
    fs::write(path, safetensors::serialize(views, table).expect("safetensors")).expect("a file");
}

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

// ---- train ---------------------------------------------------------------------------------

#[test]
fn train_prints_one_json_object_and_leaves_a_run_directory() {
    let folder = Folder::new();
    let out = folder.at("runs/first");
    let call = train(QUICK_DBB, &["train.epochs=2", "seed=7"], &out).succeeds();
    let result = call.json();
    let contract = [
        "run_dir",
        "epochs",
        "train_loss",
        "top1",
        "top5",
        "best_top1",
        "seconds",
        "images_per_second",
    ];
    assert_eq!(keys(&result), contract);
    assert_eq!((result["run_dir"].as_str(), number(&result, "epochs")), (Some(&*out), 2.0));
    for key in ["top1", "top5", "best_top1"] {
        assert!((0.0..=100.0).contains(&number(&result, key)), "{result}");
    }
    assert!(number(&result, "best_top1") >= number(&result, "top1"), "{result}");
    assert!(number(&result, "seconds") > 0.0 && number(&result, "images_per_second") > 0.0);
    for progress in ["41181 learnable parameters", "epoch 1/2", "epoch 2/2", "fold differs"] {
        assert!(call.stderr.contains(progress), "{}", call.all());
    }

    let names = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(format!("{out}/{path}")).expect("a folder");
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("text")).collect()
    };
    let files = [
        ".lock",
        "checkpoints",
        "config.toml",
        "env.json",
        "export",
        "metrics.jsonl",
        "report.html",
        "tensorboard",
    ];
    assert_eq!(names(""), files.map(String::from).into());
    assert!(names("checkpoints").contains("00002"), "{:?}", names("checkpoints"));
    let files = ["manifest.json", "network.bpk", "optimizer.bpk", "state.json"];
    assert_eq!(names("checkpoints/00002"), files.map(String::from).into());
    assert_eq!(names("export"), ["deploy.safetensors".to_string()].into());

    let metrics = fs::read_to_string(format!("{out}/metrics.jsonl")).expect("metrics");
    let records: Vec<Value> =
        metrics.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let epochs: Vec<_> = records.iter().map(|record| number(record, "epoch")).collect();
    assert_eq!(epochs, [1.0, 2.0], "{metrics}");
    for key in ["train_loss", "top1", "top5"] {
        assert_eq!(records[1][key], result[key], "{metrics}");
    }
    let env = fs::read_to_string(format!("{out}/env.json")).expect("env.json");
    let env: Value = serde_json::from_str(&env).expect("JSON");
    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    let top1 = format!("{:.2} %", number(&result, "top1"));
    let fingerprint = env["train_fingerprint"].as_str().expect("a fingerprint");
    for part in ["finished", "epoch 2 of 2", &top1, fingerprint, "41,181 in training"] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }

    // The configuration is resolved, holds the overrides, and is one again.
    let config = format!("{out}/config.toml");
    dbb(&["config", "check", &config]).succeeds();
    let config = json(&["config", "show", &config]);
    assert_eq!((number(&config, "seed"), number(&config["train"], "epochs")), (7.0, 2.0));
    let model = &config["model"];
    assert_eq!((number(model, "num_classes"), number(model, "in_channels")), (10.0, 1.0));
    assert_eq!((number(model, "width"), number(&config["data"], "limit_train")), (0.25, 160.0));
}

#[test]
fn a_new_run_leaves_an_existing_one_alone() {
    let run = Run::new(QUICK_BASE, &[]);
    let before = snapshot(&run.path);
    train(QUICK_DBB, &[], &run.path).fails(1, &[&run.path, "already holds a run", "--resume"]);
    assert!(before == snapshot(&run.path), "the run has changed");
}

#[test]
fn without_json_and_out_the_result_is_text_and_the_run_has_a_name() {
    let folder = Folder::new();
    let config = format!("{REPOSITORY}/{QUICK_BASE}");
    let args = [&["train", &config][..], &set(&TINY)].concat();
    let call = call(Command::new(DBB).args(args).current_dir(&folder.0)).succeeds();
    for part in ["top-1", "run directory: runs/resnet20-base-", "export/deploy.safetensors"] {
        assert!(call.stdout.contains(part), "no {part:?}\n{}", call.all());
    }
    assert!(!call.stdout.contains("epoch 1/1"), "{}", call.all());
    let runs: Vec<_> = fs::read_dir(folder.at("runs")).expect("runs").collect();
    assert_eq!(runs.len(), 1);
}

// ---- eval ----------------------------------------------------------------------------------

#[test]
fn eval_finds_the_accuracy_of_the_training_in_every_form() {
    let run = Run::new(QUICK_DBB, &[]);
    let result = json(&["eval", &run.path]);
    assert_eq!(keys(&result), ["n", "top1", "top5", "loss", "skipped", "form"]);
    assert_eq!((number(&result, "n"), number(&result, "skipped")), (40.0, 0.0));
    assert_eq!(result["form"], "train");

    // Training validates the folded network; so this is the same measurement.
    let folded = json(&["eval", &run.path, "--deploy"]);
    assert_eq!(folded["form"], "deploy");
    for key in ["top1", "top5"] {
        assert_eq!(folded[key], run.result[key], "{folded} against {}", run.result);
    }
    assert!(close(number(&folded, "loss"), number(&result, "loss"), 1e-4), "{folded} {result}");

    // All of the sample rather than the part that the run validated with.
    let all = json(&["eval", &run.path, "--deploy", "--data", "sample"]);
    assert_eq!(number(&all, "n"), 2000.0);
    for args in [&[][..], &["--deploy"]] {
        let weights = run.deploy_weights();
        let file = json(&[&["eval", &weights, "--data", "sample"], args].concat());
        assert_eq!(file["form"], "deploy");
        for key in ["n", "top1", "top5"] {
            assert_eq!(file[key], all[key], "{file} against {all}");
        }
    }

    for args in [["--checkpoint", "last"], ["--checkpoint", "best"], ["--checkpoint", "1"]] {
        assert_eq!(json(&[&["eval", &run.path], &args[..]].concat()), result, "{args:?}");
    }
    let train = json(&["eval", &run.path, "--split", "train", "--batch-size", "7"]);
    assert_eq!(number(&train, "n"), 160.0);
    let text = dbb(&["eval", &run.path]).succeeds();
    assert!(text.stdout.contains("resnet20 (train form) on sample (val)"), "{}", text.all());
}

#[test]
fn predictions_add_up_to_the_accuracy() {
    let run = Run::new(QUICK_DBB, &[]);
    let csv = run.folder.at("tables/predictions.csv");
    let result = json(&["eval", &run.path, "--predictions", &csv]);
    let text = fs::read_to_string(&csv).expect("predictions");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("index,label,prediction,probability"));
    let rows: Vec<Vec<f64>> = lines
        .map(|line| line.split(',').map(|field| field.parse().expect("a number")).collect())
        .collect();
    assert_eq!(rows.len() as f64, number(&result, "n"), "{text}");
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row[0], index as f64, "{text}");
        // The largest of ten probabilities.
        assert!(row[3] >= 0.1 && row[3] <= 1.0, "{text}");
    }
    for class in 0..10 {
        let images = rows.iter().filter(|row| row[1] == f64::from(class)).count();
        assert_eq!(images, 4, "class {class} of {text}");
    }
    let classes: BTreeSet<_> = rows.iter().map(|row| row[2] as usize).collect();
    assert!(classes.len() > 1, "every prediction is the same: {text}");
    let right = rows.iter().filter(|row| row[1] == row[2]).count();
    let top1 = 100.0 * right as f64 / rows.len() as f64;
    assert!(close(top1, number(&result, "top1"), 1e-12), "{top1} against {result}");
}

// ---- reparam and export --------------------------------------------------------------------

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
    let (file, out) = (run.folder.at("train.safetensors"), run.folder.at("out.safetensors"));
    let export = ["export", &run.path, "--format", "safetensors", "--form", "train"];
    json(&[&export[..], &["--out", &file]].concat());
    let mut spoilt = tensors(&file);
    let name = spoilt.keys().find(|name| name.ends_with("running_var")).expect("a norm").clone();
    let variance = spoilt.get_mut(&name).expect("the norm");
    variance.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut table = table(&file);
    write_tensors(&file, &spoilt, Some(table.clone()));
    dbb(&["reparam", &file, "--out", &out]).fails(1, &[&file, "SHA-256", "bytes have changed"]);
    // Whoever changes weights on purpose takes the digest away.
    table.remove("dbb_zoo_sha256").expect("a digest");
    write_tensors(&file, &spoilt, Some(table));

    let commands = [&["reparam", &file][..], &["export", &file, "--format", "burnpack"]];
    for command in commands {
        let args = [command, &["--out", &out, "--json"]].concat();
        dbb(&args).fails(3, &["folded network differs", "NaN", "nothing was written"]);
        assert!(!exists(&out));
        // What was there before stays.
        fs::write(&out, "old").expect("a file");
        dbb(&args).fails(3, &["nothing was written"]);
        assert_eq!(fs::read_to_string(&out).expect("a file"), "old");
        fs::remove_file(&out).expect("a file");
    }
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
    dbb(&eval).fails(1, &[&foreign, "does not say what network", "--arch is missing"]);
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
        // Blocks have the shapes the paper's code folds them into; the rest is as it was.
        if name.contains("dbb_reparam") {
            assert_eq!(tensor.shape, fixture_tensors[&format!("deploy.{name}")].shape, "{name}");
            kernels += usize::from(name.ends_with("weight"));
        } else {
            assert!(tensor == &fixture_tensors[name], "{name}");
        }
    }
    assert_eq!(kernels, 16);

    let text = dbb(&["reparam", &format!("{fixture}.pth"), "--out", &out]).succeeds().stdout;
    let line = "stage1.0.conv1: dbb 3x3, 8 to 8 channels, 1 groups, difference";
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
    refused(&["--keys", "torchvision"], &[&other, "--keys and --data need --arch"]);
    refused(&["--classes", "10"], &[&other, "--arch is missing"]);
    dbb(&["reparam", &other, "--out", &again, "--groups", "neck"]).fails(2, &["neck.*=2"]);
}

// ---- compare -------------------------------------------------------------------------------

#[test]
fn compare_pairs_blocks_by_seed() {
    let folder = Folder::new();
    let out = folder.at("comparison");
    let own = ["compare", QUICK_BASE, "--blocks", "base,dbb", "--seeds", "2", "--out", &out];
    let result = json(&[&own[..], &set(&TINY)].concat());
    assert_eq!(keys(&result), ["rows", "summary"]);
    let rows = result["rows"].as_array().expect("rows");
    let named: Vec<_> = rows
        .iter()
        .map(|row| (row["block"].as_str().expect("a block"), number(row, "seed") as usize))
        .collect();
    assert_eq!(named, [("base", 0), ("dbb", 0), ("base", 1), ("dbb", 1)]);
    for (row, (block, seed)) in rows.iter().zip(named) {
        let fields = ["arch", "block", "seed", "top1", "top1_deploy"];
        let costs = ["params_train", "params_deploy", "seconds"];
        assert_eq!(&keys(row)[..8], [&fields[..], &costs].concat());
        assert_eq!(row["arch"], "resnet20");
        let run = format!("{out}/resnet20-{block}-seed{seed}");
        let config = json(&["config", "show", &format!("{run}/config.toml")]);
        assert_eq!(config["model"]["block"], block);
        assert_eq!(number(&config, "seed") as usize, seed);
        // The accuracy of both forms is what an evaluation of the run finds.
        assert_eq!(row["top1"], json(&["eval", &run])["top1"]);
        assert_eq!(row["top1_deploy"], json(&["eval", &run, "--deploy"])["top1"]);
        let flags = ["--arch", "resnet20", "--width", "0.25", "--channels", "1"];
        let summary = json(&[&["summary", "--block", block], &flags[..]].concat());
        for key in ["params_train", "params_deploy"] {
            assert_eq!(row[key], summary[key]);
        }
    }

    let top1 = |block: &str, seed: f64| {
        let row = rows.iter().find(|row| row["block"] == block && number(row, "seed") == seed);
        number(row.expect("a row"), "top1")
    };
    // Two values: their deviation is their distance over the root of two.
    let deviation = |a: f64, b: f64| (a - b).abs() / 2f64.sqrt();
    let summary = result["summary"].as_array().expect("a summary");
    assert_eq!(summary.len(), 2);
    for (row, block) in summary.iter().zip(["base", "dbb"]) {
        let fields = ["arch", "block", "n", "top1_mean", "top1_sd", "delta", "delta_ci95"];
        assert_eq!(keys(row), fields);
        assert_eq!((&row["arch"], &row["block"]), (&"resnet20".into(), &block.into()));
        let (a, b) = (top1(block, 0.0), top1(block, 1.0));
        assert_eq!(number(row, "n"), 2.0);
        assert!(close(number(row, "top1_mean"), (a + b) / 2.0, 1e-9), "{row}");
        assert!(close(number(row, "top1_sd"), deviation(a, b), 1e-9), "{row}");
    }
    assert!(summary[0]["delta"].is_null() && summary[0]["delta_ci95"].is_null());
    let [a, b] = [0.0, 1.0].map(|seed| top1("dbb", seed) - top1("base", seed));
    assert!(close(number(&summary[1], "delta"), (a + b) / 2.0, 1e-9), "{result}");
    // Student's t for one degree of freedom: 12.706.
    let half_width = 12.706 * deviation(a, b) / 2f64.sqrt();
    assert!(close(number(&summary[1], "delta_ci95"), half_width, 1e-4), "{result}");

    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    let delta = format!("{:+.2} ± {half_width:.2}", number(&summary[1], "delta"));
    for part in ["run 4 of 4", &delta.replace('-', "−"), "resnet20-dbb-seed1/report.html"] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }

    // The three tables say the same.
    let table = |name: &str| fs::read_to_string(format!("{out}/compare.{name}")).expect("a table");
    assert_eq!(serde_json::from_str::<Value>(&table("json")).expect("JSON"), result);
    let csv: Vec<Vec<String>> =
        table("csv").lines().map(|line| line.split(',').map(String::from).collect()).collect();
    assert_eq!(csv[0], &keys(&rows[0])[..8]);
    assert_eq!(csv.len(), 5);
    for (line, row) in csv[1..].iter().zip(rows) {
        assert_eq!((&*line[0], &*line[1]), ("resnet20", row["block"].as_str().expect("text")));
        for (field, (key, tolerance)) in line[2..].iter().zip([
            ("seed", 0.0),
            ("top1", 1e-4),
            ("top1_deploy", 1e-4),
            ("params_train", 0.0),
            ("params_deploy", 0.0),
            ("seconds", 0.06),
        ]) {
            let field: f64 = field.parse().expect("a number");
            assert!((field - number(row, key)).abs() <= tolerance, "{key}: {line:?} {row}");
        }
    }
    let markdown = table("md");
    for row in summary {
        let (mean, sd) = (number(row, "top1_mean"), number(row, "top1_sd"));
        let delta = match row["delta"].as_f64() {
            Some(delta) => format!("{delta:+.2} ± {:.2}", number(row, "delta_ci95")),
            None => "-".to_string(),
        };
        let block = row["block"].as_str().expect("text");
        let line = format!("| resnet20 | {block} | 2 | {mean:.2} ± {sd:.2} | {delta} |");
        assert!(markdown.contains(&line), "no {line}\n{markdown}");
    }
}

#[test]
fn compare_of_single_runs_claims_no_difference() {
    let folder = Folder::new();
    let out = folder.at("comparison");
    let args = [&["compare", QUICK_BASE, QUICK_DBB, "--out", &out][..], &set(&TINY)].concat();
    let result = json(&args);
    assert_eq!(result["rows"].as_array().map(Vec::len), Some(2), "{result}");
    for row in result["summary"].as_array().expect("a summary") {
        assert_eq!(number(row, "n"), 1.0);
        for key in ["top1_sd", "delta", "delta_ci95"] {
            assert!(row[key].is_null(), "{key} of {row}");
        }
    }
    dbb(&args).fails(1, &["resnet20-base-seed0", "already holds a run"]);
    dbb(&[&args[..], &["--blocks", "base,dbb"]].concat()).fails(1, &["named twice"]);
}

// ---- summary, devices, config, help --------------------------------------------------------

#[test]
fn summary_knows_the_published_counts() {
    // Parameters as torchvision has them (MobileNetV1: its table 8 rounds to 4.2 million);
    // channels of all norms, each of which folds a scale and a shift into one bias.
    for (arch, params, channels) in [
        ("resnet18", 11_689_512, 4_800),
        ("resnet34", 21_797_672, 8_512),
        ("resnet50", 25_557_032, 26_560),
        ("mobilenet_v1", 4_231_976, 10_944),
    ] {
        let summary = json(&["summary", "--arch", arch, "--block", "base"]);
        let total = |key| number(&summary, key) as usize;
        assert_eq!(total("params_train"), params, "{arch}");
        assert_eq!(total("params_deploy"), params - channels, "{arch}");
        let layers = summary["layers"].as_array().expect("layers");
        for key in ["params_train", "params_deploy", "macs_deploy"] {
            let sum: f64 = layers.iter().map(|layer| number(layer, key)).sum();
            assert_eq!(sum as usize, total(key), "{arch}: {key}");
        }
    }
    let macs = number(&json(&["summary", "--arch", "resnet18", "--block", "base"]), "macs_deploy");
    assert_eq!(macs, 1_814_073_344.0);
}

/// From the paper's figure 3: four branches, six norms, one of them inside each of two branches.
fn dense_block(inputs: usize, outputs: usize) -> usize {
    let origin = 9 * inputs * outputs + 2 * outputs;
    let pointwise = inputs * outputs + 2 * outputs;
    let sequence = inputs * inputs + 2 * inputs + 9 * inputs * outputs + 2 * outputs;
    let average = inputs * outputs + 4 * outputs;
    origin + pointwise + sequence + average
}

#[test]
fn summary_counts_what_a_block_is_made_of() {
    let mut convolutions = vec![(3, 16)];
    convolutions.extend([(16, 16); 6]);
    convolutions.push((16, 32));
    convolutions.extend([(32, 32); 5]);
    convolutions.push((32, 64));
    convolutions.extend([(64, 64); 5]);
    let classifier = 65 * 10;
    let sum = |count: &dyn Fn(usize, usize) -> usize| -> usize {
        convolutions.iter().map(|&(inputs, outputs)| count(inputs, outputs)).sum::<usize>()
            + classifier
    };
    let summary = json(&["summary", "--arch", "resnet20"]);
    let fields =
        ["arch", "block", "width", "resolution", "params_train", "params_deploy", "macs_deploy"];
    assert_eq!(keys(&summary), [&fields[..], &["layers"]].concat());
    assert_eq!(summary["block"], "dbb");
    assert_eq!(number(&summary, "params_train") as usize, sum(&dense_block));
    assert_eq!(number(&summary, "params_deploy") as usize, sum(&|i, o| 9 * i * o + o));
    let base = json(&["summary", "--arch", "resnet20", "--block", "base"]);
    assert_eq!(number(&base, "params_train") as usize, sum(&|i, o| 9 * i * o + 2 * o));
    assert_eq!(base["params_deploy"], summary["params_deploy"]);

    let text = dbb(&["summary", "--arch", "resnet20", "--res", "16"]).succeeds();
    assert_eq!(text.stdout.lines().count(), 1 + 19 + 1 + 1, "{}", text.all());
    assert!(text.stdout.contains("stage3.2.conv2"), "{}", text.all());
    dbb(&["summary", "--arch", "resnet20", "--width", "0"]).fails(1, &["width", "above 0"]);
}

const BENCH_KEYS: [&str; 7] = [
    "images_per_second",
    "step_ms_median",
    "step_ms_min",
    "peak_rss_mib",
    "macs_per_image",
    "layers_fast",
    "layers_plain",
];

/// Measures two steps of a small network on 8x8 images.
fn bench(args: &[&str]) -> Value {
    let small = ["--arch", "resnet20", "--width", "0.25", "--batch", "4", "--res", "8"];
    json(&[&["bench"], args, &small, &["--steps", "2"]].concat())
}

#[test]
fn bench_measures_training_inference_and_the_loader() {
    for args in [
        &["train", "--block", "dbb"][..],
        &["train", "--block", "dbb", "--impl", "plain", "--form", "train", "--threads", "1"],
        &["infer", "--block", "dbb"],
        &["infer", "--block", "acb", "--form", "train"],
    ] {
        let result = bench(args);
        assert_eq!(keys(&result), BENCH_KEYS);
        let median = number(&result, "step_ms_median");
        assert!(median > 0.0 && number(&result, "step_ms_min") <= median, "{result}");
        assert!(close(number(&result, "images_per_second"), 4000.0 / median, 1e-9), "{result}");
        let layers = number(&result, "layers_fast") + number(&result, "layers_plain");
        assert_eq!(layers, 19.0, "{args:?}: {result}");
        if cfg!(target_os = "linux") {
            assert!(number(&result, "peak_rss_mib") > 1.0, "{result}");
        }
    }
    let loader = json(&["bench", "loader", "--batch", "8", "--res", "16", "--steps", "2"]);
    assert_eq!(keys(&loader), BENCH_KEYS);
    assert!(number(&loader, "images_per_second") > 0.0, "{loader}");
    assert!(loader["macs_per_image"].is_null() && loader["layers_plain"].is_null(), "{loader}");
    let cached = ["bench", "loader", "--batch", "8", "--res", "16", "--cache-mb", "1"];
    let text = dbb(&cached).succeeds().stdout;
    assert!(text.contains("images/s") && text.contains("peak memory"), "{text}");
}

#[test]
fn bench_counts_the_operations_of_the_measured_form() {
    let macs = |args: &[&str]| number(&bench(args), "macs_per_image");
    let deploy = macs(&["infer", "--block", "dbb"]);
    let summary = json(&["summary", "--arch", "resnet20", "--width", "0.25", "--res", "8"]);
    assert_eq!(deploy, number(&summary, "macs_deploy"));
    assert_eq!(macs(&["train", "--block", "base"]), deploy);
    assert_eq!(
        macs(&["train", "--block", "dbb"]),
        macs(&["infer", "--block", "dbb", "--form", "train"])
    );
    // Nine taps of the square kernel, three of each of the others; the classifier has 16 x 10.
    assert_eq!(macs(&["train", "--block", "acb"]), (deploy - 160.0) / 9.0 * 15.0 + 160.0);
    assert!(macs(&["train", "--block", "dbb"]) > 2.2 * deploy);
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let train = ["bench", "train", "--arch", "resnet20"];
    dbb(&[&train[..], &["--form", "deploy"]].concat()).fails(1, &["cannot be trained", "--form"]);
    dbb(&[&train[..], &["--width", "0"]].concat()).fails(1, &["width"]);
    dbb(&[&train[..], &["--classes", "0"]].concat()).fails(1, &["num_classes", "at least 1"]);
    dbb(&[&train[..], &["--device", "toaster"]].concat()).fails(1, &["toaster", "flex"]);
    dbb(&["bench", "loader", "--data", "no/such/folder"]).fails(1, &["no/such/folder"]);
}

#[test]
fn devices_says_what_is_there_and_how_to_get_the_rest() {
    let result = json(&["devices"]);
    let devices = result["devices"].as_array().expect("devices");
    let kind = |device: &Value| device["kind"].as_str().expect("a kind").to_string();
    let kinds: Vec<_> = devices.iter().map(kind).collect();
    let all = ["flex", "ndarray", "wgpu", "cuda", "rocm", "metal", "vulkan", "cpu"];
    assert_eq!(kinds, all);
    let text = dbb(&["devices"]).succeeds().stdout;
    let absent: Vec<_> = devices.iter().filter(|device| device["compiled"] == false).collect();
    for device in absent {
        let feature = format!("--features {}", kind(device));
        assert!(text.contains(&feature), "{text}");
        let eval = ["eval", "somewhere", "--device", &kind(device)];
        dbb(&eval).fails(1, &[&kind(device), "not compiled", &feature]);
    }
    let train = ["train", QUICK_DBB, "--device"];
    dbb(&[&train[..], &["tpu"]].concat()).fails(1, &["unknown device \"tpu\"", "flex"]);
    dbb(&[&train[..], &["cuda:first"]].concat()).fails(1, &["unknown device \"cuda:first\""]);
}

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
fn every_command_explains_itself() {
    let version = dbb(&["--version"]).succeeds();
    assert_eq!(version.stdout.trim(), concat!("dbb ", env!("CARGO_PKG_VERSION")));
    let commands =
        ["train", "eval", "reparam", "export", "compare", "summary", "bench", "config", "devices"];
    let overview = dbb(&["--help"]).succeeds().stdout;
    for command in commands {
        assert!(overview.contains(&format!("\n  {command} ")), "{overview}");
        let help = dbb(&[command, "--help"]).succeeds();
        for part in [format!("Usage: dbb {command}"), format!("Example: dbb {command}")] {
            assert!(help.stdout.contains(&part), "no {part:?}\n{}", help.all());
        }
        assert!(help.stderr.is_empty(), "{}", help.all());
    }
    for action in ["check", "show"] {
        let help = dbb(&["config", action, "--help"]).succeeds();
        assert!(help.stdout.contains(&format!("Usage: dbb config {action}")), "{}", help.all());
    }
}

// ---- Mistakes ------------------------------------------------------------------------------

#[test]
fn wrong_usage_is_exit_code_2() {
    dbb(&["frobnicate"]).fails(2, &["frobnicate", "Usage"]);
    dbb(&["train"]).fails(2, &["<CONFIG>"]);
    dbb(&["train", QUICK_DBB, "--threads", "0"]).fails(2, &["--threads"]);
    dbb(&["train", QUICK_DBB, "--resume", "--set", "seed=1"]).fails(2, &["--set", "--resume"]);
    dbb(&["eval", "run", "--checkpoint", "newest"]).fails(2, &["newest", "last, best"]);
    dbb(&["eval", "run", "--split", "dev"]).fails(2, &["dev", "train", "val"]);
    dbb(&["eval", "run", "--arch", "resnet19"]).fails(2, &["resnet19", "resnet18", "resnet20"]);
    dbb(&["eval", "run", "--data", "idx:"]).fails(2, &["idx:", "the path is empty"]);
    dbb(&["reparam", "run"]).fails(2, &["--out"]);
    dbb(&["export", "run", "--format", "tar", "--out", "x"]).fails(2, &["tar", "safetensors"]);
    dbb(&["compare", QUICK_DBB, "--blocks", "base,dbd"]).fails(2, &["dbd", "base, dbb, acb"]);
    dbb(&["compare", QUICK_DBB, "--seeds", "0"]).fails(2, &["--seeds"]);
    dbb(&["summary"]).fails(2, &["--arch"]);
    dbb(&["bench"]).fails(2, &["<WHAT>"]);
    dbb(&["bench", "train"]).fails(2, &["--arch"]);
    dbb(&["bench", "infer", "--arch", "resnet19"]).fails(2, &["resnet19", "resnet18"]);
    dbb(&["bench", "loader", "--batch", "0"]).fails(2, &["--batch"]);
    dbb(&["bench", "train", "--arch", "resnet20", "--steps", "0"]).fails(2, &["--steps"]);
    let slow = ["bench", "train", "--arch", "resnet20", "--impl", "slow"];
    dbb(&slow).fails(2, &["slow", "one of fast, plain"]);
}

#[test]
fn wrong_paths_are_named() {
    let run = Run::new(QUICK_BASE, &[]);
    let out = run.folder.at("out");
    let nowhere = run.folder.at("nowhere");
    train(&nowhere, &[], &out).fails(1, &["cannot read the configuration", &nowhere]);
    train(QUICK_DBB, &[&format!("data.source={nowhere}")], &out).fails(1, &[&nowhere, "exists"]);
    dbb(&["compare", &nowhere]).fails(1, &["cannot read the configuration", &nowhere]);
    dbb(&["config", "check", &nowhere]).fails(1, &["cannot read the configuration", &nowhere]);
    dbb(&["eval", &nowhere]).fails(1, &[&nowhere, "does not exist", "run directory"]);
    dbb(&["reparam", &nowhere, "--out", &out]).fails(1, &[&nowhere, "does not exist"]);
    dbb(&["eval", &run.path, "--data", &nowhere]).fails(1, &["cannot read", &nowhere]);
    dbb(&["train", &nowhere, "--resume"]).fails(1, &[&nowhere, "no run to resume"]);
    // A folder that is no run, a file that is no network, a file that has no data.
    let empty = run.file("export");
    dbb(&["eval", &empty]).fails(1, &[&empty, "no run directory"]);
    let config = run.file("config.toml");
    dbb(&["eval", &config]).fails(1, &[&config, "no weights file"]);
    let weights = run.deploy_weights();
    dbb(&["eval", &weights]).fails(1, &["a weights file has no data", "--data"]);
    dbb(&["eval", &run.path, "--data", &empty]).fails(1, &[&empty, "train/<class>", "idx"]);
    dbb(&["eval", &run.path, "--checkpoint", "7"]).fails(1, &[&run.path, "epoch 7", "only 00001"]);
    assert!(!exists(&out));
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

#[test]
fn flags_that_contradict_a_file_are_refused() {
    let run = Run::new(QUICK_DBB, &[]);
    for (flag, wrong, right) in [
        ("--arch", "resnet18", "resnet20"),
        ("--block", "acb", "dbb"),
        ("--width", "0.5", "0.25"),
        ("--classes", "100", "10"),
        ("--channels", "3", "1"),
    ] {
        for target in [&run.path, &run.deploy_weights()] {
            let file = if *target == run.path { run.network() } else { target.clone() };
            let given = format!("{flag} {wrong} contradicts {file}, which holds {right}");
            let eval = ["eval", target, "--data", "sample", flag];
            dbb(&[&eval[..], &[wrong]].concat()).fails(1, &[&given]);
        }
        dbb(&["eval", &run.path, flag, right]).succeeds();
    }
    let args = ["reparam", &run.path, "--keys", "official", "--out", "x"];
    dbb(&args).fails(1, &["resnet20 has no official names", "it has native"]);
}

#[test]
fn weights_that_end_too_early_are_named() {
    let run = Run::new(QUICK_DBB, &[]);
    let (deploy, network) = (run.deploy_weights(), run.network());
    for path in [&deploy, &network] {
        let whole = fs::read(path).expect("weights");
        let size = whole.len();
        for length in [0, 7, 100, size / 20, size / 2, size - 1] {
            fs::write(path, &whole[..length]).expect("weights");
            let target = if *path == network { &run.path } else { path };
            let eval = ["eval", target, "--data", "sample"];
            let name = path.rsplit('/').next().expect("a name");
            dbb(&eval).fails(1, &[name, "is damaged"]);
        }
        fs::write(path, &whole).expect("weights");
    }
    fs::remove_file(&network).expect("weights");
    dbb(&["eval", &run.path]).fails(1, &["network.bpk is missing"]);
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
    dbb(&["eval", &run, "--data", &data]).fails(1, &["\"ant\" against \"ant-other\""]);
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
    assert!(call.stderr.contains(&format!("left out: {data}/{train_image}")), "{}", call.all());
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
fn an_output_below_a_file_is_refused() {
    let run = Run::new(QUICK_BASE, &[]);
    let file = run.folder.file("file", b"content");
    let below = format!("{file}/out");
    let error = ["cannot write", &*below];
    train(QUICK_BASE, &[], &below).fails(1, &error);
    let compare = ["compare", QUICK_BASE, "--out", &below];
    dbb(&[&compare[..], &set(&TINY)].concat()).fails(1, &error);
    dbb(&["reparam", &run.path, "--out", &below]).fails(1, &error);
    dbb(&["export", &run.path, "--format", "burnpack", "--out", &below]).fails(1, &error);
    dbb(&["eval", &run.path, "--predictions", &below]).fails(1, &error);
    dbb(&["eval", &run.path, "--predictions", &run.path]).fails(1, &["cannot write", &run.path]);
    assert_eq!(fs::read(&file).expect("the file"), b"content");
}

#[cfg(unix)]
#[test]
fn an_output_that_is_a_device_is_not_replaced() {
    let run = Run::new(QUICK_BASE, &[]);
    let device = run.folder.at("device");
    std::os::unix::fs::symlink("/dev/null", &device).expect("a link");
    let error = ["cannot write", &*device];
    dbb(&["reparam", &run.path, "--out", &device]).fails(1, &error);
    dbb(&["eval", &run.path, "--predictions", &device]).fails(1, &error);
    assert!(fs::symlink_metadata(&device).expect("the link").is_symlink());
}

/// A call that may write files of at most so many KiB, as on a disk that fills up.
#[cfg(unix)]
fn on_a_full_disk(args: &[&str]) -> Call {
    // Shells count in units of 512 or 1024 bytes.
    let limit = r#"trap "" XFSZ; ulimit -f 60; exec "$@""#;
    let shell = ["-c", limit, "sh", DBB];
    call(Command::new("sh").args(shell).args(args).current_dir(REPOSITORY))
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let run = Run::new(QUICK_DBB, &[]);
    let out = run.folder.file("old.safetensors", b"old");
    let before = snapshot(&run.folder.0);
    on_a_full_disk(&["reparam", &run.path, "--out", &out]).fails(1, &["cannot write", &out]);
    assert!(before == snapshot(&run.folder.0), "something was written");

    let new = run.folder.at("new");
    let args = [&["train", QUICK_DBB, "--out", &new][..], &set(&TINY)].concat();
    on_a_full_disk(&args).fails(1, &["cannot write", &new, "network.bpk"]);
    let left = snapshot(&new);
    let partial = left.keys().find(|path| path.contains("partial") || path.contains("00001"));
    assert_eq!(partial, None);
    // With room again the run starts anew.
    dbb(&["train", &new, "--resume"]).succeeds();
    assert!(tensors(&format!("{new}/export/deploy.safetensors")) == tensors(&run.deploy_weights()));
}

#[test]
fn nobody_has_to_read_the_output() {
    let folder = Folder::new();
    let out = folder.at("run");
    let train = [&["train", QUICK_BASE, "--out", &out][..], &set(&TINY)].concat();
    for args in [&["summary", "--arch", "resnet152"][..], &train] {
        let mut command = Command::new(DBB);
        command.args(args).current_dir(REPOSITORY).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        drop((child.stdout.take(), child.stderr.take()));
        let status = child.wait().expect("the program ends");
        assert_eq!(status.code(), Some(0), "{command:?}");
    }
    assert!(exists(&format!("{out}/export/deploy.safetensors")));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = || File::options().write(true).open("/dev/full").expect("the device");
    let mut command = Command::new(DBB);
    command.args(["summary", "--arch", "resnet20", "--json"]);
    call_with(command.stdout(full()).stderr(Stdio::null()), 1);
    // Nothing can be said, yet the exit code is right.
    let mut command = Command::new(DBB);
    call_with(command.args(["eval", "nowhere"]).stderr(full()), 1);
}

#[cfg(target_os = "linux")]
fn call_with(command: &mut Command, code: i32) {
    let status = command.status().expect("the program starts");
    assert_eq!(status.code(), Some(code), "{command:?}");
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
    for folder in fs::read_dir(format!("{REPOSITORY}/configs")).expect("recipes").flatten() {
        let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        for file in files {
            let path = file.path();
            dbb(&["config", "check", path.to_str().expect("a name")]).succeeds();
            recipes += 1;
        }
    }
    assert!(recipes >= 10, "{recipes} recipes");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = dbb(&["completions", shell]).succeeds().stdout;
        for word in ["train", "reparam", "predictions", "schema"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    dbb(&["completions", "cmd"]).fails(2, &["possible values"]);
}
