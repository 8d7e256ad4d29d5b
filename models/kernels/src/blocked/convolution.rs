//! A convolution with its epilogue.

use super::depthwise::Filters;
use super::map::Map;
use super::weight::{Algorithm, Weight};
use super::{BLOCK, dense, depthwise, winograd};
use crate::profile::{self, Work};
use crate::shape::Geometry;
use crate::{Activation, ConvShape};

/// What a convolution reads.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// `[batch, channels, height, width]`, of a convolution of up to four channels.
    Planes(&'a [f32]),
    /// Of any other convolution.
    Blocked(&'a Map),
}

/// Operations on an output, in this order: add the bias and the residual, then apply the activation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added per output channel.
    pub bias: Option<&'a [f32]>,
    /// Added per value, shaped as the output.
    pub residual: Option<&'a Map>,
    /// Applied last.
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// The bias of all channels of whole blocks.
    ///
    /// # Panics
    /// If there is a bias that does not have one value for each channel.
    #[track_caller]
    pub(super) fn padded_bias(&self, channels: usize) -> Vec<f32> {
        let mut padded = vec![0.0; channels.next_multiple_of(BLOCK)];
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), channels, "length of the bias");
            padded[..channels].copy_from_slice(bias);
        }
        padded
    }

    /// # Panics
    /// If there is a residual of another shape.
    #[track_caller]
    pub(super) fn check_residual(&self, dims: [usize; 4]) {
        assert!(self.residual.is_none_or(|map| map.dims() == dims), "shape of the residual");
    }
}

impl Source<'_> {
    /// # Panics
    /// If it is not the input of a convolution of this shape and algorithm.
    #[track_caller]
    fn check(&self, shape: &ConvShape, algorithm: Algorithm) {
        match self {
            Self::Planes(values) => {
                assert_eq!(algorithm, Algorithm::Planes, "planes of more than a few channels");
                assert_eq!(values.len(), shape.input_len(), "length of the input");
            }
            Self::Blocked(map) => {
                assert_ne!(algorithm, Algorithm::Planes, "a blocked map of a few channels");
                check_input(map, shape);
            }
        }
    }
}

/// # Panics
/// If a convolution of this shape has another input.
#[track_caller]
pub(super) fn check_input(map: &Map, shape: &ConvShape) {
    let [height, width] = shape.input;
    assert_eq!(map.dims(), [shape.batch, shape.in_channels, height, width], "shape of the input");
}

/// A convolution, then the epilogue.
///
/// # Panics
/// If there is no such convolution, or the input, the weight or the epilogue belongs to another one.
#[track_caller]
pub fn convolve(shape: &ConvShape, input: Source, weight: &Weight, epilogue: Epilogue) -> Map {
    let geometry = &Geometry::new(shape, shape.input_len(), shape.output_len());
    weight.check(shape);
    input.check(shape, weight.algorithm());
    epilogue.check_residual(shape.output_shape());
    let _span = profile::work(match weight.algorithm() {
        Algorithm::Depthwise => Work::Depthwise,
        _ => Work::Products,
    });
    let mut output = Map::new(shape.output_shape());
    match (weight.algorithm(), input) {
        (Algorithm::Depthwise, Source::Blocked(map)) => {
            let bias = epilogue.padded_bias(shape.out_channels);
            let filters = Filters::new(geometry, weight.values(), &bias, epilogue.activation);
            depthwise::convolve(&filters, map, epilogue.residual, &mut output);
        }
        (Algorithm::Winograd, Source::Blocked(map)) => {
            winograd::convolve(geometry, map, weight.values(), epilogue, &mut output);
        }
        _ => dense::convolve(geometry, input, weight.values(), epilogue, &mut output),
    }
    output
}
