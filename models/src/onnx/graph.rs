//! A graph of ONNX operators, written down layer by layer.

use std::fmt::Display;

use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AdaptiveAvgPool2d, MaxPool2d};

use super::proto::{self, Attribute, Node, data_type};
use crate::blocks::{Activation, ConvSpec, ConvUnit, Epilogue, Gate, SqueezeExcite};
use crate::walk::Interpreter;

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

/// The nodes and constants of a graph. Every method adds what one layer computes in inference and
/// returns its output; `name` is the layer's path in the network.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) constants: Vec<proto::Tensor>,
    /// Outputs of the last linear layer.
    pub(super) outputs: usize,
}

impl<'n> Interpreter<'n> for Graph {
    type Map = Value;
    type Features = Value;

    /// One convolution with bias, whatever block the unit is, then the residual, then the
    /// activation.
    fn unit(
        &mut self,
        name: &dyn Display,
        unit: &'n ConvUnit,
        input: Value,
        epilogue: Epilogue<Value>,
    ) -> Value {
        let name = &name.to_string();
        let mut map = self.conv(name, &unit.fold(), &input);
        if let Some(residual) = epilogue.residual {
            map = self.node("Add", &format!("{name}.add"), [&map, &residual], vec![]);
        }
        self.activation_of(name, epilogue.activation, map)
    }

    fn max_pool(&mut self, name: &dyn Display, pool: &'n MaxPool2d, input: Value) -> Value {
        // The list of layers, made first, has refused any other pool.
        let window = ConvSpec::find_max_pool(pool).expect("a window whose output is known");
        let [height, width] = window.padding;
        let attributes = vec![
            Attribute::ints("kernel_shape", pool.kernel_size),
            Attribute::ints("strides", pool.stride),
            Attribute::ints("pads", [height, width, height, width]),
        ];
        let map = self.node("MaxPool", &name.to_string(), [&input], attributes);
        Value { size: window.output_size(input.size), ..map }
    }

    fn subsample(&mut self, name: &dyn Display, zero_channels: [usize; 2], input: Value) -> Value {
        let starts = self.ints("subsample.starts", &[0, 0]);
        let ends = self.ints("subsample.ends", &[i64::MAX, i64::MAX]);
        let axes = self.ints("subsample.axes", &[2, 3]);
        let steps = self.ints("subsample.steps", &[2, 2]);
        let bounds = [&input, &starts, &ends, &axes, &steps];
        let map = self.node("Slice", &format!("{name}.slice"), bounds, vec![]);
        let [before, after] = zero_channels.map(|channels| channels as i64);
        let pads = [0, before, 0, 0, 0, after, 0, 0];
        let pads = self.ints(&format!("{name}.pads"), &pads);
        let map = self.node("Pad", &format!("{name}.pad"), [&map, &pads], vec![]);
        Value { size: ConvSpec::square([1, 1], 1, 2).output_size(input.size), ..map }
    }

    fn squeeze_excite(
        &mut self,
        name: &dyn Display,
        layer: &'n SqueezeExcite,
        input: Value,
    ) -> Value {
        let [pool, fc1, fc2] = ["pool", "fc1", "fc2"].map(|part| format!("{name}.{part}"));
        let map = self.mean(&pool, &input);
        let map = self.conv(&fc1, &layer.fc1, &map);
        let map = self.activation_of(&fc1, Some(Activation::Relu), map);
        let map = self.conv(&fc2, &layer.fc2, &map);
        let weights = match layer.gate() {
            Gate::HardSigmoid => {
                let slope =
                    vec![Attribute::float("alpha", 1.0 / 6.0), Attribute::float("beta", 0.5)];
                self.node("HardSigmoid", &format!("{fc2}.hard_sigmoid"), [&map], slope)
            }
            Gate::Sigmoid => self.node("Sigmoid", &format!("{fc2}.sigmoid"), [&map], vec![]),
        };
        self.node("Mul", &name.to_string(), [&input, &weights], vec![])
    }

    fn activation(&mut self, name: &dyn Display, activation: Activation, input: Value) -> Value {
        self.activation_of(&name.to_string(), Some(activation), input)
    }

    /// ONNX has no such pool but the global one; a map of another size than the grid is multiplied from
    /// both sides.
    fn means(&mut self, name: &dyn Display, pool: &'n AdaptiveAvgPool2d, input: Value) -> Value {
        if pool.output_size == [1, 1] {
            let means = self.mean(&name.to_string(), &input);
            return self.flatten(name, &means);
        }
        if input.size == pool.output_size {
            return self.flatten(name, &input);
        }
        let [[grid_rows, grid_columns], [height, width]] = [pool.output_size, input.size];
        let rows = areas(height, grid_rows).concat();
        let rows = self.floats(&format!("{name}.rows"), &[grid_rows, height], rows.into_iter());
        let columns = areas(width, grid_columns);
        let columns = (0..width).flat_map(|at| columns.iter().map(move |area| area[at]));
        let columns = self.floats(&format!("{name}.columns"), &[width, grid_columns], columns);
        let map = self.node("MatMul", &format!("{name}.over_rows"), [&rows, &input], vec![]);
        let map = self.node("MatMul", &name.to_string(), [&map, &columns], vec![]);
        self.flatten(name, &map)
    }

    fn linear(
        &mut self,
        name: &dyn Display,
        linear: &'n Linear,
        input: Value,
        activation: Option<Activation>,
    ) -> Value {
        let name = &name.to_string();
        let [inputs, outputs] = linear.weight.lazy_shape().dims();
        self.outputs = outputs;
        let weight = linear.weight.val().into_data();
        let weight = self.floats(&format!("{name}.weight"), &[inputs, outputs], weight.iter());
        let bias = linear.bias.as_ref().map(|bias| {
            self.floats(&format!("{name}.bias"), &[outputs], bias.val().into_data().iter())
        });
        let output = self.node("Gemm", name, [Some(&input), Some(&weight), bias.as_ref()], vec![]);
        self.activation_of(name, activation, output)
    }
}

impl Graph {
    /// A convolution with explicit, symmetric padding and its bias, if it has one.
    fn conv(&mut self, name: &str, conv: &Conv2d, input: &Value) -> Value {
        let spec = ConvSpec::of(conv);
        let weight = self.floats(
            &format!("{name}.weight"),
            &spec.weight_shape(),
            conv.weight.val().into_data().iter(),
        );
        let bias = conv.bias.as_ref().map(|bias| {
            let values = bias.val().into_data();
            self.floats(&format!("{name}.bias"), &[spec.channels[1]], values.iter())
        });
        let [height, width] = spec.padding;
        let attributes = vec![
            Attribute::ints("kernel_shape", spec.kernel_size),
            Attribute::ints("strides", spec.stride),
            Attribute::ints("pads", [height, width, height, width]),
            Attribute::int("group", spec.groups as i64),
        ];
        let map = self.node("Conv", name, [Some(input), Some(&weight), bias.as_ref()], attributes);
        Value { size: spec.output_size(input.size), ..map }
    }

    /// A nonlinearity after the layer `name`.
    fn activation_of(&mut self, name: &str, activation: Option<Activation>, input: Value) -> Value {
        let Some(activation) = activation else { return input };
        match activation {
            Activation::Relu => self.node("Relu", &format!("{name}.relu"), [&input], vec![]),
            Activation::Relu6 => {
                let bounds = [("zero", 0.0), ("six", 6.0)];
                let [zero, six] = bounds.map(|(name, bound)| self.scalar(name, bound));
                self.node("Clip", &format!("{name}.relu6"), [&input, &zero, &six], vec![])
            }
            Activation::HardSwish => {
                self.node("HardSwish", &format!("{name}.hard_swish"), [&input], vec![])
            }
        }
    }

    /// `[batch, channels, height, width]` to `[batch, channels * height * width]`.
    fn flatten(&mut self, name: &dyn Display, input: &Value) -> Value {
        self.node("Flatten", &format!("{name}.flatten"), [input], vec![Attribute::int("axis", 1)])
    }

    /// Mean over all positions, `[batch, channels, 1, 1]`.
    fn mean(&mut self, name: &str, input: &Value) -> Value {
        let means = self.node("GlobalAveragePool", name, [input], vec![]);
        Value { size: [1, 1], ..means }
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

/// The weights of the positions of a side in the means of its areas. Area `i` of `n` reaches from
/// `i / n` of the side, rounded down, to `(i + 1) / n`, rounded up.
fn areas(side: usize, count: usize) -> Vec<Vec<f32>> {
    let area = |index: usize| {
        let (start, end) = (index * side / count, ((index + 1) * side).div_ceil(count));
        let weight = 1.0 / (end - start) as f32;
        (0..side).map(|at| if (start..end).contains(&at) { weight } else { 0.0 }).collect()
    };
    (0..count).map(area).collect()
}
