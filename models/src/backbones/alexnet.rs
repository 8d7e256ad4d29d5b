//! AlexNet as the Diverse Branch Block's repository trains it (Ding et al., CVPR 2021; the
//! original network is Krizhevsky et al., NeurIPS 2012).
//!
//! The paper names no layers. Its repository
//! (<https://github.com/DingXiaoH/DiverseBranchBlock>, `alexnet.py`) has the channels below, a
//! batch norm after every convolution, no local response normalisation, and dropout after both
//! hidden layers. Its classifier reads a map of 6x6, that of images of 224x224; here other sizes
//! are reduced to 6x6 means, as in torchvision.

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};

use super::hidden_layers::{self, DROPOUT};
use super::{Backbone, NetworkBuilder};
use crate::blocks::{Activation, ConvSpec, ConvUnit};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// Height and width that the classifier reads.
const GRID: usize = 6;

/// The network of the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlexNetConfig;

/// AlexNet with batch norm.
#[derive(Module, Debug, Reparameterize)]
pub struct AlexNet {
    /// 11x11 with stride 4.
    pub conv1: ConvUnit,
    /// 5x5.
    pub conv2: ConvUnit,
    /// 3x3.
    pub conv3: ConvUnit,
    /// 3x3.
    pub conv4: ConvUnit,
    /// 3x3.
    pub conv5: ConvUnit,
    /// 3x3 with stride 2, after the first, the second and the last convolution.
    pub max_pool: MaxPool2d,
    /// Means over a grid of 6x6.
    pub pool: AdaptiveAvgPool2d,
    /// Hidden layers of the classifier, with ReLU.
    pub hidden: Vec<Linear>,
    /// Follows every hidden layer, in training only.
    pub dropout: Dropout,
    /// The classifier.
    pub linear: Linear,
}

impl Backbone for AlexNetConfig {
    type Network = AlexNet;

    fn build(&self, builder: &NetworkBuilder) -> Result<AlexNet, ConfigError> {
        let scaled = |channels: usize| (channels as f64 * builder.width) as usize;
        let [c1, c2, c3, c4, c5] = [64, 192, 384, 384, 256].map(scaled);
        let first = ConvSpec::square([builder.in_channels, c1], 11, 4).with_padding([2, 2]);
        let hidden = [scaled(4096); 2];
        Ok(AlexNet {
            conv1: builder.unit("conv1", &first)?,
            conv2: builder.unit("conv2", &ConvSpec::square([c1, c2], 5, 1))?,
            conv3: builder.unit("conv3", &ConvSpec::square([c2, c3], 3, 1))?,
            conv4: builder.unit("conv4", &ConvSpec::square([c3, c4], 3, 1))?,
            conv5: builder.unit("conv5", &ConvSpec::square([c4, c5], 3, 1))?,
            max_pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).init(),
            pool: AdaptiveAvgPool2dConfig::new([GRID; 2]).init(),
            hidden: hidden_layers::layers(c5 * GRID * GRID, &hidden, builder.device),
            dropout: DropoutConfig::new(DROPOUT).init(),
            linear: LinearConfig::new(hidden[1], builder.num_classes).init(builder.device),
        })
    }
}

impl Walk for AlexNet {
    /// The stages are the resolutions, 1/4 to 1/16 of the image; each ends before its max pool.
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let relu = || Activation::Relu.into();
        let map = walk.unit(&"conv1", &self.conv1, images, relu());
        walk.stage(0, &map);
        let map = walk.max_pool(&"max_pool1", &self.max_pool, map);
        let map = walk.unit(&"conv2", &self.conv2, map, relu());
        walk.stage(1, &map);
        let map = walk.max_pool(&"max_pool2", &self.max_pool, map);
        let map = walk.unit(&"conv3", &self.conv3, map, relu());
        let map = walk.unit(&"conv4", &self.conv4, map, relu());
        let map = walk.unit(&"conv5", &self.conv5, map, relu());
        walk.stage(2, &map);
        map
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let map = walk.max_pool(&"max_pool3", &self.max_pool, map);
        let features = walk.means(&"pool", &self.pool, map);
        let features = hidden_layers::walk(&self.hidden, Some(&self.dropout), walk, features);
        walk.linear(&"linear", &self.linear, features, None)
    }
}
