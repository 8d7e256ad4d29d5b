//! A network as a graph, in `f32` or in 8 bits.
//!
//! In 8 bits every operator stands between those that make real numbers of its inputs and integers of its
//! output; runtimes compute the three as one operator on integers.

use burn::nn::Linear;

use super::graph::{Graph, Value};
use super::proto::{Attribute, data_type};
use crate::blocks::{Activation, ConvSpec};
use crate::operators::{Evaluator, Operator};
use crate::quantize::{Affine, Int8Layer, Ranges, WeightRange};

/// Integers of 8 bits.
#[derive(Clone, Debug)]
pub(crate) struct Integers {
    map: Value,
    /// Name of the real numbers they were rounded from.
    of: String,
    /// Name of their range.
    range: String,
    affine: Affine,
}

/// What a graph in 8 bits needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Int8<'a> {
    pub ranges: &'a Ranges,
    pub weights: WeightRange,
}

impl Evaluator for Graph<'_> {
    type Real = Value;
    type Integers = Integers;

    fn apply(&mut self, name: &str, operator: Operator<'_>, inputs: &[&Value]) -> Value {
        let input = inputs[0];
        match operator {
            Operator::Conv(conv) => {
                let spec = ConvSpec::of(conv);
                let weight = self.weight(name, &spec.weight_shape(), conv.weight.val());
                let bias = self.bias(name, conv.bias.as_ref());
                self.conv(name, &spec, input, &weight, bias.as_ref())
            }
            Operator::Linear(linear) => {
                let [inputs, outputs] = linear.weight.lazy_shape().dims();
                let weight = self.weight(name, &[inputs, outputs], linear.weight.val());
                let bias = self.bias(name, linear.bias.as_ref());
                self.gemm(name, outputs, [Some(input), Some(&weight), bias.as_ref()], vec![])
            }
            Operator::Add => self.node("Add", name, inputs.iter().copied(), vec![]),
            Operator::Activation(activation) => self.activation(name, activation, input),
            Operator::Gate(gate) => self.gate(name, gate, input),
            Operator::Scale => self.node("Mul", name, inputs.iter().copied(), vec![]),
            Operator::MaxPool(pool) => self.max_pool(name, pool, input),
            Operator::Subsample(zero_channels) => self.subsample(name, zero_channels, input, None),
            Operator::Mean => {
                let means = self.node("GlobalAveragePool", name, [input], vec![]);
                Value { size: [1, 1], ..means }
            }
            Operator::GridMeans(grid) => self.grid_means(name, grid, input),
            Operator::Flatten => {
                let axis = vec![Attribute::int("axis", 1)];
                self.node("Flatten", &format!("{name}.flatten"), [input], axis)
            }
        }
    }

    fn size(&self, map: &Value) -> [usize; 2] {
        map.size
    }

    fn quantize(&mut self, value: &str, numbers: &Value) -> Integers {
        let affine = self.int8().ranges.affine(value);
        let [scale, zero_point] = self.affine(value, affine);
        let name = format!("{}.quantized", numbers.name);
        let map = self.node("QuantizeLinear", &name, [numbers, &scale, &zero_point], vec![]);
        Integers { of: numbers.name.clone(), map, range: value.into(), affine }
    }

    fn dequantize(&mut self, integers: &Integers) -> Value {
        let name = format!("{}.dequantized", integers.of);
        if self.nodes.iter().any(|node| node.name == name) {
            return Value { name, size: integers.map.size };
        }
        let [scale, zero_point] = self.affine(&integers.range, integers.affine);
        self.node("DequantizeLinear", &name, [&integers.map, &scale, &zero_point], vec![])
    }

    fn apply_to_integers(
        &mut self,
        name: &str,
        operator: Operator<'_>,
        inputs: &[&Integers],
        _: Option<Activation>,
        to: &str,
    ) -> Integers {
        if let Operator::Subsample(zero_channels) = operator {
            // Runtimes have no fused operator for it, but each takes integers.
            let zero = self.affine(&inputs[0].range, inputs[0].affine)[1].clone();
            let map = self.subsample(name, zero_channels, &inputs[0].map, Some(&zero));
            return Integers { of: map.name.clone(), map, ..inputs[0].clone() };
        }
        let numbers: Vec<_> = inputs.iter().map(|input| self.dequantize(input)).collect();
        let output = match operator {
            Operator::Conv(conv) => {
                let spec = ConvSpec::of(conv);
                let layer = Int8Layer::of_conv(conv, inputs[0].affine, self.int8().weights);
                let [weight, bias] =
                    self.int8_layer(name, &spec.weight_shape(), &layer, inputs[0].affine);
                self.conv(name, &spec, &numbers[0], &weight, Some(&bias))
            }
            Operator::Linear(linear) => self.int8_gemm(name, linear, inputs[0], &numbers[0]),
            _ => self.apply(name, operator, &numbers.iter().collect::<Vec<_>>()),
        };
        self.quantize(to, &output)
    }

    fn linear_of_integers(&mut self, name: &str, linear: &Linear, input: &Integers) -> Value {
        let numbers = self.dequantize(input);
        self.int8_gemm(name, linear, input, &numbers)
    }
}

impl Graph<'_> {
    fn int8(&self) -> Int8<'_> {
        // Nothing is rounded in a graph without them.
        self.int8.expect("a graph in 8 bits has ranges")
    }

    /// Scale and zero point of a range as constants.
    fn affine(&mut self, range: &str, affine: Affine) -> [Value; 2] {
        let scale = self.scalar(&format!("{range}.scale"), affine.scale);
        let zero_point = vec![affine.zero_point];
        let name = format!("{range}.zero_point");
        [scale, self.constant(&name, &[], data_type::UINT8, zero_point)]
    }

    /// Weight and bias of a layer as real numbers, from integers.
    fn int8_layer(
        &mut self,
        name: &str,
        shape: &[usize],
        layer: &Int8Layer,
        input: Affine,
    ) -> [Value; 2] {
        let outputs = layer.bias.len();
        let bytes = layer.weight.iter().map(|&w| w as u8).collect();
        let weight = format!("{name}.weight");
        let integers = self.constant(&format!("{weight}.int8"), shape, data_type::INT8, bytes);
        let scales = layer.scales.iter().copied();
        let scale = self.floats(&format!("{weight}.scale"), &[outputs], scales);
        let zeros = vec![0; outputs];
        let zero_point = format!("{weight}.zero_point");
        let zero_point = self.constant(&zero_point, &[outputs], data_type::INT8, zeros);
        let axis = || vec![Attribute::int("axis", 0)];
        let inputs = [&integers, &scale, &zero_point];
        let weight = self.node("DequantizeLinear", &weight, inputs, axis());
        let bias = format!("{name}.bias");
        let bytes = layer.bias.iter().copied().flat_map(i32::to_le_bytes).collect();
        let integers = self.constant(&format!("{bias}.int32"), &[outputs], data_type::INT32, bytes);
        let scales = layer.sum_scales(input).into_iter();
        let scale = self.floats(&format!("{bias}.scale"), &[outputs], scales);
        [weight, self.node("DequantizeLinear", &bias, [&integers, &scale], axis())]
    }

    fn int8_gemm(
        &mut self,
        name: &str,
        linear: &Linear,
        input: &Integers,
        numbers: &Value,
    ) -> Value {
        let [inputs, outputs] = linear.weight.lazy_shape().dims();
        let layer = Int8Layer::of_linear(linear, input.affine, self.int8().weights);
        let [weight, bias] = self.int8_layer(name, &[outputs, inputs], &layer, input.affine);
        let transposed = vec![Attribute::int("transB", 1)];
        self.gemm(name, outputs, [Some(numbers), Some(&weight), Some(&bias)], transposed)
    }
}
