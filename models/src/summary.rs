//! What a network costs: parameters and multiply-accumulate operations, layer by layer.

use serde::Serialize;

use crate::blocks::{BlockKind, Positions, is_buffer};
use crate::error::ConfigError;
use crate::form::Form;
use crate::model_config::ModelConfig;
use crate::walk::{Layer, Operation, Walk};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// One layer of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// Path in the network.
    pub name: String,
    /// Block in training form, `folded`, or `linear`.
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
    /// In order of computation.
    pub layers: Vec<LayerSummary>,
}

impl Summary {
    /// Summarises the network of a configuration for images of the given height and width.
    ///
    /// # Errors
    /// If the network cannot be built or takes no images of this size.
    pub fn new(config: &ModelConfig, resolution: [usize; 2]) -> Result<Self, ConfigError> {
        let network = config.undrawn(Form::Train, &Device::default())?;
        let layers = layers(&network, resolution)?;
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

/// Every layer of a network, for images of the given height and width.
///
/// # Errors
/// As [`Walk::layers`].
pub fn layers(network: &impl Walk, image: [usize; 2]) -> Result<Vec<LayerSummary>, ConfigError> {
    Ok(network.layers(image)?.into_iter().map(LayerSummary::of).collect())
}

impl LayerSummary {
    fn of(layer: Layer) -> Self {
        let Layer { name, operation, output_size: output, .. } = layer;
        match operation {
            Operation::Conv(unit) => {
                let spec = unit.spec();
                let weights: usize = spec.weight_shape().iter().product();
                Self {
                    name,
                    block: unit.kind().map_or("folded", BlockKind::name).into(),
                    kernel: spec.kernel_size,
                    stride: spec.stride,
                    groups: spec.groups,
                    channels: spec.channels,
                    output,
                    params_train: learnable_params(unit),
                    params_deploy: weights + spec.channels[1],
                    macs_deploy: (weights * output[0] * output[1]) as u64,
                }
            }
            Operation::Linear { inputs, outputs } => {
                let params = (inputs + 1) * outputs;
                Self {
                    name,
                    block: "linear".into(),
                    kernel: [1, 1],
                    stride: [1, 1],
                    groups: 1,
                    channels: [inputs, outputs],
                    output,
                    params_train: params,
                    params_deploy: params,
                    macs_deploy: (inputs * outputs) as u64,
                }
            }
        }
    }
}

/// Multiply-accumulate operations of one forward for one image, in the form the network is in:
/// every convolution of every branch as the block defines it, and the linear layers; norms, pools
/// and sums are not counted.
///
/// # Errors
/// As [`Walk::layers`].
pub fn macs(network: &impl Walk, image: [usize; 2]) -> Result<u64, ConfigError> {
    let macs = |layer: Layer| match layer.operation {
        Operation::Conv(unit) => {
            let [input, output] = [layer.input_size, layer.output_size].map(|[h, w]| h * w);
            unit.macs(Positions { input, output })
        }
        Operation::Linear { inputs, outputs } => inputs * outputs,
    };
    Ok(network.layers(image)?.into_iter().map(macs).sum::<usize>() as u64)
}

/// Values of a module that training changes; running statistics and constants are not among them.
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
            if !self.path.last().is_some_and(|name| is_buffer(name)) {
                self.params += param.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count::default();
    module.visit(&mut count);
    count.params
}
