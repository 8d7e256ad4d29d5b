//! The layers of a network, with or without the sizes they work on.

use std::fmt::Display;

use burn::nn::Linear;
use burn::nn::pool::{AdaptiveAvgPool2d, MaxPool2d};

use super::Interpreter;
use crate::blocks::{Activation, ConvSpec, ConvUnit, Epilogue, SqueezeExcite};

/// A layer with weights. `Size` is the height and width of a map, or nothing.
#[derive(Debug)]
pub struct Layer<'n, Size = [usize; 2]> {
    /// Path of the layer in the network, such as `stage1.0.conv2`.
    pub name: String,
    /// What the layer computes.
    pub operation: Operation<'n>,
    /// Height and width of the input; `[1, 1]` for a linear layer.
    pub input_size: Size,
    /// Height and width of the output.
    pub output_size: Size,
}

/// What a layer computes.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'n> {
    /// A convolution, in training or in deploy form.
    Conv(&'n ConvUnit),
    /// Every output from all inputs, with a bias: a linear layer, or a 1x1 convolution over one
    /// position as in squeeze-and-excitation.
    Linear {
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
    },
}

/// Lists the layers, in order of computation.
pub(super) struct Layers<'n, Size> {
    pub list: Vec<Layer<'n, Size>>,
    /// The first window that does not tell or does not have an output.
    pub refused: Option<Refused>,
}

impl<Size> Default for Layers<'_, Size> {
    fn default() -> Self {
        Self { list: Vec::new(), refused: None }
    }
}

/// A window without a known output.
pub(super) struct Refused {
    pub layer: String,
    /// The window, if it is larger than the padded map; otherwise its geometry is one that
    /// [`ConvSpec`] does not hold.
    pub window: Option<ConvSpec>,
}

/// What an interpreter knows of the size of a map.
pub(super) trait MapSize: Copy {
    /// The size of one position.
    const ONE: Self;
    /// The size after a window has moved over the map, if it is known and there is one.
    fn after(self, window: Option<&ConvSpec>) -> Option<Self>;
}

impl MapSize for [usize; 2] {
    const ONE: Self = [1, 1];

    fn after(self, window: Option<&ConvSpec>) -> Option<Self> {
        window.filter(|window| window.fits(self)).map(|window| window.output_size(self))
    }
}

impl MapSize for () {
    const ONE: Self = ();

    fn after(self, _: Option<&ConvSpec>) -> Option<()> {
        Some(())
    }
}

impl<'n, Size: MapSize> Layers<'n, Size> {
    fn after(&mut self, name: &dyn Display, window: Option<ConvSpec>, input: Size) -> Size {
        input.after(window.as_ref()).unwrap_or_else(|| {
            self.refused.get_or_insert_with(|| Refused { layer: name.to_string(), window });
            input
        })
    }

    fn linear_layer(&mut self, name: String, [inputs, outputs]: [usize; 2]) {
        let operation = Operation::Linear { inputs, outputs };
        self.list.push(Layer { name, operation, input_size: Size::ONE, output_size: Size::ONE });
    }
}

impl<'n, Size: MapSize> Interpreter<'n> for Layers<'n, Size> {
    type Map = Size;
    type Features = ();

    fn unit(
        &mut self,
        name: &dyn Display,
        unit: &'n ConvUnit,
        input_size: Size,
        _: Epilogue<Size>,
    ) -> Size {
        let output_size = self.after(name, unit.find_spec(), input_size);
        let operation = Operation::Conv(unit);
        self.list.push(Layer { name: name.to_string(), operation, input_size, output_size });
        output_size
    }

    fn max_pool(&mut self, name: &dyn Display, pool: &'n MaxPool2d, input: Size) -> Size {
        self.after(name, ConvSpec::find_max_pool(pool), input)
    }

    fn subsample(&mut self, name: &dyn Display, _: [usize; 2], input: Size) -> Size {
        self.after(name, Some(ConvSpec::square([1, 1], 1, 2)), input)
    }

    fn squeeze_excite(
        &mut self,
        name: &dyn Display,
        layer: &'n SqueezeExcite,
        input: Size,
    ) -> Size {
        self.linear_layer(format!("{name}.fc1"), ConvSpec::of(&layer.fc1).channels);
        self.linear_layer(format!("{name}.fc2"), ConvSpec::of(&layer.fc2).channels);
        input
    }

    fn activation(&mut self, _: &dyn Display, _: Activation, input: Size) -> Size {
        input
    }

    fn means(&mut self, _: &dyn Display, _: &'n AdaptiveAvgPool2d, _: Size) {}

    fn linear(&mut self, name: &dyn Display, linear: &'n Linear, (): (), _: Option<Activation>) {
        self.linear_layer(name.to_string(), linear.weight.lazy_shape().dims());
    }
}
