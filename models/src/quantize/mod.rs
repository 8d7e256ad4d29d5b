//! Networks in 8 bits.
//!
//! [`int8_weights`] rounds weights alone, to measure what that costs. [`Int8Network`] is a folded network
//! whose layers compute with integers, as processors have instructions for it:
//!
//! - weights are symmetric, `w = scale * q`, with one scale for each output channel, `q` from -127 to 127
//!   (or from -64 to 64, [`WeightRange`]);
//! - maps are asymmetric, `x = scale * (q - zero_point)` with `q` from 0 to 255 and zero an integer, so that
//!   padding is exact; the range of every map comes from images ([`Calibration`]). ReLU and ReLU6 are the ends
//!   of a range;
//! - a bias is an integer of 32 bits in units of the product of the scales of input and weight;
//! - sums of products are exact and rounded once (Jacob et al., CVPR 2018,
//!   [arXiv:1712.05877](https://arxiv.org/abs/1712.05877), section 2).
//!
//! [`Int8Network::forward`] computes what runtimes with integer kernels compute; the logits are `f32`.
//! [`write_onnx_int8`](crate::onnx::write_onnx_int8) writes the network for them.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use dbb_models::quantize::{Calibration, Int8Network, RangeMethod, WeightRange};
//! use dbb_models::{Arch, BlockKind, Form, ModelConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Device::default();
//! let config = ModelConfig { width: 0.25, ..ModelConfig::new(Arch::ResNet20, BlockKind::Base, 10) };
//! let network = config.init(Form::Deploy, &device)?;
//! let images = Tensor::random([8, 3, 32, 32], burn::tensor::Distribution::Default, &device);
//!
//! let mut calibration = Calibration::new(RangeMethod::MinMax);
//! calibration.observe(&network, images.clone());
//! let int8 = Int8Network::new(&network, calibration.ranges()?, WeightRange::Full)?;
//! assert_eq!(int8.forward(images).dims(), [8, 10]);
//! # Ok(())
//! # }
//! ```

mod calibration;
mod histogram;
mod layer;
mod network;
mod range;
mod simulation;
mod weights;

pub use calibration::{Calibration, RangeMethod};
pub use dbb_kernels::int8::Affine;
pub(crate) use layer::Int8Layer;
pub use layer::WeightRange;
pub use network::Int8Network;
pub use range::{Range, RangeError, Ranges};
pub use weights::{Granularity, int8_weights};
