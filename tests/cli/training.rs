//! Training itself: a run that fails keeps its last good checkpoint, and optimizers, loss and
//! accuracy follow their definitions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use dbb_models::weights::{StateDict, WeightsFile};
use dbb_models::{Arch, BlockKind, Classifier, Form, ModelConfig};
use dbb_training::config::OptimSection;
use dbb_training::inference::evaluate::cross_entropy;
use dbb_training::run::directory::RunDir;
use dbb_training::run::metrics::Totals;
use dbb_training::train::optimizer::Optimizer;

use crate::runs::*;

// ---- A non-finite loss ----------------------------------------------------------------------

#[test]
fn a_rate_out_of_all_bounds_ends_the_run_in_its_first_epoch() {
    let folder = folder();
    let run = folder.path().join("run");
    fails(
        &mut training(&["train.epochs=2", "optim.lr=1e30"], &run),
        3,
        &[
            "error: the loss is NaN",
            "epoch 1, step 2 (batch 2 of the epoch; first at the value of ",
            "no checkpoint had been saved",
            "lower optim.lr",
        ],
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
    let kept = RunDir::new(&run).checkpoint(after(1));
    let parts = [parts, &["is kept", kept.to_str().expect("text")]].concat();
    fails(&mut training(&keys, &run), 3, &parts);

    let run_dir = RunDir::new(&run);
    assert_eq!(checkpoints(&run), ["00001"]);
    assert_eq!(epochs(&run), [1.0]);
    assert!(!run_dir.deploy_weights().exists());
    assert_eq!(eval(&run, &["--deploy"])["top1"], metrics(&run)[0]["top1"]);
    // Going on gets no further, and spoils nothing.
    let before = snapshot(&kept);
    fails(&mut resuming(&run), 3, &parts);
    assert!(before == snapshot(&kept), "the checkpoint has changed");
}

#[test]
fn a_loss_that_is_no_number_keeps_the_last_good_checkpoint() {
    // Four steps an epoch; the fifth has a loss and ruins the weights.
    ends_in_its_second_epoch(&[], &["the loss is NaN", "epoch 2, step 6"]);
}

#[test]
fn weights_ruined_by_the_last_step_of_an_epoch_are_not_kept() {
    ends_in_its_second_epoch(&["train.batch_size=64"], &["the validation loss is NaN", "epoch 2"]);
}

#[test]
fn a_run_goes_back_and_on_with_a_lower_rate_as_often_as_it_may() {
    let folder = folder();
    let run = folder.path().join("run");
    let keys = ["train.epochs=2", "optim.lr=1e30", "train.rollback_lr=1e-16"];
    let once = [&keys[..], &["train.rollbacks=1"]].concat();
    fails(&mut training(&once, &folder.path().join("once")), 3, &["rollback 1 of 1"]);
    // 1e30 and 1e14 are too much, 0.01 is not: twice from the beginning.
    let twice = [&keys[..], &["train.rollbacks=2"]].concat();
    let trained = call(&mut training(&twice, &run)).succeeds();
    trained.says(&["rollback 2 of 2: resuming from the beginning with"]);
    let lr = number(&metrics(&run)[0], "lr");
    assert!(lr > 0.0 && lr < 0.011, "{lr}");
}

#[test]
fn a_jump_of_the_loss_is_told_and_counted() {
    let folder = folder();
    let run = folder.path().join("run");
    let spoil = ["schedule.kind=step", "schedule.milestones=[6]", "schedule.gamma=50"];
    let keys = [&["train.epochs=7"], &spoil[..]].concat();
    call(&mut training(&keys, &run)).says(&["the loss jumped to"]);
    let spikes: Vec<f64> = metrics(&run).iter().map(|record| number(record, "spikes")).collect();
    assert!(spikes[..6].iter().all(|count| *count == 0.0) && spikes[6] > 0.0, "{spikes:?}");
}

// ---- The moving average ----------------------------------------------------------------------

#[test]
fn the_average_is_what_is_validated_and_exported() {
    let folder = folder();
    let run = folder.path().join("run");
    succeeds(&mut training(&["train.epochs=2", "train.ema=0.9"], &run));
    let (evaluated, records) = (eval(&run, &["--deploy"]), metrics(&run));
    let last = records.last().expect("an epoch");
    assert_eq!(evaluated["top1"], last["top1"]);
    let [found, expected] = [number(&evaluated, "loss"), number(last, "val_loss")];
    assert!(close(found, expected, 1e-6), "{found} and not {expected}");

    let export = |form: &str| {
        let file = folder.path().join(format!("{form}.safetensors"));
        let options = ["--format", "safetensors", "--form", form, "--json", "--out"];
        succeeds(Command::new(DBB).arg("export").arg(&run).args(options).arg(&file));
        tensors_of(&file)
    };
    let checkpoint = newest(&run);
    let average = tensors_of(&RunDir::ema(&checkpoint));
    let network = tensors_of(&RunDir::network(&checkpoint));
    assert!(export("train") == average, "another network than the average is exported");
    assert!(average != network, "the average is the network");
    assert!(export("deploy") == tensors_of(&RunDir::new(&run).deploy_weights()));
}

fn tensors_of(file: &Path) -> StateDict {
    WeightsFile::read(file).expect("weights").tensors
}

// ---- Data -----------------------------------------------------------------------------------

#[test]
fn validation_images_can_be_cut_from_the_training_images() {
    let folder = folder();
    let run = folder.path().join("run");
    let keys = ["train.epochs=1", "data.val_from_train=0.25", "data.limit_val=5000"];
    succeeds(&mut training(&keys, &run));
    // A quarter of the sample's 10,000 training images; its own validation images are apart.
    assert_eq!(eval(&run, &[])["n"], 2500);
    assert_eq!(eval(&run, &["--data", "sample"])["n"], 2000);
}

#[test]
fn images_kept_in_memory_change_no_bit() {
    let folder = folder();
    let train = |memory: &str, workers: &str| {
        let run = folder.path().join(format!("{memory} {workers}"));
        let [memory, workers] =
            [("cache_mb", memory), ("workers", workers)].map(|(key, n)| format!("data.{key}={n}"));
        let keys = [&FULL[..], &["train.epochs=3", &memory, &workers]].concat();
        succeeds(&mut training(&keys, &run));
        (metrics(&run), weights(&run))
    };
    let plain = train("0", "0");
    for workers in ["0", "1", "4"] {
        assert!(train("1", workers) == plain, "{workers} workers");
    }
}

/// One file of three cannot be read: named once in three epochs, counted in each.
#[test]
fn an_image_that_cannot_be_read_is_named_once_and_counted_every_time() {
    let folder = folder();
    let (data, run) = (folder.path().join("data"), folder.path().join("run"));
    for (class, value) in [("bee", 0), ("cat", 250)] {
        for split in ["train", "val"] {
            let class = data.join(split).join(class);
            std::fs::create_dir_all(&class).expect("a folder");
            for n in 0..4 {
                let image = image::GrayImage::from_pixel(8, 8, image::Luma([value + n]));
                image.save(class.join(format!("{n}.png"))).expect("an image");
            }
        }
    }
    std::fs::write(data.join("train/bee/1.png"), b"no image").expect("a file");
    let source = format!("data.source={}", data.display());
    let keys = ["train.epochs=3", "train.batch_size=4", "data.limit_train=100", &source];
    let train = |more: &[&str], out: &str| training(&[&keys, more].concat(), &run.join(out));
    fails(&mut train(&[], "error"), 1, &["bee/1.png cannot be used", "it is not a JPEG"]);
    let none = ["data.on_bad_sample=skip", "data.max_bad_samples=0"];
    fails(&mut train(&none, "none"), 1, &["1 images could not be read", "max_bad_samples = 0"]);
    let trained = call(&mut train(&["data.on_bad_sample=skip"], "skip")).succeeds();
    assert_eq!(trained.stderr.matches("bee/1.png").count(), 1, "{}", trained.all());
    for record in metrics(&run.join("skip")) {
        assert_eq!((&record["images"], &record["skipped"]), (&7.into(), &1.into()));
    }
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
    let mut optimizer = Optimizer::new(&section, &network);
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
