//! The fixture files, read with the `safetensors` crate and not with the code under test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use dbb_models::weights::StateDict;
use dbb_models::{Arch, ModelConfig};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Array;

/// The folder of the fixtures, or another one named by `DBB_FIXTURES`.
pub fn folder() -> PathBuf {
    // Packages lie at different depths of the repository.
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let own = || {
        let mut folders = above.map(|folder| folder.join("tests/fixtures"));
        folders.find(|folder| folder.is_dir()).expect("the repository has tests/fixtures")
    };
    std::env::var_os("DBB_FIXTURES").map_or_else(own, PathBuf::from)
}

/// The files of the folder and of the folder `family` in it with one of the endings, sorted.
pub fn files(endings: &[&str]) -> Vec<PathBuf> {
    let entries = |folder: &Path| {
        let found = std::fs::read_dir(folder);
        found.unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
    };
    let (folder, family) = (folder(), folder().join("family"));
    let of_family = family.is_dir().then(|| entries(&family));
    let mut files: Vec<_> = entries(&folder)
        .chain(of_family.into_iter().flatten())
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)))
        .collect();
    files.sort();
    files
}

/// Whether a file lies in the folder `family`; networks of it are put together by `models/family.rs`.
pub fn is_of_family(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("family"))
}

/// Tensors that are no part of a state dict.
const RESULTS: [&str; 11] = [
    "input",
    "output_eval",
    "output_deploy",
    "output_train",
    "equiv_kernel",
    "equiv_bias",
    "loss",
    "loss_weight",
    "logits_eval",
    "logits_deploy",
    "grad.input",
];
const RESULT_PREFIXES: [&str; 4] = ["grad.", "after.", "deploy.", "trace."];

/// A fixture file.
pub struct Fixture {
    /// File name.
    pub name: String,
    config: String,
    tensors: StateDict,
}

impl Fixture {
    pub fn read(path: &Path) -> Self {
        let name = path.file_name().expect("a file name").to_string_lossy().into_owned();
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let config = header.metadata().as_ref().and_then(|table| table.get("config")).cloned();
        let config = config.unwrap_or_else(|| panic!("{name}: no \"config\" in the metadata"));
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensors = tensors.iter().map(|(key, view)| {
            let dtype = match view.dtype() {
                Dtype::F64 => DType::F64,
                Dtype::F32 => DType::F32,
                Dtype::I64 => DType::I64,
                other => panic!("{name}: {key} is of type {other:?}"),
            };
            let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape(), dtype);
            (key.to_string(), data)
        });
        Self { config, tensors: tensors.collect(), name: name.clone() }
    }

    /// The JSON of the metadata.
    pub fn config<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.config)
            .unwrap_or_else(|error| panic!("{}: config: {error}", self.name))
    }

    pub fn get(&self, key: &str) -> &TensorData {
        self.tensors.get(key).unwrap_or_else(|| panic!("{}: no tensor {key}", self.name))
    }

    pub fn array(&self, key: &str) -> Array {
        self.get(key).into()
    }

    /// The tensors below a prefix, which is taken off.
    pub fn below(&self, prefix: &str) -> StateDict {
        let below = |(key, data): (&String, &TensorData)| {
            Some((key.strip_prefix(prefix)?.to_string(), data.clone()))
        };
        self.tensors.iter().filter_map(below).collect()
    }

    /// The official state dict before anything ran, counters of batches included.
    pub fn state(&self) -> StateDict {
        let is_result = |key: &str| {
            RESULTS.contains(&key) || RESULT_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        };
        let mut state = self.tensors.clone();
        state.retain(|key, _| !is_result(key));
        state
    }
}

/// A state dict without its counters of batches.
pub fn without_counters(mut state: StateDict) -> StateDict {
    state.retain(|key, _| !key.ends_with("num_batches_tracked"));
    state
}

/// The counters of batches alone.
pub fn counters(state: &StateDict) -> BTreeMap<&str, i64> {
    state
        .iter()
        .filter(|(key, _)| key.ends_with("num_batches_tracked"))
        .map(|(key, data)| (key.as_str(), data.iter::<i64>().sum()))
        .collect()
}

/// The metadata of a file with a whole network.
#[derive(Deserialize)]
pub struct NetworkConfig {
    arch: String,
    block: String,
    width: f64,
    num_classes: usize,
}

impl NetworkConfig {
    pub fn model(&self, fixture: &Fixture) -> ModelConfig {
        let arch = match self.arch.as_str() {
            "rn18" => Arch::ResNet18,
            "rn50" => Arch::ResNet50,
            "rn18cifar" => Arch::ResNet18Cifar,
            "mbv1" => Arch::MobileNetV1,
            other => panic!("{}: unknown arch \"{other}\"", fixture.name),
        };
        let block = self.block.to_lowercase().parse().expect("base, DBB or ACB");
        let in_channels = fixture.get("input").shape()[1];
        let model = ModelConfig::new(arch, block, self.num_classes);
        ModelConfig { width: self.width, in_channels, ..model }
    }

    /// A ResNet's state dict with the stem where the paper's code has it, `stage0.conv1.`; some
    /// variants of that code call it `stage0.` or `conv1.`.
    pub fn with_stem(&self, state: StateDict) -> StateDict {
        const STEM: &str = "stage0.conv1.";
        if self.arch == "mbv1" || state.keys().any(|key| key.starts_with(STEM)) {
            return state;
        }
        let rename = |key: String| match ["stage0.", "conv1."]
            .iter()
            .find_map(|stem| key.strip_prefix(stem))
        {
            Some(rest) => format!("{STEM}{rest}"),
            None => key,
        };
        state.into_iter().map(|(key, data)| (rename(key), data)).collect()
    }
}
