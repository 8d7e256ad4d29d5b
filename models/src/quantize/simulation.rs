//! What runtimes with integer kernels compute, integer by integer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor, TensorData};
use dbb_kernels::ConvShape;
use dbb_kernels::int8::{self, Affine, Rounding};

use super::layer::{Int8Layer, WeightRange};
use super::range::Ranges;
use crate::blocks::{Activation, ConvSpec};
use crate::operators::{Evaluator, Map, Operator};

/// Computes layers, sums and means in integers; everything else by its definition, on the real numbers
/// that integers stand for.
pub(super) struct Simulation<'a> {
    ranges: &'a Ranges,
    weights: WeightRange,
    layers: &'a RefCell<BTreeMap<String, Rc<Int8Layer>>>,
    device: Device,
}

/// A map of integers, `[batch, channels, height, width]`.
#[derive(Clone)]
pub(super) struct Integers {
    dims: [usize; 4],
    data: Rc<Vec<u8>>,
    affine: Affine,
}

impl<'a> Simulation<'a> {
    pub fn new(
        ranges: &'a Ranges,
        weights: WeightRange,
        layers: &'a RefCell<BTreeMap<String, Rc<Int8Layer>>>,
        device: Device,
    ) -> Self {
        Self { ranges, weights, layers, device }
    }

    /// The integers of a layer, made once: its input always has the same range.
    fn layer(&self, name: &str, make: impl FnOnce() -> Int8Layer) -> Rc<Int8Layer> {
        if let Some(layer) = self.layers.borrow().get(name) {
            return layer.clone();
        }
        let layer = Rc::new(make());
        self.layers.borrow_mut().insert(name.to_string(), layer.clone());
        layer
    }

    fn conv(&self, name: &str, conv: &Conv2d, input: &Integers, output: Affine) -> Integers {
        let layer = self.layer(name, || Int8Layer::of_conv(conv, input.affine, self.weights));
        let spec = ConvSpec::of(conv);
        let [batch, _, height, width] = input.dims;
        let shape = ConvShape {
            batch,
            in_channels: spec.channels[0],
            out_channels: spec.channels[1],
            input: [height, width],
            kernel: spec.kernel_size,
            stride: spec.stride,
            padding: spec.padding,
            groups: spec.groups,
        };
        let scales = output_scales(&layer, input.affine, output);
        let rounding =
            Rounding { bias: &layer.bias, scale: &scales, zero_point: output.zero_point };
        let mut data = vec![0; shape.output_len()];
        let zero_point = input.affine.zero_point;
        int8::conv(&shape, &input.data, zero_point, &layer.weight, &rounding, &mut data);
        Integers { dims: shape.output_shape(), data: Rc::new(data), affine: output }
    }

    /// A linear layer, as a convolution of one position.
    fn linear(&self, name: &str, linear: &Linear, input: &Integers, output: Affine) -> Integers {
        let (layer, sums) = self.sums(name, linear, input);
        let scales = output_scales(&layer, input.affine, output);
        let outputs = scales.len();
        let zero = f32::from(output.zero_point);
        let data = sums.iter().enumerate().map(|(index, &sum)| {
            let multiple = sum as f32 * scales[index % outputs];
            (multiple.round_ties_even() + zero).clamp(0.0, 255.0) as u8
        });
        let dims = [input.dims[0], outputs, 1, 1];
        Integers { dims, data: Rc::new(data.collect()), affine: output }
    }

    /// The sums of a linear layer with their bias, `[batch, out]`.
    fn sums(&self, name: &str, linear: &Linear, input: &Integers) -> (Rc<Int8Layer>, Vec<i32>) {
        let layer = self.layer(name, || Int8Layer::of_linear(linear, input.affine, self.weights));
        let inputs = input.data.len() / input.dims[0];
        let zero_point = input.affine.zero_point;
        let mut sums = int8::linear(inputs, &input.data, zero_point, &layer.weight);
        for row in sums.chunks_exact_mut(layer.bias.len()) {
            row.iter_mut().zip(&layer.bias).for_each(|(sum, bias)| *sum += bias);
        }
        (layer, sums)
    }

    fn real(&self, values: Vec<f32>, dims: [usize; 4]) -> Map {
        Tensor::from_data(TensorData::new(values, dims), &self.device)
    }
}

/// The scales of the sums of a layer over that of its output.
fn output_scales(layer: &Int8Layer, input: Affine, output: Affine) -> Vec<f32> {
    layer.sum_scales(input).iter().map(|scale| scale / output.scale).collect()
}

impl Evaluator for Simulation<'_> {
    type Real = Map;
    type Integers = Integers;

    fn apply(&mut self, _: &str, operator: Operator<'_>, inputs: &[&Map]) -> Map {
        operator.compute(inputs)
    }

    fn size(&self, map: &Map) -> [usize; 2] {
        let [_, _, height, width] = map.dims();
        [height, width]
    }

    fn quantize(&mut self, value: &str, numbers: &Map) -> Integers {
        let affine = self.ranges.affine(value);
        let data = numbers.clone().into_data().convert::<f32>();
        // Converted to it.
        let data = affine.quantize(data.as_slice::<f32>().expect("floats"));
        Integers { dims: numbers.dims(), data: Rc::new(data), affine }
    }

    fn dequantize(&mut self, integers: &Integers) -> Map {
        self.real(integers.affine.dequantize(&integers.data), integers.dims)
    }

    fn apply_to_integers(
        &mut self,
        name: &str,
        operator: Operator<'_>,
        inputs: &[&Integers],
        _: Option<Activation>,
        to: &str,
    ) -> Integers {
        let output = self.ranges.affine(to);
        let [batch, channels, height, width] = inputs[0].dims;
        match (operator, inputs) {
            (Operator::Conv(conv), [input]) => self.conv(name, conv, input, output),
            (Operator::Linear(linear), [input]) => self.linear(name, linear, input, output),
            (Operator::Add, [a, b]) => {
                let data = int8::add([&a.data, &b.data], [a.affine, b.affine], output);
                Integers { dims: a.dims, data: Rc::new(data), affine: output }
            }
            (Operator::Mean, [input]) => {
                let data = int8::mean(&input.data, height * width, input.affine, output);
                let dims = [batch, channels, 1, 1];
                Integers { dims, data: Rc::new(data), affine: output }
            }
            (Operator::Flatten, [input]) => {
                Integers { dims: [batch, channels * height * width, 1, 1], ..(*input).clone() }
            }
            _ => {
                let numbers: Vec<_> = inputs.iter().map(|input| self.dequantize(input)).collect();
                let numbers: Vec<_> = numbers.iter().collect();
                let output = self.apply(name, operator, &numbers);
                self.quantize(to, &output)
            }
        }
    }

    fn linear_of_integers(&mut self, name: &str, linear: &Linear, input: &Integers) -> Map {
        let (layer, sums) = self.sums(name, linear, input);
        let scales = layer.sum_scales(input.affine);
        let outputs = scales.len();
        let logits = sums.iter().enumerate().map(|(at, &sum)| sum as f32 * scales[at % outputs]);
        self.real(logits.collect(), [input.dims[0], outputs, 1, 1])
    }
}
