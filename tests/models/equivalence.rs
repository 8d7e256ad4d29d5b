//! Folded against training form, for every geometry a block allows and every network of the zoo,
//! with random weights and statistics. A block is compared with a reference in `f64` that computes
//! each branch by its definition and shares nothing with the fold (`tests/support/reference.rs`).
//! `--nocapture` prints the largest errors.

use crate::support::{
    Array, Worst, assert_close, is_on_inference_device, is_statistic, largest_difference,
    param_ids, randomise, reference,
};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use dbb_models::blocks::{
    Block, BlockKind, BlockOptions, Branch, ConvBlock, ConvSpec, ConvUnit, DbbConfig,
    MobileOneConfig, OrepaConfig,
};
use dbb_models::weights::{Dialect, KeyMap, StateDict};
use dbb_models::{Arch, Classifier, Form, ModelConfig, Reparameterize, Walk};

/// The promise for a block: `|y - reference| <= 1e-5 max|reference|`.
const BLOCK: f64 = 1e-5;
/// The promise for a network: logits, relative to the largest.
const NETWORK: f64 = 1e-4;
/// For MobileOne-S4 with random statistics. Its 43 convolutions have no shortcuts and amplify
/// rounding, most of all by squeeze-and-excitation: an input that moves by its last bit moves the
/// logits by 1e-4 to 1e-3.
const ILL_CONDITIONED: f64 = 2e-3;

/// Odd and even heights and widths.
const SIZES: [[usize; 2]; 2] = [[9, 12], [8, 11]];

#[test]
fn dbb_of_every_geometry() {
    let mut worst = Worst::default();
    let mut count = 0;
    for kernel in [1, 3, 5, 7] {
        for stride in [1, 2, 3] {
            // Channels, groups and internal widths below, equal to and above the input's; those of
            // a depthwise block are multiples of its channels.
            for (channels, groups, widths) in [
                ([4, 6], 1, [Some(3), Some(4), Some(7)]),
                ([4, 8], 2, [Some(2), Some(4), Some(6)]),
                ([8, 4], 2, [None, Some(2), Some(12)]),
                ([6, 6], 6, [None, Some(6), Some(18)]),
                ([1, 1], 1, [None, Some(1), Some(3)]),
            ] {
                for internal_channels in widths {
                    let spec = ConvSpec::square(channels, kernel, stride).with_groups(groups);
                    let config = DbbConfig { internal_channels, ..Default::default() };
                    for size in SIZES {
                        check_block(&spec, &Block::Dbb(config.clone()), size, &mut worst);
                        count += 1;
                    }
                }
            }
        }
    }
    println!("{count} Diverse Branch Blocks");
    worst.print();
}

#[test]
fn dbb_of_every_branch_subset() {
    const ALL: [Branch; 4] =
        [Branch::Kxk, Branch::Pointwise, Branch::PointwiseKxk, Branch::Average];
    let mut worst = Worst::default();
    for (channels, groups) in [([4, 6], 1), ([4, 8], 2), ([6, 6], 6)] {
        for subset in 1..16 {
            let branches: Vec<_> =
                (0..4).filter(|b| subset >> b & 1 == 1).map(|b| ALL[b]).collect();
            if groups == 6 && branches == [Branch::Pointwise] {
                continue; // a depthwise block has no such branch
            }
            let spec = ConvSpec::square(channels, 3, 2).with_groups(groups);
            let config = DbbConfig { branches, ..Default::default() };
            check_block(&spec, &Block::Dbb(config), [9, 12], &mut worst);
        }
    }
    worst.print();
}

#[test]
fn acb_of_every_geometry() {
    let mut worst = Worst::default();
    let mut count = 0;
    for kernel in [1, 3, 5] {
        for padding in 0..=kernel / 2 + 2 {
            for stride in [1, 2, 3] {
                for (channels, groups) in [([4, 6], 1), ([4, 8], 2), ([6, 6], 6)] {
                    let spec = ConvSpec::square(channels, kernel, stride)
                        .with_padding([padding; 2])
                        .with_groups(groups);
                    for size in SIZES {
                        check_block(&spec, &Block::Acb, size, &mut worst);
                        count += 1;
                    }
                }
            }
        }
    }
    println!("{count} Asymmetric Convolution Blocks");
    worst.print();
}

/// The blocks without options of their own, and the copies of MobileOne, in every geometry that all
/// of them allow.
#[test]
fn every_block_in_every_geometry() {
    let mut worst = Worst::default();
    let options = |copies| BlockOptions {
        mobileone: MobileOneConfig::with_copies(copies),
        ..Default::default()
    };
    for kernel in [1, 3, 5] {
        for stride in [[1, 1], [2, 2], [3, 3], [1, 2], [3, 1]] {
            let sizes = if stride[0] == stride[1] { SIZES.len() } else { 1 };
            for (channels, groups) in
                [([4, 6], 1), ([5, 5], 1), ([4, 8], 2), ([6, 6], 3), ([6, 6], 6), ([1, 1], 1)]
            {
                let spec =
                    ConvSpec::square(channels, kernel, 1).with_stride(stride).with_groups(groups);
                for kind in BlockKind::ALL {
                    if kind == BlockKind::Orepa && kernel == 1 && groups > 1 {
                        continue; // has no such form
                    }
                    for copies in if kind == BlockKind::MobileOne { 1..4 } else { 1..2 } {
                        let block = kind.with_options(&options(copies));
                        for size in SIZES.into_iter().take(sizes) {
                            check_block(&spec, &block, size, &mut worst);
                        }
                    }
                }
            }
        }
    }
    worst.print();
}

/// Copies of branches and an identity.
#[test]
fn dbb_with_more_branches() {
    let mut worst = Worst::default();
    let branches = [vec![Branch::Kxk; 3], vec![Branch::Pointwise, Branch::Kxk, Branch::Pointwise]];
    for (branches, stride) in branches.into_iter().flat_map(|b| [(b.clone(), 1), (b, 2)]) {
        for groups in [1, 2, 6] {
            let spec = ConvSpec::square([6, 6], 3, stride).with_groups(groups);
            let branches = branches.clone();
            let config = DbbConfig { branches, identity: true, ..Default::default() };
            check_block(&spec, &Block::Dbb(config), [9, 12], &mut worst);
        }
    }
    worst.print();
}

/// OREPA with internal widths below and above the input's.
#[test]
fn orepa_of_every_width() {
    let mut worst = Worst::default();
    for (channels, groups, internal) in
        [([4, 6], 1, 3), ([4, 6], 1, 9), ([4, 8], 2, 2), ([4, 8], 2, 12), ([6, 6], 6, 6)]
    {
        let spec = ConvSpec::square(channels, 3, 2).with_groups(groups);
        let config = OrepaConfig { internal_channels: Some(internal) };
        check_block(&spec, &Block::Orepa(config), [9, 12], &mut worst);
    }
    worst.print();
}

/// A plain convolution may be oblong and have any stride and padding.
#[test]
fn base_of_any_geometry() {
    let mut worst = Worst::default();
    for (kernel, stride, padding) in
        [([1, 1], [2, 1], [0, 0]), ([3, 5], [1, 3], [2, 1]), ([2, 4], [2, 2], [0, 3])]
    {
        let spec = ConvSpec::new([4, 6], kernel).with_stride(stride).with_padding(padding);
        check_block(&spec, &Block::Base, [9, 12], &mut worst);
        let spec = ConvSpec { channels: [4, 8], groups: 2, ..spec };
        check_block(&spec, &Block::Base, [8, 11], &mut worst);
    }
    worst.print();
}

/// Training form and folded form of a random block against the reference, interior and border
/// positions apart.
fn check_block(spec: &ConvSpec, block: &Block, size: [usize; 2], worst: &mut Worst) {
    let what = format!("{spec:?}, {block:?}, input {size:?}");
    let device = Device::default();
    let unit = ConvUnit::new(spec, block, &device).unwrap_or_else(|e| panic!("{what}: {e}"));
    let keys = KeyMap::official_unit(&unit, kind(block));
    let unit = randomise(unit, &keys, 1);
    let input = Array::random(&[2, spec.channels[0], size[0], size[1]], [-2.0, 2.0], 2).rounded();

    let expected = reference::forward(&keys.save(&unit), spec, &input);
    let interior = reference::interior(spec, size);
    let inside = |i: usize| interior[i % interior.len()];
    let folded = unit.reparameterize();
    assert!(matches!(folded, ConvUnit::Folded(_)), "{what}: folded into a convolution");
    for (form, unit) in [("training form", &unit), ("folded", &folded)] {
        let actual = Array::from(unit.forward(input.tensor(&device)));
        assert_eq!(actual.shape, expected.shape, "{what}: {form}: shape");
        for (place, wanted) in [("interior", true), ("border", false)] {
            let pairs = actual.data.iter().zip(&expected.data).enumerate();
            let pairs = pairs.filter(|(i, _)| inside(*i) == wanted).map(|(_, pair)| pair);
            let error = largest_difference(pairs) / expected.max_abs();
            assert!(error <= BLOCK, "{what}: {form}, {place}: error {error:.2e} over {BLOCK:.0e}");
            worst.note(&format!("{form}, {place}"), error, &what);
        }
    }
}

fn kind(block: &Block) -> BlockKind {
    block.kind().unwrap_or(BlockKind::Base)
}

/// Random blocks of every kind, on a device.
fn units(device: &Device) -> Vec<(ConvUnit, KeyMap)> {
    let dense = ConvSpec::square([4, 6], 3, 1);
    let depthwise = ConvSpec::square([6, 6], 3, 2).with_groups(6);
    let options = BlockOptions::default();
    let kinds = BlockKind::ALL.into_iter().map(|kind| kind.with_options(&options));
    kinds
        .chain([Block::Folded])
        .flat_map(|block| [&dense, &depthwise].map(|spec| (block.clone(), spec)))
        .map(|(block, spec)| {
            let unit = ConvUnit::new(spec, &block, device).expect("a possible block");
            let keys = KeyMap::official_unit(&unit, kind(&block));
            (randomise(unit, &keys, 3), keys)
        })
        .collect()
}

fn input_of(unit: &ConvUnit, device: &Device) -> Tensor<4> {
    Array::random(&[2, unit.spec().channels[0], 7, 8], [-2.0, 2.0], 4).tensor(device)
}

fn folded_state(unit: &ConvUnit) -> StateDict {
    let folded = unit.reparameterize();
    KeyMap::official_unit(&folded, BlockKind::Base).save(&folded)
}

#[test]
fn folding_twice_changes_nothing() {
    for (unit, _) in units(&Device::default()) {
        let folded = unit.reparameterize();
        assert_eq!(folded_state(&folded), folded_state(&unit), "{unit}");
        assert_eq!(folded.spec(), unit.spec());
    }
}

#[test]
fn folding_leaves_the_original_and_shares_nothing_with_it() {
    for device in [Device::default(), Device::default().autodiff()] {
        for (unit, keys) in units(&device) {
            let (before, ids) = (keys.save(&unit), param_ids(&unit));
            let folded = unit.reparameterize();
            assert_eq!(keys.save(&unit), before, "tensors of {unit}");
            assert_eq!(param_ids(&unit), ids, "parameter ids of {unit}");
            assert!(is_on_inference_device(&folded), "folded {unit}");
            assert!(param_ids(&folded).iter().all(|id| !ids.contains(id)), "ids of folded {unit}");
        }
    }
}

#[test]
fn folding_a_training_state_equals_folding_its_valid() {
    for (unit, keys) in units(&Device::default().autodiff()) {
        let before = keys.save(&unit);
        let input = input_of(&unit, &Device::default().autodiff());
        unit.forward(input);
        let trained = keys.save(&unit);
        if trained.keys().any(|key| is_statistic(key)) {
            assert_ne!(trained, before, "a forward in training updates {unit}");
        }
        assert_eq!(folded_state(&unit), folded_state(&unit.valid()), "{unit}");
        let [folded, valid] = [unit.reparameterize(), unit.valid().reparameterize()]
            .map(|unit| Array::from(unit.forward(input_of(&unit, &Device::default()))));
        assert_eq!(folded, valid);
    }
}

#[test]
fn training_a_clone_leaves_the_original() {
    for (unit, keys) in units(&Device::default().autodiff()) {
        let (before, folded) = (keys.save(&unit), folded_state(&unit));
        let clone = unit.clone();
        assert_eq!(folded_state(&clone), folded, "a clone of {unit} folds to the same");
        clone.forward(input_of(&unit, &Device::default().autodiff()));
        assert_eq!(keys.save(&unit), before, "{unit}");
        assert_eq!(folded_state(&unit), folded, "{unit}");
    }
}

/// `single_init` starts as the plain convolution: only the KxK branch has a say.
#[test]
fn single_init_starts_as_the_kxk_branch() {
    let device = Device::default();
    for (channels, groups) in [([4, 6], 1), ([6, 6], 6)] {
        let spec = ConvSpec::square(channels, 3, 1).with_groups(groups);
        let block = Block::Dbb(DbbConfig { single_init: true, ..Default::default() });
        let unit = ConvUnit::new(&spec, &block, &device).expect("a possible block");
        let ConvUnit::Dbb(dbb) = &unit else { panic!("a Diverse Branch Block") };
        let origin = dbb.origin.as_ref().expect("a KxK branch");
        let input = Array::random(&[2, channels[0], 7, 8], [-2.0, 2.0], 7).tensor(&device);
        assert_eq!(Array::from(unit.forward(input.clone())), origin.forward(input).into());
        assert_eq!(unit.equivalent(), origin.equivalent());
    }
}

/// The identity-based 1x1 starts as the identity, so that its branch starts as its KxK.
#[test]
fn the_identity_based_1x1_starts_as_the_identity() {
    let device = Device::default();
    for (channels, groups) in [(4, 1), (4, 2), (4, 4)] {
        let spec = ConvSpec::square([channels, 2 * channels], 3, 1).with_groups(groups);
        let block = Block::Dbb(DbbConfig::default());
        let unit = ConvUnit::new(&spec, &block, &device).expect("a possible block");
        let ConvUnit::Dbb(dbb) = &unit else { panic!("a Diverse Branch Block") };
        let conv1 = &dbb.pointwise_kxk.as_ref().expect("a 1x1-KxK branch").conv1;
        assert!(conv1.is_identity_based());
        let input = Array::random(&[2, channels, 3, 3], [-2.0, 2.0], 8).rounded();
        let output = Array::from(conv1.forward(input.tensor(&device)));
        assert_eq!(output, input, "{groups} groups");
    }
}

/// One test an architecture, so that they run beside each other.
macro_rules! networks {
    ($($name:ident: $arch:ident, $width:expr;)*) => {
        $(#[test]
        fn $name() {
            check_network(Arch::$arch, $width);
        })*

        #[test]
        fn every_architecture_is_tested() {
            assert_eq!(Arch::ALL.to_vec(), [$(Arch::$arch),*]);
        }
    };
}

networks! {
    resnet18: ResNet18, 0.125;
    resnet34: ResNet34, 0.125;
    resnet50: ResNet50, 0.125;
    resnet101: ResNet101, 0.0625;
    resnet152: ResNet152, 0.0625;
    resnet18_cifar: ResNet18Cifar, 0.125;
    resnet20: ResNet20, 0.5;
    resnet32: ResNet32, 0.25;
    resnet44: ResNet44, 0.25;
    resnet56: ResNet56, 0.25;
    resnet110: ResNet110, 0.25;
    mobilenet_v1: MobileNetV1, 0.125;
    mobilenet_v2: MobileNetV2, 0.125;
    mobilenet_v3_large: MobileNetV3Large, 0.125;
    mobilenet_v3_small: MobileNetV3Small, 0.25;
    repvgg_a0: RepVggA0, 0.125;
    repvgg_a1: RepVggA1, 0.0625;
    repvgg_a2: RepVggA2, 0.0625;
    repvgg_b0: RepVggB0, 0.0625;
    repvgg_b1: RepVggB1, 0.0625;
    mobileone_s0: MobileOneS0, 0.25;
    mobileone_s1: MobileOneS1, 0.25;
    mobileone_s2: MobileOneS2, 0.125;
    mobileone_s3: MobileOneS3, 0.25;
    mobileone_s4: MobileOneS4, 0.03125;
    vgg16: Vgg16, 0.0625;
    vgg16_cifar: Vgg16Cifar, 0.125;
    alexnet: AlexNet, 0.125;
}

/// Logits, classes and feature maps of a random network in training form and folded.
fn check_network(arch: Arch, width: f64) {
    const BATCH: usize = 8;
    let mut worst = Worst::default();
    let device = Device::default();
    let tolerance = if arch == Arch::MobileOneS4 { ILL_CONDITIONED } else { NETWORK };
    let resolution = if arch.default_resolution() == 32 { 32 } else { 64 };
    let images = Array::random(&[BATCH, 3, resolution, resolution], [-2.0, 2.0], 5);
    for block in BlockKind::ALL {
        let what = format!("{arch} {block}");
        let config = ModelConfig { width, ..ModelConfig::new(arch, block, 10) };
        let training = random_network(&config, &images);
        let network = training.valid();
        let folded = training.reparameterize();
        check_folded_network(&what, &config, &training, &folded);
        let units = folded.units();
        assert!(units.iter().all(|(_, unit)| matches!(unit, ConvUnit::Folded(_))), "{what}");

        let [expected, actual] =
            [&network, &folded].map(|network| Array::from(network.forward(images.tensor(&device))));
        let error = assert_close(&format!("{what}: logits"), &actual, &expected, tolerance, 0.0);
        worst.note("logits", error, &what);
        let mut clear = 0;
        for (expected, actual) in expected.data.chunks(10).zip(actual.data.chunks(10)) {
            let [best, second] = best_two(expected);
            let error = largest_difference(actual.iter().zip(expected));
            if expected[best] - expected[second] > 2.0 * error {
                assert_eq!(best_two(actual)[0], best, "{what}: top-1");
                clear += 1;
            }
        }
        assert!(clear >= BATCH - 1, "{what}: {clear} of {BATCH} samples have a clear class");

        let [expected, actual] =
            [&network, &folded].map(|network| network.forward_features(images.tensor(&device)));
        assert_eq!(actual.len(), expected.len(), "{what}: feature maps");
        let mut size = usize::MAX;
        for (stage, (actual, expected)) in actual.into_iter().zip(expected).enumerate() {
            assert!(expected.dims()[3] <= size, "{what}: feature maps shrink");
            size = expected.dims()[3];
            let place = format!("{what}: feature map {stage}");
            let error = assert_close(&place, &actual.into(), &expected.into(), tolerance, 0.0);
            worst.note("feature maps", error, &place);
        }
    }
    worst.print();
}

/// A network folds like its units: whole, without touching the original, and once.
fn check_folded_network(
    what: &str,
    config: &ModelConfig,
    training: &Classifier,
    folded: &Classifier,
) {
    let state = |network: &Classifier| {
        KeyMap::new(Dialect::Native, config, network).expect("native names").save(network)
    };
    let (before, ids) = (state(training), param_ids(training));
    assert!(is_on_inference_device(folded), "{what}: device");
    assert!(param_ids(folded).iter().all(|id| !ids.contains(id)), "{what}: ids of the original");
    assert!(state(folded) == state(&training.valid().reparameterize()), "{what}: from valid()");
    assert!(state(folded) == state(&folded.reparameterize()), "{what}: folded twice");
    assert!(state(training) == before && param_ids(training) == ids, "{what}: the original");
}

/// Indices of the largest and the second largest value.
fn best_two(values: &[f64]) -> [usize; 2] {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    [order[0], order[1]]
}

/// A network in training with random weights and with running statistics near those of a batch, so that
/// activations neither vanish nor explode over a hundred layers.
fn random_network(config: &ModelConfig, images: &Array) -> Classifier {
    let device = Device::default().autodiff();
    let network = config.init(Form::Train, &device).expect("a possible network");
    let keys = KeyMap::new(Dialect::Native, config, &network).expect("native names");
    let mut state = crate::support::randomised(&keys.save(&network), 6);
    let map_statistics = |state: &mut StateDict, f: &dyn Fn(&str, usize, f64) -> f64| {
        for (key, data) in state.iter_mut().filter(|(key, _)| is_statistic(key)) {
            let mut values = Array::from(&*data);
            for (i, value) in values.data.iter_mut().enumerate() {
                *value = f(key, i, *value);
            }
            *data = values.tensor::<1>(&Device::default()).into_data();
        }
    };
    // From zero, one forward in training leaves a tenth of the batch's statistics.
    map_statistics(&mut state, &|_, _, _| 0.0);
    let network = keys.load(network, &state).expect("the keys are the network's own");
    network.forward(images.tensor(&device));
    let mut state = keys.save(&network);
    map_statistics(&mut state, &|key, i, value| {
        let factor = 10.0 * [0.8, 1.3, 1.0, 0.7][i % 4];
        if key.ends_with("running_var") { (value * factor).max(0.05) } else { value * factor }
    });
    keys.load(network, &state).expect("the keys are the network's own")
}
