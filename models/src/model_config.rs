//! From a configuration to a network.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::backbones::{Arch, Classifier, NetworkBuilder};
use crate::blocks::{
    Activation, BlockKind, BlockOptions, ConvUnit, DbbConfig, MobileOneConfig, OrepaConfig,
};
use crate::by_layer::LayerBlocks;
use crate::error::ConfigError;
use crate::form::Form;
use crate::layer_pattern;
use crate::walk::Walk;

/// Everything that determines the structure of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The architecture.
    pub arch: Arch,
    /// The block every KxK convolution becomes.
    pub block: BlockKind,
    /// Other blocks for single layers.
    #[serde(default, skip_serializing_if = "LayerBlocks::is_empty")]
    pub blocks: LayerBlocks,
    /// What a Diverse Branch Block is made of, and the largest kernel that becomes a block.
    #[serde(default)]
    pub dbb: DbbConfig,
    /// What a MobileOne block is made of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mobileone: MobileOneConfig,
    /// What an OREPA block is made of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub orepa: OrepaConfig,
    /// Nonlinearity of MobileNetV1, by default ReLU; the other networks have their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Multiplies the channels of every layer; rounded down, in MobileNetV2 and V3 to multiples of 8.
    pub width: f64,
    /// Classes of the linear classifier.
    pub num_classes: usize,
    /// Channels of the images.
    pub in_channels: usize,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ModelConfig {
    /// Most classes of a network: a wrong number must not cost memory.
    pub const MAX_CLASSES: usize = 1_000_000;

    /// Most channels of the images.
    pub const MAX_IMAGE_CHANNELS: usize = 1024;

    /// Full width, three-channel images, blocks as the papers have them.
    pub fn new(arch: Arch, block: BlockKind, num_classes: usize) -> Self {
        Self {
            arch,
            block,
            blocks: LayerBlocks::default(),
            dbb: DbbConfig::default(),
            mobileone: MobileOneConfig::default(),
            orepa: OrepaConfig::default(),
            activation: None,
            width: 1.0,
            num_classes,
            in_channels: 3,
        }
    }

    /// Builds the network with fresh weights, all drawn now, so that equal seeds of the device
    /// (`Device::seed`) give equal networks.
    ///
    /// # Errors
    /// An option out of range, a layer pattern that matches nothing, a block that cannot have
    /// the geometry of its layer.
    pub fn init(&self, form: Form, device: &Device) -> Result<Classifier, ConfigError> {
        /// Burn draws a parameter when it is first read.
        struct Draw;
        impl ModuleVisitor for Draw {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                param.val();
            }
        }
        let network = self.undrawn(form, device)?;
        network.visit(&mut Draw);
        Ok(network)
    }

    /// Checks that [`Self::init`] can build the network in training form, that it takes images of the
    /// height and width `image`, if they are known, and that [`Self::freeze`] can freeze the layers of
    /// `patterns`, without drawing any weights.
    ///
    /// # Errors
    /// As these and [`Walk::layers`].
    pub fn validate(
        &self,
        image: Option<[usize; 2]>,
        patterns: &[String],
    ) -> Result<(), ConfigError> {
        let network = self.undrawn(Form::Train, &Device::default())?;
        if let Some(image) = image {
            network.layers(image)?;
        }
        self.freeze(network, patterns).map(drop)
    }

    /// The network of [`Self::init`] with weights that are drawn when they are first read, if
    /// ever: for a network that is only looked at, or filled from a file.
    pub(crate) fn undrawn(&self, form: Form, device: &Device) -> Result<Classifier, ConfigError> {
        self.check()?;
        let network = self.arch.definition().build(&self.builder(form, device))?;
        self.check_patterns(&network)?;
        Ok(network)
    }

    /// Which block a layer of the network is in training form.
    pub fn block_of(&self, layer: &str, unit: &ConvUnit) -> BlockKind {
        let device = Device::default();
        self.builder(Form::Train, &device).kind(layer, &unit.spec())
    }

    fn builder<'a>(&'a self, form: Form, device: &'a Device) -> NetworkBuilder<'a> {
        NetworkBuilder {
            width: self.width,
            in_channels: self.in_channels,
            num_classes: self.num_classes,
            activation: self.activation,
            block: self.block,
            patterns: &self.blocks,
            options: BlockOptions {
                dbb: self.dbb.clone(),
                mobileone: self.mobileone.clone(),
                orepa: self.orepa.clone(),
            },
            pointwise_blocks: self.arch.definition().has_pointwise_blocks(),
            norm: self.arch.definition().norm(),
            form,
            device,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let within = |option, value: usize, most, expected| {
            let refused = || ConfigError::Option { option, value: value.to_string(), expected };
            (1..=most).contains(&value).then_some(()).ok_or_else(refused)
        };
        within("num_classes", self.num_classes, Self::MAX_CLASSES, "1 to 1000000")?;
        within("in_channels", self.in_channels, Self::MAX_IMAGE_CHANNELS, "1 to 1024")?;
        self.dbb.check()?;
        self.mobileone.check()?;
        self.orepa.check()?;
        if self.activation.is_some() && !self.arch.definition().leaves_activation_open() {
            return Err(ConfigError::Option {
                option: "activation",
                value: format!("a choice for {}", self.arch),
                expected: "none: this network has its own",
            });
        }
        if !(self.width > 0.0 && self.width <= 16.0) {
            return Err(ConfigError::Option {
                option: "width",
                value: self.width.to_string(),
                expected: "a factor above 0 and up to 16",
            });
        }
        Ok(())
    }

    fn check_patterns(&self, network: &Classifier) -> Result<(), ConfigError> {
        let units = network.units();
        let layers: Vec<_> = units.iter().map(|(name, _)| name.as_str()).collect();
        let patterns = self.blocks.patterns().chain(self.mobileone.layers.patterns());
        layer_pattern::check(patterns, &layers, self.arch.name())
    }
}
