//! Batch norm whose output is padded with its own image of zero.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::batch_norm::BatchNorm;

/// A batch norm between a 1x1 convolution and a windowed operation. Its output is padded not
/// with zeros but with what the norm makes of zero, so that the sequence folds exactly at the
/// border (Transform III).
///
/// The border value comes from the *running* statistics as this forward has just updated them,
/// and no gradient flows through it, as in the paper's code.
#[derive(Module, Debug)]
pub struct BnPad {
    /// The norm.
    pub bn: BatchNorm,
}

/// A padded map in two parts: it is `centred`, zero-padded, plus `border` on every position.
///
/// Any linear operation can pad `centred` with zeros for itself and add its own response to the
/// constant `border` afterwards; no padded copy is made.
pub(crate) struct Padded {
    /// The normalised map less the border value, `[batch, channels, height, width]`.
    pub centred: Tensor<4>,
    /// The border value, `[channels]`.
    pub border: Tensor<1>,
}

impl BnPad {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self { bn: BatchNorm::new(channels, device) }
    }
}

/// The map after a norm whose output is padded with its own image of zero.
pub(crate) fn padded(norm: &BatchNorm, input: Tensor<4>) -> Padded {
    let normalised = norm.forward(input);
    let border = norm.image_of_zero();
    let [channels] = border.dims();
    let centred = normalised - border.clone().reshape([1, channels, 1, 1]);
    Padded { centred, border }
}
