//! Diverse Branch Blocks in a Burn model of your own: the model as it was, the model with blocks, two
//! steps of training, the fold, and what the model's walk gives besides its forward pass: the maps of
//! its stages, a summary of its layers and an ONNX file.
//!
//! ```sh
//! cargo run --release -p dbb-models --example your_own_model
//! ```

use std::error::Error;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor};
use dbb_models::onnx::{Description, Input, write_onnx_of};
use dbb_models::{Reparameterize, Walk, summary};

/// The model as it was.
mod before {
    use burn::module::Module;
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
    use burn::tensor::{Device, Tensor, activation::relu};

    #[derive(Module, Debug)]
    pub struct Net {
        conv1: Conv2d,
        norm1: BatchNorm,
        conv2: Conv2d,
        norm2: BatchNorm,
        linear: Linear,
    }

    impl Net {
        pub fn new(device: &Device) -> Self {
            let conv = |channels, stride| {
                Conv2dConfig::new(channels, [3, 3])
                    .with_stride([stride; 2])
                    .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                    .with_bias(false)
                    .init(device)
            };
            Self {
                conv1: conv([3, 16], 1),
                norm1: BatchNormConfig::new(16).init(device),
                conv2: conv([16, 32], 2),
                norm2: BatchNormConfig::new(32).init(device),
                linear: LinearConfig::new(32, 10).init(device),
            }
        }

        pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
            let map = relu(self.norm1.forward(self.conv1.forward(images)));
            let map = relu(self.norm2.forward(self.conv2.forward(map)));
            self.linear.forward(map.mean_dims(&[2, 3]).flatten(1, 3))
        }
    }
}

/// The model with a unit in the place of each pair. Instead of a forward pass it has a walk, which
/// says the same for any interpreter.
pub mod after {
    use burn::module::Module;
    use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;
    use dbb_models::blocks::{Activation, Block, ConvSpec, ConvUnit};
    use dbb_models::walk::Interpreter;
    use dbb_models::{ConfigError, Reparameterize, Walk};

    /// Two convolutions and a classifier of 10 classes.
    #[derive(Module, Debug, Reparameterize)]
    pub struct Net {
        conv1: ConvUnit,
        conv2: ConvUnit,
        pool: AdaptiveAvgPool2d,
        linear: Linear,
    }

    impl Net {
        /// A network with fresh weights, for images of three channels.
        pub fn new(device: &Device) -> Result<Self, ConfigError> {
            let dbb = Block::Dbb(Default::default());
            Ok(Self {
                conv1: ConvUnit::new(&ConvSpec::square([3, 16], 3, 1), &dbb, device)?,
                conv2: ConvUnit::new(&ConvSpec::square([16, 32], 3, 2), &dbb, device)?,
                pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
                linear: LinearConfig::new(32, 10).init(device),
            })
        }
    }

    impl Walk for Net {
        fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
            let map = walk.unit(&"conv1", &self.conv1, images, Activation::Relu.into());
            walk.stage(0, &map);
            let map = walk.unit(&"conv2", &self.conv2, map, Activation::Relu.into());
            walk.stage(1, &map);
            map
        }

        fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
            let features = walk.means(&"pool", &self.pool, map);
            walk.linear(&"linear", &self.linear, features, None)
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::default();
    device.seed(0);
    let training_device = device.clone().autodiff();

    let plain = before::Net::new(&device);
    let mut network = after::Net::new(&training_device)?;
    let cross_entropy = CrossEntropyLossConfig::new().init(&training_device);
    let mut sgd = SgdConfig::new().init();
    for step in 1..=2 {
        let images = random_images(&training_device);
        let labels = Tensor::<1, Int>::arange(0..8, &training_device);
        let loss = cross_entropy.forward(network.forward(images), labels);
        println!("step {step}: loss {:.4}", loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = sgd.step(0.1, network, gradients);
    }

    let trained = network.valid();
    let deploy = trained.reparameterize();
    let images = random_images(&device);
    let logits = trained.forward(images.clone());
    let difference = (deploy.forward(images.clone()) - logits.clone()).abs().max();
    println!("largest logit            {:.4}", logits.abs().max().into_scalar::<f32>());
    println!("largest difference       {:.1e}", difference.into_scalar::<f32>());
    println!("stored values before     {:>6}", plain.num_params());
    println!("stored values in blocks  {:>6}", trained.num_params());
    println!("stored values folded     {:>6}", deploy.num_params());
    assert_eq!(plain.forward(images.clone()).dims(), [8, 10]);

    for (stage, map) in deploy.forward_features(images).iter().enumerate() {
        println!("stage {stage}: map {:?}", map.dims());
    }
    for layer in summary::layers(&trained, [32, 32])? {
        println!(
            "{:<7} {:<7} {:>5} parameters folded, {:>9} multiply-accumulates",
            layer.name, layer.block, layer.params_deploy, layer.macs_deploy
        );
    }
    let path = std::env::temp_dir().join("your_own_model.onnx");
    let description = Description { name: "net".into(), channels: 3, metadata: Vec::new() };
    let input = Input { size: [32, 32], normalization: None };
    write_onnx_of(&path, &trained, &description, &input)?;
    println!("written to {}", path.display());
    Ok(())
}

fn random_images(device: &Device) -> Tensor<4> {
    Tensor::random([8, 3, 32, 32], Distribution::Normal(0.0, 1.0), device)
}
