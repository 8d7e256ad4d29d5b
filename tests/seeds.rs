//! Equal seeds give equal networks, whatever is done with them first.

mod support;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use dbb_models::weights::{Dialect, KeyMap};
use dbb_models::{Arch, BlockKind, Classifier, Form, ModelConfig};

// The random numbers of a device belong to the process: this stays the only test of the file.
#[test]
fn equal_seeds_give_equal_networks() {
    let config =
        ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Dbb, 10) };
    let network = |seed: u64, device: &Device| {
        device.seed(seed);
        config.init(Form::Train, device).expect("a network")
    };
    let state = |network: &Classifier| {
        KeyMap::new(Dialect::Native, &config, network).expect("native names").save(network)
    };
    let device = Device::default();
    let [first, second, third] = [7, 7, 8].map(|seed| network(seed, &device));
    let trained = network(7, &device.clone().autodiff());
    // Neither the order in which the networks are read nor what is read first matters.
    third.forward(Tensor::ones([1, 3, 32, 32], &device));
    second.forward(Tensor::ones([1, 3, 32, 32], &device));
    let expected = state(&first);
    assert!(state(&second) == expected, "networks of one seed differ");
    assert!(state(&trained.valid()) == expected, "the autodiff device draws other weights");
    assert!(state(&third) != expected, "networks of two seeds are equal");

    // No draw depends on anything but the seed: a network made later is the same.
    assert!(state(&network(7, &device)) == expected, "the seed does not restart the draws");
}
