//! Plain weights in a network of blocks: the same function, with running and with batch
//! statistics, the same convolutions after folding, and branches that learn. And layers that are
//! frozen.

use crate::support::{Array, assert_close, gradients, is_statistic, randomise};
use burn::module::Module;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use dbb_models::algebra::ConvParams;
use dbb_models::blocks::{Activation, Branch, DbbConfig};
use dbb_models::weights::{Dialect, KeyMap, StateDict, WeightsError};
use dbb_models::{
    Arch, BlockKind, ByLayer, Classifier, ConfigError, Form, Implementation, LayerBlocks,
    ModelConfig, Reparameterize, Walk, WarmStart,
};

fn config(arch: Arch, block: BlockKind) -> ModelConfig {
    // Narrow, but wide enough for MobileNetV1's stem.
    ModelConfig { width: 0.25, ..ModelConfig::new(arch, block, 7) }
}

fn fresh(model: &ModelConfig, device: &Device) -> Classifier {
    model.init(Form::Train, device).expect("a network")
}

fn keys(model: &ModelConfig, network: &Classifier) -> KeyMap {
    KeyMap::new(Dialect::Native, model, network).expect("native names")
}

fn state(model: &ModelConfig, network: &Classifier) -> StateDict {
    keys(model, network).save(network)
}

/// A network in training form with random weights and statistics.
fn random(model: &ModelConfig, device: &Device) -> Classifier {
    let network = fresh(model, device);
    let keys = keys(model, &network);
    randomise(network, &keys, 5)
}

fn start(model: &ModelConfig, source: &Classifier, device: &Device) -> WarmStart {
    model.warm_start(fresh(model, device), source).expect("the networks fit")
}

fn images(side: usize, device: &Device) -> Tensor<4> {
    Array::random(&[4, 3, side, side], [-2.0, 2.0], 3).tensor(device)
}

/// One network of every family, and what it is made of.
fn families() -> Vec<ModelConfig> {
    let mut models = Vec::new();
    for arch in [
        Arch::ResNet20,
        Arch::ResNet50,
        Arch::MobileNetV1,
        Arch::MobileNetV2,
        Arch::MobileNetV3Small,
        Arch::RepVggA0,
        Arch::MobileOneS0,
        Arch::Vgg16,
        Arch::AlexNet,
    ] {
        // Every block in a dense and a depthwise network, two of them in all.
        let everywhere = matches!(arch, Arch::ResNet20 | Arch::MobileNetV1);
        let kinds = BlockKind::ALL.into_iter().filter(|kind| {
            kind.is_multi_branch()
                && (everywhere || matches!(kind, BlockKind::Dbb | BlockKind::Acb))
        });
        models.extend(kinds.map(|block| config(arch, block)));
    }
    let branches = vec![Branch::Kxk, Branch::Kxk, Branch::Pointwise];
    let dbb = DbbConfig { branches, identity: true, ..Default::default() };
    models.push(ModelConfig { dbb, ..config(Arch::ResNet20, BlockKind::Dbb) });
    let patterns = [("stage1.*", BlockKind::Acb), ("stage2.*", BlockKind::Base)];
    let blocks = ByLayer(patterns.map(|(p, b)| (p.to_string(), b)).into());
    models.push(ModelConfig { blocks, ..config(Arch::ResNet18, BlockKind::Dbb) });
    let branches = vec![Branch::Kxk, Branch::PointwiseKxk];
    // As wide inside as its input: this 1x1 is the identity plus its weight.
    let dbb = DbbConfig { branches, internal_channels: Some(16), ..Default::default() };
    models.push(ModelConfig { dbb, ..config(Arch::ResNet18Cifar, BlockKind::Dbb) });
    let activation = Some(Activation::Relu6);
    models.push(ModelConfig { activation, ..config(Arch::MobileNetV1, BlockKind::Dbb) });
    models
}

#[test]
fn a_network_of_blocks_starts_as_the_plain_one() {
    let device = Device::default();
    let autodiff = device.clone().autodiff();
    for model in families() {
        let what = format!("{} {}", model.arch, model.block);
        let plain =
            ModelConfig { block: BlockKind::Base, blocks: LayerBlocks::default(), ..model.clone() };
        let source = random(&plain, &device);
        let start = start(&model, &source, &device);
        let network = start.network;
        let units = network.units();
        let blocks = units.iter().filter(|(_, unit)| unit.is_multi_branch()).count();
        let found = [start.joined, start.copied, start.unfolded];
        assert_eq!(found, [blocks, units.len() - blocks, 0], "{what}");

        // With running statistics.
        let logits = |network: &Classifier| Array::from(network.forward(images(64, &device)));
        assert_close(&what, &logits(&network), &logits(&source), 1e-6, 0.0);

        // The fold finds the same convolutions, to the bit; through two norms, but for rounding.
        let has_two_norms = model.block == BlockKind::QaRepVgg;
        for ((_, own), (_, theirs)) in network.units().into_iter().zip(source.units()) {
            let (own, theirs) = (own.equivalent(), theirs.equivalent());
            let values = |params: ConvParams| {
                let values = [params.kernel.data, params.bias].concat();
                Array::new(&[values.len()], values)
            };
            let tolerance = if has_two_norms { 1e-6 } else { 0.0 };
            assert_close(&what, &values(own), &values(theirs), tolerance, 0.0);
        }

        // With those of a batch. Dropout, which is random, comes after the maps. The definition
        // adds zeros; the kernels, which sum moments instead of maps, round on the way, and the
        // norms of few values amplify that from layer to layer.
        // Two norms differ from one by the share of epsilon in the variance, which is small in the
        // depthwise layers of this network.
        let (network, source) = (network.train(), source.train());
        let of_norms: f64 = match (has_two_norms, model.arch) {
            (false, _) => 0.0,
            (true, Arch::MobileNetV1) => 0.2,
            (true, _) => 1e-3,
        };
        // The 43 layers of MobileOne amplify more.
        let of_kernels = if model.arch == Arch::MobileOneS0 { 1e-2 } else { 1e-3 };
        for (implementation, tolerance) in
            [(Implementation::Plain, 1e-6), (Implementation::Fast, of_kernels)]
        {
            let tolerance = of_norms.max(tolerance);
            let maps = |network: &Classifier| {
                let maps = || network.forward_features(images(64, &autodiff));
                implementation.during(maps).into_iter().map(Tensor::inner)
            };
            for (stage, (own, theirs)) in maps(&network).zip(maps(&source)).enumerate() {
                let what = format!("{what} stage {stage} {implementation}");
                assert_close(&what, &own.into(), &theirs.into(), tolerance, 0.0);
            }
        }
        // What both have recorded of the batch.
        let (own, theirs) = (state(&model, &network.valid()), state(&plain, &source.valid()));
        for (key, data) in theirs.iter().filter(|(key, _)| is_statistic(key)) {
            let first = ["origin.bn", "square.bn", "copies.0.bn"].map(|bn| key.replace("bn", bn));
            let found = first.iter().chain([key]).find_map(|key| own.get(key));
            let found = Array::from(found.unwrap_or_else(|| panic!("{what} has no {key}")));
            let tolerance = of_norms.max(of_kernels / 10.0);
            assert_close(&format!("{what} {key}"), &found, &data.into(), tolerance, 1e-3);
        }
    }
}

/// What is folded in the file computes the same in evaluation, as plain convolutions and as
/// blocks.
#[test]
fn a_fold_can_be_taken_back_for_evaluation() {
    let device = Device::default();
    for arch in [Arch::ResNet18, Arch::MobileNetV2, Arch::MobileNetV3Small] {
        let source = random(&config(arch, BlockKind::Dbb), &device);
        let expected = Array::from(source.forward(images(64, &device)));
        for source in [source.reparameterize(), source] {
            for block in [BlockKind::Base, BlockKind::Acb] {
                let start = start(&config(arch, block), &source, &device);
                assert!(start.unfolded > 2, "{arch} {block}");
                let logits = Array::from(start.network.forward(images(64, &device)));
                assert_close(&format!("{arch} {block}"), &logits, &expected, 1e-5, 0.0);
            }
        }
    }
}

/// What an OREPA block scales by zero learns as soon as its scales have: they receive a gradient in
/// the first step.
#[test]
fn the_scales_of_orepa_learn_first() {
    let device = Device::default().autodiff();
    let model = config(Arch::ResNet20, BlockKind::Orepa);
    let source = random(&config(Arch::ResNet20, BlockKind::Base), &device.clone().inner());
    let network = start(&model, &source, &device).network;
    let backward = network.forward(images(64, &device)).powi_scalar(2).mean().backward();
    let found = gradients(&network, &keys(&model, &network), &backward);
    let layer = "stage2.1.conv2.";
    let of = |name: &str| Array::from(&found[&format!("{layer}{name}")]);
    let vector = of("vector");
    let [rows, outputs] = vector.shape[..] else { panic!("a matrix") };
    for row in 0..rows {
        let zeros = vector.data[row * outputs..][..outputs].iter().filter(|v| **v == 0.0).count();
        assert!(zeros < outputs / 2, "row {row}: {zeros} zeros");
    }
    assert!(of("form.pointwise").max_abs() == 0.0 && of("origin").max_abs() > 0.0);
}

/// In the first step the closing norms of new branches learn and what is before them does not; in
/// the second everything does.
#[test]
fn new_branches_learn() {
    let device = Device::default().autodiff();
    for (arch, layer) in
        [(Arch::ResNet20, "stage2.1.conv2"), (Arch::MobileNetV2, "blocks.3.depthwise")]
    {
        let model = config(arch, BlockKind::Dbb);
        let source = random(&config(arch, BlockKind::Base), &device.clone().inner());
        let mut network = start(&model, &source, &device).network;
        let closing = ["pointwise.bn", "pointwise_kxk.bn2", "average.avg_bn"];
        for step in 0..2 {
            let loss = network.forward(images(64, &device)).powi_scalar(2).mean();
            let backward = loss.backward();
            let found = gradients(&network, &keys(&model, &network), &backward);
            let found: Vec<(&str, Array)> = found
                .iter()
                .filter_map(|(key, data)| Some((key.strip_prefix(layer)?.strip_prefix('.')?, data)))
                .map(|(key, data)| (key, data.into()))
                .collect();
            // The shift of every branch is that of the sum.
            let shift = |(key, _): &&(&str, Array)| *key == "origin.bn.beta";
            let shift = &found.iter().find(shift).expect("a plain branch").1;
            for (key, gradient) in &found {
                let what = format!("{arch} {layer}.{key} in step {step}");
                let (norm, parameter) = key.rsplit_once('.').expect("a path");
                let learns = norm.starts_with("origin") || closing.contains(&norm) || step > 0;
                let zeros = gradient.data.iter().filter(|value| **value == 0.0).count();
                match learns {
                    true => assert!(zeros < gradient.data.len() / 2, "{what}: {zeros} zeros"),
                    false => assert_eq!(zeros, gradient.data.len(), "{what}"),
                }
                if parameter == "beta" && closing.contains(&norm) {
                    assert_close(&what, gradient, shift, 1e-4, 0.0);
                }
            }
            let grads = GradientsParams::from_grads(backward, &network);
            let mut optimizer = ModuleOptimizer::from(SgdConfig::new().build());
            network = optimizer.step(0.1, network, grads);
        }
    }
}

#[test]
fn networks_that_do_not_fit_are_refused() {
    let device = Device::default();
    let source = random(&config(Arch::ResNet20, BlockKind::Base), &device);
    let refused = |model: &ModelConfig| {
        model.warm_start(fresh(model, &device), &source).expect_err("this does not fit")
    };
    let dbb =
        DbbConfig { branches: vec![Branch::Pointwise, Branch::Average], ..Default::default() };
    let error = refused(&ModelConfig { dbb, ..config(Arch::ResNet20, BlockKind::Dbb) });
    assert!(matches!(error, WeightsError::Config(ConfigError::Option { .. })), "{error}");
    assert!(error.to_string().contains("kxk"), "{error}");

    let named = |error: WeightsError, part: &str| match error {
        WeightsError::Keys { missing, unexpected, misshapen, .. } => {
            let all = [missing, unexpected, misshapen].concat();
            assert!(all.iter().any(|key| key.contains(part)), "no {part} in {all:?}");
        }
        other => panic!("{other}"),
    };
    named(refused(&config(Arch::ResNet32, BlockKind::Dbb)), "stage1.3.conv1.origin.conv.weight");
    let wide = ModelConfig { width: 0.5, ..config(Arch::ResNet20, BlockKind::Dbb) };
    named(refused(&wide), "stage1.0.conv1.origin.conv.weight");
    let more = ModelConfig { num_classes: 9, ..config(Arch::ResNet20, BlockKind::Dbb) };
    named(refused(&more), "linear.bias [7] (expected [9])");
    let replaced = source.clone().with_new_head(9);
    more.warm_start(fresh(&more, &device), &replaced).expect("the networks fit");
}

/// Frozen layers keep weights and statistics through steps with momentum and weight decay, and
/// normalise in training as in evaluation; all others learn.
#[test]
fn frozen_layers_stay() {
    let device = Device::default().autodiff();
    for arch in [Arch::ResNet20, Arch::MobileNetV3Small] {
        let model = config(arch, BlockKind::Dbb);
        let patterns = match arch {
            Arch::ResNet20 => vec!["stem".to_string(), "stage1.*".to_string()],
            _ => vec!["stem".to_string(), "blocks.3.*".to_string(), "last".to_string()],
        };
        let network = model.freeze(random(&model, &device), &patterns).expect("layers to freeze");
        // A network that is loaded stays frozen.
        let map = keys(&model, &network);
        let mut network = randomise(network, &map, 9);
        let before = map.save(&network);
        let sgd = SgdConfig::new().with_weight_decay(Some(WeightDecayConfig::new(0.1)));
        let mut optimizer = ModuleOptimizer::from(sgd.build());
        for _ in 0..2 {
            let loss = network.forward(images(64, &device)).powi_scalar(2).mean();
            let grads = GradientsParams::from_grads(loss.backward(), &network);
            network = optimizer.step(0.1, network, grads);
        }
        let after = map.save(&network);
        for (key, data) in &before {
            let is_frozen = patterns.iter().any(|p| key.starts_with(p.trim_end_matches('*')));
            assert_eq!(is_frozen, data == &after[key], "{arch} {key}");
        }
    }
    let model = config(Arch::ResNet20, BlockKind::Base);
    let refused = |pattern: &str| {
        let network = fresh(&model, &device);
        model.freeze(network, &[pattern.to_string()]).expect_err("this cannot be frozen")
    };
    assert!(matches!(refused("stage9.*"), ConfigError::Pattern { .. }));
    assert!(matches!(refused("*"), ConfigError::NothingToTrain { .. }));
    model.freeze(fresh(&model, &device), &["s*".to_string()]).expect("the classifier learns");
}
