//! A map between the layers of a network.

use burn::tensor::Tensor;

use crate::cpu_ops::Blocked;

/// A map `[batch, channels, height, width]`.
#[derive(Clone, Debug)]
pub(crate) enum FeatureMap {
    Planes(Tensor<4>),
    /// In the layout of the CPU's kernels for inference.
    Blocked(Blocked),
}

impl FeatureMap {
    pub fn into_tensor(self) -> Tensor<4> {
        match self {
            Self::Planes(tensor) => tensor,
            Self::Blocked(map) => map.to_tensor(),
        }
    }
}
