//! The trait that turns a network in training form into its plain inference form.

use burn::module::Param;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

use crate::blocks::ConvUnit;

/// Folds every block of several branches into one convolution, recursively.
///
/// The result computes the same function in inference, is on the inference device of the
/// original and has parameters of its own; the original is left as it is, and may be in training
/// or inference state. Folding twice changes nothing. The algebra runs on the host in `f64` and
/// is rounded once.
///
/// (Burn's `Module::apply_reparameterization` is another thing: it re-expresses single
/// parameters, for LoRA.)
pub trait Reparameterize {
    /// The inference form.
    fn reparameterize(&self) -> Self;
}

impl Reparameterize for ConvUnit {
    fn reparameterize(&self) -> Self {
        Self::Fused(self.fuse())
    }
}

impl<T: Reparameterize> Reparameterize for Vec<T> {
    fn reparameterize(&self) -> Self {
        self.iter().map(T::reparameterize).collect()
    }
}

impl<T: Reparameterize> Reparameterize for Option<T> {
    fn reparameterize(&self) -> Self {
        self.as_ref().map(T::reparameterize)
    }
}

impl Reparameterize for Linear {
    fn reparameterize(&self) -> Self {
        Self { weight: inference_copy(&self.weight), bias: self.bias.as_ref().map(inference_copy) }
    }
}

impl Reparameterize for Conv2d {
    fn reparameterize(&self) -> Self {
        Self {
            weight: inference_copy(&self.weight),
            bias: self.bias.as_ref().map(inference_copy),
            ..self.clone()
        }
    }
}

/// A parameter of the same value without autodiff and with an id of its own.
fn inference_copy<const D: usize>(param: &Param<Tensor<D>>) -> Param<Tensor<D>> {
    Param::from_tensor(param.val().without_autodiff())
}
