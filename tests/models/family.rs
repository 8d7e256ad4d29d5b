//! Networks of RepVGG and MobileOne against their authors' code: logits in both forms, folded tensors,
//! the losses of training, and their checkpoints folded without the network around them.

use crate::support::fixture::{self, Fixture, without_counters};
use crate::support::sgd::training_losses;
use crate::support::{Array, assert_close};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use dbb_models::backbones::{
    Backbone, Classifier, MobileOneNetConfig, NetworkBuilder, RepVggConfig,
};
use dbb_models::blocks::{BlockKind, BlockOptions, ConvSpec, ConvUnit, NormConfig};
use dbb_models::weights::{BlockFold, Dialect, KeyMap, StateDict, WeightsFile};
use dbb_models::{Arch, Form, Implementation, LayerBlocks, ModelConfig, Reparameterize};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Tensors and losses, relative to the largest.
const VALUES: f64 = 2e-5;
const LOGITS: f64 = 1e-4;
/// Steps of the trace.
const STEPS: usize = 4;

#[derive(Deserialize)]
struct Network {
    kind: String,
    arch: Option<String>,
    num_blocks: Option<[usize; 4]>,
    width_multiplier: Option<[f64; 4]>,
    #[serde(default)]
    override_groups_map: BTreeMap<String, usize>,
    num_conv_branches: Option<usize>,
}

impl Network {
    fn is_mobile(&self) -> bool {
        self.arch.as_deref() == Some("mobileone")
    }

    fn depths_and_widths(&self) -> ([usize; 4], [f64; 4]) {
        (self.num_blocks.expect("depths"), self.width_multiplier.expect("widths"))
    }

    /// The architecture whose names and block the network has.
    fn model(&self) -> ModelConfig {
        match self.is_mobile() {
            true => ModelConfig::new(Arch::MobileOneS0, BlockKind::MobileOne, 10),
            false => ModelConfig::new(Arch::RepVggA0, BlockKind::RepVgg, 10),
        }
    }

    /// The network of the zoo, of the fixture's depths and widths.
    fn build(&self, form: Form, device: &Device) -> Classifier {
        let (depths, widths) = self.depths_and_widths();
        let builder = NetworkBuilder {
            width: 1.0,
            in_channels: 3,
            num_classes: 10,
            activation: None,
            block: self.model().block,
            patterns: &LayerBlocks::default(),
            options: BlockOptions::default(),
            pointwise_blocks: self.is_mobile(),
            norm: NormConfig::default(),
            form,
            device,
        };
        match self.is_mobile() {
            true => {
                let copies = self.num_conv_branches.expect("copies");
                let config = MobileOneNetConfig { depths, widths, copies, squeeze_excite: [0; 4] };
                Classifier::MobileOne(config.build(&builder).expect("a network"))
            }
            false => {
                let config = RepVggConfig { depths, widths };
                Classifier::RepVgg(config.build(&builder).expect("a network"))
            }
        }
    }

    fn load(&self, form: Form, device: &Device, state: &StateDict) -> (Classifier, KeyMap) {
        let network = self.build(form, device);
        let keys = KeyMap::new(Dialect::Official, &self.model(), &network).expect("names");
        (keys.load(network, state).expect("the authors' tensors"), keys)
    }
}

fn networks() -> Vec<(PathBuf, Fixture, Network)> {
    let files = fixture::files(&[".safetensors"]).into_iter();
    let networks: Vec<_> = files
        .map(|path| {
            let fixture = Fixture::read(&path);
            let network: Network = fixture.config();
            (path, fixture, network)
        })
        .filter(|(_, _, network)| network.kind == "model" && network.num_blocks.is_some())
        .collect();
    if std::env::var_os("DBB_FIXTURES").is_none() {
        assert_eq!(networks.len(), 3);
    }
    networks
}

/// Those that the zoo can build: its networks have no groups.
fn dense_networks() -> impl Iterator<Item = (Fixture, Network)> {
    let networks = networks().into_iter().map(|(_, fixture, network)| (fixture, network));
    networks.filter(|(_, network)| network.override_groups_map.is_empty())
}

#[test]
fn logits_and_folded_tensors() {
    let device = Device::default();
    for implementation in [Implementation::Plain, Implementation::Fast] {
        for (fixture, network) in dense_networks() {
            let what = format!("{}, {implementation}", fixture.name);
            let state = without_counters(fixture.state());
            let images = fixture.array("input").tensor(&device);
            let check = |network: &Classifier, expected: &str| {
                let logits = implementation.during(|| network.forward(images.clone()));
                let expected = fixture.array(expected);
                assert_close(&what, &logits.into(), &expected, LOGITS, 1.0);
            };
            let (trained, keys) = network.load(Form::Train, &device, &state);
            assert!(keys.save(&trained) == state, "{what}: every tensor");
            check(&trained, "logits_eval");

            let folded = trained.reparameterize();
            let keys = KeyMap::new(Dialect::Official, &network.model(), &folded).expect("names");
            let (found, expected) = (keys.save(&folded), fixture.below("deploy."));
            assert!(found.keys().eq(expected.keys()), "{what}: names");
            for (key, expected) in &expected {
                assert_close(key, &(&found[key]).into(), &expected.into(), VALUES, 1.0);
            }
            check(&folded, "logits_deploy");
            check(&network.load(Form::Deploy, &device, &expected).0, "logits_deploy");
        }
    }
}

/// The losses before each of four steps of SGD on one batch.
#[test]
fn losses_of_training() {
    let device = Device::default().autodiff();
    for implementation in [Implementation::Plain, Implementation::Fast] {
        for (fixture, network) in dense_networks() {
            let state = without_counters(fixture.state());
            let (network, _) = network.load(Form::Train, &device, &state);
            let losses = implementation.during(|| training_losses(network, &fixture, STEPS));
            let expected = fixture.array("trace.loss_f64");
            let what = format!("{}, {implementation}", fixture.name);
            assert_close(&what, &Array::new(&[STEPS], losses), &expected, VALUES, 0.0);
        }
    }
}

#[test]
fn checkpoints_fold_into_the_deploy_networks() {
    for (path, fixture, _) in networks() {
        for path in [path.clone(), path.with_extension("pth")] {
            let tensors = match path.extension().unwrap() == "pth" {
                true => WeightsFile::read(&path).unwrap().tensors,
                false => fixture.state(),
            };
            let (folded, blocks) = BlockFold::default().fold(tensors).unwrap();
            assert!(blocks.iter().all(|block| block.max_rel_diff < 1e-5));
            let expected = fixture.below("deploy.");
            assert!(folded.keys().eq(expected.keys()), "{}: names", path.display());
            for (key, expected) in &expected {
                assert_close(key, &(&folded[key]).into(), &expected.into(), VALUES, 1.0);
            }
        }
    }
}

/// A RepVGG with groups, put together from blocks: every second layer has two groups, as the file
/// says.
#[test]
fn logits_of_a_grouped_network() {
    let device = Device::default();
    let grouped =
        networks().into_iter().find(|(.., network)| !network.override_groups_map.is_empty());
    let (_, fixture, network) = grouped.expect("a network with groups");
    let state = without_counters(fixture.state());
    let (depths, widths) = network.depths_and_widths();
    let width = |stage: usize| ((64 << stage) as f64 * widths[stage]) as usize;
    let stem = [("stage0".to_string(), width(0).min(64), 2)];
    let stages = depths.iter().enumerate().flat_map(|(stage, &depth)| {
        (0..depth).map(move |layer| {
            let stride = if layer == 0 { 2 } else { 1 };
            (format!("stage{}.{layer}", stage + 1), width(stage), stride)
        })
    });
    let mut inputs = 3;
    let units =
        stem.into_iter().chain(stages).enumerate().map(|(index, (name, outputs, stride))| {
            let groups = network.override_groups_map.get(&index.to_string());
            let spec =
                ConvSpec::square([std::mem::replace(&mut inputs, outputs), outputs], 3, stride)
                    .with_groups(groups.copied().unwrap_or(1));
            let block = BlockKind::RepVgg.with_options(&BlockOptions::default());
            let unit = ConvUnit::new(&spec, &block, &device).expect("a block");
            let keys = KeyMap::official_unit(&unit, BlockKind::RepVgg);
            keys.load(unit, &below(&state, &name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        });
    let units: Vec<_> = units.collect();
    let folded: Vec<_> = units.iter().map(ConvUnit::reparameterize).collect();
    let images = fixture.array("input").tensor(&device);
    for (units, expected) in [(&units, "logits_eval"), (&folded, "logits_deploy")] {
        let found = logits(units, &state, images.clone());
        assert_close(expected, &found, &fixture.array(expected), LOGITS, 1.0);
    }
}

fn below(state: &StateDict, name: &str) -> StateDict {
    let prefix = format!("{name}.");
    let below = |(key, data): (&String, &burn::tensor::TensorData)| {
        Some((key.strip_prefix(&prefix)?.to_string(), data.clone()))
    };
    state.iter().filter_map(below).collect()
}

fn logits(units: &[ConvUnit], state: &StateDict, images: Tensor<4>) -> Array {
    let device = images.device();
    let map = units.iter().fold(images, |map, unit| relu(unit.forward(map)));
    let features = map.mean_dim(3).mean_dim(2).flatten::<2>(1, 3);
    let weight = Tensor::<2>::from_data(state["linear.weight"].clone(), &device).transpose();
    let bias = Tensor::<1>::from_data(state["linear.bias"].clone(), &device).unsqueeze();
    (features.matmul(weight) + bias).into()
}
