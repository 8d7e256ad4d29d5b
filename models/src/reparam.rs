//! The trait that turns a network in training form into its plain inference form.

use burn::module::{Flag, Module, ModuleMapper, Param, ParamId, ParameterValue, RunningState};
use burn::nn::{self, activation, attention, conv, interpolate, loss, norm, pool, transformer};
use burn::tensor::kind::Autodiff;
use burn::tensor::{Bool, Int, Tensor};

use crate::blocks::{BatchNorm, ConvUnit, SqueezeExcite};

/// Implements [`Reparameterize`](trait@Reparameterize) field by field, for structs and enums.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor, activation::relu};
/// use dbb_models::blocks::{Block, ConvSpec, ConvUnit};
/// use dbb_models::{ConfigError, Reparameterize};
///
/// #[derive(Module, Debug, Reparameterize)]
/// struct Net {
///     convs: Vec<ConvUnit>,
///     dropout: Dropout,
///     linear: Linear,
///     #[reparam(keep)]
///     features: usize,
/// }
///
/// impl Net {
///     fn new(device: &Device) -> Result<Self, ConfigError> {
///         let dbb = Block::Dbb(Default::default());
///         let conv = |channels| ConvUnit::new(&ConvSpec::square(channels, 3, 2), &dbb, device);
///         Ok(Self {
///             convs: vec![conv([3, 8])?, conv([8, 16])?],
///             dropout: DropoutConfig::new(0.2).init(),
///             linear: LinearConfig::new(16 * 4, 10).init(device),
///             features: 16 * 4,
///         })
///     }
///
///     fn forward(&self, images: Tensor<4>) -> Tensor<2> {
///         let map = self.convs.iter().fold(images, |map, conv| relu(conv.forward(map)));
///         let features = map.reshape([-1, self.features as i32]);
///         self.linear.forward(self.dropout.forward(features))
///     }
/// }
///
/// # fn main() -> Result<(), ConfigError> {
/// let device = Device::default();
/// let deploy = Net::new(&device)?.reparameterize();
/// assert!(matches!(deploy.convs[0], ConvUnit::Folded(_)));
/// assert_eq!(deploy.forward(Tensor::zeros([1, 3, 8, 8], &device)).dims(), [1, 10]);
/// # Ok(())
/// # }
/// ```
///
/// Every field has to say what becomes of it: by its type, which implements the trait, or by
/// `#[reparam(keep)]`, which clones it. A type parameter is bound by what its fields need. A field
/// that says neither does not compile:
///
/// ```compile_fail,E0277
/// use dbb_models::{Reparameterize, blocks::ConvUnit};
///
/// #[derive(Reparameterize)]
/// struct Net {
///     conv: ConvUnit,
///     features: usize,
/// }
/// ```
///
/// The attribute takes nothing else, and belongs on a field:
///
/// ```compile_fail
/// use dbb_models::{Reparameterize, blocks::ConvUnit};
///
/// #[derive(Reparameterize)]
/// struct Net {
///     conv: ConvUnit,
///     #[reparam(keep = "always")]
///     features: usize,
/// }
/// ```
///
/// A layer of another crate, which can have no implementation, may be kept as well; then fold
/// `network.valid()`, because a clone stays on its device and in its state.
pub use dbb_models_derive::Reparameterize;

/// Folds every block of several branches into one convolution, recursively.
///
/// The result computes the same function in inference, is on the inference device of the
/// original and has parameters of its own; the original is left as it is, and may be in training
/// or inference state. Folding twice changes nothing. The algebra runs on the host in `f64` and
/// is rounded once.
///
/// Derive it on modules of your own. It is implemented for [`ConvUnit`], which folds; for Burn's
/// own layers, which are copied; and for parameters, `Vec`, `Option`, arrays and tuples. A batch
/// norm of Burn's after one of its convolutions stays a batch norm: what is to be folded is held
/// in a [`ConvUnit`].
///
/// (Burn's `Module::apply_reparameterization` is another thing: it re-expresses single
/// parameters, for LoRA. Such a parameter is copied as the value it stands for.)
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what it folds into",
    label = "`Reparameterize` is not implemented for `{Self}`",
    note = "on a module of your own, derive it: `#[derive(Module, Debug, Reparameterize)]`",
    note = "a field that holds no convolution to fold is marked `#[reparam(keep)]`",
    note = "blocks, and convolutions with their batch norm, fold as a `ConvUnit`"
)]
pub trait Reparameterize {
    /// The inference form.
    fn reparameterize(&self) -> Self;

    /// Calls `change` with every convolution unit within. The derive goes through all fields but
    /// the kept ones; by default there is no unit.
    fn each_unit(&mut self, change: &mut dyn FnMut(&mut ConvUnit)) {
        let _ = change;
    }
}

impl Reparameterize for ConvUnit {
    fn reparameterize(&self) -> Self {
        Self::Folded(self.fold())
    }

    fn each_unit(&mut self, change: &mut dyn FnMut(&mut ConvUnit)) {
        change(self);
    }
}

impl<T: Reparameterize> Reparameterize for Vec<T> {
    fn reparameterize(&self) -> Self {
        self.iter().map(T::reparameterize).collect()
    }

    fn each_unit(&mut self, change: &mut dyn FnMut(&mut ConvUnit)) {
        self.iter_mut().for_each(|item| item.each_unit(change));
    }
}

impl<T: Reparameterize> Reparameterize for Option<T> {
    fn reparameterize(&self) -> Self {
        self.as_ref().map(T::reparameterize)
    }

    fn each_unit(&mut self, change: &mut dyn FnMut(&mut ConvUnit)) {
        self.iter_mut().for_each(|item| item.each_unit(change));
    }
}

impl<T: Reparameterize, const N: usize> Reparameterize for [T; N] {
    fn reparameterize(&self) -> Self {
        self.each_ref().map(T::reparameterize)
    }

    fn each_unit(&mut self, change: &mut dyn FnMut(&mut ConvUnit)) {
        self.iter_mut().for_each(|item| item.each_unit(change));
    }
}

/// The tuples that are modules of Burn.
macro_rules! tuples {
    ($(($($T:ident $index:tt),*))*) => {$(
        impl<$($T: Reparameterize),*> Reparameterize for ($($T,)*) {
            fn reparameterize(&self) -> Self {
                ($(self.$index.reparameterize(),)*)
            }

            fn each_unit(&mut self, change: &mut dyn FnMut(&mut ConvUnit)) {
                $(self.$index.each_unit(change);)*
            }
        }
    )*};
}

tuples! {
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9)
}

impl<T: ParameterValue> Reparameterize for Param<T>
where
    Self: Module,
{
    fn reparameterize(&self) -> Self {
        inference_copy(self)
    }
}

impl<const D: usize, K: Autodiff> Reparameterize for Tensor<D, K> {
    fn reparameterize(&self) -> Self {
        inference_copy(self)
    }
}

impl<const D: usize> Reparameterize for RunningState<Tensor<D>> {
    fn reparameterize(&self) -> Self {
        // The clones of a state share its value, and the newest update may be pending; `valid`
        // counts it, in a state apart, but under the old id.
        Self::new(self.valid().value())
    }
}

impl Reparameterize for nn::BatchNorm {
    fn reparameterize(&self) -> Self {
        Self {
            running_mean: self.running_mean.reparameterize(),
            running_var: self.running_var.reparameterize(),
            ..inference_copy(self)
        }
    }
}

impl Reparameterize for norm::Normalization {
    fn reparameterize(&self) -> Self {
        match self {
            Self::Batch(norm) => Self::Batch(norm.reparameterize()),
            other => inference_copy(other),
        }
    }
}

/// Modules without a block or a running state of Burn's.
macro_rules! copies {
    ($($module:ty),* $(,)?) => {$(
        impl Reparameterize for $module {
            fn reparameterize(&self) -> Self {
                inference_copy(self)
            }
        }
    )*};
}

copies! {
    // Of this crate.
    BatchNorm, SqueezeExcite,
    // Layers.
    conv::Conv1d, conv::Conv2d, conv::Conv3d, conv::DeformConv2d,
    conv::ConvTranspose1d, conv::ConvTranspose2d, conv::ConvTranspose3d,
    nn::Linear, nn::Embedding, nn::Identity,
    nn::GroupNorm, nn::InstanceNorm, nn::LayerNorm, nn::LocalResponseNorm, nn::RmsNorm,
    nn::Dropout, nn::GaussianNoise,
    pool::MaxPool1d, pool::MaxPool2d, pool::AvgPool1d, pool::AvgPool2d,
    pool::AdaptiveAvgPool1d, pool::AdaptiveAvgPool2d, pool::AdaptiveAvgPool3d,
    interpolate::Interpolate1d, interpolate::Interpolate2d,
    nn::PixelShuffle, nn::PixelUnshuffle, nn::Fold4d, nn::Unfold4d,
    nn::Rnn, nn::BiRnn, nn::Gru, nn::BiGru, nn::Lstm, nn::BiLstm, nn::GateController,
    attention::MultiHeadAttention, nn::PositionalEncoding, nn::RotaryEncoding,
    transformer::TransformerEncoder, transformer::TransformerEncoderLayer,
    transformer::TransformerDecoder, transformer::TransformerDecoderLayer,
    transformer::PositionWiseFeedForward,
    nn::CosineSimilarity, nn::PairwiseDistance,
    // Nonlinearities.
    activation::Activation, activation::Celu, activation::Elu, activation::GLU, activation::Gelu,
    activation::HardShrink, activation::HardSigmoid, activation::HardSwish, activation::Hardtanh,
    activation::LeakyRelu, activation::LogSigmoid, activation::Mish, activation::PRelu,
    activation::RRelu, activation::Relu, activation::Relu6, activation::Selu, activation::Shrink,
    activation::SiLU, activation::Sigmoid, activation::SoftShrink, activation::Softplus,
    activation::Softsign, activation::SwiGlu, activation::Tanh, activation::Tanhshrink,
    activation::Threshold, activation::ThresholdedRelu,
    // Losses.
    loss::BinaryCrossEntropyLoss, loss::CTCLoss, loss::CosineEmbeddingLoss,
    loss::CrossEntropyLoss, loss::GaussianNLLLoss, loss::HingeEmbeddingLoss, loss::HuberLoss,
    loss::KLDivLoss, loss::LpLoss, loss::MarginRankingLoss, loss::MseLoss, loss::MultiMarginLoss,
    loss::PoissonNllLoss, loss::RNNTLoss, loss::SmoothL1Loss, loss::SoftMarginLoss,
    loss::TripletMarginLoss,
}

/// A module of the same values without autodiff, whose parameters have ids of their own.
fn inference_copy<M: Module>(module: &M) -> M {
    struct NewIds;
    impl ModuleMapper for NewIds {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            with_new_id(param)
        }

        fn map_int<const D: usize>(
            &mut self,
            param: Param<Tensor<D, Int>>,
        ) -> Param<Tensor<D, Int>> {
            with_new_id(param)
        }

        fn map_bool<const D: usize>(
            &mut self,
            param: Param<Tensor<D, Bool>>,
        ) -> Param<Tensor<D, Bool>> {
            with_new_id(param)
        }

        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            with_new_id(flag)
        }
    }
    module.valid().materialize().map(&mut NewIds)
}

fn with_new_id<T: ParameterValue>(mut param: Param<T>) -> Param<T> {
    param.id = ParamId::new();
    param
}
