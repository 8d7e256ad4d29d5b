//! What a network costs: parameters and multiply-accumulate operations, layer by layer.

use serde::Serialize;

use crate::blocks::ConvUnit;
use crate::error::ConfigError;
use crate::zoo::{Classifier, Form, ModelConfig};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// One layer of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// Path in the network.
    pub name: String,
    /// Block in training form, `linear` for a layer that sees one value per channel.
    pub block: String,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: [usize; 2],
    /// Groups.
    pub groups: usize,
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Learnable parameters in training form.
    pub params_train: usize,
    /// Parameters after folding.
    pub params_deploy: usize,
    /// Multiply-accumulate operations for one image after folding.
    pub macs_deploy: u64,
}

/// A network and its sums.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Architecture.
    pub arch: String,
    /// Block of most layers.
    pub block: String,
    /// Width multiplier.
    pub width: f64,
    /// Height and width of the image.
    pub resolution: [usize; 2],
    /// Learnable parameters in training form (running statistics are not learnt).
    pub params_train: usize,
    /// Parameters after folding.
    pub params_deploy: usize,
    /// Multiply-accumulate operations for one image after folding; convolutions and classifier.
    pub macs_deploy: u64,
    /// Units in order of computation, then the layers that see one value per channel.
    pub layers: Vec<LayerSummary>,
}

impl Summary {
    /// Summarises the network of a configuration for images of the given height and width.
    ///
    /// # Errors
    /// If the network cannot be built.
    pub fn new(config: &ModelConfig, resolution: [usize; 2]) -> Result<Self, ConfigError> {
        let network = config.undrawn(Form::Train, &Device::default())?;
        let mut layers: Vec<_> = network
            .units(resolution)
            .iter()
            .map(|placed| {
                let spec = placed.unit.spec();
                let weights: usize = spec.weight_shape().iter().product();
                let output = placed.output_size();
                LayerSummary {
                    name: placed.name.clone(),
                    block: config.block_of(placed).to_string(),
                    kernel: spec.kernel_size,
                    stride: spec.stride,
                    groups: spec.groups,
                    channels: spec.channels,
                    output,
                    params_train: learnable_params(placed.unit),
                    params_deploy: weights + spec.channels[1],
                    macs_deploy: (weights * output[0] * output[1]) as u64,
                }
            })
            .collect();
        layers.extend(network.dense_layers().into_iter().map(|layer| {
            let [inputs, outputs] = layer.channels;
            LayerSummary {
                name: layer.name,
                block: "linear".into(),
                kernel: [1, 1],
                stride: [1, 1],
                groups: 1,
                channels: layer.channels,
                output: [1, 1],
                params_train: (inputs + 1) * outputs,
                params_deploy: (inputs + 1) * outputs,
                macs_deploy: (inputs * outputs) as u64,
            }
        }));
        Ok(Self {
            arch: config.arch.to_string(),
            block: config.block.to_string(),
            width: config.width,
            resolution,
            params_train: layers.iter().map(|layer| layer.params_train).sum(),
            params_deploy: layers.iter().map(|layer| layer.params_deploy).sum(),
            macs_deploy: layers.iter().map(|layer| layer.macs_deploy).sum(),
            layers,
        })
    }
}

/// Multiply-accumulate operations of one forward for one image, in the form the network is in:
/// every convolution of every branch as the block defines it, and the layers that see one value
/// per channel; norms, pools and sums are not counted.
pub fn macs(network: &Classifier, image: [usize; 2]) -> u64 {
    let weights = |weight: &Param<Tensor<4>>| weight.lazy_shape().num_elements();
    let units = network.units(image).into_iter().map(|placed| {
        let [before, after] = [placed.input_size, placed.output_size()].map(|[h, w]| h * w);
        // Convolutions before and after the stride.
        let (at_input, at_output) = match placed.unit {
            ConvUnit::Base(block) => (0, weights(&block.conv.weight)),
            ConvUnit::Fused(conv) => (0, weights(&conv.weight)),
            ConvUnit::Acb(block) => {
                let branches = [&block.square, &block.vertical, &block.horizontal];
                (0, branches.map(|branch| weights(&branch.conv.weight)).iter().sum())
            }
            ConvUnit::Dbb(block) => {
                let strided = [block.origin.as_ref(), block.pointwise.as_ref()];
                let strided = strided.into_iter().flatten().map(|branch| &branch.conv.weight);
                let sequence = block.pointwise_kxk.as_ref();
                let average = block.average.as_ref().and_then(|branch| branch.conv.as_ref());
                let first = sequence.map(|branch| &branch.conv1.weight);
                let second = sequence.map(|branch| &branch.conv2.weight);
                let at_input = first.into_iter().chain(average.map(|conv| &conv.weight));
                (at_input.map(weights).sum(), strided.chain(second).map(weights).sum::<usize>())
            }
        };
        at_input * before + at_output * after
    });
    let dense = network.dense_layers().into_iter().map(|layer| layer.channels.iter().product());
    units.chain(dense).sum::<usize>() as u64
}

/// Values of a module that training changes; running statistics are not among them.
pub fn learnable_params(module: &impl Module) -> usize {
    /// Running statistics pass as parameters too; their names tell them apart.
    #[derive(Default)]
    struct Count {
        path: Vec<String>,
        params: usize,
    }
    impl ModuleVisitor for Count {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !self.path.last().is_some_and(|name| name.starts_with("running_")) {
                self.params += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count::default();
    module.visit(&mut count);
    count.params
}
