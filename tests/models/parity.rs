//! The blocks and networks against the paper's own PyTorch code: its outputs, gradients, running
//! statistics, folded kernels and losses, in the files of `tests/fixtures` (see the README there)
//! or of the folder that `DBB_FIXTURES` names. `--nocapture` prints the largest errors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::fixture::{self, Fixture, NetworkConfig, counters, without_counters};
use crate::support::sgd::training_losses;
use crate::support::{Array, Worst, difference, gradients, is_statistic};
use burn::tensor::Device;
use burn::tensor::activation::relu;
use dbb_models::blocks::{
    BlockKind, BlockOptions, ConvSpec, ConvUnit, DbbConfig, MobileOneConfig, OrepaConfig,
};
use dbb_models::weights::{Dialect, KeyMap, LoadOptions, StateDict, WeightsFile, adopt};
use dbb_models::{Form, Implementation, Reparameterize};
use serde::Deserialize;

/// Outputs, kernels, biases and running statistics, relative to the largest reference value.
const VALUES: f64 = 2e-5;
const GRADIENTS: f64 = 5e-5;
/// The promise for the logits of a network.
const LOGITS: f64 = 1e-4;
/// Losses before the first two steps of SGD, relative. A step multiplies rounding errors by
/// thousands; `parity_f64.rs` follows the trace further.
const TRACE: [f64; 2] = [2e-5, 1e-2];

#[test]
fn every_fixture() {
    let files = fixture::files(&[".safetensors"]);
    assert!(!files.is_empty(), "no *.safetensors in {}", fixture::folder().display());
    let mut report = Report::default();
    let runs = [Implementation::Plain, Implementation::Fast].into_iter();
    for (implementation, path) in runs.flat_map(|run| files.iter().map(move |path| (run, path))) {
        let fixture = Fixture::read(path);
        let kind = fixture.config::<Kind>().kind;
        report.file = format!("{}, {implementation}", fixture.name);
        let read = WeightsFile::read(path).expect("a fixture is readable");
        report.same_tensors("tensors of WeightsFile", &read.tensors, &fixture.below(""));
        implementation.during(|| match kind.as_str() {
            "model" if fixture::is_of_family(path) => {}
            "model" => check_model(&fixture, &mut report),
            _ => check_block(&fixture, &mut report),
        });
        *report.counts.entry(kind).or_default() += 1;
    }
    report.finish();
}

/// The checkpoints as the paper's training script saves them, in both formats of PyTorch, hold
/// the state dict of the safetensors file whose name theirs begins with.
#[test]
fn checkpoints_of_pytorch() {
    let twins = fixture::files(&[".safetensors"]);
    let mut report = Report::default();
    let files = fixture::files(&[".pth", ".pth.tar"]);
    for path in files.into_iter().filter(|path| !fixture::is_of_family(path)) {
        report.file = file_name(&path);
        let stem = |twin: &&PathBuf| file_name(twin).replace(".safetensors", "");
        let twin = twins.iter().filter(|twin| report.file.starts_with(&stem(twin)));
        let twin = twin.max_by_key(|twin| stem(twin).len());
        let twin = twin.unwrap_or_else(|| panic!("{}: no safetensors twin", report.file));
        let fixture = Fixture::read(twin);
        let config: NetworkConfig = fixture.config();

        let file = WeightsFile::read(&path).expect("a checkpoint is readable");
        report.same_tensors("state dict", &file.tensors, &fixture.state());
        for tensors in [file.tensors.clone(), fixture.state()] {
            let file = WeightsFile { tensors: config.with_stem(tensors), ..file.clone() };
            let (network, found) =
                adopt(&file, &config.model(&fixture), LoadOptions::default(), &Device::default())
                    .expect("weights fit");
            assert_eq!(
                (found.keys, found.form),
                (Dialect::Official, Form::Train),
                "{}",
                report.file
            );
            let logits = network.forward(fixture.array("input").tensor(&Device::default()));
            report.check(
                "logits of adopted file",
                &logits.into(),
                &fixture.array("logits_eval"),
                LOGITS,
            );
        }
        *report.counts.entry("checkpoint".into()).or_default() += 1;
    }
    if std::env::var_os("DBB_FIXTURES").is_none() {
        assert_eq!(report.counts.get("checkpoint"), Some(&2), "both formats of PyTorch");
    }
    report.finish();
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct SingleBlock {
    kind: String,
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    stride: usize,
    padding: usize,
    groups: usize,
    internal_channels: Option<usize>,
    num_conv_branches: Option<usize>,
    relu: bool,
    bn_eps: f64,
    bn_momentum: f64,
    dilation: usize,
}

impl SingleBlock {
    fn unit(&self, device: &Device) -> (ConvUnit, BlockKind) {
        // These are constants of the code under test.
        assert_eq!((self.bn_eps, self.bn_momentum, self.dilation), (1e-5, 0.1, 1));
        let spec = ConvSpec::new([self.in_channels, self.out_channels], [self.kernel_size; 2])
            .with_stride([self.stride; 2])
            .with_padding([self.padding; 2])
            .with_groups(self.groups);
        let kind: BlockKind = self.kind.parse().expect("a block of the zoo");
        let internal_channels = self.internal_channels;
        let block = kind.with_options(&BlockOptions {
            dbb: DbbConfig { internal_channels, ..Default::default() },
            mobileone: MobileOneConfig::with_copies(self.num_conv_branches.unwrap_or(1)),
            orepa: OrepaConfig { internal_channels },
        });
        (ConvUnit::new(&spec, &block, device).expect("a block of the paper's code"), kind)
    }
}

fn check_block(fixture: &Fixture, report: &mut Report) {
    let config: SingleBlock = fixture.config();
    let device = Device::default();
    let activation = |map| if config.relu { relu(map) } else { map };
    let state = fixture.state();
    report.counters_of_norms(&state);
    let load = |device: &Device| {
        let (unit, kind) = config.unit(device);
        let keys = KeyMap::official_unit(&unit, kind);
        let unit = keys.load(unit, &state).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
        (unit, keys, kind)
    };

    let (unit, keys, kind) = load(&device);
    report.same_tensors("loaded state dict", &keys.save(&unit), &without_counters(state.clone()));
    let input = fixture.array("input").tensor(&device);
    let output = activation(unit.forward(input.clone()));
    report.check("block eval output", &output.into(), &fixture.array("output_eval"), VALUES);

    let params = unit.equivalent();
    let kernel = Array::new(&params.kernel.shape(), params.kernel.data);
    let bias = Array::new(&[params.bias.len()], params.bias);
    report.check("block folded kernel", &kernel, &fixture.array("equiv_kernel"), VALUES);
    report.check("block folded bias", &bias, &fixture.array("equiv_bias"), VALUES);

    let fused = unit.reparameterize();
    let output = activation(fused.forward(input));
    report.check("block deploy output", &output.into(), &fixture.array("output_deploy"), VALUES);
    let names: Vec<_> = KeyMap::official_unit(&fused, kind).save(&fused).into_keys().collect();
    let module = match (config.kind.as_str(), config.kernel_size) {
        ("dbb", _) => "dbb_reparam",
        ("acb", _) => "fused_conv",
        ("repvgg" | "qarepvgg", _) => "rbr_reparam",
        ("mobileone", _) => "reparam_conv",
        ("orepa", 1) => "or1x1_reparam",
        ("orepa", _) => "orepa_reparam",
        (other, _) => panic!("{}: unknown kind \"{other}\"", fixture.name),
    };
    assert_eq!(names, ["bias", "weight"].map(|tensor| format!("{module}.{tensor}")));

    let autodiff = device.autodiff();
    let (unit, keys, _) = load(&autodiff);
    let input = fixture.array("input").tensor::<4>(&autodiff).require_grad();
    let output = activation(unit.forward(input.clone()));
    let loss = (output.clone() * fixture.array("loss_weight").tensor(&autodiff)).sum();
    report.check("block train output", &output.into(), &fixture.array("output_train"), VALUES);
    let value = Array::from(loss.clone()).data;
    report.check("block train loss", &Array::new(&[], value), &fixture.array("loss"), VALUES);

    let grads = loss.backward();
    let input_grad = input.grad(&grads).expect("a gradient of the input");
    report.check("block gradient", &input_grad.into(), &fixture.array("grad.input"), GRADIENTS);
    let mut expected = fixture.below("grad.");
    expected.remove("input");
    let actual = gradients(&unit, &keys, &grads);
    report.check_all("block gradient", &actual, &expected, GRADIENTS);

    let mut statistics = keys.save(&unit);
    statistics.retain(|key, _| is_statistic(key));
    let after = fixture.below("after.");
    report.check_all(
        "block running statistics",
        &statistics,
        &without_counters(after.clone()),
        VALUES,
    );
    let advanced: BTreeMap<_, _> =
        counters(&state).into_iter().map(|(key, count)| (key, count + 1)).collect();
    assert_eq!(counters(&after), advanced, "{}: batches counted", fixture.name);
}

fn check_model(fixture: &Fixture, report: &mut Report) {
    let config: NetworkConfig = fixture.config();
    let model = config.model(fixture);
    let device = Device::default();
    let state = config.with_stem(fixture.state());
    report.counters_of_norms(&state);
    let load = |form, device: &Device, state: &StateDict| {
        let network = model.init(form, device).expect("a network of the paper's code");
        let keys = KeyMap::new(Dialect::Official, &model, &network).expect("official names");
        let network = keys.load(network, state).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
        (network, keys)
    };

    let (network, keys) = load(Form::Train, &device, &state);
    report.same_tensors(
        "loaded state dict",
        &keys.save(&network),
        &without_counters(state.clone()),
    );
    let input = fixture.array("input").tensor(&device);
    let logits = Array::from(network.forward(input.clone()));
    report.check("model eval logits", &logits, &fixture.array("logits_eval"), LOGITS);

    let folded = network.reparameterize();
    let expected = config.with_stem(fixture.below("deploy."));
    let keys = KeyMap::new(Dialect::Official, &model, &folded).expect("official names");
    report.check_all("model folded tensors", &keys.save(&folded), &expected, VALUES);
    let (stored, _) = load(Form::Deploy, &device, &expected);
    for (kind, network) in
        [("model deploy logits", &folded), ("model stored deploy logits", &stored)]
    {
        let logits = network.forward(input.clone());
        report.check(kind, &logits.into(), &fixture.array("logits_deploy"), LOGITS);
    }

    let (network, _) = load(Form::Train, &device.autodiff(), &state);
    let losses = training_losses(network, fixture, TRACE.len());
    let expected = fixture.array("trace.loss").data;
    for (step, (loss, expected)) in losses.iter().zip(expected).enumerate() {
        let error = (loss - expected).abs() / expected.abs();
        report.record(
            &format!("model loss of step {}", step + 1),
            "trace.loss",
            error,
            TRACE[step],
        );
    }
}

/// Collects the errors of all files, so that one run shows every deviation.
#[derive(Default)]
struct Report {
    file: String,
    counts: BTreeMap<String, usize>,
    worst: Worst,
    failures: Vec<String>,
}

impl Report {
    fn check(&mut self, kind: &str, actual: &Array, expected: &Array, tolerance: f64) {
        self.check_named(kind, kind, actual, expected, tolerance);
    }

    /// Two state dicts with equal keys and close values.
    fn check_all(&mut self, kind: &str, actual: &StateDict, expected: &StateDict, tolerance: f64) {
        let keys = |state: &StateDict| state.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(actual), keys(expected), "{}: {kind}: keys", self.file);
        for (key, expected) in expected {
            self.check_named(kind, key, &(&actual[key]).into(), &expected.into(), tolerance);
        }
    }

    fn check_named(
        &mut self,
        kind: &str,
        tensor: &str,
        actual: &Array,
        expected: &Array,
        tolerance: f64,
    ) {
        assert_eq!(actual.shape, expected.shape, "{}: {tensor}: shape", self.file);
        let error = difference(actual, expected) / expected.max_abs().max(1.0);
        self.record(kind, tensor, error, tolerance);
    }

    fn record(&mut self, kind: &str, tensor: &str, error: f64, tolerance: f64) {
        let place = format!("{} {tensor}", self.file);
        self.worst.note(kind, error, &place);
        if error.is_nan() || error > tolerance {
            self.failures
                .push(format!("{kind}: {place}: error {error:.2e}, tolerance {tolerance:.0e}"));
        }
    }

    /// Two state dicts of equal keys and bits.
    fn same_tensors(&mut self, what: &str, actual: &StateDict, expected: &StateDict) {
        let keys = actual.keys().chain(expected.keys());
        let differing = keys.filter(|key| actual.get(*key) != expected.get(*key));
        for key in differing.collect::<std::collections::BTreeSet<_>>() {
            self.failures
                .push(format!("{what}: {}: {key} is missing, added or changed", self.file));
        }
    }

    /// Every counter of batches belongs to a norm, and every norm has one.
    fn counters_of_norms(&mut self, state: &StateDict) {
        let stem = |key: &str| key.rsplit_once('.').map(|(stem, _)| stem.to_string());
        let counted: Vec<_> = counters(state).into_keys().map(stem).collect();
        let norms = state.keys().filter(|key| key.ends_with("running_mean"));
        let norms: Vec<_> = norms.map(|key| stem(key)).collect();
        assert_eq!(counted, norms, "{}: norms with a counter", self.file);
    }

    fn finish(self) {
        println!("files: {:?}", self.counts);
        self.worst.print();
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().expect("a file name").to_string_lossy().into_owned()
}
