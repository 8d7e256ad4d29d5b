//! Weights files: every format and dialect gives back the network that was written, bit for bit;
//! and a file that is damaged, foreign or hostile is an error that names it, never a panic.

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::store::burn_pack;
use burn::tensor::quantization::QuantScheme;
use burn::tensor::{DType, Device, TensorData};
use dbb_models::blocks::BlockKind;
use dbb_models::weights::{
    Dialect, KeyMap, Metadata, StateDict, WeightsError, WeightsFile, adopt, rebuild,
    write_burnpack, write_safetensors,
};
use dbb_models::{Arch, Classifier, Form, LayerBlocks, ModelConfig, Reparameterize};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use safetensors::SafeTensors;
use support::{Array, randomise};
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
        classes: vec!["cat".into(), "\"dog\", ünï".into()],
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
    let mixed = LayerBlocks(vec![("*.conv1".into(), BlockKind::Acb)]);
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
                let read = rebuild(&file, &metadata, &device()).expect(&what);
                assert!(native_state(model, &read) == native_state(model, &network), "{what}");
                assert!(logits(&read) == logits(&network), "{what}: logits");

                // Without its metadata the file is a foreign one.
                let (adopted, found) = adopt(&file, model, &device()).expect(&what);
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
        let read = rebuild(&file, &metadata, &device()).expect("weights fit");
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
    let block = |kind: BlockKind, depthwise: bool, form: Form| match (kind, form) {
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
        (kind, Form::Deploy) => {
            let module = ["conv", "dbb_reparam", "fused_conv"][kind as usize];
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

    for (arch, layers) in [
        (Arch::ResNet18, resnet(7, [2, 2, 2, 2], false)),
        (Arch::ResNet34, resnet(7, [3, 4, 6, 3], false)),
        (Arch::ResNet50, resnet(7, [3, 4, 6, 3], true)),
        (Arch::ResNet101, resnet(7, [3, 4, 23, 3], true)),
        (Arch::ResNet152, resnet(7, [3, 8, 36, 3], true)),
        (Arch::ResNet18Cifar, resnet(3, [2, 2, 2, 2], false)),
        (Arch::MobileNetV1, mobilenet),
    ] {
        for kind in BlockKind::ALL {
            for form in [Form::Train, Form::Deploy] {
                let model = config(arch, kind);
                let network = model.init(form, &device()).expect("a network");
                let state = official_state(&model, &network);
                let keys = layers.iter().flat_map(|(name, kernel, depthwise)| {
                    let kind = if *kernel == 3 { kind } else { BlockKind::Base };
                    block(kind, *depthwise, form)
                        .into_iter()
                        .map(move |key| format!("{name}.{key}"))
                });
                let linear = ["linear.weight", "linear.bias"].map(str::to_string);
                let mut expected: Vec<_> = keys.chain(linear).collect();
                expected.sort();
                let actual: Vec<_> = state.keys().cloned().collect();
                assert_eq!(actual, expected, "{arch} {kind} {form}");
                // PyTorch keeps the classifier's weight as [classes, features].
                assert_eq!(state["linear.weight"].shape()[0], 10, "{arch} {kind} {form}");
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

/// Reading and rebuilding; the error's message must name the file.
fn load(path: &Path) -> Result<Classifier, WeightsError> {
    let load = || {
        let file = WeightsFile::read(path)?;
        // Damage may have hit the name under which the metadata stand.
        let foreign = || metadata(&small_model(), Form::Deploy, Dialect::Native);
        rebuild(&file, &file.metadata.clone().unwrap_or_else(foreign), &device())
    };
    load().inspect_err(|error| {
        let message = error.to_string();
        assert!(message.contains(&path.display().to_string()), "\"{message}\" names no file");
    })
}

/// Writes a variant of a file's bytes beside it.
fn variant(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(path).expect("the file");
    change(&mut bytes);
    let path = path.with_extension("variant");
    fs::write(&path, bytes).expect("the variant");
    path
}

/// Runs `read` on a file while one of its bytes is changed. (Writing the whole file each time
/// would wait for the disk.)
fn with_flipped<T>(path: &Path, position: usize, flip: u8, read: impl FnOnce(&Path) -> T) -> T {
    let mut file = File::options().read(true).write(true).open(path).expect("the file");
    let mut xor = || {
        let mut byte = [0];
        file.seek(SeekFrom::Start(position as u64)).expect("a position in the file");
        file.read_exact(&mut byte).expect("a byte");
        file.seek_relative(-1).expect("a position in the file");
        file.write_all(&[byte[0] ^ flip]).expect("the file");
    };
    xor();
    let result = read(path);
    xor();
    result
}

#[test]
fn a_missing_file() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("absent.safetensors");
    assert!(matches!(load(&path), Err(WeightsError::Io { .. })));
    assert!(matches!(load(folder.path()), Err(WeightsError::Io { .. })), "a folder");
}

#[test]
fn a_file_of_another_kind() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("other");
    for content in [
        &b""[..],
        b"hello",
        b"{}",
        b"\x80\x02",
        b"PK\x03\x04",
        b"\x89PNG\r\n\x1a\n",
        &[0; 600],
        &[0xff; 600],
    ] {
        fs::write(&path, content).expect("a file");
        let error = load(&path).err().unwrap_or_else(|| panic!("{content:?} was read"));
        assert!(matches!(error, WeightsError::Format { .. }), "{content:?}: {error}");
    }
}

#[test]
fn a_truncated_file() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        let length = fs::metadata(&path).expect("the file").len() as usize;
        for cut in (0..200).map(|i| i * length / 200).chain(length - 8..length) {
            let path = variant(&path, |bytes| bytes.truncate(cut));
            let error = load(&path).err();
            let error = error.unwrap_or_else(|| panic!("{way:?} of {cut} of {length} bytes"));
            assert!(matches!(error, WeightsError::Format { .. }), "{way:?}, {cut} bytes: {error}");
        }
    }
}

/// Every byte of the header changed, one at a time: what does not end in an error was no damage
/// to the structure and leaves a network.
#[test]
fn a_flipped_byte_in_the_header() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        let bytes = fs::read(&path).expect("the file");
        let (header, fixed) = header_length(way, &bytes);
        let mut refused = 0;
        for position in 0..header {
            let flip = [0x01, 0x20, 0x80][position % 3];
            refused += usize::from(with_flipped(&path, position, flip, load).is_err());
        }
        println!("{way:?}: {refused} of {header} flipped bytes refused");
        for position in 0..fixed {
            let result = with_flipped(&path, position, 0x40, load);
            assert!(result.is_err(), "{way:?}: byte {position}");
        }
    }
}

/// How long a header is, and its first part that allows no change: safetensors begin with the
/// length of a JSON header, burnpacks with magic number, version and the length of a CBOR one.
fn header_length(way: Written, bytes: &[u8]) -> (usize, usize) {
    let length = |range: std::ops::Range<usize>| {
        bytes[range].iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte))
    };
    match way {
        Written::Safetensors(_) => (8 + length(0..8), 8),
        Written::Burnpack => (10 + length(6..10), 6),
    }
}

/// Metadata that announce a network of many gigabytes, or one that cannot be built, are refused
/// for what they are, before any of its weights is drawn.
#[test]
fn hostile_metadata() {
    let folder = TempDir::new().expect("a folder");
    for form in [Form::Train, Form::Deploy] {
        let model = config(Arch::ResNet18, BlockKind::Dbb);
        let path = folder.path().join("weights");
        Written::Safetensors(Dialect::Native).write(&path, &model, form, &network(&model, form));
        let file = WeightsFile::read(&path).expect("the file");
        let written = file.metadata.clone().expect("our metadata");
        for (model, word) in [
            (ModelConfig { width: 16.0, ..model.clone() }, "misshapen"),
            (ModelConfig { num_classes: 1 << 40, ..model.clone() }, "linear.weight"),
            (ModelConfig { in_channels: 1 << 40, ..model.clone() }, "stem."),
            (ModelConfig { width: 17.0, ..model.clone() }, "width = 17"),
            (ModelConfig { num_classes: 0, ..model.clone() }, "num_classes = 0"),
            (ModelConfig { arch: Arch::ResNet152, width: 16.0, ..model.clone() }, "missing"),
        ] {
            let error = rebuild(&file, &Metadata { model, ..written.clone() }, &device());
            let error = error.expect_err("hostile metadata").to_string();
            for word in [word, path.to_str().expect("a path")] {
                assert!(error.contains(word), "\"{error}\" does not mention {word}");
            }
        }
        let model = ModelConfig { width: 0.25, ..config(Arch::ResNet20, BlockKind::Dbb) };
        let metadata = Metadata { model, keys: Dialect::Official, ..written };
        let error = rebuild(&file, &metadata, &device()).expect_err("no such names").to_string();
        assert!(error.contains("official") && error.contains("weights"), "{error}");
    }
}

#[test]
fn a_hostile_header_length() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        for length in [0, 1, 1 << 20, 1 << 31, u64::MAX >> 32, 1 << 40, i64::MAX as u64, u64::MAX] {
            let path = variant(&path, |bytes| match way {
                Written::Safetensors(_) => bytes[..8].copy_from_slice(&length.to_le_bytes()),
                Written::Burnpack => {
                    bytes[6..10]
                        .copy_from_slice(&(length.min(u64::from(u32::MAX)) as u32).to_le_bytes());
                }
            });
            let error = load(&path).err();
            let error = error.unwrap_or_else(|| panic!("{way:?}: header of {length} bytes"));
            assert!(matches!(error, WeightsError::Format { .. }), "{way:?}, {length}: {error}");
        }
    }
}

/// Burn writes tensors of quantized values too; they have no counterpart in other files.
#[test]
fn a_burnpack_of_quantized_values_is_refused() {
    let bytes = burn_pack::Bytes::from_bytes_vec(vec![0; 8]);
    let dtype = DType::QFloat(QuantScheme::default());
    let tensor = burn_pack::Tensor::new("weight".into(), dtype, [4], None, bytes);
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("quantized.bpk");
    let bytes = burn_pack::Writer::new(vec![tensor]).into_bytes().expect("a burnpack");
    fs::write(&path, &*bytes).expect("the file");
    let error = WeightsFile::read(&path).expect_err("quantized values").to_string();
    assert!(error.contains("tensor weight has type QFloat"), "{error}");
}

/// Every tensor of a burnpack names its bytes; here nearly all of them name the same.
#[test]
fn tensors_larger_than_their_burnpack_are_refused() {
    let tensor = |index| {
        let bytes = burn_pack::Bytes::from_bytes_vec(vec![0; 4096]);
        burn_pack::Tensor::new(format!("{index:02}"), DType::F32, [1024], None, bytes)
    };
    let pack = burn_pack::Writer::new((0..15).map(tensor).collect());
    let mut bytes = pack.into_bytes().expect("a burnpack").to_vec();
    // CBOR of where a tensor begins and ends.
    let place = |index: u8| [0x19, index << 4, 0, 0x19, (index + 1) << 4, 0];
    for index in 2..15 {
        let at = bytes.windows(6).position(|part| part == place(index)).expect("its place");
        bytes[at..at + 6].copy_from_slice(&place(1));
    }
    bytes.truncate(bytes.len() - 13 * 4096);
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("shared.bpk");
    fs::write(&path, bytes).expect("the file");
    let error = WeightsFile::read(&path).expect_err("15 tensors in the place of 2").to_string();
    assert!(error.contains("claim to hold 61440 bytes of tensors"), "{error}");
}

/// The checkpoints of PyTorch cut short and with flipped bytes: an error or weights, no panic.
#[test]
fn a_damaged_checkpoint() {
    let folder = TempDir::new().expect("a folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    for name in ["resnet18_dbb_w0125.pth", "mobilenet_dbb_w0125_legacy.pth"] {
        let path = folder.path().join(name);
        fs::copy(fixtures.join(name), &path).expect("a checkpoint");
        let length = fs::metadata(&path).expect("the file").len() as usize;
        for cut in (0..40).map(|i| i * length / 40) {
            let path = variant(&path, |bytes| bytes.truncate(cut));
            let error = WeightsFile::read(&path).err();
            let error = error.unwrap_or_else(|| panic!("{name}: {cut} of {length} bytes"));
            assert!(error.to_string().contains("variant"), "\"{error}\" names no file");
        }
        let positions = (0..256).chain((256..60_000).step_by(499)).chain(length - 256..length);
        for position in positions {
            if let Err(error) = with_flipped(&path, position, 0x55, WeightsFile::read) {
                assert!(error.to_string().contains(name), "\"{error}\" names no file");
            }
        }
    }
}

/// A bit anywhere among the tensors, the metadata included.
#[test]
fn a_flipped_bit_in_a_tensor_is_noticed() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        let bytes = fs::read(&path).expect("the file");
        let (header, _) = header_length(way, &bytes);
        let good = native_state(&small_model(), &load(&path).expect("the good file"));
        let positions: Vec<_> = (header..bytes.len()).step_by(97).collect();
        let mut noticed = 0;
        for &position in &positions {
            match with_flipped(&path, position, 0x10, load) {
                Err(_) => noticed += 1,
                // A burnpack aligns its tensors; what lies between is part of none.
                Ok(network) => {
                    assert!(native_state(&small_model(), &network) == good, "{position}")
                }
            }
        }
        let dense = matches!(way, Written::Safetensors(_));
        assert!(
            if dense { noticed == positions.len() } else { noticed > 100 },
            "{way:?}: {noticed}"
        );
    }
}

/// Several bytes changed anywhere, and the end cut off: weights or an error, no panic.
#[test]
fn files_damaged_at_random() {
    let folder = TempDir::new().expect("a folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints");
    let mut files: Vec<_> = WAYS.map(|way| small_file(&folder, way).0).into();
    files.extend(["model.pth", "ema.pth", "legacy.pth.tar"].map(|name| fixtures.join(name)));
    for file in files {
        let good = fs::read(&file).expect("the file");
        let path = folder.path().join("damaged");
        let damage = (prop::collection::vec((0..good.len(), 1..=255u8), 1..8), 0..64usize);
        let mut runner = TestRunner::new_with_rng(
            ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let result = runner.run(&damage, |(flips, cut)| {
            let mut bytes = good.clone();
            // Most damage at the beginning, where structure is.
            for (index, (position, flip)) in flips.into_iter().enumerate() {
                bytes[if index % 2 == 0 { position % 700 } else { position }] ^= flip;
            }
            bytes.truncate(good.len() - cut.saturating_sub(32));
            fs::write(&path, &bytes).expect("a file");
            if let Err(error) = WeightsFile::read(&path) {
                prop_assert!(error.to_string().contains("damaged"), "{}", error);
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
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
    for (other, words) in [
        (
            ModelConfig { num_classes: 11, ..model.clone() },
            ["2 misshapen", "has 10 classes, the network 11"],
        ),
        (ModelConfig { width: 0.125, ..model.clone() }, ["misshapen", "width"]),
        (ModelConfig { arch: Arch::MobileNetV1, ..model.clone() }, ["missing", "unexpected"]),
        (ModelConfig { arch: Arch::ResNet34, ..model.clone() }, ["missing", "stage1.2.conv1"]),
        (ModelConfig { block: BlockKind::Dbb, ..model }, ["missing", "dbb_reparam.weight"]),
    ] {
        let error = adopt(&file, &other, &device()).expect_err("another network").to_string();
        for word in words.into_iter().chain([path.to_str().expect("a path")]) {
            assert!(error.contains(word), "\"{error}\" does not mention {word}");
        }
    }
}
