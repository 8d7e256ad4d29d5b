//! Tensors by key, on the host.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::store::{ModuleSnapshot, bridge};
use burn::tensor::TensorData;

/// Tensors by key, on the host.
pub type StateDict = BTreeMap<String, TensorData>;

/// The parameters and running statistics of a module by their path in it. Names of enum
/// variants are left out: where a unit stands does not depend on what it is.
pub(super) fn collect(module: &impl Module) -> StateDict {
    let tensors = module.collect(None, None, true);
    tensors
        .into_iter()
        .map(|tensor| {
            let name = tensor.name.clone();
            // The bytes come from a tensor that exists; reading them back cannot fail.
            (name, bridge::into_data(tensor).expect("a parameter can be read back"))
        })
        .collect()
}

/// Replaces the tensors of a module by those of the same path; returns how many there were.
pub(super) fn apply<M: Module>(module: &mut M, tensors: StateDict) -> usize {
    let tensors =
        tensors.into_iter().map(|(name, data)| bridge::from_data(data, name, None)).collect();
    module.apply(tensors, None, None, true).applied.len()
}
