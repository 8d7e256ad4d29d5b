//! Writing networks as ONNX, for the runtimes and compilers that read it.
//!
//! A file holds the folded network: one `Conv` with bias for every unit, whatever block it was,
//! and no batch norm. Operator set 18 (ONNX 1.13), weights in `f32` under the native names of the
//! deploy form.
//!
//! | | name | type | shape |
//! |---|---|---|---|
//! | input | `images` | `float`, normalised; or `uint8`, pixels from 0 to 255 ([`Normalization`]) | `[batch, channels, height, width]` |
//! | output | `logits` | `float` | `[batch, classes]` |
//!
//! [`write_onnx_int8`] writes a network in 8 bits: the same operators, between nodes that say which integers
//! stand for their inputs and outputs.
//!
//! `batch` is free. The entry `dbb_zoo` of the file's metadata holds [`Metadata`] as JSON, with
//! preprocessing and class names. Equal networks are equal bytes.

mod evaluate;
mod graph;
mod proto;

use std::io;
use std::path::Path;

use prost::Message;

use crate::backbones::Classifier;
use crate::error::ConfigError;
use crate::form::Form;
use crate::operators::{IMAGES, Lowered};
use crate::quantize::Int8Network;
use crate::walk::Walk;
use crate::weights::{Dialect, Metadata, WeightsError, write_atomically};
use evaluate::Int8;
use graph::{Graph, Value};
use proto::{Dimension, ValueInfo, data_type};

/// Version of ONNX's operators that files are written in.
pub const OPSET: i64 = 18;

/// Version of the file format that came with [`OPSET`].
const IR_VERSION: i64 = 8;

/// Readers refuse longer messages of protobuf.
const MAX_BYTES: usize = i32::MAX as usize;

/// The images a graph takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Height and width.
    pub size: [usize; 2],
    /// What the graph itself does to pixels from 0 to 255; without it, it takes normalised images.
    pub normalization: Option<Normalization>,
}

/// `(pixel / 255 - mean) / std`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean per channel, on the 0 to 1 scale.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, on the 0 to 1 scale.
    pub std: Vec<f32>,
}

/// What a file says of its network besides the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Name of the graph, such as the architecture.
    pub name: String,
    /// Channels of the images.
    pub channels: usize,
    /// Entries of the file's metadata, keys and values.
    pub metadata: Vec<(String, String)>,
}

/// Writes a network of the zoo as ONNX with its metadata, folded if it is not yet, whole or not at
/// all.
///
/// # Errors
/// As [`write_onnx_of`].
pub fn write_onnx(
    path: &Path,
    network: &Classifier,
    metadata: &Metadata,
    input: &Input,
) -> Result<(), WeightsError> {
    write_onnx_of(path, network, &Description::of(metadata), input)
}

/// Writes any network that has a [`Walk`] as ONNX, folded if it is not yet, whole or not at all.
///
/// # Errors
/// What [`Walk::layers`] refuses; constants that are not one per channel; a network above the 2 GiB that ONNX files can hold;
/// what the file system reports.
pub fn write_onnx_of(
    path: &Path,
    network: &impl Walk,
    description: &Description,
    input: &Input,
) -> Result<(), WeightsError> {
    // The graph has no place for a window that the layers do not tell of.
    network.layers(input.size)?;
    write(path, &model(network, description, input)?)
}

/// Writes a network in 8 bits as ONNX, whole or not at all: weights as `int8` and biases as `int32`, and a
/// `QuantizeLinear` and a `DequantizeLinear` where a value becomes integers. Runtimes compute the operators
/// between them with integers. Layers that stay in `f32` are written as by [`write_onnx_of`].
///
/// # Errors
/// As [`write_onnx_of`].
pub fn write_onnx_int8<N: Walk>(
    path: &Path,
    network: &Int8Network<'_, N>,
    description: &Description,
    input: &Input,
) -> Result<(), WeightsError> {
    network.network.layers(input.size)?;
    write(path, &int8_model(network, description, input)?)
}

impl Description {
    /// That of a network of the zoo.
    pub fn of(metadata: &Metadata) -> Self {
        let metadata = Metadata { form: Form::Deploy, keys: Dialect::Native, ..metadata.clone() };
        // Plain data with string keys always serialises.
        let json = serde_json::to_string(&metadata).expect("metadata is plain data");
        Self {
            name: metadata.model.arch.to_string(),
            channels: metadata.model.in_channels,
            metadata: vec![(Metadata::KEY.into(), json)],
        }
    }
}

fn write(path: &Path, model: &proto::Model) -> Result<(), WeightsError> {
    let refused = |source| WeightsError::Io { action: "write", path: path.into(), source };
    let length = model.encoded_len();
    if length > MAX_BYTES {
        let text = format!(
            "an ONNX file holds at most 2 GiB, this network takes {} MiB; make it narrower",
            length >> 20
        );
        return Err(refused(io::Error::new(io::ErrorKind::FileTooLarge, text)));
    }
    write_atomically(path, &model.encode_to_vec()).map_err(refused)
}

fn model(
    network: &impl Walk,
    description: &Description,
    input: &Input,
) -> Result<proto::Model, ConfigError> {
    let mut graph = Graph::default();
    let (images, network_input) = images(&mut graph, description, input)?;
    Lowered::run(network, &mut graph, &|_| true, network_input);
    Ok(finished(graph, images, description))
}

fn int8_model<N: Walk>(
    network: &Int8Network<'_, N>,
    description: &Description,
    input: &Input,
) -> Result<proto::Model, ConfigError> {
    let int8 = Int8 { ranges: &network.ranges, weights: network.weights };
    let mut graph = Graph { int8: Some(int8), ..Graph::default() };
    let (images, network_input) = images(&mut graph, description, input)?;
    network.run(&mut graph, network_input);
    Ok(finished(graph, images, description))
}

/// The input of a graph, and what it makes of it for the network.
fn images(
    graph: &mut Graph,
    description: &Description,
    input: &Input,
) -> Result<(ValueInfo, Value), ConfigError> {
    let images = Value::new(IMAGES, input.size);
    let (elem_type, meaning, network_input) = match &input.normalization {
        None => (data_type::FLOAT, "normalised images", images),
        Some(normalization) => {
            let Normalization { mean, std } = normalization;
            check(description.channels, normalization)?;
            let normalised = graph.normalize("normalize", mean, std, &images);
            (data_type::UINT8, "pixels from 0 to 255", normalised)
        }
    };
    let [channels, height, width] =
        [description.channels, input.size[0], input.size[1]].map(Dimension::fixed);
    let shape = vec![Dimension::named("batch"), channels, height, width];
    Ok((ValueInfo::new(IMAGES, elem_type, shape, meaning), network_input))
}

fn finished(mut graph: Graph, images: ValueInfo, description: &Description) -> proto::Model {
    // Every network ends with its classifier.
    if let Some(classifier) = graph.nodes.last_mut() {
        classifier.output = vec!["logits".into()];
    }
    let scores = vec![Dimension::named("batch"), Dimension::fixed(graph.outputs)];
    let property = |(key, value): &(String, String)| proto::Property {
        key: key.clone(),
        value: value.clone(),
    };
    proto::Model {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: OPSET }],
        graph: Some(proto::Graph {
            node: graph.nodes,
            name: description.name.clone(),
            initializer: graph.constants,
            input: vec![images],
            output: vec![ValueInfo::new("logits", data_type::FLOAT, scores, "class scores")],
        }),
        metadata_props: description.metadata.iter().map(property).collect(),
    }
}

fn check(channels: usize, normalization: &Normalization) -> Result<(), ConfigError> {
    let Normalization { mean, std } = normalization;
    for (option, values) in [("mean", mean), ("std", std)] {
        if values.len() != channels {
            let expected = "one value per channel of the images";
            return Err(ConfigError::Option { option, value: format!("{values:?}"), expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::quantize::{Calibration, RangeMethod, WeightRange};
    use crate::{Arch, BlockKind, ModelConfig};
    use burn::tensor::{Device, Distribution, Tensor};

    /// One convolution for every unit and squeeze, no batch norm, nothing unused, names unique.
    #[test]
    fn a_graph_is_the_folded_network_and_no_more() {
        for (arch, squeezes) in [
            (Arch::ResNet18, 0),
            (Arch::ResNet20, 0),
            (Arch::MobileNetV1, 0),
            (Arch::MobileNetV2, 0),
            (Arch::MobileNetV3Large, 8),
        ] {
            let config = ModelConfig { width: 0.125, ..ModelConfig::new(arch, BlockKind::Dbb, 10) };
            let network = config.init(Form::Train, &Device::default()).unwrap();
            let mut graph = Graph::default();
            Lowered::run(&network, &mut graph, &|_| true, Value::new(IMAGES, [32, 32]));

            let convs = graph.nodes.iter().filter(|node| node.op_type == "Conv");
            let units = network.units().len();
            assert_eq!(convs.clone().count(), units + 2 * squeezes, "{arch}");
            assert!(convs.clone().all(|node| node.input.len() == 3), "{arch}: a bias is missing");
            assert!(graph.nodes.iter().all(|node| node.op_type != "BatchNormalization"), "{arch}");

            let used: BTreeSet<_> = graph.nodes.iter().flat_map(|node| &node.input).collect();
            let constants = graph.constants.iter().map(|constant| &constant.name);
            assert!(constants.clone().all(|name| used.contains(name)), "{arch}: unused constant");
            let names: BTreeSet<_> =
                graph.nodes.iter().map(|node| &node.name).chain(constants).collect();
            assert_eq!(names.len(), graph.nodes.len() + graph.constants.len(), "{arch}: names");
        }
    }

    /// The constant of a name.
    fn constant<'a>(graph: &'a proto::Graph, name: &str) -> &'a proto::Tensor {
        let found = graph.initializer.iter().find(|constant| constant.name == name);
        found.unwrap_or_else(|| panic!("no constant {name}"))
    }

    fn floats(graph: &proto::Graph, name: &str) -> Vec<f32> {
        let bytes = constant(graph, name).raw_data.chunks_exact(4);
        bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Around every layer stand the nodes that runtimes fuse with it: its inputs are real numbers from
    /// integers, weights of one scale per output, biases in the units of the sums, and its output becomes
    /// integers before anything else reads it.
    #[test]
    fn a_graph_in_8_bits_can_be_read_back() {
        let device = Device::default();
        for (arch, kept) in [(Arch::ResNet18, "stage2.0.conv2"), (Arch::MobileNetV2, "stem")] {
            let config =
                ModelConfig { width: 0.125, ..ModelConfig::new(arch, BlockKind::Base, 10) };
            let network = config.init(Form::Deploy, &device).unwrap();
            let images = Tensor::random([2, 3, 32, 32], Distribution::Default, &device);
            let mut calibration = Calibration::new(RangeMethod::MinMax);
            calibration.observe(&network, images);
            let ranges = calibration.ranges().unwrap();
            let int8 = Int8Network::new(&network, ranges, WeightRange::Full).unwrap();
            let int8 = int8.with_float_layers(&[kept.into()]).unwrap();
            let description = Description { name: "net".into(), channels: 3, metadata: Vec::new() };
            let input = Input { size: [32, 32], normalization: None };
            let bytes = int8_model(&int8, &description, &input).unwrap().encode_to_vec();
            let graph = proto::Model::decode(&*bytes).unwrap().graph.unwrap();

            let producer = |value: &str| graph.node.iter().find(|node| node.output[0] == value);
            let made_by = |value: &str, op_type: &str| {
                let node = producer(value).unwrap_or_else(|| panic!("{value} is a constant"));
                assert_eq!(node.op_type, op_type, "{arch}: {value}");
                node
            };
            let layers = ["Conv", "Gemm"];
            let layers = graph.node.iter().filter(|node| layers.contains(&&*node.op_type));
            assert_eq!(layers.clone().count(), network.layer_names().len());
            for layer in layers.filter(|layer| layer.name != kept) {
                let map = made_by(&layer.input[0], "DequantizeLinear");
                assert_eq!(constant(&graph, &map.input[2]).data_type, data_type::UINT8);
                made_by(&map.input[0], "QuantizeLinear");
                let weight = made_by(&layer.input[1], "DequantizeLinear");
                let integers = constant(&graph, &weight.input[0]);
                assert_eq!(integers.data_type, data_type::INT8);
                assert!(constant(&graph, &weight.input[2]).raw_data.iter().all(|zero| *zero == 0));
                let bias = made_by(&layer.input[2], "DequantizeLinear");
                assert_eq!(constant(&graph, &bias.input[0]).data_type, data_type::INT32);
                let [input, weights, sums] =
                    [map, weight, bias].map(|node| floats(&graph, &node.input[1]));
                assert_eq!((input.len(), weights.len()), (1, integers.dims[0] as usize));
                let expected: Vec<_> = weights.iter().map(|weight| input[0] * weight).collect();
                assert_eq!(sums, expected, "{arch}: {}", layer.name);
                let output = &layer.output[0];
                let readers = graph.node.iter().filter(|node| node.input.contains(output));
                let readers: Vec<_> = readers.map(|node| &*node.op_type).collect();
                let logits: &[&str] = if output == "logits" { &[] } else { &["QuantizeLinear"] };
                assert_eq!(readers, logits, "{arch}: {}", layer.name);
            }
            let kept = graph.node.iter().find(|node| node.name == kept).unwrap();
            assert_eq!(constant(&graph, &kept.input[1]).data_type, data_type::FLOAT);

            let mut known: BTreeSet<_> =
                graph.initializer.iter().map(|constant| &*constant.name).collect();
            known.insert(IMAGES);
            for node in &graph.node {
                assert!(node.input.iter().all(|input| known.contains(&**input)), "{}", node.name);
                assert!(known.insert(&node.output[0]), "{arch}: {} twice", node.output[0]);
            }
            let used: BTreeSet<_> = graph.node.iter().flat_map(|node| &node.input).collect();
            let unused = graph.initializer.iter().find(|constant| !used.contains(&constant.name));
            assert!(unused.is_none(), "{arch}: {unused:?} is unused");
            assert!(graph.node.iter().all(|node| !["Relu", "Clip"].contains(&&*node.op_type)
                || node.name.starts_with(&kept.name)));
        }
    }
}
