//! What runtimes with integer kernels compute, integer by integer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor, TensorData};
use dbb_kernels::int8::{self, Affine};

use super::layer::{Int8Layer, WeightRange};
use super::range::Ranges;
use crate::blocks::{Activation, ConvSpec};
use crate::operators::{Evaluator, IMAGES, Map, Operator};

/// Computes layers, sums and means in integers; everything else by its definition, on the real numbers
/// that integers stand for.
pub(super) struct Simulation<'a> {
    ranges: &'a Ranges,
    weights: WeightRange,
    layers: &'a RefCell<BTreeMap<String, Rc<Int8Layer>>>,
    device: Device,
    /// What operators have made of the same images, where runs share it.
    shared: Option<&'a Shared>,
}

/// Inputs and outputs of operators in the first of several runs over the same images, by name of the
/// operator and its output.
pub(super) type Shared = RefCell<BTreeMap<[String; 2], (Vec<Integers>, Integers)>>;

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
        Self { ranges, weights, layers, device, shared: None }
    }

    /// With what other runs over the same images have computed.
    pub fn sharing(self, shared: &'a Shared) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// The output of an operator, from a run before if its inputs are the same there.
    fn shared(
        &mut self,
        [name, to]: [&str; 2],
        inputs: &[&Integers],
        compute: impl FnOnce(&mut Self) -> Integers,
    ) -> Integers {
        let Some(shared) = self.shared else { return compute(self) };
        let key = [name, to].map(str::to_string);
        if let Some((before, output)) = shared.borrow().get(&key) {
            let is_same = |(a, b): (&Integers, &&Integers)| Rc::ptr_eq(&a.data, &b.data);
            if before.iter().zip(inputs).all(is_same) {
                return output.clone();
            }
        }
        let output = compute(self);
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        shared.borrow_mut().entry(key).or_insert((inputs, output.clone()));
        output
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
        let shape = spec.over(input.dims);
        let sums = int8::conv(&shape, &input.data, input.affine.zero_point, &layer.weight);
        rounded(&layer, input.affine, &sums, shape.output_shape(), output)
    }

    fn linear(&self, name: &str, linear: &Linear, input: &Integers, output: Affine) -> Integers {
        let (layer, sums) = self.sums(name, linear, input);
        let dims = [input.dims[0], layer.bias.len(), 1, 1];
        rounded(&layer, input.affine, &sums, dims, output)
    }

    /// The sums of a linear layer, `[batch, out]`.
    fn sums(&self, name: &str, linear: &Linear, input: &Integers) -> (Rc<Int8Layer>, Vec<i32>) {
        let layer = self.layer(name, || Int8Layer::of_linear(linear, input.affine, self.weights));
        let inputs = input.data.len() / input.dims[0];
        let zero_point = input.affine.zero_point;
        let sums = int8::linear(inputs, &input.data, zero_point, &layer.weight);
        (layer, sums)
    }

    fn compute(
        &mut self,
        name: &str,
        operator: Operator<'_>,
        inputs: &[&Integers],
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
                self.round(to, &output)
            }
        }
    }

    fn round(&self, value: &str, numbers: &Map) -> Integers {
        let affine = self.ranges.affine(value);
        let data = numbers.clone().into_data().convert::<f32>();
        // Converted to it.
        let data = affine.quantize(data.as_slice::<f32>().expect("floats"));
        Integers { dims: numbers.dims(), data: Rc::new(data), affine }
    }

    fn real(&self, values: Vec<f32>, dims: [usize; 4]) -> Map {
        Tensor::from_data(TensorData::new(values, dims), &self.device)
    }
}

/// The sums of a layer with its bias, rounded to the range of its output.
fn rounded(
    layer: &Int8Layer,
    input: Affine,
    sums: &[i32],
    dims: [usize; 4],
    affine: Affine,
) -> Integers {
    let scales: Vec<_> = layer.sum_scales(input).iter().map(|scale| scale / affine.scale).collect();
    let [_, _, height, width] = dims;
    let data = int8::requantize(sums, height * width, &layer.bias, &scales, affine.zero_point);
    Integers { dims, data: Rc::new(data), affine }
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
        if value == IMAGES {
            // Those of every run.
            return self.shared([value, value], &[], |simulation| simulation.round(value, numbers));
        }
        self.round(value, numbers)
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
        self.shared([name, to], inputs, |simulation| simulation.compute(name, operator, inputs, to))
    }

    fn linear_of_integers(&mut self, name: &str, linear: &Linear, input: &Integers) -> Map {
        let (layer, sums) = self.sums(name, linear, input);
        let scales = layer.sum_scales(input.affine);
        let outputs = scales.len();
        let logits = sums.iter().enumerate().map(|(at, sum)| {
            let output = at % outputs;
            (sum + layer.bias[output]) as f32 * scales[output]
        });
        self.real(logits.collect(), [input.dims[0], outputs, 1, 1])
    }
}
