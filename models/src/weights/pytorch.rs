//! PyTorch checkpoints; no code in them is run.

use std::fs;
use std::path::Path;

use burn::store::bridge;
use burn::store::pytorch_reader::PytorchReader;

use super::damage::{check_size, damaged};
use super::error::WeightsError;
use crate::state_dict::StateDict;

/// Where training scripts keep the weights, beside the epoch and the optimizer. An average of the
/// weights comes first: it is what such scripts evaluate.
const CONTAINERS: [&str; 9] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "params",
];

/// Zip archives, pickles of protocols 2 to 5, and the tar archives of the first versions.
pub(super) fn is_pytorch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || is_pickle(bytes) || bytes.get(257..262) == Some(b"ustar")
}

/// A safetensors file may begin with the same two bytes, its header's length, but then the header
/// follows, a JSON object.
fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..]) && bytes.get(8) != Some(&b'{')
}

/// The weights of a checkpoint.
///
/// # Errors
/// A damaged file, one without tensors, and one whose tensors claim to be larger than it.
pub(super) fn read(path: &Path) -> Result<StateDict, WeightsError> {
    let error = |e: String| damaged(path, "PyTorch", e);
    let whole = PytorchReader::new(path).map_err(|e| error(e.to_string()))?;
    // Of several, the one with most tensors, and the first of those.
    let contained = CONTAINERS
        .iter()
        .rev()
        .filter_map(|key| PytorchReader::with_top_level_key(path, key).ok())
        .max_by_key(weights_in)
        .filter(|reader| weights_in(reader) > 0);
    let tensors = contained.unwrap_or(whole).into_tensors();
    if tensors.is_empty() {
        return Err(error("it holds no tensor by name; expected a state_dict()".into()));
    }
    let length = fs::metadata(path).map_or(0, |found| found.len());
    check_size(path, "PyTorch", length, tensors.values().map(|t| t.byte_len()))?;
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let data = bridge::into_data(bridge::from_pytorch(tensor));
        Ok((name, data.map_err(|e| error(e.to_string()))?))
    });
    tensors.collect()
}

/// How many tensors a container holds, without counters of batches, which averages leave out.
fn weights_in(reader: &PytorchReader) -> usize {
    reader.tensors().keys().filter(|key| !key.ends_with("num_batches_tracked")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickles_are_told_from_headers_of_safetensors() {
        // As torch.save and pickle.dump begin, protocols 2, 4 and 5.
        assert!(is_pytorch(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."));
        assert!(is_pytorch(b"\x80\x04\x95\x1a\0\0\0\0\0\0\0}"));
        assert!(is_pytorch(b"\x80\x05\x95\x1a\0\0\0\0\0\0\0}"));
        assert!(!is_pytorch(b"\x80\x02\0\0\0\0\0\0{\"a\":"));
        assert!(!is_pytorch(b"\x80\x00\0\0\0\0\0\0{\"a\":"));
    }
}
