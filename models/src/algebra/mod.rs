//! The six transforms of the Diverse Branch Block paper (Ding et al., CVPR 2021,
//! <https://arxiv.org/abs/2103.13425>, section 3.2) as pure functions on kernels.
//!
//! Everything here works on the host in `f64` and knows no tensor and no module: a fold is
//! computed once, exactly, and cast to the network's precision by the caller.
//!
//! | transform | function | turns |
//! |---|---|---|
//! | I | [`fuse_conv_bn`] | convolution + batch norm into a convolution with bias |
//! | II | [`sum_branches`] | parallel convolutions whose outputs are added into one |
//! | III | [`merge_1x1_kxk`] | a 1x1 convolution followed by a KxK one into one KxK |
//! | IV | [`concat_outputs`] | convolutions whose outputs are concatenated into one |
//! | V | [`average_pool_kernel`], after a 1x1 convolution [`merge_1x1_average`] | average pooling into a KxK convolution |
//! | VI | [`embed_kernel`] | a small kernel into the centre of a larger one |
//!
//! [`identity_kernel`] is the 1x1 kernel of an identity branch (Ding et al., RepVGG, CVPR 2021).

mod average_pool;
mod branch_sum;
mod conv_bn;
mod depth_concat;
mod identity;
mod kernel_size;
mod sequential;
#[cfg(test)]
pub(crate) mod testing;

pub use average_pool::{average_pool_kernel, merge_1x1_average};
pub use branch_sum::sum_branches;
pub use conv_bn::{NormStats, fuse_conv_bn};
pub use depth_concat::concat_outputs;
pub use identity::identity_kernel;
pub use kernel_size::embed_kernel;
pub use sequential::merge_1x1_kxk;

/// The weight of a grouped convolution, shape `[out, in / groups, kh, kw]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Output channels, over all groups.
    pub out_channels: usize,
    /// Input channels that one group reads.
    pub in_per_group: usize,
    /// Height and width of the window.
    pub size: [usize; 2],
    /// Number of groups; output channel `o` belongs to group `o / (out_channels / groups)`.
    pub groups: usize,
    /// The values, `out_channels * in_per_group * kh * kw` of them.
    pub data: Vec<f64>,
}

impl Kernel {
    /// A kernel from its shape `[out, in / groups, kh, kw]` and values.
    ///
    /// # Panics
    /// If the number of values does not fit the shape or the groups do not divide the outputs.
    pub fn new(shape: [usize; 4], groups: usize, data: Vec<f64>) -> Self {
        let [out_channels, in_per_group, kh, kw] = shape;
        assert_eq!(
            data.len(),
            shape.iter().product::<usize>(),
            "kernel values against shape {shape:?}"
        );
        assert!(
            groups > 0 && out_channels % groups == 0,
            "{groups} groups, {out_channels} outputs"
        );
        Self { out_channels, in_per_group, size: [kh, kw], groups, data }
    }

    /// Shape `[out, in / groups, kh, kw]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_per_group, self.size[0], self.size[1]]
    }

    /// Number of taps of the window, `kh * kw`.
    pub fn taps(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// The group of an output channel.
    fn group_of(&self, out_channel: usize) -> usize {
        out_channel / (self.out_channels / self.groups)
    }

    /// The values of one output channel, shape `[in / groups, kh, kw]`.
    fn filter(&self, out_channel: usize) -> &[f64] {
        let len = self.in_per_group * self.taps();
        &self.data[out_channel * len..][..len]
    }
}

/// Kernel and bias of a convolution: what every training-form block folds into.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvParams {
    /// The weight.
    pub kernel: Kernel,
    /// The bias, one value per output channel.
    pub bias: Vec<f64>,
}

impl ConvParams {
    /// A convolution with the given kernel and a bias of zero.
    pub fn without_bias(kernel: Kernel) -> Self {
        let bias = vec![0.0; kernel.out_channels];
        Self { kernel, bias }
    }
}
