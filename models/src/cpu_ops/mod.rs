//! Blocks as single operations with the kernels of `dbb-kernels`, on the flex backend.
//!
//! An operation serves an input, or returns `None`: on another backend, in another precision, and
//! wherever the plain implementation is asked for. The caller then computes the definition.

#[cfg(feature = "flex")]
mod blocked;
#[cfg(feature = "flex")]
mod branch_sum;
#[cfg(feature = "flex")]
mod conv;
#[cfg(feature = "flex")]
mod group_sum;
#[cfg(feature = "flex")]
mod inputs;
#[cfg(feature = "flex")]
mod norms;
#[cfg(feature = "flex")]
mod operation;
#[cfg(feature = "flex")]
mod orepa;
#[cfg(feature = "flex")]
mod pool;
#[cfg(feature = "flex")]
mod prepared;
#[cfg(feature = "flex")]
mod sgd;

#[cfg(feature = "flex")]
pub(crate) use self::{
    blocked::{Blocked, in_team, linear},
    branch_sum::branch_sum,
    conv::{conv, serves_conv},
    group_sum::{serves_sums, sum_over_members},
    operation::serves,
    orepa::orepa_kernel,
    pool::max_pool,
    sgd::{sgd_step, sum_of_squares},
};

#[cfg(not(feature = "flex"))]
mod absent {
    use burn::nn::Linear;
    use burn::nn::conv::Conv2d;
    use burn::nn::pool::MaxPool2d;
    use burn::tensor::{Device, Tensor};
    use dbb_kernels::sgd::Sgd;

    use crate::layers::activation::Activation;
    use crate::layers::branch_sum::BranchSum;
    use crate::layers::epilogue::Epilogue;
    use crate::layers::feature_map::FeatureMap;
    use crate::layers::orepa_kernel::OrepaBranches;
    use crate::whole_batch::SumOverMembers;

    pub(crate) fn serves_sums(_: &Device) -> bool {
        false
    }

    pub(crate) fn sum_over_members(own: Tensor<1>, _: SumOverMembers) -> Tensor<1> {
        // The caller has asked whether the device is served.
        own
    }

    pub(crate) fn serves<const D: usize>(_: &Tensor<D>) -> bool {
        false
    }

    pub(crate) fn sgd_step<const D: usize>(
        _: &Sgd,
        parameter: Tensor<D>,
        _: Tensor<D>,
        velocity: Option<Tensor<D>>,
    ) -> (Tensor<D>, Option<Tensor<D>>) {
        // The caller has asked whether the tensors are served.
        (parameter, velocity)
    }

    pub(crate) fn sum_of_squares<const D: usize>(_: Tensor<D>) -> Option<f64> {
        None
    }

    pub(crate) fn serves_conv(_: &Conv2d, _: &Tensor<4>) -> bool {
        false
    }

    pub(crate) fn conv(conv: &Conv2d, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        epilogue.forward(conv.forward(input))
    }

    #[derive(Clone, Debug)]
    pub(crate) enum Blocked {}

    impl Blocked {
        pub fn to_tensor(&self) -> Tensor<4> {
            match *self {}
        }

        pub fn conv(_: &Conv2d, _: &FeatureMap, _: &Epilogue<FeatureMap>) -> Option<Self> {
            None
        }

        pub fn separable(
            _: [&Conv2d; 2],
            _: &FeatureMap,
            _: Activation,
            _: &Epilogue<FeatureMap>,
        ) -> Option<Self> {
            None
        }

        pub fn max_pool(&self, _: &MaxPool2d) -> Option<Self> {
            match *self {}
        }

        pub fn activation(&self, _: Activation) -> Self {
            match *self {}
        }

        pub fn scale(&self, _: Tensor<4>) -> Self {
            match *self {}
        }

        pub fn means(&self) -> Tensor<2> {
            match *self {}
        }
    }

    pub(crate) fn linear(_: &Linear, _: &Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    pub(crate) fn in_team<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    pub(crate) fn max_pool(pool: &MaxPool2d, input: Tensor<4>) -> Tensor<4> {
        pool.forward(input)
    }

    pub(crate) fn orepa_kernel(
        _: &Tensor<4>,
        _: &Tensor<2>,
        _: &OrepaBranches,
        _: usize,
    ) -> Option<Tensor<4>> {
        None
    }

    pub(crate) fn branch_sum(_: &BranchSum<'_>, _: &Tensor<4>, _: &Epilogue) -> Option<Tensor<4>> {
        None
    }
}

#[cfg(not(feature = "flex"))]
pub(crate) use absent::{
    Blocked, branch_sum, conv, in_team, max_pool, orepa_kernel, serves, serves_conv, serves_sums,
    sum_over_members,
};
