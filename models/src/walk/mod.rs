//! A network's forward pass, written once and read by several interpreters.
//!
//! A backbone implements [`Walk`]: it names its layers and says in which order they read each
//! other's outputs, as generic code over an [`Interpreter`]. From this one description come
//!
//! | interpreter | a map is | result |
//! |---|---|---|
//! | [`Walk::forward`] | a tensor | logits |
//! | [`Walk::forward_features`] | a tensor | the map after each stage |
//! | [`Walk::layers`] | its height and width | every layer with the sizes it works on |
//! | [`onnx`](crate::onnx) | a value of a graph | an ONNX file of the folded network |
//! | [`quantize`](crate::quantize) | a tensor, or integers | the network in 8 bits |
//!
//! A network outside this crate that implements the trait has all of them, too:
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use dbb_models::blocks::{Activation, Block, ConvSpec, ConvUnit};
//! use dbb_models::walk::Interpreter;
//! use dbb_models::{ConfigError, Reparameterize, Walk};
//!
//! #[derive(Module, Debug, Reparameterize)]
//! struct Net {
//!     conv: ConvUnit,
//!     pool: AdaptiveAvgPool2d,
//!     linear: Linear,
//! }
//!
//! impl Walk for Net {
//!     fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
//!         let map = walk.unit(&"conv", &self.conv, images, Activation::Relu.into());
//!         walk.stage(0, &map);
//!         map
//!     }
//!
//!     fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
//!         let features = walk.means(&"pool", &self.pool, map);
//!         walk.linear(&"linear", &self.linear, features, None)
//!     }
//! }
//!
//! # fn main() -> Result<(), ConfigError> {
//! let device = Device::default();
//! let dbb = Block::Dbb(Default::default());
//! let network = Net {
//!     conv: ConvUnit::new(&ConvSpec::square([3, 16], 3, 2), &dbb, &device)?,
//!     pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
//!     linear: LinearConfig::new(16, 10).init(&device),
//! };
//! let images = Tensor::zeros([1, 3, 32, 32], &device);
//! assert_eq!(network.forward(images.clone()).dims(), [1, 10]);
//! assert_eq!(network.forward_features(images)[0].dims(), [1, 16, 16, 16]);
//! let layers = network.layers([32, 32])?;
//! assert_eq!((&*layers[0].name, layers[0].output_size), ("conv", [16, 16]));
//! # Ok(())
//! # }
//! ```
//!
//! `examples/your_own_model.rs` trains such a network and writes it as ONNX.

mod layers;
mod tensors;

use std::fmt::Display;

use burn::nn::pool::{AdaptiveAvgPool2d, MaxPool2d};
use burn::nn::{Dropout, Linear};
use burn::tensor::Tensor;

pub use layers::{Layer, Operation};
pub(crate) use tensors::parts;

use layers::{Layers, MapSize, Refused};

use crate::blocks::{Activation, ConvUnit, Epilogue, SqueezeExcite};
use crate::error::ConfigError;
use crate::layers::feature_map::FeatureMap;

/// A network that describes its forward pass.
pub trait Walk: Sync {
    /// From images to the last map of the last stage. Calls [`Interpreter::stage`] with the map
    /// that each stage ends with.
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map;

    /// From the last map to logits.
    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features;

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        tensors::in_parts(images, |images| {
            let mut walk = tensors::Forward::default();
            let map = self.features(&mut walk, FeatureMap::Planes(images));
            self.head(&mut walk, map)
        })
    }

    /// The map after each stage, in order; for detection and segmentation heads.
    fn forward_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut walk = tensors::Forward { stage_maps: Some(Vec::new()) };
        self.features(&mut walk, FeatureMap::Planes(images));
        walk.stage_maps.unwrap_or_default()
    }

    /// Every layer with weights in order of computation, for images of the given height and width.
    ///
    /// # Errors
    /// [`ConfigError::ImageSize`] if a window is larger than its padded map, [`ConfigError::Window`]
    /// if a convolution or pool has dilation, a padding that differs from side to side or follows
    /// from the input, or an output rounded up.
    fn layers(&self, image: [usize; 2]) -> Result<Vec<Layer<'_>>, ConfigError> {
        let Layers { list, refused } = listed(self, image);
        let Some(Refused { layer, window }) = refused else { return Ok(list) };
        Err(match window {
            None => ConfigError::Window { layer },
            Some(window) => {
                let fits = |side: &usize| listed(self, [*side; 2]).refused.is_none();
                let smallest = (1..=LARGEST_MINIMUM).find(fits);
                ConfigError::ImageSize { image, layer, kernel: window.kernel_size, smallest }
            }
        })
    }

    /// The path of every layer with weights in the network, in order of computation.
    fn layer_names(&self) -> Vec<String> {
        self.operations().into_iter().map(|(name, _)| name).collect()
    }

    /// Every layer with weights with its path in the network, in order of computation.
    fn operations(&self) -> Vec<(String, Operation<'_>)> {
        listed(self, ()).list.into_iter().map(|layer| (layer.name, layer.operation)).collect()
    }

    /// Every convolution unit with its path in the network, in order of computation.
    fn units(&self) -> Vec<(String, &ConvUnit)> {
        let units = self.operations().into_iter().filter_map(|(name, operation)| match operation {
            Operation::Conv(unit) => Some((name, unit)),
            Operation::Linear { .. } => None,
        });
        units.collect()
    }
}

/// Side of a square up to which the smallest images of a network are looked for.
const LARGEST_MINIMUM: usize = 1024;

fn listed<Size: MapSize>(network: &(impl Walk + ?Sized), image: Size) -> Layers<'_, Size> {
    let mut walk = Layers::default();
    let map = network.features(&mut walk, image);
    network.head(&mut walk, map);
    walk
}

/// [`Interpreter::separable`] of an interpreter that does not join the units.
fn one_by_one<'n, I: Interpreter<'n> + ?Sized>(
    walk: &mut I,
    [depthwise_name, pointwise_name]: [&dyn Display; 2],
    [depthwise, pointwise]: [&'n ConvUnit; 2],
    input: I::Map,
    activation: Activation,
    epilogue: Epilogue<I::Map>,
) -> I::Map {
    let map = walk.unit(depthwise_name, depthwise, input, activation.into());
    walk.unit(pointwise_name, pointwise, map, epilogue)
}

/// What reads a [`Walk`]. Every operation takes the path of its layer in the network, such as
/// `stage1.0.conv2`; it is formatted only where the interpreter needs it.
pub trait Interpreter<'n> {
    /// What stands for a map `[batch, channels, height, width]`.
    type Map: Clone;
    /// What stands for features `[batch, channels]`.
    type Features;

    /// A convolution unit, then the residual and the activation of the epilogue.
    fn unit(
        &mut self,
        name: &dyn Display,
        unit: &'n ConvUnit,
        input: Self::Map,
        epilogue: Epilogue<Self::Map>,
    ) -> Self::Map;

    /// A depthwise convolution unit with an activation, then a 1x1 unit with the epilogue.
    fn separable(
        &mut self,
        names: [&dyn Display; 2],
        units: [&'n ConvUnit; 2],
        input: Self::Map,
        activation: Activation,
        epilogue: Epilogue<Self::Map>,
    ) -> Self::Map {
        one_by_one(self, names, units, input, activation, epilogue)
    }

    /// The largest value of every window. A map that is smaller than the window is one window.
    fn max_pool(&mut self, name: &dyn Display, pool: &'n MaxPool2d, input: Self::Map) -> Self::Map;

    /// A shortcut without parameters: every second position, with so many channels of zeros before
    /// and after the input's (He et al., CVPR 2016, option A).
    fn subsample(
        &mut self,
        name: &dyn Display,
        zero_channels: [usize; 2],
        input: Self::Map,
    ) -> Self::Map;

    /// Every channel times a weight computed from the means of all channels.
    fn squeeze_excite(
        &mut self,
        name: &dyn Display,
        layer: &'n SqueezeExcite,
        input: Self::Map,
    ) -> Self::Map;

    /// A nonlinearity that follows something other than a unit or a linear layer.
    fn activation(
        &mut self,
        name: &dyn Display,
        activation: Activation,
        input: Self::Map,
    ) -> Self::Map;

    /// The map that a stage ends with; stages count from 0.
    fn stage(&mut self, _index: usize, _map: &Self::Map) {}

    /// The means over the areas of a grid, which divides the height and the width as evenly as
    /// possible, channel by channel, row by row; of one area, the mean over all positions.
    fn means(
        &mut self,
        name: &dyn Display,
        pool: &'n AdaptiveAvgPool2d,
        input: Self::Map,
    ) -> Self::Features;

    /// Acts in training only.
    fn dropout(&mut self, _dropout: &'n Dropout, input: Self::Features) -> Self::Features {
        input
    }

    /// A linear layer, then the activation.
    fn linear(
        &mut self,
        name: &dyn Display,
        linear: &'n Linear,
        input: Self::Features,
        activation: Option<Activation>,
    ) -> Self::Features;
}
