//! A digest of what a file holds, so that damage is noticed.

use burn::tensor::TensorData;
use sha2::{Digest, Sha256};

use crate::state_dict::StateDict;

/// Key of a file's metadata table that holds the digest.
pub(super) const KEY: &str = "dbb_zoo_sha256";

/// SHA-256, in hexadecimal, of the metadata and of the name, type, shape and bytes of every
/// tensor in order of the names. Each part is preceded by its length.
pub(super) fn digest(metadata: &str, tensors: &StateDict) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(metadata.as_bytes());
    for (name, data) in tensors {
        let shape: Vec<u8> = data.shape().iter().flat_map(|&n| (n as u64).to_le_bytes()).collect();
        add(name.as_bytes());
        add(TensorData::dtype(data).name().as_bytes());
        add(&shape);
        add(data.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
