//! Weights files as they are stored, read and written apart from the code under test.

// Each test program uses its part.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use burn::tensor::TensorData;
use dbb_models::weights::StateDict;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A tensor of a safetensors file as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl From<&TensorData> for Stored {
    fn from(data: &TensorData) -> Self {
        let (shape, bytes) = (data.shape().to_vec(), data.as_bytes().to_vec());
        Self { dtype: Dtype::F32, shape, bytes }
    }
}

/// The tensors of a state dict of `f32`.
pub fn stored(state: &StateDict) -> BTreeMap<String, Stored> {
    state.iter().map(|(name, data)| (name.clone(), data.into())).collect()
}

/// The tensors of a safetensors file.
pub fn tensors(path: &str) -> BTreeMap<String, Stored> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let stored = |view: TensorView| Stored {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.iter().map(|(name, view)| (name.to_string(), stored(view))).collect()
}

pub fn shapes(path: &str) -> BTreeMap<String, Vec<usize>> {
    tensors(path).into_iter().map(|(name, tensor)| (name, tensor.shape)).collect()
}

/// What a safetensors file says of itself.
pub fn table(path: &str) -> HashMap<String, String> {
    let bytes = fs::read(path).expect("a file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
    header.metadata().clone().unwrap_or_default()
}

/// Writes a safetensors file; without a table it does not say what it holds.
pub fn write_tensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, Stored>,
    table: Option<HashMap<String, String>>,
) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (name, view.expect("a tensor"))
    });
    fs::write(path, safetensors::serialize(views, table).expect("safetensors")).expect("a file");
}
