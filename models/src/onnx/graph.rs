//! A graph of ONNX operators, written down layer by layer.

use burn::module::Param;
use burn::nn::Linear;
use burn::nn::pool::MaxPool2d;
use burn::tensor::Tensor;

use super::proto::{self, Attribute, Node, data_type};
use crate::blocks::{Activation, ConvSpec, Gate};
use crate::operators::{Evaluator, Operator, areas};
use crate::quantize::{Affine, Int8Layer, Ranges, WeightRange};

/// What a node or the input of a graph yields.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    name: String,
    /// Height and width, of a map.
    size: [usize; 2],
}

impl Value {
    pub fn new(name: &str, size: [usize; 2]) -> Self {
        Self { name: name.into(), size }
    }
}

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

/// The nodes and constants of a graph. Every method adds what one layer computes in inference and
/// returns its output; `name` is the layer's path in the network.
#[derive(Debug, Default)]
pub(crate) struct Graph<'a> {
    /// Of a graph in 8 bits.
    pub(super) int8: Option<Int8<'a>>,
    pub(super) nodes: Vec<Node>,
    pub(super) constants: Vec<proto::Tensor>,
    /// Outputs of the last linear layer.
    pub(super) outputs: usize,
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
            Operator::Subsample(zero_channels) => self.subsample(name, zero_channels, input),
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

/// Layers in 8 bits: an operator on real numbers between those that make real numbers of integers and
/// integers of real numbers, which runtimes compute as one operator on integers.
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

/// Operators on real numbers.
impl Graph<'_> {
    fn weight<const D: usize>(&mut self, name: &str, shape: &[usize], weight: Tensor<D>) -> Value {
        self.floats(&format!("{name}.weight"), shape, weight.into_data().iter())
    }

    fn bias(&mut self, name: &str, bias: Option<&Param<Tensor<1>>>) -> Option<Value> {
        let bias = bias?.val().into_data();
        let outputs = bias.num_elements();
        Some(self.floats(&format!("{name}.bias"), &[outputs], bias.iter()))
    }

    /// A convolution with explicit, symmetric padding.
    fn conv(
        &mut self,
        name: &str,
        spec: &ConvSpec,
        input: &Value,
        weight: &Value,
        bias: Option<&Value>,
    ) -> Value {
        let mut attributes = window(spec);
        attributes.push(Attribute::int("group", spec.groups as i64));
        let map = self.node("Conv", name, [Some(input), Some(weight), bias], attributes);
        Value { size: spec.output_size(input.size), ..map }
    }

    fn gemm(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: [Option<&Value>; 3],
        attributes: Vec<Attribute>,
    ) -> Value {
        self.outputs = outputs;
        self.node("Gemm", name, inputs, attributes)
    }

    /// A nonlinearity after the layer `name`.
    fn activation(&mut self, name: &str, activation: Activation, input: &Value) -> Value {
        let node = format!("{name}.{}", activation.name());
        match activation {
            Activation::Relu => self.node("Relu", &node, [input], vec![]),
            Activation::Relu6 => {
                let bounds = [("zero", 0.0), ("six", 6.0)];
                let [zero, six] = bounds.map(|(name, bound)| self.scalar(name, bound));
                self.node("Clip", &node, [input, &zero, &six], vec![])
            }
            Activation::HardSwish => self.node("HardSwish", &node, [input], vec![]),
        }
    }

    fn gate(&mut self, name: &str, gate: Gate, input: &Value) -> Value {
        match gate {
            Gate::HardSigmoid => {
                let slope =
                    vec![Attribute::float("alpha", 1.0 / 6.0), Attribute::float("beta", 0.5)];
                self.node("HardSigmoid", &format!("{name}.hard_sigmoid"), [input], slope)
            }
            Gate::Sigmoid => self.node("Sigmoid", &format!("{name}.sigmoid"), [input], vec![]),
        }
    }

    fn max_pool(&mut self, name: &str, pool: &MaxPool2d, input: &Value) -> Value {
        // The list of layers, made first, has refused any other pool.
        let spec = ConvSpec::find_max_pool(pool).expect("a window whose output is known");
        let map = self.node("MaxPool", name, [input], window(&spec));
        Value { size: spec.output_size(input.size), ..map }
    }

    fn subsample(&mut self, name: &str, zero_channels: [usize; 2], input: &Value) -> Value {
        let starts = self.ints("subsample.starts", &[0, 0]);
        let ends = self.ints("subsample.ends", &[i64::MAX, i64::MAX]);
        let axes = self.ints("subsample.axes", &[2, 3]);
        let steps = self.ints("subsample.steps", &[2, 2]);
        let bounds = [input, &starts, &ends, &axes, &steps];
        let map = self.node("Slice", &format!("{name}.slice"), bounds, vec![]);
        let [before, after] = zero_channels.map(|channels| channels as i64);
        let pads = [0, before, 0, 0, 0, after, 0, 0];
        let pads = self.ints(&format!("{name}.pads"), &pads);
        let map = self.node("Pad", &format!("{name}.pad"), [&map, &pads], vec![]);
        Value { size: ConvSpec::square([1, 1], 1, 2).output_size(input.size), ..map }
    }

    /// ONNX has no such pool but the global one: the map is multiplied from both sides.
    fn grid_means(&mut self, name: &str, grid: [usize; 2], input: &Value) -> Value {
        let [[grid_rows, grid_columns], [height, width]] = [grid, input.size];
        let rows = areas(height, grid_rows).concat();
        let rows = self.floats(&format!("{name}.rows"), &[grid_rows, height], rows.into_iter());
        let columns = areas(width, grid_columns);
        let columns = (0..width).flat_map(|at| columns.iter().map(move |area| area[at]));
        let columns = self.floats(&format!("{name}.columns"), &[width, grid_columns], columns);
        let map = self.node("MatMul", &format!("{name}.over_rows"), [&rows, input], vec![]);
        let map = self.node("MatMul", name, [&map, &columns], vec![]);
        Value { size: grid, ..map }
    }

    /// Pixels from 0 to 255 to `(pixel / 255 - mean) / std`.
    pub fn normalize(&mut self, name: &str, mean: &[f32], std: &[f32], pixels: &Value) -> Value {
        let to = Attribute::int("to", data_type::FLOAT.into());
        let map = self.node("Cast", &format!("{name}.cast"), [pixels], vec![to]);
        let shape = [1, mean.len(), 1, 1];
        let mut levels = |part: &str, values: &[f32]| {
            self.floats(&format!("{name}.{part}"), &shape, values.iter().map(|v| 255.0 * v))
        };
        let (mean, std) = (levels("mean", mean), levels("std", std));
        let map = self.node("Sub", &format!("{name}.centre"), [&map, &mean], vec![]);
        self.node("Div", &format!("{name}.scale"), [&map, &std], vec![])
    }

    /// Adds a node of one output, which has its name and, unless the caller knows better, the size
    /// of the first input.
    fn node<'a>(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: impl IntoIterator<Item = impl Into<Option<&'a Value>>>,
        attributes: Vec<Attribute>,
    ) -> Value {
        let inputs: Vec<&Value> = inputs.into_iter().filter_map(Into::into).collect();
        let size = inputs.first().map_or([1, 1], |value| value.size);
        self.nodes.push(Node {
            input: inputs.iter().map(|value| value.name.clone()).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: op_type.into(),
            attribute: attributes,
        });
        Value::new(name, size)
    }

    fn scalar(&mut self, name: &str, value: f32) -> Value {
        self.floats(name, &[], std::iter::once(value))
    }

    fn floats(&mut self, name: &str, shape: &[usize], values: impl Iterator<Item = f32>) -> Value {
        let raw_data = values.flat_map(f32::to_le_bytes).collect();
        self.constant(name, shape, data_type::FLOAT, raw_data)
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> Value {
        let raw_data = values.iter().copied().flat_map(i64::to_le_bytes).collect();
        self.constant(name, &[values.len()], data_type::INT64, raw_data)
    }

    /// Adds a constant, once by name.
    fn constant(
        &mut self,
        name: &str,
        shape: &[usize],
        data_type: i32,
        raw_data: Vec<u8>,
    ) -> Value {
        if !self.constants.iter().any(|constant| constant.name == name) {
            let dims = shape.iter().map(|&length| length as i64).collect();
            self.constants.push(proto::Tensor { dims, data_type, name: name.into(), raw_data });
        }
        Value::new(name, [1, 1])
    }
}

/// The attributes of a window.
fn window(spec: &ConvSpec) -> Vec<Attribute> {
    let [height, width] = spec.padding;
    vec![
        Attribute::ints("kernel_shape", spec.kernel_size),
        Attribute::ints("strides", spec.stride),
        Attribute::ints("pads", [height, width, height, width]),
    ]
}
