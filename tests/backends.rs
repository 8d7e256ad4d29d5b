//! One code, several backends: blocks, networks, a training step and a fold on every backend this
//! build has and this machine can run, against the CPU backend flex.
//!
//! ```sh
//! cargo test --release --workspace --features dbb-training/wgpu,dbb-training/ndarray \\
//!     --test backends -- --nocapture
//! ```
//!
//! prints the largest differences. Flex itself must give the same bits twice, whatever the build.

mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use dbb_models::blocks::{Block, BlockKind, ConvSpec, ConvUnit};
use dbb_models::weights::{Dialect, KeyMap, StateDict};
use dbb_models::{Arch, Form, Implementation, LayerCount, ModelConfig, Reparameterize};
use dbb_training::config::OptimSection;
use dbb_training::inference::evaluate::cross_entropy;
use dbb_training::train::optimizer::Optimizer;
use support::{Array, Worst, difference, gradients, is_statistic, randomised};

/// Relative to the largest value of the tensor. Backends add in different orders.
const VALUES: f64 = 2e-5;
const GRADIENTS: f64 = 2e-4;
/// Weights after a step through a whole network.
const STEP: f64 = 2e-4;

/// Names of the devices to compare with flex, flex among them.
fn names() -> Vec<String> {
    dbb_training::device::list().into_iter().flat_map(|kind| kind.present).collect()
}

fn open(name: &str) -> Device {
    dbb_training::device::open(name).expect("a device that is present")
}

/// What is compared: named values, each with its tolerance.
type Values = Vec<(String, Array, f64)>;

fn named(what: &str, state: &StateDict, tolerance: f64) -> Values {
    state.iter().map(|(key, data)| (format!("{what} {key}"), data.into(), tolerance)).collect()
}

/// The random numbers of a device are one sequence for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `compute` on flex and then on every device, and on flex without the kernels, and compares
/// the values.
fn compare(what: &str, compute: impl Fn(&Device) -> Values) {
    let _alone = alone();
    let expected = compute(&open("flex"));
    let mut runs: Vec<_> = names().into_iter().map(|name| (name, Implementation::Fast)).collect();
    runs.push(("flex".into(), Implementation::Plain));
    for (name, implementation) in runs {
        let mut worst = Worst::default();
        let actual = implementation.during(|| compute(&open(&name)));
        let name = match implementation {
            Implementation::Fast => name,
            Implementation::Plain => format!("{name} without kernels"),
        };
        assert_eq!(actual.len(), expected.len());
        for ((key, actual, tolerance), (_, expected, _)) in actual.iter().zip(&expected) {
            let error = difference(actual, expected) / expected.max_abs().max(1.0);
            let tolerance = if name == "flex" { 0.0 } else { *tolerance };
            let what = format!("{name}, {what}, {key}");
            assert!(error <= tolerance, "{what}: {error:.1e} above {tolerance:.0e}");
            worst.note(key.split(' ').next().unwrap_or_default(), error, key);
        }
        println!("{name}, {what}:");
        worst.print();
    }
}

/// Outputs, gradients, running statistics and the fold of a unit.
fn unit_values(spec: &ConvSpec, kind: BlockKind, device: &Device) -> Values {
    let block = match kind {
        BlockKind::Base => Block::Base,
        BlockKind::Dbb => Block::Dbb(Default::default()),
        BlockKind::Acb => Block::Acb,
    };
    let unit = ConvUnit::new(spec, &block, &device.clone().autodiff()).expect("a unit");
    let keys = KeyMap::official_unit(&unit, kind);
    let state = randomised(&keys.save(&unit), 5);
    let unit = keys.load(unit, &state).expect("its own keys");
    let images = Array::random(&[4, spec.channels[0], 9, 10], [-1.0, 1.0], 7).rounded();

    let eval = unit.valid();
    let images_eval = images.tensor::<4>(device);
    let folded = eval.reparameterize();
    let mut values: Values = vec![
        ("eval".into(), eval.forward(images_eval.clone()).into(), VALUES),
        ("deploy".into(), folded.forward(images_eval).into(), VALUES),
    ];
    let folded_keys = KeyMap::official_unit(&folded, kind);
    values.extend(named("folded", &folded_keys.save(&folded), VALUES));

    let images = images.tensor::<4>(&device.clone().autodiff()).require_grad();
    let output = unit.forward(images.clone());
    let weights = Array::random(&output.dims(), [-1.0, 1.0], 9).rounded();
    let loss = (output.clone() * weights.tensor(&device.clone().autodiff())).sum();
    let grads = loss.backward();
    values.push(("train".into(), output.inner().into(), VALUES));
    let input_grad = images.grad(&grads).expect("a gradient");
    values.push(("gradient input".into(), input_grad.into(), GRADIENTS));
    values.extend(named("gradient", &gradients(&unit, &keys, &grads), GRADIENTS));
    let mut after = keys.save(&unit);
    after.retain(|key, _| is_statistic(key));
    values.extend(named("statistics", &after, VALUES));
    values
}

#[test]
fn blocks() {
    let dense = |size, stride| ConvSpec::square([6, 8], size, stride);
    let depthwise = |size, stride| ConvSpec::square([6, 6], size, stride).with_groups(6);
    for (spec, kind) in [
        (dense(3, 1), BlockKind::Base),
        (dense(3, 1), BlockKind::Dbb),
        (dense(3, 2), BlockKind::Dbb),
        (dense(5, 1).with_groups(2), BlockKind::Dbb),
        (depthwise(3, 1), BlockKind::Dbb),
        (depthwise(5, 2), BlockKind::Dbb),
        (dense(3, 1), BlockKind::Acb),
        (dense(3, 2).with_padding([0, 0]), BlockKind::Acb),
    ] {
        let what = format!(
            "{kind} {}x{} stride {} groups {}",
            spec.kernel_size[0], spec.kernel_size[1], spec.stride[0], spec.groups
        );
        compare(&what, |device| unit_values(&spec, kind, device));
    }
}

/// Logits of both forms with random statistics, and what a step of SGD makes of the fresh
/// network `start`. (A step from random statistics would multiply rounding by thousands.)
fn network_values(model: &ModelConfig, start: &StateDict, device: &Device) -> Values {
    let training = device.clone().autodiff();
    let network = model.init(Form::Train, &training).expect("a network");
    let keys = KeyMap::new(Dialect::Native, model, &network).expect("native names");
    let load = |state: &StateDict| keys.load(network.clone(), state).expect("its own keys");
    let images = Array::random(&[4, 3, 64, 64], [-1.0, 1.0], 11).rounded();

    let eval = load(&randomised(start, 3)).valid();
    let deploy = eval.reparameterize();
    let mut values: Values = vec![
        ("logits".into(), eval.forward(images.tensor(device)).into(), VALUES),
        ("deploy".into(), deploy.forward(images.tensor(device)).into(), VALUES),
    ];

    let network = load(start);
    let mut optimizer = Optimizer::new(&sgd(), &network);
    let targets = Tensor::<1, Int>::from_ints([0, 1, 2, 3], &training);
    let (logits, layers) = LayerCount::during(|| network.forward(images.tensor(&training)));
    if device == &open("flex") {
        let fast = Implementation::current() == Implementation::Fast;
        assert_eq!(layers.plain == 0, fast, "{layers:?}");
        assert_eq!(layers.fast > 0, fast, "{layers:?}");
    }
    let loss = cross_entropy(logits, targets, 0.1);
    values.push(("loss".into(), loss.clone().inner().into(), VALUES));
    let grads = GradientsParams::from_grads(loss.backward(), &network);
    let network = optimizer.inner.step(optimizer.learning_rates(0.01), network, grads);
    values.extend(named("step", &keys.save(&network.valid()), STEP));
    values
}

fn sgd() -> OptimSection {
    toml::from_str("lr = 0.01").expect("a section")
}

#[test]
fn networks() {
    for (arch, width, block) in [
        (Arch::ResNet20, 0.25, BlockKind::Dbb),
        (Arch::ResNet18, 0.0625, BlockKind::Acb),
        (Arch::MobileNetV1, 0.125, BlockKind::Dbb),
    ] {
        let model = ModelConfig { width, ..ModelConfig::new(arch, block, 5) };
        let start = {
            let _alone = alone();
            let device = open("flex");
            device.seed(3);
            let fresh = model.init(Form::Train, &device).expect("a network");
            KeyMap::new(Dialect::Native, &model, &fresh).expect("native names").save(&fresh)
        };
        compare(&format!("{arch} {block}"), |device| network_values(&model, &start, device));
    }
}
