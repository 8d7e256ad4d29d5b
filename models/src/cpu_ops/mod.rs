//! Blocks as single operations with the kernels of `dbb-kernels`, on the flex backend.
//!
//! The function of a block serves an input, or returns `None`: on another backend, in another
//! precision, for a block without a kernel, and wherever the plain implementation is asked for.
//! The caller then computes the definition.

#[cfg(feature = "flex")]
use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use crate::blocks::{ConvBlock, DiverseBranchBlock, Epilogue};

#[cfg(feature = "flex")]
mod conv;
#[cfg(feature = "flex")]
mod conv_bn;
#[cfg(feature = "flex")]
mod dense_dbb;
#[cfg(feature = "flex")]
mod depthwise_dbb;
#[cfg(feature = "flex")]
mod norms;
#[cfg(feature = "flex")]
mod operation;
#[cfg(feature = "flex")]
mod pool;

#[cfg(feature = "flex")]
pub(crate) use self::conv::{conv, serves_conv};
#[cfg(feature = "flex")]
pub(crate) use self::{conv_bn::conv_bn, pool::max_pool};

/// A Diverse Branch Block in training, dense or depthwise.
#[cfg(feature = "flex")]
pub(crate) fn dbb(
    block: &DiverseBranchBlock,
    input: &Tensor<4>,
    epilogue: &Epilogue,
) -> Option<Tensor<4>> {
    match block.spec().is_depthwise() {
        true => depthwise_dbb::depthwise_dbb(block, input, epilogue),
        false => dense_dbb::dense_dbb(block, input, epilogue),
    }
}

#[cfg(not(feature = "flex"))]
mod absent {
    use burn::nn::conv::Conv2d;
    use burn::nn::pool::MaxPool2d;
    use burn::tensor::Tensor;

    use crate::blocks::{ConvBn, DiverseBranchBlock, Epilogue};

    pub(crate) fn serves_conv(_: &Conv2d, _: &Tensor<4>) -> bool {
        false
    }

    pub(crate) fn conv(conv: &Conv2d, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        epilogue.forward(conv.forward(input))
    }

    pub(crate) fn max_pool(pool: &MaxPool2d, input: Tensor<4>) -> Tensor<4> {
        pool.forward(input)
    }

    pub(crate) fn conv_bn(_: &ConvBn, _: &Tensor<4>, _: &Epilogue) -> Option<Tensor<4>> {
        None
    }

    pub(crate) fn dbb(_: &DiverseBranchBlock, _: &Tensor<4>, _: &Epilogue) -> Option<Tensor<4>> {
        None
    }
}

#[cfg(not(feature = "flex"))]
pub(crate) use absent::{conv, conv_bn, dbb, max_pool, serves_conv};
