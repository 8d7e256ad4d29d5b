//! Training itself: equal runs are equal to the bit, an interrupted run ends as the uninterrupted
//! one, a run that fails keeps its last good checkpoint, and optimizers, loss and accuracy follow
//! their definitions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use dbb_models::{Arch, BlockKind, Classifier, Form, ModelConfig};
use dbb_training::config::OptimSection;
use dbb_training::evaluate::cross_entropy;
use dbb_training::metrics::Totals;
use dbb_training::optim::Optimizer;
use dbb_training::run_dir::RunDir;
use serde_json::Value;
use tempfile::TempDir;

const DBB: &str = env!("CARGO_BIN_EXE_dbb");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/quick/resnet20-dbb.toml");

/// A tenth of a second per epoch.
const TINY: [&str; 6] = [
    "data.limit_train=64",
    "data.limit_val=40",
    "data.size=8",
    "model.width=0.25",
    "train.batch_size=16",
    "optim.lr=0.02",
];

// ---- Runs ----------------------------------------------------------------------------------

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The command that trains the tiny configuration with further keys, to `out`.
fn training(keys: &[&str], out: &Path) -> Command {
    let mut command = Command::new(DBB);
    command.args(["train", CONFIG, "--json", "--out"]).arg(out);
    command.args(TINY.iter().chain(keys).flat_map(|key| ["--set", key]));
    command
}

fn resuming(run: &Path) -> Command {
    let mut command = Command::new(DBB);
    command.arg("train").arg(run).args(["--resume", "--json"]);
    command
}

fn text(output: &Output) -> String {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("exit code {:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", output.status.code())
}

fn succeeds(command: &mut Command) -> Value {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    serde_json::from_slice(&output.stdout).expect("a JSON object")
}

/// A failure with this exit code and a message that contains each of `parts`.
fn fails(command: &mut Command, code: i32, parts: &[&str]) {
    let output = command.output().expect("the program starts");
    let all = text(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{all}");
    assert!(!all.contains("panicked"), "{all}");
    for part in parts {
        assert!(all.contains(part), "no {part:?} from {command:?}\n{all}");
    }
}

fn eval(target: &Path, args: &[&str]) -> Value {
    succeeds(Command::new(DBB).arg("eval").arg(target).arg("--json").args(args))
}

/// The folded weights of a run.
fn weights(run: &Path) -> Vec<u8> {
    fs::read(RunDir::new(run).deploy_weights()).expect("the folded weights")
}

/// The lines of `metrics.jsonl` without what a clock decides.
fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(RunDir::new(run).metrics()).expect("metrics");
    let record = |line| {
        let mut record: Value = serde_json::from_str(line).expect("a JSON line");
        let fields = record.as_object_mut().expect("an object");
        assert!(fields.remove("seconds").is_some() && fields.remove("images_per_second").is_some());
        record
    };
    text.lines().map(record).collect()
}

fn number(record: &Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {record}"))
}

fn epochs(run: &Path) -> Vec<f64> {
    metrics(run).iter().map(|record| number(record, "epoch")).collect()
}

/// Epochs of the checkpoints that are there.
fn checkpoints(run: &Path) -> Vec<usize> {
    RunDir::new(run).checkpoint_epochs().expect("checkpoints")
}

/// Every file below a folder with its content.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        }
        files.insert(path.clone(), fs::read(&path).unwrap_or_default());
    }
    files
}

/// Starts a training of many epochs and kills it once it has saved the first.
fn killed_after_its_first_epoch(keys: &[&str], out: &Path) {
    let mut command = training(keys, out);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let first = RunDir::new(out).checkpoint(1);
    // On a busy machine this process may wake up too late.
    for _ in 0..5 {
        let mut child = command.spawn().expect("the program starts");
        let started = Instant::now();
        while !first.exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint of {command:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("the process can be killed");
        child.wait().expect("it ends");
        if !RunDir::new(out).deploy_weights().exists() {
            return;
        }
        fs::remove_dir_all(out).expect("the run");
    }
    panic!("{command:?} always ends before it is killed");
}

// ---- Determinism and resuming --------------------------------------------------------------

#[test]
fn equal_runs_are_equal_to_the_bit_whoever_loads_the_images() {
    let folder = folder();
    let run = |name: &str, keys: &[&str]| {
        let out = folder.path().join(name);
        succeeds(&mut training(&[&["train.epochs=2"], keys].concat(), &out));
        out
    };
    let first = run("first", &[]);
    for (name, keys) in [
        ("second", &[][..]),
        ("no worker", &["data.workers=0"]),
        ("three workers", &["data.workers=3"]),
    ] {
        let other = run(name, keys);
        assert_eq!(metrics(&other), metrics(&first), "{name}");
        assert!(weights(&other) == weights(&first), "the weights differ: {name}");
    }
    let seed = run("another seed", &["seed=1"]);
    assert!(weights(&seed) != weights(&first), "the seed changes nothing");
}

/// Bit-equal weights, each epoch once, whatever the optimizer holds.
fn a_killed_run_ends_as_if_it_had_not_been(keys: &[&str]) {
    let folder = folder();
    let keys = [&["train.epochs=5"], keys].concat();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    succeeds(&mut training(&keys, &whole));
    killed_after_its_first_epoch(&keys, &killed);

    // What a process killed in the middle of a save leaves.
    let leftover = killed.join("checkpoints/.00005.partial");
    fs::create_dir_all(&leftover).expect("a folder");
    fs::write(leftover.join("network.bpk"), b"half of it").expect("a file");
    assert_eq!(eval(&killed, &[])["form"], "train", "the complete checkpoint is used");

    let output = resuming(&killed).output().expect("the program starts");
    assert!(output.status.success(), "{}", text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("going on after epoch") && stderr.contains("of 5"), "{stderr}");
    assert!(!stderr.contains("epoch 1/5"), "{stderr}");
    assert_eq!(epochs(&killed), [1.0, 2.0, 3.0, 4.0, 5.0]);
    for (resumed, whole) in metrics(&killed).iter().zip(metrics(&whole)) {
        for (key, value) in whole.as_object().expect("an object") {
            let (a, b) = (number(resumed, key), value.as_f64().expect("a number"));
            assert!((a - b).abs() <= 1e-12 * b.abs(), "{key}: {resumed} against {whole}");
        }
    }
    assert!(weights(&killed) == weights(&whole), "the weights differ with {keys:?}");
    assert!(!leftover.exists(), "{} is left", leftover.display());
}

#[test]
fn a_resumed_sgd_run_ends_as_the_uninterrupted_one() {
    a_killed_run_ends_as_if_it_had_not_been(&[
        "optim.nesterov=true",
        "optim.decay=weights",
        "optim.weight_decay=0.1",
        "optim.bias_lr=2",
    ]);
}

#[test]
fn a_resumed_adamw_run_ends_as_the_uninterrupted_one() {
    a_killed_run_ends_as_if_it_had_not_been(&[
        "optim.kind=adamw",
        "optim.lr=0.002",
        "optim.weight_decay=0.1",
        "train.label_smoothing=0.1",
    ]);
}

#[test]
fn a_run_without_a_checkpoint_starts_anew_and_a_finished_one_stays() {
    let folder = folder();
    let (run, empty) = (folder.path().join("run"), folder.path().join("empty"));
    let result = succeeds(&mut training(&["train.epochs=2"], &run));
    fs::create_dir(&empty).expect("a folder");
    fs::copy(RunDir::new(&run).config(), RunDir::new(&empty).config()).expect("a copy");
    succeeds(&mut resuming(&empty));
    assert_eq!(metrics(&empty), metrics(&run));
    assert!(weights(&empty) == weights(&run));

    let (before, tensors) = (snapshot(&run.join("checkpoints")), weights(&run));
    assert_eq!(succeeds(&mut resuming(&run))["top1"], result["top1"]);
    assert!(before == snapshot(&run.join("checkpoints")) && tensors == weights(&run));
}

// ---- Checkpoints ---------------------------------------------------------------------------

#[test]
fn the_best_and_the_last_checkpoint_are_kept() {
    let folder = folder();
    let run = folder.path().join("run");
    // A rate that spoils what the first epoch learnt.
    let spoil = ["schedule.kind=step", "schedule.milestones=[1]", "schedule.gamma=20"];
    let result = succeeds(&mut training(&[&["train.epochs=4"], &spoil[..]].concat(), &run));
    let records = metrics(&run);
    let top1 = |record: &&Value| number(record, "top1");
    // The earliest of equal ones.
    let best = records
        .iter()
        .reduce(|best, record| if top1(&record) > top1(&best) { record } else { best })
        .expect("an epoch");
    let mut kept = vec![number(best, "epoch") as usize, 4];
    kept.dedup();
    assert_eq!(checkpoints(&run), kept, "{records:?}");
    assert_eq!(number(&result, "best_top1"), number(best, "top1"));
    let top1 = |which| eval(&run, &["--deploy", "--checkpoint", which])["top1"].clone();
    assert_eq!((&top1("best"), &top1("last")), (&best["top1"], &records[3]["top1"]));
}

#[test]
fn a_checkpoint_appears_whole_and_clears_what_is_left_behind() {
    let folder = folder();
    let run = RunDir::new(folder.path());
    let save = |epoch: usize, keep: &[usize]| {
        run.save_checkpoint::<std::io::Error>(epoch, keep, |folder| {
            assert!(!run.checkpoint(epoch).exists());
            fs::write(folder.join("content"), epoch.to_string())
        })
    };
    assert!(checkpoints(folder.path()).is_empty());
    for epoch in 1..=4 {
        save(epoch, &[2]).expect("a checkpoint");
    }
    assert_eq!(checkpoints(folder.path()), [2, 4]);

    let failed = run.save_checkpoint(5, &[4], |folder| {
        fs::write(folder.join("content"), b"half")?;
        Err(std::io::Error::other("the disk is full"))
    });
    assert_eq!(failed.expect_err("it failed").to_string(), "the disk is full");
    assert_eq!(checkpoints(folder.path()), [2, 4]);
    let entries = fs::read_dir(folder.path().join("checkpoints")).expect("checkpoints").count();
    assert_eq!(entries, 2, "something of the failed checkpoint is left");

    let leftover = folder.path().join("checkpoints/.00005.partial");
    fs::create_dir(&leftover).expect("a folder");
    fs::write(leftover.join("other"), b"of a killed process").expect("a file");
    assert_eq!(checkpoints(folder.path()), [2, 4]);
    save(5, &[4]).expect("a checkpoint");
    assert_eq!(checkpoints(folder.path()), [4, 5]);
    assert!(!leftover.exists() && !run.checkpoint(5).join("other").exists());
}

#[test]
fn a_damaged_checkpoint_cannot_be_resumed() {
    let folder = folder();
    let (run, other) = (folder.path().join("run"), folder.path().join("other"));
    killed_after_its_first_epoch(&["train.epochs=9"], &run);
    succeeds(&mut training(&["train.epochs=1", "optim.kind=adamw", "model.block=base"], &other));
    let last = checkpoints(&run).pop().expect("one");
    let checkpoint = RunDir::new(&run).checkpoint(last);
    let foreign = RunDir::new(&other).checkpoint(1);

    // Changes a file of the checkpoint, which must end the attempt and change nothing.
    let case = |path: PathBuf, content: Option<Vec<u8>>, parts: &[&str]| {
        let before = fs::read(&path).expect("a file");
        match content {
            Some(content) => fs::write(&path, content).expect("a file"),
            None => fs::remove_file(&path).expect("a file"),
        }
        let state = snapshot(&run);
        let place = checkpoint.to_str().expect("text");
        let parts = [&["error: cannot resume from", place], parts].concat();
        fails(&mut resuming(&run), 1, &parts);
        assert!(state == snapshot(&run), "the run has changed");
        fs::write(&path, before).expect("a file");
    };

    let (network, optimizer) = (RunDir::network(&checkpoint), RunDir::optimizer(&checkpoint));
    let state = RunDir::state(&checkpoint);
    for path in [&network, &optimizer, &state] {
        let whole = fs::read(path).expect("a file");
        for length in [0, 100, whole.len() / 2, whole.len() - 2] {
            case(path.clone(), Some(whole[..length].to_vec()), &[]);
        }
        case(path.clone(), None, &["No such file"]);
    }
    case(state.clone(), Some(b"{}".to_vec()), &["state.json", "missing field"]);
    let other_optimizer = fs::read(RunDir::optimizer(&foreign)).expect("a file");
    case(optimizer, Some(other_optimizer), &["optimizer state"]);
    let other_network = fs::read(RunDir::network(&foreign)).expect("a file");
    case(network, Some(other_network), &["Missing tensors"]);
    // Progress that is not the checkpoint's own would repeat or leave out epochs.
    let text = fs::read_to_string(&state).expect("the progress");
    let mut progress: Value = serde_json::from_str(&text).expect("JSON");
    progress["epoch"] = 0.into();
    case(state, Some(progress.to_string().into_bytes()), &["state.json"]);

    fails(Command::new(DBB).arg("train").arg(folder.path()).arg("--resume"), 1, &["no run"]);
}

// ---- A loss that is no number --------------------------------------------------------------

#[test]
fn a_rate_out_of_all_bounds_ends_the_run_in_its_first_epoch() {
    let folder = folder();
    let run = folder.path().join("run");
    fails(
        &mut training(&["train.epochs=2", "optim.lr=1e30"], &run),
        3,
        &["error: the loss is NaN", "epoch 1, step 2", "nothing is kept", "lower optim.lr"],
    );
    assert!(checkpoints(&run).is_empty());
    fails(Command::new(DBB).arg("eval").arg(&run), 1, &["no checkpoint yet"]);
}

/// A run whose rate leaves all bounds after the first epoch.
fn ends_in_its_second_epoch(keys: &[&str], parts: &[&str]) {
    let folder = folder();
    let run = folder.path().join("run");
    let spoil = ["schedule.kind=step", "schedule.milestones=[1]", "schedule.gamma=1e30"];
    let keys = [&["train.epochs=3"], &spoil[..], keys].concat();
    let kept = RunDir::new(&run).checkpoint(1);
    let parts = [parts, &["is kept in", kept.to_str().expect("text")]].concat();
    fails(&mut training(&keys, &run), 3, &parts);

    let run_dir = RunDir::new(&run);
    assert_eq!(checkpoints(&run), [1]);
    assert_eq!(epochs(&run), [1.0]);
    assert!(!run_dir.deploy_weights().exists());
    assert_eq!(eval(&run, &["--deploy"])["top1"], metrics(&run)[0]["top1"]);
    // Going on gets no further, and spoils nothing; the report and the curves tell of it.
    let kept = || {
        let mut files = snapshot(&run);
        files.retain(|path, _| {
            *path != run_dir.report() && !path.starts_with(run_dir.tensorboard())
        });
        files
    };
    let before = kept();
    fails(&mut resuming(&run), 3, &parts);
    assert!(before == kept(), "the run has changed");
}

#[test]
fn a_loss_that_is_no_number_keeps_the_last_good_checkpoint() {
    // Four steps an epoch; the fifth has a loss and ruins the weights.
    ends_in_its_second_epoch(&[], &["the loss is NaN", "epoch 2, step 6"]);
}

#[test]
fn weights_ruined_by_the_last_step_of_an_epoch_are_not_kept() {
    ends_in_its_second_epoch(&["train.batch_size=64"], &["the loss is NaN", "epoch 2"]);
}

// ---- Optimizers ----------------------------------------------------------------------------

/// A parameter in double precision, with what the optimizer remembers of it.
#[derive(Clone, Debug, PartialEq)]
struct Reference {
    values: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

/// Reads the parameters of a network by name and makes up a gradient for each.
#[derive(Default)]
struct Visitor {
    step: usize,
    path: Vec<String>,
    values: BTreeMap<String, Vec<f64>>,
    gradients: BTreeMap<String, Vec<f64>>,
    registered: GradientsParams,
}

impl ModuleVisitor for Visitor {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.last().is_some_and(|name| name.starts_with("running_")) {
            return;
        }
        let data = param.val().into_data();
        let (phase, step) = (self.values.len() as f32, self.step as f32);
        let gradient = |i: usize| (1.7 * i as f32 + 0.9 * phase + 2.3 * step).sin();
        let gradient: Vec<f32> = (0..data.num_elements()).map(gradient).collect();
        let name = self.path.join(".");
        self.gradients.insert(name.clone(), gradient.iter().copied().map(f64::from).collect());
        self.values.insert(name, data.iter::<f64>().collect());
        let gradient = TensorData::new(gradient, data.shape());
        let device = param.val().device().inner();
        self.registered.register(param.id, Tensor::<D>::from_data(gradient, &device));
    }
}

fn visit(network: &Classifier, step: usize) -> Visitor {
    let mut visitor = Visitor { step, ..Visitor::default() };
    network.visit(&mut visitor);
    visitor
}

const RATE: f64 = 0.05;
const DECAY: f64 = 0.1;

/// Which parameters of the test network a rule lets decay.
type Decays = fn(&str) -> bool;

fn role(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

/// Three steps of MobileNetV1 with Diverse Branch Blocks against a rule in double precision: of
/// a parameter, its gradient, the rate, the decay and the step from 1.
fn three_steps(
    config: &str,
    decays: Decays,
    bias_lr: f64,
    rule: impl Fn(&mut Reference, &[f64], f64, f64, i32),
) {
    let section: OptimSection = toml::from_str(config).expect("an optimizer");
    let device = Device::flex().autodiff();
    device.seed(3);
    let model =
        ModelConfig { width: 0.0625, ..ModelConfig::new(Arch::MobileNetV1, BlockKind::Dbb, 10) };
    let mut network = model.init(Form::Train, &device).expect("a network");
    let mut optimizer = Optimizer::new(&section, &network, &model);
    let mut references = BTreeMap::new();
    for step in 1..=3 {
        let visitor = visit(&network, step);
        assert_eq!(visitor.registered.len(), visitor.values.len());
        for (name, values) in visitor.values {
            let zeros = vec![0.0; values.len()];
            let fresh = Reference { values, first: zeros.clone(), second: zeros };
            let reference = references.entry(name.clone()).or_insert(fresh);
            let rate = if matches!(role(&name), "bias" | "beta") { bias_lr * RATE } else { RATE };
            let decay = if decays(&name) { DECAY } else { 0.0 };
            rule(reference, &visitor.gradients[&name], rate, decay, step as i32);
        }
        let rates = optimizer.learning_rates(RATE);
        network = optimizer.inner.step(rates, network, visitor.registered);
    }
    let found = visit(&network, 0).values;
    assert_eq!(found.len(), references.len());
    for (name, reference) in &references {
        for (found, expected) in found[name].iter().zip(&reference.values) {
            let difference = (found - expected).abs();
            assert!(
                difference <= 2e-6 * expected.abs().max(1.0),
                "{name}: {found} and not {expected} with {config}"
            );
        }
    }
    // The network has every kind of parameter that a rule may tell apart.
    for part in ["depthwise.Dbb.origin.conv.weight", "depthwise.Dbb.origin.bn.beta"] {
        assert!(references.keys().any(|name| name.ends_with(part)), "no {part}");
    }
    assert!(references.keys().any(|name| name.ends_with("linear.bias")));
}

/// `torch.optim.SGD` with momentum 0.9 and no dampening.
fn sgd(nesterov: bool) -> impl Fn(&mut Reference, &[f64], f64, f64, i32) {
    move |parameter, gradient, rate, decay, step| {
        for (i, gradient) in gradient.iter().enumerate() {
            let gradient = gradient + decay * parameter.values[i];
            let momentum = &mut parameter.first[i];
            *momentum = if step == 1 { gradient } else { 0.9 * *momentum + gradient };
            let change = if nesterov { gradient + 0.9 * *momentum } else { *momentum };
            parameter.values[i] -= rate * change;
        }
    }
}

/// `torch.optim.AdamW` with betas 0.9 and 0.999 and epsilon 1e-8.
fn adamw(parameter: &mut Reference, gradient: &[f64], rate: f64, decay: f64, step: i32) {
    for (i, gradient) in gradient.iter().enumerate() {
        parameter.values[i] *= 1.0 - rate * decay;
        parameter.first[i] = 0.9 * parameter.first[i] + 0.1 * gradient;
        parameter.second[i] = 0.999 * parameter.second[i] + 0.001 * gradient * gradient;
        let first = parameter.first[i] / (1.0 - 0.9f64.powi(step));
        let second = parameter.second[i] / (1.0 - 0.999f64.powi(step));
        parameter.values[i] -= rate * first / (second.sqrt() + 1e-8);
    }
}

/// The three rules: everything; kernels and the classifier's matrix; all but depthwise layers,
/// their norms included.
const RULES: [(&str, Decays); 3] = [
    ("all", |_| true),
    ("weights", |name| role(name) == "weight"),
    ("paper", |name| !name.contains(".depthwise.")),
];

#[test]
fn sgd_steps_as_pytorch() {
    for (rule, decays) in RULES {
        for (nesterov, bias_lr) in [(false, 1.0), (false, 2.0), (true, 2.0)] {
            let config = format!(
                "lr = 1.0\nweight_decay = {DECAY}\ndecay = \"{rule}\"\nnesterov = {nesterov}\n\
                 bias_lr = {bias_lr:.1}"
            );
            three_steps(&config, decays, bias_lr, sgd(nesterov));
        }
    }
}

#[test]
fn sgd_without_momentum_and_decay_follows_the_gradient() {
    let config = "lr = 1.0\nweight_decay = 0.0\nmomentum = 0.0";
    let plain = |parameter: &mut Reference, gradient: &[f64], rate: f64, _: f64, _: i32| {
        for (value, gradient) in parameter.values.iter_mut().zip(gradient) {
            *value -= rate * gradient;
        }
    };
    three_steps(config, |_| false, 1.0, plain);
}

#[test]
fn adamw_steps_as_pytorch() {
    for (rule, decays) in RULES {
        for bias_lr in [1.0, 2.0] {
            let config = format!(
                "kind = \"adamw\"\nlr = 1.0\nweight_decay = {DECAY}\ndecay = \"{rule}\"\n\
                 bias_lr = {bias_lr:.1}"
            );
            three_steps(&config, decays, bias_lr, adamw);
        }
    }
}

// ---- Loss and accuracy ---------------------------------------------------------------------

#[test]
fn label_smoothing_spreads_the_target_over_all_classes() {
    let device = Device::flex();
    // Probabilities 1/8, 5/8, 1/4 and 1/6, 1/6, 2/3.
    let logits = [[1.0f32, 5.0, 2.0], [0.5, 0.5, 2.0]].map(|row| row.map(f32::ln));
    let loss = |smoothing: f64| {
        let logits = Tensor::<2>::from_floats(logits, &device);
        let targets = Tensor::<1, Int>::from_ints([1, 0], &device);
        let loss = cross_entropy(logits, targets, smoothing);
        loss.into_data().iter::<f64>().next().expect("a loss")
    };
    let plain = (1.6f64.ln() + 6f64.ln()) / 2.0;
    assert!((loss(0.0) - plain).abs() < 1e-6, "{} and not {plain}", loss(0.0));
    // A tenth of every class, and 0.7 more of the right one.
    let uniform = (8f64.ln() + 1.6f64.ln() + 4f64.ln() + 2.0 * 6f64.ln() + 1.5f64.ln()) / 2.0;
    let smooth = 0.7 * plain + 0.1 * uniform;
    assert!((loss(0.3) - smooth).abs() < 1e-6, "{} and not {smooth}", loss(0.3));
}

#[test]
fn accuracy_counts_the_first_and_the_first_five() {
    let logits = |images: usize| {
        let row = [3.0f32, 9.0, 5.0, 1.0, 8.0, 7.0, 0.0];
        Tensor::<2>::from_data(TensorData::new(row.repeat(images), [images, 7]), &Device::flex())
    };
    let mut totals = Totals::default();
    // Ranks 0, 4 and 6; then 1 and 5.
    totals.add(logits(3), &[1, 0, 6], 1.0);
    totals.add(logits(2), &[4, 3], 3.5);
    assert_eq!(totals.images(), 5);
    assert_eq!((totals.top1(), totals.top5()), (20.0, 60.0));
    assert_eq!(totals.loss(), 2.0);

    // Fewer than five classes: every label is among the first five.
    let mut totals = Totals::default();
    totals.add(Tensor::from_floats([[2.0, 1.0], [2.0, 1.0]], &Device::flex()), &[0, 1], 0.0);
    assert_eq!((totals.top1(), totals.top5()), (50.0, 100.0));
}
