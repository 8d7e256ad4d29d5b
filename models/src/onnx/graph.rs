//! A graph of ONNX operators, written down one by one.

use burn::module::Param;
use burn::nn::pool::MaxPool2d;
use burn::tensor::Tensor;

use super::evaluate::Int8;
use super::proto::{self, Attribute, Node, data_type};
use crate::blocks::{Activation, ConvSpec, Gate};
use crate::operators::areas;

/// What a node or the input of a graph yields.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub name: String,
    /// Height and width, of a map.
    pub size: [usize; 2],
}

impl Value {
    pub fn new(name: &str, size: [usize; 2]) -> Self {
        Self { name: name.into(), size }
    }
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

/// Operators on real numbers.
impl Graph<'_> {
    pub fn weight<const D: usize>(
        &mut self,
        name: &str,
        shape: &[usize],
        weight: Tensor<D>,
    ) -> Value {
        self.floats(&format!("{name}.weight"), shape, weight.into_data().iter())
    }

    pub fn bias(&mut self, name: &str, bias: Option<&Param<Tensor<1>>>) -> Option<Value> {
        let bias = bias?.val().into_data();
        let outputs = bias.num_elements();
        Some(self.floats(&format!("{name}.bias"), &[outputs], bias.iter()))
    }

    /// A convolution with explicit, symmetric padding.
    pub fn conv(
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

    pub fn gemm(
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
    pub fn activation(&mut self, name: &str, activation: Activation, input: &Value) -> Value {
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

    pub fn gate(&mut self, name: &str, gate: Gate, input: &Value) -> Value {
        match gate {
            Gate::HardSigmoid => {
                let slope =
                    vec![Attribute::float("alpha", 1.0 / 6.0), Attribute::float("beta", 0.5)];
                self.node("HardSigmoid", &format!("{name}.hard_sigmoid"), [input], slope)
            }
            Gate::Sigmoid => self.node("Sigmoid", &format!("{name}.sigmoid"), [input], vec![]),
        }
    }

    pub fn max_pool(&mut self, name: &str, pool: &MaxPool2d, input: &Value) -> Value {
        // The list of layers, made first, has refused any other pool.
        let spec = ConvSpec::find_max_pool(pool).expect("a window whose output is known");
        let map = self.node("MaxPool", name, [input], window(&spec));
        Value { size: spec.output_size(input.size), ..map }
    }

    /// `zero` is what stands for zero in the map, unless that is the number itself.
    pub fn subsample(
        &mut self,
        name: &str,
        zero_channels: [usize; 2],
        input: &Value,
        zero: Option<&Value>,
    ) -> Value {
        let starts = self.ints("subsample.starts", &[0, 0]);
        let ends = self.ints("subsample.ends", &[i64::MAX, i64::MAX]);
        let axes = self.ints("subsample.axes", &[2, 3]);
        let steps = self.ints("subsample.steps", &[2, 2]);
        let bounds = [input, &starts, &ends, &axes, &steps];
        let map = self.node("Slice", &format!("{name}.slice"), bounds, vec![]);
        let [before, after] = zero_channels.map(|channels| channels as i64);
        let pads = [0, before, 0, 0, 0, after, 0, 0];
        let pads = self.ints(&format!("{name}.pads"), &pads);
        let map = self.node("Pad", &format!("{name}.pad"), [Some(&map), Some(&pads), zero], vec![]);
        Value { size: ConvSpec::square([1, 1], 1, 2).output_size(input.size), ..map }
    }

    /// ONNX has no such pool but the global one: the map is multiplied from both sides.
    pub fn grid_means(&mut self, name: &str, grid: [usize; 2], input: &Value) -> Value {
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
    pub fn node<'a>(
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

    pub fn scalar(&mut self, name: &str, value: f32) -> Value {
        self.floats(name, &[], std::iter::once(value))
    }

    pub fn floats(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl Iterator<Item = f32>,
    ) -> Value {
        let raw_data = values.flat_map(f32::to_le_bytes).collect();
        self.constant(name, shape, data_type::FLOAT, raw_data)
    }

    pub fn ints(&mut self, name: &str, values: &[i64]) -> Value {
        let raw_data = values.iter().copied().flat_map(i64::to_le_bytes).collect();
        self.constant(name, &[values.len()], data_type::INT64, raw_data)
    }

    /// Adds a constant, once by name.
    pub fn constant(
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
