//! Tensors by key, on the host.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::store::{ModuleSnapshot, bridge};
use burn::tensor::{Tensor, TensorData};

use crate::layer_path::LayerPath;

/// Tensors by key, on the host.
pub type StateDict = BTreeMap<String, TensorData>;

/// The parameters and running statistics of a module by their path in it. Names of enum
/// variants are left out: where a unit stands does not depend on what it is.
pub(crate) fn collect(module: &impl Module) -> StateDict {
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

/// The paths and shapes of what [`collect`] finds. No weight is drawn for it: a network is as
/// large as a file's metadata say it is, and only fits the file if its shapes do.
pub(crate) fn shapes(module: &impl Module) -> BTreeMap<String, Vec<usize>> {
    #[derive(Default)]
    struct Shapes {
        path: LayerPath,
        found: BTreeMap<String, Vec<usize>>,
    }
    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.insert(self.path.name(), param.lazy_shape().to_vec());
        }
    }
    let mut shapes = Shapes::default();
    module.visit(&mut shapes);
    shapes.found
}

/// Replaces the tensors of a module by those of the same path; returns how many there were.
pub(crate) fn apply<M: Module>(module: &mut M, tensors: StateDict) -> usize {
    let tensors =
        tensors.into_iter().map(|(name, data)| bridge::from_data(data, name, None)).collect();
    module.apply(tensors, None, None, true).applied.len()
}

/// Removes what is below a path; the keys of the result begin after it.
pub(crate) fn take_below(tensors: &mut StateDict, path: &str) -> StateDict {
    let mut taken = StateDict::new();
    tensors.retain(|key, data| match key.strip_prefix(path) {
        Some(rest) => {
            let empty = TensorData::new(Vec::<f32>::new(), [0]);
            taken.insert(rest.to_string(), std::mem::replace(data, empty));
            false
        }
        None => true,
    });
    taken
}
