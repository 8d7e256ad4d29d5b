//! Weights files: every format and dialect gives back the network that was written, bit for bit.

mod damaged;
mod mismatch;
mod names;
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
