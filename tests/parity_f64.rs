//! Four steps of training whole networks in double precision against the losses of the paper's
//! PyTorch code, also in double precision: every forward, batch statistic, border value and
//! gradient of a network enters them. In single precision such a trace is chaotic: changing the
//! input by 2e-7 moves the second loss of a narrow MobileNet by up to 1e-3, the fourth by 0.5.

mod support;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use dbb_models::Form;
use dbb_models::weights::{Dialect, KeyMap};
use serde::Deserialize;

use support::fixture::{self, Fixture, NetworkConfig};
use support::sgd::training_losses;

const TOLERANCE: f64 = 1e-8;

// The precision is a setting of the process: this stays the only test of the file.
#[test]
fn training_traces() {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    let mut device = Device::default();
    device.configure(FloatDType::F64).expect("nothing ran before");
    let device = device.autodiff();
    let files = fixture::files(&[".safetensors"]).into_iter();
    let fixtures =
        files.filter(|path| !fixture::is_of_family(path)).map(|path| Fixture::read(&path));
    let networks: Vec<_> = fixtures.filter(|f| f.config::<Kind>().kind == "model").collect();
    if std::env::var_os("DBB_FIXTURES").is_none() {
        assert!(!networks.is_empty(), "no networks in {}", fixture::folder().display());
    }
    for fixture in networks {
        let config: NetworkConfig = fixture.config();
        let model = config.model(&fixture);
        let network = model.init(Form::Train, &device).expect("a network of the paper's code");
        let keys = KeyMap::new(Dialect::Official, &model, &network).expect("official names");
        let network = keys.load(network, &config.with_stem(fixture.state())).expect("weights fit");

        let expected = fixture.array("trace.loss_f64").data;
        let losses = training_losses(network.map(&mut ToF64), &fixture, expected.len());
        for (step, (loss, expected)) in losses.iter().zip(expected).enumerate() {
            let (name, error) = (&fixture.name, (loss - expected).abs() / expected);
            println!("{name} trace.loss_f64 of step {}: error {error:.1e}", step + 1);
            assert!(
                error <= TOLERANCE,
                "{name}: trace.loss_f64 of step {}: {loss} against {expected}, error {error:.1e}, \
                 tolerance {TOLERANCE:.0e}",
                step + 1
            );
        }
    }
}

/// Widens every tensor; weights are loaded in single precision.
struct ToF64;

impl ModuleMapper for ToF64 {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let tracked = param.val().is_require_grad();
        let value = param.val().inner().cast(FloatDType::F64);
        Param::initialized(param.id, Tensor::from_inner(value).set_require_grad(tracked))
    }
}
