//! The bytes of weights files.

use std::fs;
use std::path::{Path, PathBuf};

use burn::store::burn_pack::{self, MAGIC_NUMBER};
use burn::store::{ModuleSnapshot, bridge};
use burn::tensor::TensorData;
use safetensors::{Dtype, SafeTensors, View};

use super::atomic::write_atomically;
use super::damage::{check_size, damaged};
use super::digest::{self, digest};
use super::dtype;
use super::error::WeightsError;
use super::finite::check_finite;
use super::metadata::Metadata;
use super::pytorch;
use crate::backbones::Classifier;
use crate::state_dict::{StateDict, collect};

/// The content of a weights file.
#[derive(Clone, Debug)]
pub struct WeightsFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// Tensors by key; `module.` at the beginning of every key is taken off.
    pub tensors: StateDict,
    /// What the file says of itself; `None` in files of other programs.
    pub metadata: Option<Metadata>,
}

impl WeightsFile {
    /// Checks that every value of the tensors is finite.
    ///
    /// # Errors
    /// [`WeightsError::NonFinite`] for the first tensor that has another value.
    pub fn check_finite(&self) -> Result<(), WeightsError> {
        check_finite(&self.tensors).map_err(|error| error.in_file(&self.path))
    }

    /// Reads safetensors, burnpack or a PyTorch checkpoint, told apart by their content.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or is none of these.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { action: "read", path: path.into(), source };
        // A pipe or a device may have no end.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("it is not a regular file")));
        }
        let bytes = fs::read(path).map_err(io)?;
        let Content { format, tensors, metadata, recorded } =
            if bytes.starts_with(&MAGIC_NUMBER.to_le_bytes()) {
                read_burnpack(path, bytes)?
            } else if pytorch::is_pytorch(&bytes) {
                let tensors = pytorch::read(path)?;
                Content { format: "PyTorch", tensors, metadata: None, recorded: None }
            } else {
                read_safetensors(path, &bytes)?
            };
        let metadata_text = metadata.as_deref().unwrap_or_default();
        if recorded.is_some_and(|recorded| recorded != digest(metadata_text, &tensors)) {
            let text = "its SHA-256 is not the one that was written with it; bytes have changed";
            return Err(damaged(path, format, text));
        }
        let metadata = metadata
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|e| WeightsError::Metadata { path: path.into(), detail: e.to_string() })?;
        let stored = |(name, data): (String, TensorData)| {
            let data = dtype::stored(&name, data).map_err(|e| damaged(path, format, e))?;
            Ok((name, data))
        };
        let tensors = tensors.into_iter().map(stored).collect::<Result<_, WeightsError>>()?;
        Ok(Self { path: path.into(), tensors: without_module_prefix(tensors), metadata })
    }
}

/// Writes tensors and metadata as safetensors, whole or not at all.
///
/// # Errors
/// What the file system reports.
pub fn write_safetensors(
    path: &Path,
    tensors: &StateDict,
    metadata: &Metadata,
) -> Result<(), WeightsError> {
    write_tensors(path, tensors, Some(metadata))
}

/// Writes the tensors of a network that is not of the zoo as safetensors, whole or not at all.
///
/// # Errors
/// What the file system reports.
pub fn write_foreign(path: &Path, tensors: &StateDict) -> Result<(), WeightsError> {
    write_tensors(path, tensors, None)
}

fn write_tensors(
    path: &Path,
    tensors: &StateDict,
    metadata: Option<&Metadata>,
) -> Result<(), WeightsError> {
    let views = tensors.iter().map(|(name, data)| (name, TensorView(data)));
    let bytes = safetensors::serialize(views, None).map_err(|e| damaged(path, "safetensors", e))?;
    // "format" is what the Hugging Face libraries look for; "pt" means row-major as PyTorch.
    let mut table = serde_json::json!({ "format": "pt" });
    if let Some(metadata) = metadata {
        let metadata = json(metadata);
        table[digest::KEY] = digest(&metadata, tensors).into();
        table[Metadata::KEY] = metadata.into();
    }
    write(path, &with_table(&bytes, &table))
}

/// Puts the table of metadata into the header of a safetensors file. The crate would take it as a
/// `HashMap` and write it in random order, so that equal networks were unequal files.
fn with_table(file: &[u8], table: &serde_json::Value) -> Vec<u8> {
    // A length of eight bytes, a JSON object padded with spaces, the tensors.
    let (length, rest) = file.split_first_chunk().expect("a file starts with a length");
    let (header, tensors) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let comma = if header.starts_with(b"{}") { "" } else { "," };
    let mut whole = format!("{{\"__metadata__\":{table}{comma}").into_bytes();
    whole.extend_from_slice(&header[1..]);
    whole.resize(whole.len().next_multiple_of(8), b' ');
    [&(whole.len() as u64).to_le_bytes(), &*whole, tensors].concat()
}

/// Writes a network as burnpack, Burn's own format, in the paths of its modules, so that stock
/// Burn reads it; whole or not at all.
///
/// # Errors
/// What the file system reports.
pub fn write_burnpack(
    path: &Path,
    network: &Classifier,
    metadata: &Metadata,
) -> Result<(), WeightsError> {
    let metadata = json(metadata);
    let bytes = burn_pack::Writer::new(network.collect(None, None, false))
        .with_metadata(Metadata::KEY, &metadata)
        .with_metadata(digest::KEY, &digest(&metadata, &collect(network)))
        .into_bytes()
        .map_err(|e| damaged(path, "burnpack", e))?;
    write(path, &bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), WeightsError> {
    write_atomically(path, bytes).map_err(|source| WeightsError::Io {
        action: "write",
        path: path.into(),
        source,
    })
}

fn json(metadata: &Metadata) -> String {
    // Plain data with string keys always serialises.
    serde_json::to_string(metadata).expect("metadata is plain data")
}

/// What a reader finds.
struct Content {
    format: &'static str,
    tensors: StateDict,
    /// Our metadata, as JSON.
    metadata: Option<String>,
    /// The digest the file was written with.
    recorded: Option<String>,
}

fn read_safetensors(path: &Path, bytes: &[u8]) -> Result<Content, WeightsError> {
    let error = |e| damaged(path, "safetensors", e);
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(error)?;
    let entry = |key| header.metadata().as_ref().and_then(|table| table.get(key).cloned());
    let (metadata, recorded) = (entry(Metadata::KEY), entry(digest::KEY));
    let file = SafeTensors::deserialize(bytes).map_err(error)?;
    let mut tensors = StateDict::new();
    for (name, view) in file.iter() {
        let dtype = dtype::from_safetensors(view.dtype()).ok_or_else(|| {
            let detail = format!("tensor {name} has type {:?}, which is not read", view.dtype());
            damaged(path, "safetensors", detail)
        })?;
        let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape(), dtype);
        tensors.insert(name.to_string(), data);
    }
    Ok(Content { format: "safetensors", tensors, metadata, recorded })
}

fn read_burnpack(path: &Path, bytes: Vec<u8>) -> Result<Content, WeightsError> {
    let error = |e| damaged(path, "burnpack", e);
    let length = bytes.len() as u64;
    let reader = burn_pack::Reader::from_bytes(burn_pack::Bytes::from_bytes_vec(bytes));
    let reader = reader.map_err(error)?;
    let entry = |key| reader.metadata().get(key).cloned();
    let (metadata, recorded) = (entry(Metadata::KEY), entry(digest::KEY));
    let packed = reader.into_tensors().map_err(error)?;
    check_size(path, "burnpack", length, packed.iter().map(|tensor| tensor.byte_len()))?;
    let mut tensors = StateDict::new();
    for tensor in packed {
        // Burn puts the names of enum variants into the path; fields are lower case.
        let parts = tensor.name.split('.').filter(|part| !part.starts_with(char::is_uppercase));
        let name = parts.collect::<Vec<_>>().join(".");
        let data = bridge::into_data(tensor).map_err(error)?;
        // The file decides where its tensors begin; a copy is aligned.
        let bytes = data.as_bytes().to_vec();
        let data = TensorData::from_bytes_vec(bytes, data.shape().to_vec(), data.dtype());
        tensors.insert(name, data);
    }
    Ok(Content { format: "burnpack", tensors, metadata, recorded })
}

/// `DataParallel` of PyTorch puts `module.` before every key.
fn without_module_prefix(tensors: StateDict) -> StateDict {
    if tensors.is_empty() || !tensors.keys().all(|key| key.starts_with("module.")) {
        return tensors;
    }
    tensors.into_iter().map(|(key, data)| (key["module.".len()..].to_string(), data)).collect()
}

struct TensorView<'a>(&'a TensorData);

impl View for TensorView<'_> {
    fn dtype(&self) -> Dtype {
        // Every tensor of a state dict is of a type that files have.
        dtype::to_safetensors(self.0.dtype()).expect("a type of safetensors")
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.0.as_bytes().into()
    }

    fn data_len(&self) -> usize {
        self.0.as_bytes().len()
    }
}
