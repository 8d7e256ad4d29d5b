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

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use dbb_models::blocks::{
    Activation, Block, BlockKind, Branch, ConvSpec, ConvUnit, DbbConfig, Epilogue,
};
use dbb_models::weights::{Dialect, KeyMap, StateDict};
use dbb_models::{Arch, Form, Implementation, LayerCount, ModelConfig, Reparameterize, Walk};
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

/// A unit and how it is used.
struct UnitCase {
    spec: ConvSpec,
    block: Block,
    activation: Option<Activation>,
    residual: bool,
    /// Whether the norms use their running statistics in training.
    fixed: bool,
}

impl UnitCase {
    fn new(spec: ConvSpec, block: Block) -> Self {
        Self { spec, block, activation: None, residual: false, fixed: false }
    }

    fn name(&self) -> String {
        let ConvSpec { kernel_size: [kh, kw], stride: [stride, _], groups, .. } = self.spec;
        let Self { block, activation, residual, fixed, .. } = self;
        format!(
            "{block:?} {kh}x{kw} stride {stride} groups {groups} {activation:?} \
             residual {residual} fixed norms {fixed}"
        )
    }

    fn kind(&self) -> BlockKind {
        self.block.kind().unwrap_or(BlockKind::Base)
    }

    /// Outputs, gradients, running statistics and the fold of the unit.
    fn values(&self, device: &Device) -> Values {
        let (spec, kind) = (&self.spec, self.kind());
        let unit = ConvUnit::new(spec, &self.block, &device.clone().autodiff()).expect("a unit");
        let keys = KeyMap::official_unit(&unit, kind);
        let state = randomised(&keys.save(&unit), 5);
        let mut unit = keys.load(unit, &state).expect("its own keys");
        for norm in unit.norms_mut() {
            norm.training = Param::from_bool(!self.fixed);
        }
        let images = Array::random(&[4, spec.channels[0], 9, 10], [-1.0, 1.0], 7).rounded();
        let [height, width] = spec.output_size([9, 10]);
        let shape = [4, spec.channels[1], height, width];
        let residual = Array::random(&shape, [-1.0, 1.0], 8).rounded();
        let epilogue = |device: &Device| Epilogue {
            residual: self.residual.then(|| residual.tensor(device)),
            activation: self.activation,
        };

        let eval = unit.valid();
        let images_eval = images.tensor::<4>(device);
        let folded = eval.reparameterize();
        let mut values: Values = Vec::new();
        for (name, unit) in [("eval", &eval), ("deploy", &folded)] {
            let forward = || unit.forward_then(images_eval.clone(), epilogue(device));
            values.push((name.into(), counted(device, forward).into(), VALUES));
        }
        let folded_keys = KeyMap::official_unit(&folded, kind);
        values.extend(named("folded", &folded_keys.save(&folded), VALUES));

        let autodiff = device.clone().autodiff();
        let images = images.tensor::<4>(&autodiff).require_grad();
        let epilogue = epilogue(&autodiff);
        let residual = epilogue.residual.clone().map(Tensor::require_grad);
        let epilogue = Epilogue { residual: residual.clone(), ..epilogue };
        let output = counted(device, || unit.forward_then(images.clone(), epilogue));
        let weights = Array::random(&shape, [-1.0, 1.0], 9).rounded();
        let loss = (output.clone() * weights.tensor(&autodiff)).sum();
        let grads = loss.backward();
        values.push(("train".into(), output.inner().into(), VALUES));
        let inputs = [("input", Some(images)), ("residual", residual)];
        for (name, tensor) in inputs.into_iter().filter_map(|(name, t)| Some((name, t?))) {
            let grad = tensor.grad(&grads).expect("a gradient");
            values.push((format!("gradient {name}"), grad.into(), GRADIENTS));
        }
        values.extend(named("gradient", &gradients(&unit, &keys, &grads), GRADIENTS));
        let mut after = keys.save(&unit);
        after.retain(|key, _| is_statistic(key));
        values.extend(named("statistics", &after, VALUES));
        values
    }

    fn check(&self) {
        compare(&self.name(), |device| self.values(device));
    }
}

/// Runs the forward pass of a unit, on flex by the kernels alone where they are chosen.
fn counted<T>(device: &Device, forward: impl FnOnce() -> T) -> T {
    let (output, layers) = LayerCount::during(forward);
    if device == &open("flex") {
        let fast = Implementation::current() == Implementation::Fast;
        assert_eq!((layers.fast, layers.plain), if fast { (1, 0) } else { (0, 1) });
    }
    output
}

fn dense(size: usize, stride: usize) -> ConvSpec {
    ConvSpec::square([6, 8], size, stride)
}

fn depthwise(size: usize, stride: usize) -> ConvSpec {
    ConvSpec::square([6, 6], size, stride).with_groups(6)
}

/// Dense, grouped, depthwise, and of a single channel.
fn geometries(size: usize, stride: usize) -> [ConvSpec; 4] {
    let single = ConvSpec::square([1, 1], size, stride);
    [dense(size, stride), dense(size, stride).with_groups(2), depthwise(size, stride), single]
}

fn dbb(branches: &[Branch]) -> Block {
    Block::Dbb(DbbConfig { branches: branches.to_vec(), ..Default::default() })
}

fn every_block() -> impl Iterator<Item = Block> {
    BlockKind::ALL.into_iter().map(|kind| kind.with_options(&Default::default()))
}

#[test]
fn blocks() {
    for (spec, block) in [
        (dense(3, 1), Block::Base),
        (dense(3, 1), dbb(&ALL)),
        (dense(3, 2), dbb(&ALL)),
        (dense(5, 1).with_groups(2), dbb(&ALL)),
        (depthwise(3, 1), dbb(&ALL)),
        (depthwise(5, 2), dbb(&ALL)),
        (dense(3, 1), Block::Acb),
        (dense(3, 2).with_padding([0, 0]), Block::Acb),
    ] {
        UnitCase::new(spec, block).check();
    }
    for block in every_block() {
        UnitCase::new(ConvSpec::square([6, 6], 3, 1), block.clone()).check();
        UnitCase::new(ConvSpec::square([6, 6], 3, 1).with_groups(6), block).check();
    }
}

const ALL: [Branch; 4] = [Branch::Kxk, Branch::Pointwise, Branch::PointwiseKxk, Branch::Average];

#[test]
fn diverse_branch_blocks_of_any_branches() {
    for subset in 1..16 {
        let branches: Vec<_> =
            (0..4).filter(|branch| subset & 1 << branch != 0).map(|branch| ALL[branch]).collect();
        for spec in geometries(3, 1 + subset % 2) {
            // A depthwise block has no 1x1 branch.
            let separate = spec.groups == spec.channels[1];
            if !(separate && branches == [Branch::Pointwise]) {
                UnitCase::new(spec, dbb(&branches)).check();
            }
        }
    }
}

#[test]
fn blocks_with_every_activation() {
    for activation in [Activation::Relu, Activation::Relu6, Activation::HardSwish] {
        for block in every_block() {
            for (spec, residual) in geometries(3, 1).into_iter().zip([true, false, true, false]) {
                let case = UnitCase::new(spec, block.clone());
                UnitCase { activation: Some(activation), residual, ..case }.check();
            }
        }
    }
}

#[test]
fn blocks_with_fixed_norms() {
    for block in every_block() {
        for (spec, residual) in geometries(3, 2).into_iter().zip([true, false, false, true]) {
            let case = UnitCase::new(spec, block.clone());
            UnitCase { activation: Some(Activation::Relu), residual, fixed: true, ..case }.check();
        }
    }
}

/// Every block, activation and pattern of frozen layers of a training step runs on the kernels.
#[test]
fn no_layer_of_a_network_runs_without_kernels() {
    let _alone = alone();
    let device = open("flex").autodiff();
    for arch in [
        Arch::ResNet20,
        Arch::MobileNetV1,
        Arch::MobileNetV2,
        Arch::MobileNetV3Small,
        Arch::RepVggA0,
        Arch::MobileOneS4,
        Arch::Vgg16,
        Arch::AlexNet,
    ] {
        for block in BlockKind::ALL {
            let model = ModelConfig { width: 0.25, ..ModelConfig::new(arch, block, 5) };
            let fresh = model.init(Form::Train, &device).expect("a network");
            let layers = fresh.layer_names();
            for frozen in [vec![], vec![layers[0].clone()], vec!["*1*".into()]] {
                let network = model.freeze(fresh.clone(), &frozen).expect("layers to train");
                let images = Array::random(&[2, 3, 32, 32], [-1.0, 1.0], 11);
                let forward = || network.forward(images.tensor(&device));
                let (logits, layers) = LayerCount::during(forward);
                assert_eq!(layers.plain, 0, "{arch} {block} {frozen:?}");
                logits.sum().backward();
            }
        }
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
