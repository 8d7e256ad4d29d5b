//! Networks of RepVGG and MobileOne from their authors' code, put together here from the blocks of
//! the library: logits in both forms, and their checkpoints folded without the network around them.

use crate::support::fixture::{self, Fixture, without_counters};
use crate::support::{Array, assert_close};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use dbb_models::Reparameterize;
use dbb_models::blocks::{BlockKind, BlockOptions, ConvSpec, ConvUnit, MobileOneConfig};
use dbb_models::weights::{BlockFold, KeyMap, StateDict, WeightsFile};
use serde::Deserialize;
use std::collections::BTreeMap;

const TOLERANCE: f64 = 2e-5;
const LOGITS: f64 = 1e-4;

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

/// A layer: its name, geometry and block.
struct Layer {
    name: String,
    spec: ConvSpec,
    kind: BlockKind,
    copies: usize,
}

impl Network {
    /// The layers in order, as the authors' code makes them.
    fn layers(&self) -> Vec<Layer> {
        let (blocks, widths) = (self.num_blocks.unwrap(), self.width_multiplier.unwrap());
        let width = |stage: usize| (64.0 * (1 << stage) as f64 * widths[stage]) as usize;
        let mut layers = Vec::new();
        let mut inputs = 3;
        let is_mobile = self.arch.as_deref() == Some("mobileone");
        let kind = if is_mobile { BlockKind::MobileOne } else { BlockKind::RepVgg };
        let stem = width(0).min(64);
        let mut add = |name: String, outputs: usize, stride: usize, stem: bool| {
            let copies = if stem { 1 } else { self.num_conv_branches.unwrap_or(1) };
            if is_mobile && !stem {
                let (stage, index) = name.rsplit_once('.').unwrap();
                let index: usize = index.parse().unwrap();
                let depthwise = ConvSpec::square([inputs; 2], 3, stride).with_groups(inputs);
                let pointwise = ConvSpec::square([inputs, outputs], 1, 1);
                for (part, spec) in [depthwise, pointwise].into_iter().enumerate() {
                    let name = format!("{stage}.{}", 2 * index + part);
                    layers.push(Layer { name, spec, kind, copies });
                }
            } else {
                let groups = self.override_groups_map.get(&layers.len().to_string());
                let spec = ConvSpec::square([inputs, outputs], 3, stride)
                    .with_groups(groups.copied().unwrap_or(1));
                layers.push(Layer { name, spec, kind, copies });
            }
            inputs = outputs;
        };
        add("stage0".into(), stem, 2, true);
        for (stage, &depth) in blocks.iter().enumerate() {
            for index in 0..depth {
                let stride = if index == 0 { 2 } else { 1 };
                add(format!("stage{}.{index}", stage + 1), width(stage), stride, false);
            }
        }
        layers
    }
}

fn below(state: &StateDict, prefix: &str) -> StateDict {
    let prefix = format!("{prefix}.");
    let below = |(key, data): (&String, _)| Some((key.strip_prefix(&prefix)?.to_string(), data));
    state.iter().filter_map(|(key, data)| below((key, data.clone()))).collect()
}

fn logits(units: &[ConvUnit], state: &StateDict, images: Tensor<4>) -> Array {
    let device = images.device();
    let map = units.iter().fold(images, |map, unit| relu(unit.forward(map)));
    let features = map.mean_dim(3).mean_dim(2).flatten::<2>(1, 3);
    let weight = Tensor::<2>::from_data(state["linear.weight"].clone(), &device).transpose();
    let bias = Tensor::<1>::from_data(state["linear.bias"].clone(), &device).unsqueeze();
    (features.matmul(weight) + bias).into()
}

fn networks() -> Vec<(std::path::PathBuf, Fixture, Network)> {
    let files = fixture::files(&[".safetensors"]).into_iter();
    files
        .map(|path| {
            let fixture = Fixture::read(&path);
            let network: Network = fixture.config();
            (path, fixture, network)
        })
        .filter(|(_, _, network)| network.kind == "model" && network.num_blocks.is_some())
        .collect()
}

#[test]
fn logits_of_both_forms() {
    let device = Device::default();
    let networks = networks();
    assert!(networks.len() >= 3);
    for (_, fixture, network) in networks {
        let state = without_counters(fixture.state());
        let units: Vec<_> = network
            .layers()
            .into_iter()
            .map(|Layer { name, spec, kind, copies }| {
                let options = BlockOptions {
                    mobileone: MobileOneConfig::with_copies(copies),
                    ..Default::default()
                };
                let unit = ConvUnit::new(&spec, &kind.with_options(&options), &device).unwrap();
                let keys = KeyMap::official_unit(&unit, kind);
                keys.load(unit, &below(&state, &name))
                    .unwrap_or_else(|e| panic!("{}: {name}: {e}", fixture.name))
            })
            .collect();
        let images = fixture.array("input").tensor(&device);
        let folded: Vec<_> = units.iter().map(ConvUnit::reparameterize).collect();
        let check = |units: &[ConvUnit], expected: &Array| {
            let found = logits(units, &state, images.clone());
            assert_close(&fixture.name, &found, expected, LOGITS, 1.0);
        };
        check(&units, &fixture.array("logits_eval"));
        check(&folded, &fixture.array("logits_deploy"));
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
                assert_close(key, &(&folded[key]).into(), &expected.into(), TOLERANCE, 1.0);
            }
        }
    }
}
