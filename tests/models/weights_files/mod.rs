//! Weights files: every format and dialect gives back the network that was written, bit for bit;
//! and keys that do not fit are named.

mod damaged;
mod nonfinite;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Array, randomise};
use burn::tensor::{Device, TensorData};
use dbb_models::blocks::BlockKind;
use dbb_models::weights::{
    Dialect, KeyMap, LoadOptions, Metadata, StateDict, WeightsError, WeightsFile, adopt, rebuild,
    write_burnpack, write_foreign, write_safetensors,
};
use dbb_models::{Arch, ByLayer, Classifier, Form, ModelConfig, Reparameterize, Walk};
use safetensors::SafeTensors;
use tempfile::TempDir;

fn device() -> Device {
    Device::default()
}

fn config(arch: Arch, block: BlockKind) -> ModelConfig {
    ModelConfig { width: 0.0625, ..ModelConfig::new(arch, block, 10) }
}

fn network(model: &ModelConfig, form: Form) -> Classifier {
    let network = model.init(Form::Train, &device()).expect("a network");
    let keys = KeyMap::new(Dialect::Native, model, &network).expect("native names");
    let network = randomise(network, &keys, 1);
    match form {
        Form::Train => network,
        Form::Deploy => network.reparameterize(),
    }
}

fn metadata(model: &ModelConfig, form: Form, keys: Dialect) -> Metadata {
    Metadata {
        model: model.clone(),
        form,
        keys,
        preprocess: serde_json::json!({"mean": [0.5, 0.25, 0.125], "resize": 256}),
        classes: (0..model.num_classes).map(|class| format!("\"dog\", ünï {class}")).collect(),
    }
}

fn logits(network: &Classifier) -> Array {
    network.forward(Array::random(&[2, 3, 32, 32], [-2.0, 2.0], 2).tensor(&device())).into()
}

fn native_state(model: &ModelConfig, network: &Classifier) -> StateDict {
    KeyMap::new(Dialect::Native, model, network).expect("native names").save(network)
}

fn official_state(model: &ModelConfig, network: &Classifier) -> StateDict {
    KeyMap::new(Dialect::Official, model, network).expect("official names").save(network)
}

/// The ways to write a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Written {
    Safetensors(Dialect),
    Burnpack,
}

const WAYS: [Written; 3] = [
    Written::Safetensors(Dialect::Native),
    Written::Safetensors(Dialect::Official),
    Written::Burnpack,
];

impl Written {
    fn dialect(self) -> Dialect {
        match self {
            Self::Safetensors(dialect) => dialect,
            Self::Burnpack => Dialect::Native,
        }
    }

    fn write(self, path: &Path, model: &ModelConfig, form: Form, network: &Classifier) -> Metadata {
        let metadata = metadata(model, form, self.dialect());
        match self {
            Self::Safetensors(dialect) => {
                let keys = KeyMap::new(dialect, model, network).expect("names");
                write_safetensors(path, &keys.save(network), &metadata)
            }
            Self::Burnpack => write_burnpack(path, network, &metadata),
        }
        .expect("a file can be written");
        metadata
    }
}

#[test]
fn a_written_network_is_read_bit_for_bit() {
    let folder = TempDir::new().expect("a folder");
    let mixed = ByLayer(vec![("*.conv1".into(), BlockKind::Acb)]);
    let models = [
        config(Arch::ResNet18, BlockKind::Dbb),
        config(Arch::ResNet50, BlockKind::Acb),
        ModelConfig { blocks: mixed, ..config(Arch::ResNet18Cifar, BlockKind::Dbb) },
        config(Arch::MobileNetV1, BlockKind::Dbb),
        ModelConfig { width: 0.25, ..config(Arch::ResNet20, BlockKind::Base) },
    ];
    for model in &models {
        for form in [Form::Train, Form::Deploy] {
            let network = network(model, form);
            for way in WAYS.into_iter().filter(|way| way.dialect().supports(model.arch)) {
                let what = format!("{} {form} {way:?}", model.arch);
                let path = folder.path().join("weights");
                let metadata = way.write(&path, model, form, &network);
                let file = WeightsFile::read(&path).expect(&what);
                assert_eq!(file.metadata.as_ref(), Some(&metadata), "{what}");
                let read =
                    rebuild(&file, &metadata, LoadOptions::default(), &device()).expect(&what);
                assert!(native_state(model, &read) == native_state(model, &network), "{what}");
                assert!(logits(&read) == logits(&network), "{what}: logits");

                // Without its metadata the file is a foreign one.
                let (adopted, found) =
                    adopt(&file, model, LoadOptions::default(), &device()).expect(&what);
                assert_eq!((found.keys, found.form), (way.dialect(), form), "{what}");
                assert!(logits(&adopted) == logits(&network), "{what}: adopted logits");
            }
        }
    }
}

/// Equal networks are equal files, and what other programs look for is in them.
#[test]
fn files_are_reproducible_and_readable_elsewhere() {
    let folder = TempDir::new().expect("a folder");
    let model = config(Arch::ResNet18Cifar, BlockKind::Dbb);
    let network = network(&model, Form::Deploy);
    for way in WAYS {
        let written = ["one", "two"].map(|name| {
            let path = folder.path().join(name);
            way.write(&path, &model, Form::Deploy, &network);
            fs::read(path).expect("the file")
        });
        assert!(written[0] == written[1], "{way:?}: two files of one network differ");
        if let Written::Safetensors(dialect) = way {
            let (_, header) = SafeTensors::read_metadata(&written[0]).expect("a header");
            let table = header.metadata().as_ref().expect("a table");
            assert_eq!(table["format"], "pt");
            let file = SafeTensors::deserialize(&written[0]).expect("safetensors");
            let keys = KeyMap::new(dialect, &model, &network).expect("names");
            let state = keys.save(&network);
            assert_eq!(file.len(), state.len(), "{way:?}: tensors");
            for (key, data) in &state {
                let view = file.tensor(key).expect("a tensor");
                assert_eq!(view.shape(), &data.shape()[..], "{way:?}: {key}");
                assert!(view.data() == data.as_bytes(), "{way:?}: {key}");
            }
        }
    }
}

#[test]
fn a_place_that_cannot_be_written_to() {
    let folder = TempDir::new().expect("a folder");
    let (file, model) = small_file(&folder, Written::Burnpack);
    let network = network(&model, Form::Deploy);
    let metadata = metadata(&model, Form::Deploy, Dialect::Native);
    // Below a file, and in the place of a folder.
    for path in [file.join("below"), folder.path().to_path_buf()] {
        for result in [
            write_burnpack(&path, &network, &metadata),
            write_safetensors(&path, &native_state(&model, &network), &metadata),
        ] {
            let error = result.expect_err("no file can be there");
            assert!(matches!(error, WeightsError::Io { action: "write", .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().expect("a path")), "{error}");
        }
    }
}

/// A training form is saved with the statistics of the last forward, from either device.
#[test]
fn a_network_in_training_is_written_as_it_is() {
    let folder = TempDir::new().expect("a folder");
    let model = config(Arch::ResNet18Cifar, BlockKind::Dbb);
    let network = model.init(Form::Train, &device().autodiff()).expect("a network");
    let images = Array::random(&[4, 3, 32, 32], [-2.0, 2.0], 3);
    network.forward(images.tensor(&device().autodiff()));
    for way in WAYS {
        let path = folder.path().join("weights");
        let metadata = way.write(&path, &model, Form::Train, &network);
        let file = WeightsFile::read(&path).expect("a file");
        let read =
            rebuild(&file, &metadata, LoadOptions::default(), &device()).expect("weights fit");
        assert!(native_state(&model, &read) == native_state(&model, &network), "{way:?}");
    }
}

/// The names of the paper's code, written out for each architecture and block.
#[test]
fn official_names_are_those_of_the_papers_code() {
    const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
    let with_norm = |conv: &str, norm: &str| {
        let norm = NORM.map(|tensor| format!("{norm}.{tensor}"));
        [vec![format!("{conv}.weight")], norm.to_vec()].concat()
    };
    // A layer that keeps the shape of its input has an identity.
    let block = |kind: BlockKind, depthwise: bool, same: bool, form: Form| match (kind, form) {
        (BlockKind::Base, Form::Train) => with_norm("conv", "bn"),
        (BlockKind::Acb, Form::Train) => ["square", "ver", "hor"]
            .map(|strip| with_norm(&format!("{strip}_conv"), &format!("{strip}_bn")))
            .concat(),
        (BlockKind::Dbb, Form::Train) => {
            // An internal width equal to the input's makes the 1x1 identity-based.
            let first = if depthwise { "conv1" } else { "idconv1" };
            let mut keys = vec![
                with_norm("dbb_origin.conv", "dbb_origin.bn"),
                with_norm(&format!("dbb_1x1_kxk.{first}"), "dbb_1x1_kxk.bn1.bn"),
                with_norm("dbb_1x1_kxk.conv2", "dbb_1x1_kxk.bn2"),
            ];
            if depthwise {
                keys.push(NORM.map(|tensor| format!("dbb_avg.avgbn.{tensor}")).to_vec());
            } else {
                keys.push(with_norm("dbb_1x1.conv", "dbb_1x1.bn"));
                keys.push(with_norm("dbb_avg.conv", "dbb_avg.bn.bn"));
                keys.push(NORM.map(|tensor| format!("dbb_avg.avgbn.{tensor}")).to_vec());
            }
            keys.concat()
        }
        (BlockKind::RepVgg, Form::Train) => {
            let mut keys = vec![
                with_norm("rbr_dense.conv", "rbr_dense.bn"),
                with_norm("rbr_1x1.conv", "rbr_1x1.bn"),
            ];
            if same {
                keys.push(NORM.map(|tensor| format!("rbr_identity.{tensor}")).to_vec());
            }
            keys.concat()
        }
        (BlockKind::MobileOne, Form::Train) => {
            let copies = (0..4).map(|copy| {
                with_norm(&format!("rbr_conv.{copy}.conv"), &format!("rbr_conv.{copy}.bn"))
            });
            let mut keys: Vec<_> = copies.collect();
            keys.push(with_norm("rbr_scale.conv", "rbr_scale.bn"));
            if same {
                keys.push(NORM.map(|tensor| format!("rbr_skip.{tensor}")).to_vec());
            }
            keys.concat()
        }
        (BlockKind::QaRepVgg, Form::Train) => {
            [with_norm("rbr_dense.conv", "rbr_dense.bn"), with_norm("rbr_1x1", "bn")].concat()
        }
        (BlockKind::Orepa, Form::Train) => {
            let names = [
                "origin",
                "avg_conv",
                "avg_avg",
                "pfir_conv",
                "prior",
                "1x1_kxk_idconv1",
                "1x1_kxk_conv2",
                "1x1",
                "gconv_dw",
                "gconv_pw",
            ];
            let norm = NORM.map(|tensor| format!("bn.{tensor}"));
            let others = ["vector", "id_tensor"].map(str::to_string);
            let weights = names.map(|name| format!("weight_orepa_{name}"));
            [&weights[..], &others, &norm].concat()
        }
        (kind, Form::Deploy) => {
            let module = match kind {
                BlockKind::Base => "conv",
                BlockKind::Dbb => "dbb_reparam",
                BlockKind::Acb => "fused_conv",
                BlockKind::RepVgg | BlockKind::QaRepVgg => "rbr_reparam",
                BlockKind::MobileOne => "reparam_conv",
                BlockKind::Orepa => "orepa_reparam",
            };
            ["weight", "bias"].map(|tensor| format!("{module}.{tensor}")).to_vec()
        }
    };

    /// A layer's name, kernel size, and whether it is depthwise.
    type Layer = (String, usize, bool);
    let resnet = |stem: usize, depths: [usize; 4], bottleneck: bool| -> Vec<Layer> {
        let mut layers = vec![("stage0.conv1".to_string(), stem, false)];
        for (stage, depth) in depths.into_iter().enumerate() {
            for index in 0..depth {
                let name = format!("stage{}.{index}", stage + 1);
                let kernels: &[usize] = if bottleneck { &[1, 3, 1] } else { &[3, 3] };
                for (conv, kernel) in kernels.iter().enumerate() {
                    layers.push((format!("{name}.conv{}", conv + 1), *kernel, false));
                }
                if index == 0 && (stage > 0 || bottleneck) {
                    layers.push((format!("{name}.shortcut"), 1, false));
                }
            }
        }
        layers
    };
    let mut mobilenet: Vec<Layer> = vec![("conv1".into(), 3, false)];
    for index in 0..13 {
        mobilenet.push((format!("stem.{index}.depthwise"), 3, true));
        mobilenet.push((format!("stem.{index}.pointwise"), 1, false));
    }

    let repvgg = |depths: [usize; 4]| {
        let mut layers: Vec<Layer> = vec![("stage0".into(), 3, false)];
        for (stage, depth) in depths.into_iter().enumerate() {
            layers.extend((0..depth).map(|i| (format!("stage{}.{i}", stage + 1), 3, false)));
        }
        layers
    };

    let kernels = [11, 5, 3, 3, 3].into_iter().enumerate();
    let alexnet = kernels.map(|(i, kernel)| (format!("stem.conv{}", i + 1), kernel, false));
    let alexnet: Vec<Layer> = alexnet.collect();

    for (arch, layers) in [
        (Arch::ResNet18, resnet(7, [2, 2, 2, 2], false)),
        (Arch::ResNet34, resnet(7, [3, 4, 6, 3], false)),
        (Arch::ResNet50, resnet(7, [3, 4, 6, 3], true)),
        (Arch::ResNet101, resnet(7, [3, 4, 23, 3], true)),
        (Arch::ResNet152, resnet(7, [3, 8, 36, 3], true)),
        (Arch::ResNet18Cifar, resnet(3, [2, 2, 2, 2], false)),
        (Arch::MobileNetV1, mobilenet),
        (Arch::RepVggA0, repvgg([2, 4, 14, 1])),
        (Arch::RepVggB1, repvgg([4, 6, 16, 1])),
        (Arch::AlexNet, alexnet),
    ] {
        for kind in BlockKind::ALL {
            for form in [Form::Train, Form::Deploy] {
                let model = config(arch, kind);
                let network = model.init(form, &device()).expect("a network");
                let state = official_state(&model, &network);
                let units: Vec<_> = network
                    .units()
                    .into_iter()
                    .map(|(name, unit)| (name, unit.spec().keeps_shape()))
                    .collect();
                let keys = layers.iter().flat_map(|(name, kernel, depthwise)| {
                    let plain = !matches!(kernel, 3 | 5);
                    let kind = if plain { BlockKind::Base } else { kind };
                    let native = match name.as_str() {
                        "stage0.conv1" | "conv1" | "stage0" => "stem".to_string(),
                        name if arch == Arch::AlexNet => name.replace("stem.", ""),
                        name => name.replace("stem.", "blocks."),
                    };
                    let unit = units.iter().find(|unit| unit.0 == native);
                    let same = unit.is_some_and(|unit| unit.1);
                    block(kind, *depthwise, same, form)
                        .into_iter()
                        .map(move |key| format!("{name}.{key}"))
                });
                let linear: &[&str] = match arch {
                    Arch::AlexNet => &["linear1", "linear2", "linear3"],
                    _ => &["linear"],
                };
                let tensors = |layer: &&str| ["weight", "bias"].map(|t| format!("{layer}.{t}"));
                let mut expected: Vec<_> = keys.chain(linear.iter().flat_map(tensors)).collect();
                expected.sort();
                let actual: Vec<_> = state.keys().cloned().collect();
                assert_eq!(actual, expected, "{arch} {kind} {form}");
                // PyTorch keeps the classifier's weight as [classes, features].
                let classifier = format!("{}.weight", linear[linear.len() - 1]);
                assert_eq!(state[&classifier].shape()[0], 10, "{arch} {kind} {form}");
            }
        }
    }
}

#[test]
fn a_dialect_without_names_for_an_architecture() {
    for arch in Arch::ALL {
        let model = ModelConfig { width: 0.25, ..config(arch, BlockKind::Base) };
        let network = model.init(Form::Deploy, &device()).expect("a network");
        let keys = KeyMap::new(Dialect::Official, &model, &network);
        assert_eq!(keys.is_ok(), Dialect::Official.supports(arch));
        if let Err(error) = keys {
            let message = error.to_string();
            for word in [arch.name(), "official", "it has native"] {
                assert!(message.contains(word), "\"{message}\" does not mention {word}");
            }
        }
    }
}

fn small_model() -> ModelConfig {
    ModelConfig { width: 0.03125, ..config(Arch::ResNet18Cifar, BlockKind::Base) }
}

/// A small file in each format, its path and its network's configuration.
fn small_file(folder: &TempDir, way: Written) -> (PathBuf, ModelConfig) {
    let model = small_model();
    let path = folder.path().join(format!("small-{way:?}.weights"));
    way.write(&path, &model, Form::Deploy, &network(&model, Form::Deploy));
    (path, model)
}

/// Names of Apple's code, which counts both convolutions of a layer and has the squeeze-and-excitation
/// in their modules.
#[test]
fn official_names_of_mobileone() {
    let model = ModelConfig { width: 0.125, ..config(Arch::MobileOneS4, BlockKind::MobileOne) };
    let state = official_state(&model, &network(&model, Form::Train));
    for (name, shape) in [
        ("stage0.rbr_conv.0.conv.weight", vec![8, 3, 3, 3]),
        ("stage1.1.rbr_scale.bn.weight", vec![]),
        ("stage1.0.rbr_scale.bn.weight", vec![8]),
        ("stage1.2.rbr_conv.0.conv.weight", vec![24, 1, 3, 3]),
        ("stage1.3.rbr_skip.running_var", vec![24]),
        ("stage3.9.se.reduce.weight", vec![]),
        ("stage3.10.se.reduce.weight", vec![7, 112, 1, 1]),
        ("stage3.19.rbr_conv.0.conv.weight", vec![112, 112, 1, 1]),
        ("stage3.19.se.expand.bias", vec![112]),
        ("stage4.0.se.reduce.weight", vec![7, 112, 1, 1]),
        ("stage4.1.se.reduce.bias", vec![16]),
        ("linear.weight", vec![10, 256]),
    ] {
        let found = state.get(name).map(|data| data.shape().to_vec());
        // No shape: 1x1 blocks have no scale branch, the first layers no squeeze-and-excitation.
        assert_eq!(found, (!shape.is_empty()).then_some(shape), "{name}");
    }
    let deploy = official_state(&model, &network(&model, Form::Deploy));
    assert!(deploy.contains_key("stage4.1.reparam_conv.bias"));
}

/// Loading names every key at fault, and changes nothing.
#[test]
fn keys_that_do_not_fit() {
    let model = config(Arch::ResNet18, BlockKind::Dbb);
    let network = network(&model, Form::Train);
    for dialect in [Dialect::Native, Dialect::Official] {
        let keys = KeyMap::new(dialect, &model, &network).expect("names");
        let good = keys.save(&network);
        let (first, last) = (good.keys().next().expect("a key"), "linear.weight");
        let zeros = |shape: &[usize]| TensorData::zeros::<f32, _>(shape.to_vec());

        let mut bad = good.clone();
        bad.remove(first);
        bad.insert("stage7.conv".into(), zeros(&[3]));
        bad.insert(last.into(), zeros(&[7, 9]));
        let error = keys.load(network.clone(), &bad).expect_err("three keys at fault");
        let WeightsError::Keys { missing, unexpected, misshapen, .. } = &error else {
            panic!("another error: {error}")
        };
        assert_eq!((missing, unexpected), (&vec![first.clone()], &vec!["stage7.conv".into()]));
        assert!(misshapen.len() == 1 && misshapen[0].contains("linear.weight [7, 9]"));
        for word in [first, "stage7.conv", "[7, 9]", "1 missing", "1 unexpected", "1 misshapen"] {
            assert!(error.to_string().contains(word), "\"{error}\" does not mention {word}");
        }

        // Each fault alone is one, too.
        let faults: [&dyn Fn(&mut StateDict); 4] = [
            &|state| drop(state.remove(first)),
            &|state| drop(state.insert("stage7.conv".into(), zeros(&[3]))),
            &|state| drop(state.insert(last.into(), zeros(&[7, 9]))),
            // As many values, in another shape.
            &|state| {
                let shape = good[last].shape();
                drop(state.insert(last.into(), zeros(&[shape[1], shape[0], 1])))
            },
        ];
        for (index, fault) in faults.iter().enumerate() {
            let mut bad = good.clone();
            fault(&mut bad);
            let result = keys.load(network.clone(), &bad);
            assert!(matches!(result, Err(WeightsError::Keys { .. })), "{dialect}: fault {index}");
        }
        assert!(
            native_state(&model, &network)
                == native_state(
                    &model,
                    &keys.load(network.clone(), &good).expect("the good state")
                )
        );
    }
}

/// A misspelt name is told beside the name it is like.
#[test]
fn the_nearest_name_is_told() {
    let model = small_model();
    let network = network(&model, Form::Deploy);
    let keys = KeyMap::new(Dialect::Official, &model, &network).expect("names");
    let mut state = keys.save(&network);
    let moved = state.remove("stage2.0.conv1.conv.weight").expect("a kernel");
    state.insert("stage2.0.convl.conv.weight".into(), moved);
    let error = keys.load(network, &state).expect_err("another name").to_string();
    let hint = "stage2.0.conv1.conv.weight may be what the file calls stage2.0.convl.conv.weight";
    assert!(error.contains(hint), "{error}");
}

/// A foreign file whose keys do not fit names the file and the keys.
#[test]
fn a_foreign_file_of_another_network() {
    let folder = TempDir::new().expect("a folder");
    let (path, model) = small_file(&folder, Written::Safetensors(Dialect::Official));
    let file = WeightsFile::read(&path).expect("the file");
    for dialect in [Dialect::Official, Dialect::Native] {
        let (path, model) = small_file(&folder, Written::Safetensors(dialect));
        let file = WeightsFile::read(&path).expect("the file");
        for (other, words) in [
            (
                ModelConfig { num_classes: 11, ..model.clone() },
                ["2 misshapen", "of the file has 10 classes, that of the network 11"],
            ),
            (ModelConfig { width: 0.125, ..model.clone() }, ["misshapen", "another width"]),
        ] {
            let error = adopt(&file, &other, LoadOptions::default(), &device());
            let error = error.expect_err("another network").to_string();
            for word in words {
                assert!(error.contains(word), "{dialect}: \"{error}\" does not mention {word}");
            }
        }
    }
    let looks = "this looks like a folded resnet18-cifar with block base and 10 classes\n";
    for (other, words) in [
        (ModelConfig { arch: Arch::MobileNetV1, ..model.clone() }, ["missing", "unexpected"]),
        (ModelConfig { arch: Arch::ResNet34, ..model.clone() }, ["missing", "stage1.2.conv1"]),
        (ModelConfig { arch: Arch::ResNet34, ..model.clone() }, [looks, "32 missing"]),
        (ModelConfig { block: BlockKind::Dbb, ..model }, [looks, "dbb_reparam.weight"]),
    ] {
        let error = adopt(&file, &other, LoadOptions::default(), &device())
            .expect_err("another network")
            .to_string();
        for word in words.into_iter().chain([path.to_str().expect("a path")]) {
            assert!(error.contains(word), "\"{error}\" does not mention {word}");
        }
    }
}

/// A network of the same family of another depth, with another block and another number of
/// classes, is named before the keys.
#[test]
fn a_foreign_file_of_another_depth_is_recognised() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let asked = |arch| ModelConfig { width: 0.25, ..config(arch, BlockKind::Base) };
    for (held, keys, expected) in [
        (asked(Arch::ResNet32), Dialect::Akamaster, "resnet32 with block base and 10 classes"),
        (
            ModelConfig { num_classes: 7, block: BlockKind::Dbb, ..asked(Arch::ResNet110) },
            Dialect::Native,
            "resnet110 with block dbb and 7 classes",
        ),
        (asked(Arch::ResNet18), Dialect::Torchvision, "resnet18 with block base and 10 classes"),
        // Its convolutions have biases there.
        (asked(Arch::Vgg16), Dialect::Torchvision, "vgg16 with block base and 10 classes"),
        (
            ModelConfig { width: 1.0, ..asked(Arch::ResNet32) },
            Dialect::Akamaster,
            "resnet32 with block base and 10 classes",
        ),
    ] {
        let network = network(&held, Form::Train);
        let state = KeyMap::new(keys, &held, &network).expect("names").save(&network);
        write_foreign(&path, &state).expect("written");
        let file = WeightsFile::read(&path).expect("read");
        let asked = asked(Arch::ResNet20);
        let error = adopt(&file, &asked, LoadOptions::default(), &device()).expect_err(expected);
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default();
        assert!(first.ends_with(&format!("; this looks like {expected}")), "{message}");
        assert!(message.contains(" more"), "long lists are cut: {message}");
    }
    // Names of no network of the zoo.
    let state = StateDict::from([("neck.weight".to_string(), TensorData::zeros::<f32, _>([3]))]);
    write_foreign(&path, &state).expect("written");
    let file = WeightsFile::read(&path).expect("read");
    let error = adopt(&file, &asked(Arch::ResNet20), LoadOptions::default(), &device());
    assert!(!error.expect_err("another network").to_string().contains("looks like"));
}

/// An error names the dialect that was asked for, and those that there are.
#[test]
fn a_dialect_that_an_architecture_does_not_have() {
    for (arch, dialect, expected) in [
        (Arch::ResNet20, Dialect::Timm, "resnet20 has no timm names; it has native, akamaster"),
        (
            Arch::ResNet18,
            Dialect::Akamaster,
            "resnet18 has no akamaster names; it has native, official, torchvision, timm",
        ),
        (
            Arch::MobileNetV2,
            Dialect::Official,
            "mobilenet_v2 has no official names; it has native, torchvision, timm",
        ),
    ] {
        let model = ModelConfig { width: 0.25, ..config(arch, BlockKind::Base) };
        let network = network(&model, Form::Train);
        let error = KeyMap::new(dialect, &model, &network).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert!(!dialect.supports(arch));
    }
}
