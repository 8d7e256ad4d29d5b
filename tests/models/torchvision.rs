//! The names of other libraries for plain networks: keys and shapes as torchvision, timm and
//! published checkpoints have them, and a folded network in its conv + batch norm form.

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor, TensorData};
use dbb_models::blocks::{Activation, ConvUnit};
use dbb_models::weights::{Dialect, KeyMap, LoadOptions, StateDict, adopt, as_block};
use dbb_models::weights::{WeightsFile, write_foreign};
use dbb_models::{Arch, BlockKind, Classifier, Form, ModelConfig, Reparameterize};
use sha2::{Digest, Sha256};

fn names(model: &ModelConfig) -> StateDict {
    let network = model.init(Form::Train, &Device::default()).expect("a network");
    let keys = KeyMap::new(Dialect::Torchvision, model, &network).expect("torchvision names");
    keys.save(&network)
}

/// Name and shape of some tensors, and how many there are without the batch counters.
fn assert_names(arch: Arch, count: usize, some: &[(&str, &[usize])]) {
    let tensors = names(&ModelConfig::new(arch, BlockKind::Base, 1000));
    assert_eq!(tensors.len(), count, "{arch}");
    for (name, shape) in some {
        let found = tensors.get(*name).unwrap_or_else(|| panic!("{arch} has no {name}"));
        assert_eq!(found.shape().to_vec(), *shape, "{arch} {name}");
    }
}

#[test]
fn resnets() {
    // 20 convolutions and norms of five and one tensors, and the classifier's two.
    let some: &[(&str, &[usize])] = &[
        ("conv1.weight", &[64, 3, 7, 7]),
        ("bn1.running_var", &[64]),
        ("layer1.1.conv2.weight", &[64, 64, 3, 3]),
        ("layer2.0.downsample.0.weight", &[128, 64, 1, 1]),
        ("layer2.0.downsample.1.bias", &[128]),
        ("layer4.1.bn2.weight", &[512]),
        ("fc.weight", &[1000, 512]),
        ("fc.bias", &[1000]),
    ];
    assert_names(Arch::ResNet18, 102, some);
    let some: &[(&str, &[usize])] = &[
        ("layer1.0.conv3.weight", &[256, 64, 1, 1]),
        ("layer1.0.bn3.running_mean", &[256]),
        ("layer1.0.downsample.0.weight", &[256, 64, 1, 1]),
        ("layer3.5.conv2.weight", &[256, 256, 3, 3]),
        ("fc.weight", &[1000, 2048]),
    ];
    assert_names(Arch::ResNet50, 53 * 5 + 2, some);
}

#[test]
fn mobilenet_v2() {
    let some: &[(&str, &[usize])] = &[
        ("features.0.0.weight", &[32, 3, 3, 3]),
        ("features.0.1.weight", &[32]),
        ("features.1.conv.0.0.weight", &[32, 1, 3, 3]),
        ("features.1.conv.1.weight", &[16, 32, 1, 1]),
        ("features.1.conv.2.running_mean", &[16]),
        ("features.2.conv.0.0.weight", &[96, 16, 1, 1]),
        ("features.2.conv.1.0.weight", &[96, 1, 3, 3]),
        ("features.2.conv.1.1.bias", &[96]),
        ("features.17.conv.2.weight", &[320, 960, 1, 1]),
        ("features.17.conv.3.running_var", &[320]),
        ("features.18.0.weight", &[1280, 320, 1, 1]),
        ("features.18.1.weight", &[1280]),
        ("classifier.1.weight", &[1000, 1280]),
    ];
    assert_names(Arch::MobileNetV2, 52 * 5 + 2, some);
}

#[test]
fn mobilenet_v3() {
    let some: &[(&str, &[usize])] = &[
        ("features.0.0.weight", &[16, 3, 3, 3]),
        ("features.1.block.0.0.weight", &[16, 1, 3, 3]),
        ("features.1.block.1.1.running_mean", &[16]),
        ("features.4.block.0.0.weight", &[72, 24, 1, 1]),
        ("features.4.block.1.0.weight", &[72, 1, 5, 5]),
        ("features.4.block.2.fc1.weight", &[24, 72, 1, 1]),
        ("features.4.block.2.fc2.bias", &[72]),
        ("features.4.block.3.0.weight", &[40, 72, 1, 1]),
        ("features.7.block.2.0.weight", &[80, 240, 1, 1]),
        ("features.16.0.weight", &[960, 160, 1, 1]),
        ("features.16.1.weight", &[960]),
        ("classifier.0.weight", &[1280, 960]),
        ("classifier.3.weight", &[1000, 1280]),
    ];
    // 46 convolutions with norms, eight squeezes of four tensors, two layers of two.
    assert_names(Arch::MobileNetV3Large, 46 * 5 + 8 * 4 + 4, some);
    let some: &[(&str, &[usize])] = &[
        ("features.1.block.0.0.weight", &[16, 1, 3, 3]),
        ("features.1.block.1.fc1.weight", &[8, 16, 1, 1]),
        ("features.1.block.2.0.weight", &[16, 16, 1, 1]),
        ("features.12.0.weight", &[576, 96, 1, 1]),
        ("classifier.0.bias", &[1024]),
    ];
    assert_names(Arch::MobileNetV3Small, 34 * 5 + 9 * 4 + 4, some);
}

/// `vgg16_bn`, whose convolutions have biases.
#[test]
fn vgg16() {
    let model = ModelConfig { width: 0.125, ..ModelConfig::new(Arch::Vgg16, BlockKind::Base, 10) };
    let tensors = names(&model);
    // 13 convolutions with norms of six tensors and three layers of two.
    assert_eq!(tensors.len(), 13 * 6 + 6);
    let some: &[(&str, &[usize])] = &[
        ("features.0.weight", &[8, 3, 3, 3]),
        ("features.0.bias", &[8]),
        ("features.1.running_var", &[8]),
        ("features.7.weight", &[16, 8, 3, 3]),
        ("features.20.weight", &[32, 32, 3, 3]),
        ("features.34.bias", &[64]),
        ("features.40.weight", &[64, 64, 3, 3]),
        ("features.41.bias", &[64]),
        ("classifier.0.weight", &[512, 64 * 7 * 7]),
        ("classifier.3.weight", &[512, 512]),
        ("classifier.6.bias", &[10]),
    ];
    for (name, shape) in some {
        let found = tensors.get(*name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(found.shape().to_vec(), *shape, "{name}");
    }
}

/// A bias moves the running mean of the norm behind it as it moves the map; what is missing or of
/// another size is named.
#[test]
fn biases_before_norms_are_taken_from_the_running_means() {
    let device = Device::default();
    let model = ModelConfig { width: 0.125, ..ModelConfig::new(Arch::Vgg16, BlockKind::Base, 3) };
    let network = model.init(Form::Train, &device).expect("a network");
    let native = KeyMap::new(Dialect::Native, &model, &network).expect("native names");
    let network = crate::support::randomise(network, &native, 5);
    let keys = KeyMap::new(Dialect::Torchvision, &model, &network).expect("names");
    let mut state = keys.save(&network);
    // Halves, so that no rounding remains.
    let biases: Vec<_> = (0..64).map(|channel| (channel % 7) as f32 / 2.0).collect();
    let mean: Vec<f32> = (0..64).map(|channel| channel as f32).collect();
    let moved: Vec<_> = mean.iter().zip(&biases).map(|(mean, bias)| mean + bias).collect();
    state.insert("features.40.bias".into(), TensorData::new(biases, [64]));
    state.insert("features.41.running_mean".into(), TensorData::new(moved, [64]));
    let loaded = keys.load(network, &state).expect("loaded");
    let Classifier::Vgg(vgg) = &loaded else { panic!("a VGG") };
    let ConvUnit::Base(last) = &vgg.stage5[2] else { panic!("a plain unit") };
    last.bn.running_mean.value().into_data().assert_eq(&TensorData::new(mean, [64]), true);

    state.insert("features.0.bias".into(), TensorData::zeros::<f32, _>([9]));
    state.remove("features.3.bias");
    let error = keys.load(loaded, &state).expect_err("keys that do not fit").to_string();
    assert!(error.contains("features.0.bias [9] (expected [8])"), "{error}");
    assert!(error.contains("features.3.bias"), "{error}");
}

/// Two layers never get the same name, in any architecture.
#[test]
fn names_are_unique() {
    for arch in [Arch::ResNet34, Arch::ResNet101, Arch::MobileNetV2, Arch::MobileNetV3Large] {
        let model = ModelConfig { width: 0.125, ..ModelConfig::new(arch, BlockKind::Base, 3) };
        let network = model.init(Form::Train, &Device::default()).expect("a network");
        let native = KeyMap::new(Dialect::Native, &model, &network).expect("native names");
        let unique: BTreeSet<_> = names(&model).into_keys().collect();
        assert_eq!(unique.len(), native.save(&network).len(), "{arch}");
    }
}

/// A folded DBB network, written as the plain network torchvision knows, is that network: it is
/// recognised without metadata and computes the same.
#[test]
fn a_folded_network_loads_as_the_plain_one() {
    let device = Device::default();
    let folder = tempfile::tempdir().expect("a folder");
    for (arch, dialect) in [
        (Arch::ResNet18, Dialect::Torchvision),
        (Arch::ResNet50, Dialect::Torchvision),
        (Arch::MobileNetV2, Dialect::Torchvision),
        (Arch::MobileNetV3Small, Dialect::Torchvision),
        (Arch::Vgg16, Dialect::Torchvision),
        (Arch::MobileNetV1, Dialect::Timm),
        (Arch::MobileNetV2, Dialect::Timm),
        (Arch::ResNet20, Dialect::Akamaster),
        (Arch::RepVggA0, Dialect::Timm),
        (Arch::MobileOneS0, Dialect::Timm),
        (Arch::MobileOneS4, Dialect::Timm),
    ] {
        let width = if arch == Arch::ResNet20 { 0.5 } else { 0.125 };
        let model = ModelConfig { width, ..ModelConfig::new(arch, BlockKind::Dbb, 7) };
        // timm's MobileNetV1 has ReLU6.
        let activation = (arch == Arch::MobileNetV1).then_some(Activation::Relu6);
        let model = ModelConfig { activation, ..model };
        let network = model.init(Form::Train, &device).expect("a network");
        let native = KeyMap::new(Dialect::Native, &model, &network).expect("native names");
        let deploy = crate::support::randomise(network, &native, 3).reparameterize();
        let (plain, plain_model) = {
            let kind = arch.only_block(dialect).expect("one block");
            as_block(&deploy, &model, kind, &device).expect("a network")
        };
        let keys = KeyMap::new(dialect, &plain_model, &plain).expect("names");
        let path = folder.path().join("weights.safetensors");
        write_foreign(&path, &keys.save(&plain)).expect("written");

        let file = WeightsFile::read(&path).expect("read");
        let asked = ModelConfig { activation: None, ..plain_model.clone() };
        let (adopted, found) =
            adopt(&file, &asked, LoadOptions::default(), &device).expect("adopted");
        assert_eq!((found.keys, found.form), (dialect, Form::Train), "{arch}");
        assert_eq!(found.model, plain_model, "{arch}");
        assert!(keys.save(&adopted) == keys.save(&plain), "{arch} {dialect}: bit for bit");
        let images = Tensor::random([2, 3, 64, 64], burn::tensor::Distribution::Default, &device);
        let logits = |network: &Classifier| network.forward(images.clone());
        let expected = logits(&deploy);
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        let difference = (logits(&adopted) - expected).abs().max().into_scalar::<f32>();
        assert!(difference <= 4e-6 * largest, "{arch}: {difference:e} of {largest}");
        // With PyTorch's epsilon the rounded scale of the norm is too near for a bit to change.
        if arch != Arch::MobileNetV3Small {
            let deploy_keys = KeyMap::new(Dialect::Native, &model, &deploy).expect("names");
            let again = deploy_keys.save(&adopted.reparameterize());
            assert!(again == deploy_keys.save(&deploy), "{arch} {dialect}: folded again");
        }
    }
}

/// Number of keys and the first digits of the SHA-256 of the sorted keys, one a line, without
/// counters of batches: of `state_dict()` in torchvision 0.29.2 and timm 1.0.31, and of the file
/// resnet20-12fca82f.th.
#[test]
fn every_name_is_the_librarys() {
    for (dialect, arch, count, sha256) in [
        (Dialect::Torchvision, Arch::ResNet18, 102, "e90b1f58ce95ad39"),
        (Dialect::Torchvision, Arch::ResNet34, 182, "aeaf9ac2b41bf067"),
        (Dialect::Torchvision, Arch::ResNet50, 267, "d1512e10e88bf8a9"),
        (Dialect::Torchvision, Arch::ResNet101, 522, "65c093d2a20817d5"),
        (Dialect::Torchvision, Arch::ResNet152, 777, "9f9c78c1b0744447"),
        (Dialect::Torchvision, Arch::MobileNetV2, 262, "7abb0d3441db5855"),
        (Dialect::Torchvision, Arch::MobileNetV3Large, 266, "0692ecb8f00ec469"),
        (Dialect::Torchvision, Arch::MobileNetV3Small, 210, "17774ef707f7135b"),
        (Dialect::Torchvision, Arch::Vgg16, 84, "b3372d34016ee025"),
        (Dialect::Timm, Arch::MobileNetV1, 137, "73f3c8112c20777c"),
        (Dialect::Timm, Arch::MobileNetV2, 262, "6d15a2002986888a"),
        (Dialect::Timm, Arch::RepVggA0, 290, "a73e61af0cab56be"),
        (Dialect::Timm, Arch::RepVggB1, 374, "fd08eeabf298eeca"),
        (Dialect::Timm, Arch::MobileOneS0, 1097, "44a4ef1e74ecd105"),
        (Dialect::Timm, Arch::MobileOneS4, 511, "f688a2a9abe4bdf1"),
        (Dialect::Akamaster, Arch::ResNet20, 97, "f7e84def05c9ee5a"),
    ] {
        // A narrow MobileNet has blocks that expand nothing; the other names know no width.
        let width = if arch.name().starts_with("mobilenet") { 1.0 } else { 0.125 };
        let block = arch.only_block(dialect).expect("one block");
        let model = ModelConfig { width, ..ModelConfig::new(arch, block, 2) };
        let (keys, hash) = key_hash(dialect, &model, Form::Train);
        assert_eq!((keys, &*hash), (count, sha256), "{dialect} {arch}");
    }
    // What timm's `reparameterize_model` makes of its networks, whatever block was trained.
    for (arch, count, sha256) in [
        (Arch::RepVggA0, 46, "11029349191d8e2e"),
        (Arch::MobileOneS0, 88, "5e62b572b3a4de08"),
        (Arch::MobileOneS4, 136, "61d37831f05659a5"),
    ] {
        for block in [BlockKind::Dbb, BlockKind::RepVgg] {
            let model = ModelConfig { width: 0.125, ..ModelConfig::new(arch, block, 2) };
            let (keys, hash) = key_hash(Dialect::Timm, &model, Form::Deploy);
            assert_eq!((keys, &*hash), (count, sha256), "{arch}");
        }
    }
}

/// Names of a tensor in a dialect and in ours.
type Names = (&'static str, &'static str);

/// Some tensors of networks; in most cases others have the same shape.
const LAYERS: [(Dialect, Arch, &[Names]); 10] = [
    (
        Dialect::Torchvision,
        Arch::ResNet18,
        &[
            ("conv1.weight", "stem.conv.weight"),
            ("bn1.running_mean", "stem.bn.running_mean"),
            ("layer1.0.conv1.weight", "stage1.0.conv1.conv.weight"),
            ("layer1.0.conv2.weight", "stage1.0.conv2.conv.weight"),
            ("layer1.1.bn1.weight", "stage1.1.conv1.bn.gamma"),
            ("layer1.1.bn2.bias", "stage1.1.conv2.bn.beta"),
            ("layer3.0.bn2.running_mean", "stage3.0.conv2.bn.running_mean"),
            ("layer3.0.downsample.0.weight", "stage3.0.shortcut.conv.weight"),
            ("layer3.0.downsample.1.running_var", "stage3.0.shortcut.bn.running_var"),
            ("fc.bias", "linear.bias"),
        ],
    ),
    (
        Dialect::Torchvision,
        Arch::ResNet50,
        &[
            ("layer1.2.conv3.weight", "stage1.2.conv3.conv.weight"),
            ("layer2.1.bn1.running_var", "stage2.1.conv1.bn.running_var"),
            ("layer2.3.bn2.weight", "stage2.3.conv2.bn.gamma"),
            ("layer3.5.conv2.weight", "stage3.5.conv2.conv.weight"),
            ("layer4.0.bn3.bias", "stage4.0.conv3.bn.beta"),
            ("layer4.0.downsample.1.bias", "stage4.0.shortcut.bn.beta"),
        ],
    ),
    (
        Dialect::Torchvision,
        Arch::MobileNetV2,
        &[
            ("features.0.0.weight", "stem.conv.weight"),
            ("features.1.conv.0.1.running_mean", "blocks.0.depthwise.bn.running_mean"),
            ("features.1.conv.1.weight", "blocks.0.project.conv.weight"),
            ("features.3.conv.0.1.weight", "blocks.2.expand.bn.gamma"),
            ("features.3.conv.1.1.weight", "blocks.2.depthwise.bn.gamma"),
            ("features.4.conv.1.0.weight", "blocks.3.depthwise.conv.weight"),
            ("features.6.conv.2.weight", "blocks.5.project.conv.weight"),
            ("features.6.conv.3.running_var", "blocks.5.project.bn.running_var"),
            ("features.18.1.bias", "last.bn.beta"),
            ("classifier.1.weight", "linear.weight"),
        ],
    ),
    (
        Dialect::Torchvision,
        Arch::MobileNetV3Large,
        &[
            ("features.5.block.0.1.running_mean", "blocks.4.expand.bn.running_mean"),
            ("features.5.block.1.1.running_mean", "blocks.4.depthwise.bn.running_mean"),
            ("features.5.block.2.fc2.bias", "blocks.4.squeeze_excite.fc2.bias"),
            ("features.5.block.3.1.weight", "blocks.4.project.bn.gamma"),
            ("features.8.block.1.1.bias", "blocks.7.depthwise.bn.beta"),
            ("features.8.block.2.0.weight", "blocks.7.project.conv.weight"),
            ("classifier.0.bias", "hidden.bias"),
        ],
    ),
    (
        Dialect::Torchvision,
        Arch::Vgg16,
        &[
            ("features.3.weight", "stage1.1.conv.weight"),
            ("features.8.bias", "stage2.0.bn.beta"),
            ("features.18.running_var", "stage3.1.bn.running_var"),
            ("features.20.weight", "stage3.2.conv.weight"),
            // The bias of a convolution moves the mean behind it.
            ("features.27.bias", "stage4.1.bn.running_mean"),
            ("features.28.weight", "stage4.1.bn.gamma"),
            ("classifier.3.bias", "hidden.1.bias"),
        ],
    ),
    (
        Dialect::Timm,
        Arch::MobileNetV1,
        &[
            ("conv_stem.weight", "stem.conv.weight"),
            ("blocks.1.1.conv_dw.weight", "blocks.2.depthwise.conv.weight"),
            ("blocks.1.1.bn1.running_mean", "blocks.2.depthwise.bn.running_mean"),
            ("blocks.3.2.conv_pw.weight", "blocks.7.pointwise.conv.weight"),
            ("blocks.3.4.bn2.bias", "blocks.9.pointwise.bn.beta"),
            ("blocks.3.5.bn1.weight", "blocks.10.depthwise.bn.gamma"),
            ("blocks.4.0.bn1.running_var", "blocks.11.depthwise.bn.running_var"),
            ("classifier.bias", "linear.bias"),
        ],
    ),
    (
        Dialect::Timm,
        Arch::MobileNetV2,
        &[
            ("bn1.weight", "stem.bn.gamma"),
            ("blocks.0.0.conv_pw.weight", "blocks.0.project.conv.weight"),
            ("blocks.0.0.bn2.bias", "blocks.0.project.bn.beta"),
            ("blocks.1.1.conv_pw.weight", "blocks.2.expand.conv.weight"),
            ("blocks.2.1.bn1.running_var", "blocks.4.expand.bn.running_var"),
            ("blocks.2.1.bn2.running_var", "blocks.4.depthwise.bn.running_var"),
            ("blocks.3.2.conv_pwl.weight", "blocks.8.project.conv.weight"),
            ("blocks.3.3.bn3.running_mean", "blocks.9.project.bn.running_mean"),
            ("bn2.running_mean", "last.bn.running_mean"),
        ],
    ),
    (
        Dialect::Timm,
        Arch::RepVggA0,
        &[
            ("stem.conv_1x1.conv.weight", "stem.pointwise.conv.weight"),
            ("stages.0.1.identity.weight", "stage1.1.identity.gamma"),
            ("stages.2.4.conv_kxk.conv.weight", "stage3.4.origin.conv.weight"),
            ("stages.2.5.conv_kxk.bn.bias", "stage3.5.origin.bn.beta"),
            ("stages.2.5.conv_1x1.bn.bias", "stage3.5.pointwise.bn.beta"),
        ],
    ),
    (
        Dialect::Timm,
        Arch::MobileOneS0,
        &[
            ("stem.conv_kxk.0.bn.bias", "stem.copies.0.bn.beta"),
            ("stages.1.4.conv_kxk.2.conv.weight", "stage2.2.depthwise.copies.2.conv.weight"),
            (
                "stages.1.5.conv_kxk.3.bn.running_mean",
                "stage2.2.pointwise.copies.3.bn.running_mean",
            ),
            ("stages.1.6.identity.bias", "stage2.3.depthwise.identity.beta"),
            ("stages.2.2.conv_scale.bn.weight", "stage3.1.depthwise.scale.bn.gamma"),
        ],
    ),
    (
        Dialect::Akamaster,
        Arch::ResNet20,
        &[
            ("conv1.weight", "stem.conv.weight"),
            ("bn1.bias", "stem.bn.beta"),
            ("layer1.2.conv1.weight", "stage1.2.conv1.conv.weight"),
            ("layer1.2.conv2.weight", "stage1.2.conv2.conv.weight"),
            ("layer2.0.bn1.weight", "stage2.0.conv1.bn.gamma"),
            ("layer3.1.bn2.running_var", "stage3.1.conv2.bn.running_var"),
            ("linear.bias", "linear.bias"),
        ],
    ),
];

/// What is changed under the library's name of a layer changes under ours, and nothing else.
#[test]
fn a_name_is_that_of_its_layer() {
    let device = Device::default();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    for (dialect, arch, layers) in LAYERS {
        let block = arch.only_block(dialect).expect("one block");
        let width = if arch == Arch::Vgg16 { 0.0625 } else { 0.125 };
        let model = ModelConfig { width, ..ModelConfig::new(arch, block, 3) };
        let network = model.init(Form::Train, &device).expect("a network");
        let state = KeyMap::new(dialect, &model, &network).expect("names").save(&network);
        let native = |network: &Classifier| {
            KeyMap::new(Dialect::Native, &model, network).expect("native names").save(network)
        };
        let before = native(&network);
        for (foreign, expected) in layers {
            let mut state = state.clone();
            let data = state.get_mut(*foreign);
            let data = data.unwrap_or_else(|| panic!("{dialect} {arch} has no {foreign}"));
            let values: Vec<f32> = data.iter::<f32>().map(|value| value + 1.0).collect();
            *data = TensorData::new(values, data.shape().to_vec());
            write_foreign(&path, &state).expect("written");
            let file = WeightsFile::read(&path).expect("read");
            let (loaded, _) =
                adopt(&file, &model, LoadOptions::default(), &device).expect("adopted");
            let after = native(&loaded);
            let changed: Vec<_> = after.keys().filter(|key| after[*key] != before[*key]).collect();
            assert_eq!(changed, [expected], "{dialect} {arch} {foreign}");
        }
    }
}

/// Number of keys of a network and the first digits of their SHA-256.
fn key_hash(dialect: Dialect, model: &ModelConfig, form: Form) -> (usize, String) {
    let network = model.init(form, &Device::default()).expect("a network");
    let state = KeyMap::new(dialect, model, &network).expect("names").save(&network);
    let keys: Vec<_> = state.keys().map(String::as_str).collect();
    let hash = Sha256::digest(keys.join("\n"));
    (keys.len(), hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[test]
fn blocks_of_several_branches_have_no_names() {
    let model = ModelConfig { width: 0.125, ..ModelConfig::new(Arch::ResNet18, BlockKind::Dbb, 7) };
    let network = model.init(Form::Train, &Device::default()).expect("a network");
    let error = KeyMap::new(Dialect::Torchvision, &model, &network).expect_err("no names");
    assert!(error.to_string().contains("export the folded network"), "{error}");
    let model = ModelConfig::new(Arch::ResNet20, BlockKind::Base, 10);
    let network = model.init(Form::Train, &Device::default()).expect("a network");
    let error = KeyMap::new(Dialect::Torchvision, &model, &network).expect_err("no names");
    assert!(error.to_string().contains("resnet20 has no torchvision names"), "{error}");
}
