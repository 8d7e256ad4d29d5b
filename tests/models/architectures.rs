//! The networks of the zoo against their papers: which block stands where, parameters and
//! multiply-accumulate operations, each from the published figure and from a layer table. One test
//! prints how long a large network takes to fold.

mod tables;

use crate::support::{Array, assert_close};
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};
use dbb_models::blocks::{BlockKind, ConvUnit, DbbConfig};
use dbb_models::summary::{Summary, learnable_params};
use dbb_models::{
    Arch, ByLayer, Classifier, ConfigError, Form, LayerBlocks, ModelConfig, Reparameterize, Walk,
};
use tables::{Layer, table};

/// Whether a 1x1 convolution of MobileOne becomes such a block.
fn has_pointwise_form(block: BlockKind) -> bool {
    matches!(block, BlockKind::MobileOne | BlockKind::Orepa)
}

fn classes(arch: Arch) -> usize {
    if arch.default_resolution() == 32 { 10 } else { 1000 }
}

/// Tells the layers which of them keep the shape of their input. Max pools lie between two layers of
/// a table after a 7x7 stem, in AlexNet, where the channels change there, and in VGG, whose
/// convolutions keep the size.
fn tell_shapes(layers: &mut [Layer], arch: Arch) {
    let mut before = arch.default_resolution();
    for layer in layers {
        let keeps_size = before == layer.size || matches!(arch, Arch::Vgg16 | Arch::Vgg16Cifar);
        layer.keeps_shape = layer.inputs == layer.outputs && keeps_size;
        before = if layer.kernel == 7 { layer.size / 2 } else { layer.size };
    }
}

#[test]
fn costs_equal_the_papers_tables() {
    for arch in Arch::ALL {
        let (mut layers, mut dense_layers) = table(arch);
        tell_shapes(&mut layers, arch);
        dense_layers.last_mut().expect("a classifier")[1] = classes(arch);
        let linear: usize = dense_layers.iter().map(|[n, m]| (n + 1) * m).sum();
        let linear_macs: usize = dense_layers.iter().map(|[n, m]| n * m).sum();
        for block in BlockKind::ALL {
            // Those networks have other numbers of copies; another test counts them.
            let is_mobileone = arch.name().starts_with("mobileone");
            if is_mobileone && block == BlockKind::MobileOne {
                continue;
            }
            // The two deepest differ from ResNet-50 in their number of layers alone.
            if matches!(arch, Arch::ResNet101 | Arch::ResNet152) && block != BlockKind::Dbb {
                continue;
            }
            let config = ModelConfig::new(arch, block, classes(arch));
            let summary = Summary::new(&config, [arch.default_resolution(); 2]).expect("a network");
            let sum = |f: &dyn Fn(&Layer) -> usize| layers.iter().map(f).sum::<usize>();
            let params = |layer: &Layer| match (is_mobileone, block, layer.kernel) {
                (true, BlockKind::Orepa, 1) => layer.orepa_pointwise(),
                _ => layer.params(block),
            };
            let train = sum(&params) + linear;
            assert_eq!(summary.params_train, train, "{arch} {block}: training form");
            let deploy = sum(&|layer| layer.weights() + layer.outputs) + linear;
            assert_eq!(summary.params_deploy, deploy, "{arch} {block}: folded");
            let macs = sum(&|layer| layer.weights() * layer.size.pow(2)) + linear_macs;
            assert_eq!(summary.macs_deploy, macs as u64, "{arch} {block}: operations");
            assert_eq!(
                summary.layers.len(),
                layers.len() + dense_layers.len(),
                "{arch} {block}: layers"
            );
        }
    }
}

/// The figures of torchvision for the ImageNet networks, of timm for MobileNet, and of the paper
/// (0.27 M to 1.7 M) and its CIFAR re-implementations.
#[test]
fn parameters_equal_the_published_figures() {
    for (arch, params) in [
        (Arch::ResNet18, 11_689_512),
        (Arch::ResNet34, 21_797_672),
        (Arch::ResNet50, 25_557_032),
        (Arch::ResNet101, 44_549_160),
        (Arch::ResNet152, 60_192_808),
        (Arch::ResNet18Cifar, 11_173_962),
        (Arch::ResNet20, 269_722),
        (Arch::ResNet32, 464_154),
        (Arch::ResNet44, 658_586),
        (Arch::ResNet56, 853_018),
        (Arch::ResNet110, 1_727_962),
        (Arch::MobileNetV1, 4_231_976),
        (Arch::MobileNetV2, 3_504_872),
        (Arch::MobileNetV3Large, 5_483_032),
        (Arch::MobileNetV3Small, 2_542_856),
        // Without the biases of its 13 convolutions, which the batch norms make redundant.
        (Arch::Vgg16, 138_365_992 - 4224),
    ] {
        let config = ModelConfig::new(arch, BlockKind::Base, classes(arch));
        let summary = Summary::new(&config, [arch.default_resolution(); 2]).expect("a network");
        assert_eq!(summary.params_train, params, "{arch}");
    }
}

/// Millions of weights and billions of operations of the folded networks, as the paper rounds
/// them; it does not count the biases of the convolutions.
#[test]
fn folded_repvggs_equal_the_published_figures() {
    for (arch, millions, billions) in [
        (Arch::RepVggA0, "8.30", "1.4"),
        (Arch::RepVggA1, "12.78", "2.4"),
        (Arch::RepVggA2, "25.49", "5.1"),
        (Arch::RepVggB0, "14.33", "3.1"),
        (Arch::RepVggB1, "51.82", "11.8"),
    ] {
        let config = ModelConfig::new(arch, BlockKind::Dbb, 1000);
        let summary = Summary::new(&config, [224; 2]).expect("a network");
        let convolutions = summary.layers.iter().filter(|layer| layer.block != "linear");
        let biases: usize = convolutions.map(|layer| layer.channels[1]).sum();
        let weights = (summary.params_deploy - biases) as f64;
        assert_eq!(format!("{:.2}", weights / 1e6), millions, "{arch}");
        assert_eq!(format!("{:.1}", summary.macs_deploy as f64 / 1e9), billions, "{arch}");
    }
}

/// Millions of parameters of the folded networks, and of the blocks they are trained with, as the
/// paper and timm round them.
#[test]
fn mobileones_equal_the_published_figures() {
    for (arch, deploy, train) in [
        (Arch::MobileOneS0, "2.1", "5.29"),
        (Arch::MobileOneS1, "4.8", "4.83"),
        (Arch::MobileOneS2, "7.8", "7.88"),
        (Arch::MobileOneS3, "10.1", "10.17"),
        (Arch::MobileOneS4, "14.8", "14.95"),
    ] {
        let config = ModelConfig::new(arch, BlockKind::MobileOne, 1000);
        let summary = Summary::new(&config, [224; 2]).expect("a network");
        assert_eq!(format!("{:.1}", summary.params_deploy as f64 / 1e6), deploy, "{arch}");
        assert_eq!(format!("{:.2}", summary.params_train as f64 / 1e6), train, "{arch}");
    }
}

#[test]
fn operations_equal_the_published_figures() {
    for (arch, macs) in [
        (Arch::ResNet18, 1.81e9),
        (Arch::ResNet50, 4.09e9),
        (Arch::MobileNetV1, 569e6),
        (Arch::MobileNetV2, 300.8e6),
        (Arch::MobileNetV3Large, 217e6),
        (Arch::MobileNetV3Small, 56.5e6),
        (Arch::Vgg16, 15.48e9),
        (Arch::MobileOneS0, 275e6),
        (Arch::MobileOneS1, 825e6),
        (Arch::MobileOneS2, 1299e6),
        (Arch::MobileOneS3, 1896e6),
        (Arch::MobileOneS4, 2978e6),
        (Arch::ResNet20, 40.8e6),
    ] {
        let config = ModelConfig::new(arch, BlockKind::Base, classes(arch));
        let summary = Summary::new(&config, [arch.default_resolution(); 2]).expect("a network");
        let error = (summary.macs_deploy as f64 / macs - 1.0).abs();
        assert!(error < 0.01, "{arch}: {} operations against {macs:.3e}", summary.macs_deploy);
    }
}

/// What the summary counts is what a network has and what a fold leaves.
#[test]
fn the_summary_counts_the_network() {
    for arch in Arch::ALL {
        for block in BlockKind::ALL {
            let config = ModelConfig { width: 0.125, ..ModelConfig::new(arch, block, 10) };
            let summary = Summary::new(&config, [64, 96]).expect("a network");
            let network = config.init(Form::Train, &Device::default()).expect("a network");
            assert_eq!(learnable_params(&network), summary.params_train, "{arch} {block}");
            let folded = network.reparameterize();
            assert_eq!(learnable_params(&folded), summary.params_deploy, "{arch} {block}: folded");
            let fresh = config.init(Form::Deploy, &Device::default()).expect("a network");
            assert_eq!(learnable_params(&fresh), summary.params_deploy, "{arch} {block}: deploy");

            let images = burn::tensor::Tensor::zeros([1, 3, 64, 96], &Device::default());
            let maps = folded.forward_features(images);
            let [_, _, height, width] = maps.last().expect("a feature map").dims();
            let mut convolutions = summary.layers.iter().filter(|layer| layer.block != "linear");
            let last = convolutions.next_back().expect("a convolution");
            assert_eq!(last.output, [height, width], "{arch} {block}: size of the last map");
            // Every map of a 64x96 image is half as large again as that of a 64x64 one, but for
            // AlexNet's, whose pools have no padding.
            if arch == Arch::AlexNet {
                continue;
            }
            let square = Summary::new(&config, [64, 64]).expect("a network");
            let convolutions = |summary: &Summary| {
                let layers = summary.layers.iter().filter(|layer| layer.block != "linear");
                layers.map(|layer| layer.macs_deploy).sum::<u64>()
            };
            let [wide, square] = [&summary, &square].map(convolutions);
            assert_eq!(2 * wide, 3 * square, "{arch} {block}: operations");
        }
    }
}

/// What each layer of a network is: its kernel and its block.
fn blocks_of(config: &ModelConfig) -> Vec<(String, usize, BlockKind)> {
    let network = config.init(Form::Train, &Device::default()).expect("a network");
    let blocks = network.units().into_iter().map(|(name, unit)| {
        let kind = unit.kind().expect("a unit in training form");
        assert_eq!(config.block_of(&name, unit), kind, "block_of {name}");
        (name, unit.spec().kernel_size[0], kind)
    });
    blocks.collect()
}

/// As in the papers' code, 1x1 convolutions, but for MobileOne's, and kernels of 7 and more stay
/// plain.
#[test]
fn blocks_stand_where_the_paper_puts_them() {
    for arch in Arch::ALL {
        for block in BlockKind::ALL {
            let config = ModelConfig { width: 0.125, ..ModelConfig::new(arch, block, 10) };
            for (name, kernel, kind) in blocks_of(&config) {
                let is_block = match kernel {
                    1 => arch.name().starts_with("mobileone") && has_pointwise_form(block),
                    _ => kernel <= 5,
                };
                let expected = if is_block { block } else { BlockKind::Base };
                assert_eq!(kind, expected, "{arch} {block}: {name}, kernel {kernel}");
            }
        }
    }
    let largest = |max_kernel| {
        let dbb = DbbConfig { max_kernel, ..Default::default() };
        let config = ModelConfig::new(Arch::ResNet18, BlockKind::Dbb, 10);
        blocks_of(&ModelConfig { dbb, width: 0.125, ..config })
    };
    assert_eq!(largest(7)[0], ("stem".into(), 7, BlockKind::Dbb), "max_kernel = 7");
    assert!(largest(1).iter().all(|layer| layer.2 == BlockKind::Base), "max_kernel = 1");
}

#[test]
fn the_last_matching_pattern_chooses_the_block() {
    let patterns: LayerBlocks = serde_json::from_str(
        r#"{"stage4.*": "base", "*.conv2": "acb", "stage4.1.conv2": "dbb", "stage2.0.*": "base"}"#,
    )
    .expect("a table of patterns");
    let config = ModelConfig {
        blocks: patterns,
        width: 0.125,
        ..ModelConfig::new(Arch::ResNet18, BlockKind::Dbb, 10)
    };
    let blocks = blocks_of(&config);
    for (layer, expected) in [
        ("stem", BlockKind::Base), // 7x7
        ("stage1.0.conv1", BlockKind::Dbb),
        ("stage1.0.conv2", BlockKind::Acb),
        ("stage2.0.conv1", BlockKind::Base),
        ("stage2.0.conv2", BlockKind::Base),
        ("stage2.0.shortcut", BlockKind::Base), // 1x1
        ("stage2.1.conv2", BlockKind::Acb),
        ("stage4.0.conv1", BlockKind::Base),
        ("stage4.0.conv2", BlockKind::Acb),
        ("stage4.1.conv1", BlockKind::Base),
        ("stage4.1.conv2", BlockKind::Dbb),
    ] {
        let (_, _, kind) = blocks.iter().find(|(name, ..)| name == layer).expect("a layer");
        assert_eq!(*kind, expected, "{layer}");
    }

    // Patterns do not make blocks of what stays plain, and reach the depthwise layers.
    let blocks =
        ByLayer(vec![("*".into(), BlockKind::Acb), ("*.depthwise".into(), BlockKind::Dbb)]);
    let config = ModelConfig {
        blocks,
        width: 0.125,
        ..ModelConfig::new(Arch::MobileNetV1, BlockKind::Base, 10)
    };
    for (name, kernel, kind) in blocks_of(&config) {
        let expected = match kernel {
            1 => BlockKind::Base,
            _ if name == "stem" => BlockKind::Acb,
            _ => BlockKind::Dbb,
        };
        assert_eq!(kind, expected, "{name}");
    }
}

/// Channels and strides of the maps that heads for detection and segmentation read.
#[test]
fn feature_maps_have_the_usual_channels_and_strides() {
    let four = |channels: usize| {
        vec![(channels, 4), (2 * channels, 8), (4 * channels, 16), (8 * channels, 32)]
    };
    for (arch, expected) in [
        (Arch::ResNet34, four(16)),
        (Arch::ResNet50, four(64)),
        (Arch::ResNet18Cifar, vec![(16, 1), (32, 2), (64, 4), (128, 8)]),
        (Arch::ResNet32, vec![(4, 1), (8, 2), (16, 4)]),
        (Arch::MobileNetV1, vec![(16, 2), (32, 4), (64, 8), (128, 16), (256, 32)]),
        (Arch::MobileNetV2, vec![(8, 2), (8, 4), (8, 8), (24, 16), (80, 32)]),
        (Arch::MobileNetV3Large, vec![(8, 2), (8, 4), (16, 8), (32, 16), (40, 32)]),
        (Arch::MobileNetV3Small, vec![(8, 4), (8, 8), (16, 16), (24, 32)]),
        (Arch::RepVggA2, vec![(24, 4), (48, 8), (96, 16), (352, 32)]),
        (Arch::MobileOneS4, vec![(48, 4), (112, 8), (224, 16), (512, 32)]),
        (Arch::Vgg16, vec![(16, 1), (32, 2), (64, 4), (128, 8), (128, 16)]),
    ] {
        let config = ModelConfig { width: 0.25, ..ModelConfig::new(arch, BlockKind::Base, 10) };
        let network = config.init(Form::Train, &Device::default()).expect("a network");
        let images = Array::random(&[2, 3, 64, 96], [-1.0, 1.0], 1).tensor(&Device::default());
        let maps = network.forward_features(images.clone());
        let shapes: Vec<_> = maps.iter().map(|map| map.dims()).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|(c, stride)| [2, c, 64 / stride, 96 / stride]).collect();
        assert_eq!(shapes, expected, "{arch}");

        // The classifier reads the mean of the last map.
        let last = maps.into_iter().last().expect("a map");
        let [batch, channels, height, width] = last.dims();
        let means = last.reshape([batch, channels, height * width]).mean_dim(2);
        let linear = match &network {
            Classifier::ResNet(network) => &network.linear,
            Classifier::MobileNetV1(network) => &network.linear,
            Classifier::RepVgg(network) => &network.linear,
            Classifier::MobileOne(network) => &network.linear,
            // More layers follow their last map.
            Classifier::MobileNetV2(_)
            | Classifier::MobileNetV3(_)
            | Classifier::Vgg(_)
            | Classifier::AlexNet(_) => continue,
        };
        let logits = linear.forward(means.reshape([batch, channels])).into();
        let what = format!("{arch}: logits from the last map");
        assert_close(&what, &network.forward(images).into(), &logits, 1e-5, 1.0);
    }
}

/// Apple's code: one copy in the stem, four in the other layers of the smallest network and one in
/// those of the others; options of the configuration come before that.
#[test]
fn mobileones_have_their_own_copies() {
    let copies = |config: &ModelConfig| {
        let network = config.init(Form::Train, &Device::default()).expect("a network");
        let units = network.units().into_iter().map(|(name, unit)| {
            let ConvUnit::MobileOne(block) = unit else { panic!("{name} is no MobileOne block") };
            (name, block.copies.len())
        });
        units.collect::<Vec<_>>()
    };
    let config =
        |arch| ModelConfig { width: 0.25, ..ModelConfig::new(arch, BlockKind::MobileOne, 2) };
    for (arch, expected) in [(Arch::MobileOneS0, 4), (Arch::MobileOneS2, 1)] {
        let layers = copies(&config(arch));
        assert_eq!(layers[0], ("stem".into(), 1), "{arch}");
        assert!(layers[1..].iter().all(|layer| layer.1 == expected), "{arch}: {layers:?}");
    }
    let mut config = config(Arch::MobileOneS0);
    config.mobileone.layers = ByLayer(vec![("*.pointwise".into(), 2)]);
    for (name, found) in copies(&config) {
        let expected = match name.as_str() {
            "stem" => 1,
            name if name.ends_with("pointwise") => 2,
            _ => 4,
        };
        assert_eq!(found, expected, "{name}");
    }
}

/// The smallest images of torchvision's networks (`min_size` of their weights: 63 for AlexNet, 32 for
/// VGG, 1 for the others, whose windows are padded). Smaller ones are refused with that number.
#[test]
fn images_too_small_for_a_network_are_refused() {
    let device = Device::default();
    for arch in Arch::ALL {
        let smallest = match arch {
            Arch::AlexNet => 63,
            Arch::Vgg16 | Arch::Vgg16Cifar => 32,
            _ => 1,
        };
        let config = ModelConfig { width: 0.125, ..ModelConfig::new(arch, BlockKind::Base, 10) };
        let network = config.init(Form::Train, &device).expect("a network");
        network.layers([smallest; 2]).unwrap_or_else(|error| panic!("{arch}: {error}"));
        let images = Tensor::zeros([1, 3, smallest, smallest], &device);
        assert_eq!(network.forward(images).dims(), [1, 10], "{arch}");
        if smallest > 1 {
            let error = Summary::new(&config, [smallest - 1; 2]).expect_err("too small");
            let ConfigError::ImageSize { smallest: found, .. } = &error else { panic!("{error}") };
            assert_eq!(*found, Some(smallest), "{arch}");
            let told = format!("the smallest images are {smallest}x{smallest}");
            assert!(error.to_string().contains(&told), "{error}");
        }
    }
}

/// Option A of the ResNet paper: where a block changes the shape, it adds every second position
/// of its input, with as many channels of zeros before as after.
#[test]
fn the_parameter_free_shortcut_subsamples_and_pads() {
    let config = ModelConfig::new(Arch::ResNet20, BlockKind::Base, 10);
    let network = config.init(Form::Train, &Device::default()).expect("a network");
    let Classifier::ResNet(mut network) = network else { panic!("a ResNet") };
    // Without its second convolution a block is its shortcut.
    let block = &mut network.stage2[0];
    let ConvUnit::Base(conv2) = &mut block.conv2 else { panic!("a base block") };
    conv2.bn.gamma = conv2.bn.gamma.clone().map(|gamma| gamma.zeros_like());
    // The block alone in its network.
    network.stage1.clear();
    network.stage2.truncate(1);
    network.stage3.clear();
    network.stem = ConvUnit::Folded(identity(16));
    let input = Array::random(&[2, 16, 6, 5], [0.0, 1.0], 2).rounded();
    let maps = network.forward_features(input.tensor(&Device::default()));
    let output = Array::from(maps[0].clone());

    let mut expected = Array::new(&[2, 32, 3, 3], vec![0.0; 2 * 32 * 9]);
    for (n, c, y, x) in (0..2 * 16 * 9).map(|i| (i / 144, i / 9 % 16, i / 3 % 3, i % 3)) {
        let value = input.data[((n * 16 + c) * 6 + 2 * y) * 5 + 2 * x];
        expected.data[((n * 32 + 8 + c) * 3 + y) * 3 + x] = value;
    }
    assert_close("shortcut", &output, &expected, 1e-6, 1.0);
}

/// A 1x1 convolution that hands on its input.
fn identity(channels: usize) -> Conv2d {
    let device = Device::default();
    let mut conv = Conv2dConfig::new([channels; 2], [1, 1]).with_bias(false).init(&device);
    let eye = Tensor::<2>::eye(channels, &device).reshape([channels, channels, 1, 1]);
    conv.weight = Param::from_tensor(eye);
    conv
}

/// No assertion on the time: it is for reading (`--nocapture`).
#[test]
fn time_to_fold_a_large_network() {
    let config = ModelConfig::new(Arch::ResNet50, BlockKind::Dbb, 1000);
    let network = config.init(Form::Train, &Device::default()).expect("a network");
    let start = std::time::Instant::now();
    let folded = network.reparameterize();
    println!("full-width {} {} folds in {:.2?}", config.arch, config.block, start.elapsed());
    assert_eq!(learnable_params(&folded), 25_557_032 - 26_560, "batch norms folded away");
}
