//! The registry: from a name and a configuration to a network.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::backbones::{
    MOBILENET_V3_NORM, MobileNetV1, MobileNetV2, MobileNetV3, NetworkBuilder, ResNet, ResNetConfig,
    Shortcut, Size,
};
use crate::blocks::{Activation, BlockKind, ConvUnit, DbbConfig, NormConfig};
use crate::error::ConfigError;
use crate::reparam::Reparameterize;
use crate::walk::{Interpreter, Walk};

/// An architecture of the zoo. To add one, name it here and say in `Arch::definition` what
/// it is made of.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of the papers
pub enum Arch {
    #[serde(rename = "resnet18")]
    ResNet18,
    #[serde(rename = "resnet34")]
    ResNet34,
    #[serde(rename = "resnet50")]
    ResNet50,
    #[serde(rename = "resnet101")]
    ResNet101,
    #[serde(rename = "resnet152")]
    ResNet152,
    /// ResNet-18 with a 3x3 stem and no max pool.
    #[serde(rename = "resnet18-cifar")]
    ResNet18Cifar,
    #[serde(rename = "resnet20")]
    ResNet20,
    #[serde(rename = "resnet32")]
    ResNet32,
    #[serde(rename = "resnet44")]
    ResNet44,
    #[serde(rename = "resnet56")]
    ResNet56,
    #[serde(rename = "resnet110")]
    ResNet110,
    #[serde(rename = "mobilenet_v1")]
    MobileNetV1,
    #[serde(rename = "mobilenet_v2")]
    MobileNetV2,
    #[serde(rename = "mobilenet_v3_large")]
    MobileNetV3Large,
    #[serde(rename = "mobilenet_v3_small")]
    MobileNetV3Small,
}

/// What an architecture is made of.
enum Definition {
    ResNet(ResNetConfig),
    MobileNetV1,
    MobileNetV2,
    MobileNetV3(Size),
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Self; 15] = [
        Self::ResNet18,
        Self::ResNet34,
        Self::ResNet50,
        Self::ResNet101,
        Self::ResNet152,
        Self::ResNet18Cifar,
        Self::ResNet20,
        Self::ResNet32,
        Self::ResNet44,
        Self::ResNet56,
        Self::ResNet110,
        Self::MobileNetV1,
        Self::MobileNetV2,
        Self::MobileNetV3Large,
        Self::MobileNetV3Small,
    ];

    /// The name in configurations and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
            Self::ResNet152 => "resnet152",
            Self::ResNet18Cifar => "resnet18-cifar",
            Self::ResNet20 => "resnet20",
            Self::ResNet32 => "resnet32",
            Self::ResNet44 => "resnet44",
            Self::ResNet56 => "resnet56",
            Self::ResNet110 => "resnet110",
            Self::MobileNetV1 => "mobilenet_v1",
            Self::MobileNetV2 => "mobilenet_v2",
            Self::MobileNetV3Large => "mobilenet_v3_large",
            Self::MobileNetV3Small => "mobilenet_v3_small",
        }
    }

    /// Image size (height and width) the paper trains this architecture with.
    pub fn default_resolution(self) -> usize {
        match self.definition() {
            Definition::ResNet(config) if !config.imagenet_stem => 32,
            _ => 224,
        }
    }

    fn definition(self) -> Definition {
        let imagenet = |depths: [usize; 4], bottleneck| ResNetConfig {
            depths: depths.to_vec(),
            bottleneck,
            channels: 64,
            imagenet_stem: true,
            shortcut: Shortcut::Projection,
        };
        // The paper's section 4.2: 6n + 2 layers in three stages of 16, 32 and 64 channels.
        let cifar = |depth: usize| ResNetConfig {
            depths: vec![depth; 3],
            bottleneck: false,
            channels: 16,
            imagenet_stem: false,
            shortcut: Shortcut::ZeroPadding,
        };
        Definition::ResNet(match self {
            Self::ResNet18 => imagenet([2, 2, 2, 2], false),
            Self::ResNet34 => imagenet([3, 4, 6, 3], false),
            Self::ResNet50 => imagenet([3, 4, 6, 3], true),
            Self::ResNet101 => imagenet([3, 4, 23, 3], true),
            Self::ResNet152 => imagenet([3, 8, 36, 3], true),
            Self::ResNet18Cifar => {
                ResNetConfig { imagenet_stem: false, ..imagenet([2, 2, 2, 2], false) }
            }
            Self::ResNet20 => cifar(3),
            Self::ResNet32 => cifar(5),
            Self::ResNet44 => cifar(7),
            Self::ResNet56 => cifar(9),
            Self::ResNet110 => cifar(18),
            Self::MobileNetV1 => return Definition::MobileNetV1,
            Self::MobileNetV2 => return Definition::MobileNetV2,
            Self::MobileNetV3Large => return Definition::MobileNetV3(Size::Large),
            Self::MobileNetV3Small => return Definition::MobileNetV3(Size::Small),
        })
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Arch {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::ALL.into_iter().find(|arch| arch.name() == name).ok_or(ConfigError::Option {
            option: "arch",
            value: format!("\"{name}\""),
            expected: "one of resnet18, resnet34, resnet50, resnet101, resnet152, \
                       resnet18-cifar, resnet20, resnet32, resnet44, resnet56, resnet110, \
                       mobilenet_v1, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small",
        })
    }
}

/// Whether a network holds blocks of several branches or the convolutions they fold into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Blocks with batch norms, as training needs them.
    Train,
    /// Plain convolutions with bias.
    Deploy,
}

impl Form {
    /// Both forms.
    pub const ALL: [Self; 2] = [Self::Train, Self::Deploy];

    /// The name in files and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Deploy => "deploy",
        }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Blocks by layer pattern, in the order they were written; the last match wins. `*` in a
/// pattern stands for any text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerBlocks(pub Vec<(String, BlockKind)>);

impl LayerBlocks {
    /// Whether every layer has the network's own block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for LayerBlocks {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LayerBlocks".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <std::collections::BTreeMap<String, BlockKind>>::json_schema(generator)
    }
}

impl Serialize for LayerBlocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (pattern, kind) in &self.0 {
            map.serialize_entry(pattern, kind)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LayerBlocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = LayerBlocks;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a table of layer patterns and blocks")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LayerBlocks, A::Error> {
                let mut blocks = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    blocks.push(entry);
                }
                Ok(LayerBlocks(blocks))
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}

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

impl ModelConfig {
    /// Full width, three-channel images, blocks as the papers have them.
    pub fn new(arch: Arch, block: BlockKind, num_classes: usize) -> Self {
        Self {
            arch,
            block,
            blocks: LayerBlocks::default(),
            dbb: DbbConfig::default(),
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

    /// Checks that [`Self::init`] can build the network in training form and that
    /// [`Self::freeze`] can freeze the layers of `patterns`, without drawing any weights.
    ///
    /// # Errors
    /// As both.
    pub fn validate(&self, patterns: &[String]) -> Result<(), ConfigError> {
        let network = self.undrawn(Form::Train, &Device::default())?;
        self.freeze(network, patterns).map(drop)
    }

    /// The network of [`Self::init`] with weights that are drawn when they are first read, if
    /// ever: for a network that is only looked at, or filled from a file.
    pub(crate) fn undrawn(&self, form: Form, device: &Device) -> Result<Classifier, ConfigError> {
        self.check()?;
        let builder = self.builder(form, device);
        let (width, channels, classes) = (self.width, self.in_channels, self.num_classes);
        let network = match self.arch.definition() {
            Definition::ResNet(config) => {
                Classifier::ResNet(ResNet::new(&config, width, channels, classes, &builder)?)
            }
            Definition::MobileNetV1 => {
                let activation = self.activation.unwrap_or(Activation::Relu);
                let network = MobileNetV1::new(width, channels, classes, activation, &builder)?;
                Classifier::MobileNetV1(network)
            }
            Definition::MobileNetV2 => {
                Classifier::MobileNetV2(MobileNetV2::new(width, channels, classes, &builder)?)
            }
            Definition::MobileNetV3(size) => {
                let network = MobileNetV3::new(size, width, channels, classes, &builder)?;
                Classifier::MobileNetV3(network)
            }
        };
        self.check_patterns(&network)?;
        Ok(network)
    }

    /// Which block a layer of the network is in training form.
    pub fn block_of(&self, layer: &str, unit: &ConvUnit) -> BlockKind {
        let device = Device::default();
        self.builder(Form::Train, &device).kind(layer, &unit.spec())
    }

    fn builder<'a>(&'a self, form: Form, device: &'a Device) -> NetworkBuilder<'a> {
        let norm = match self.arch.definition() {
            Definition::MobileNetV3(_) => MOBILENET_V3_NORM,
            _ => NormConfig::default(),
        };
        let patterns = &self.blocks.0;
        NetworkBuilder { block: self.block, patterns, dbb: &self.dbb, norm, form, device }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let at_least_one = |option, value: usize| {
            (value > 0).then_some(()).ok_or(ConfigError::Option {
                option,
                value: value.to_string(),
                expected: "at least 1",
            })
        };
        at_least_one("num_classes", self.num_classes)?;
        at_least_one("in_channels", self.in_channels)?;
        if self.activation.is_some() && self.arch != Arch::MobileNetV1 {
            return Err(ConfigError::Option {
                option: "activation",
                value: format!("a choice for {}", self.arch),
                expected: "none but for mobilenet_v1: the other networks have their own",
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
        for (pattern, _) in &self.blocks.0 {
            if !units.iter().any(|(name, _)| crate::backbones::matches(pattern, name)) {
                let names: Vec<_> = units.iter().take(4).map(|(name, _)| name.as_str()).collect();
                return Err(ConfigError::Pattern {
                    pattern: pattern.clone(),
                    arch: self.arch.to_string(),
                    layers: format!("{}, ...", names.join(", ")),
                });
            }
        }
        Ok(())
    }
}

/// A network of the zoo.
// The variants differ in size by a few hundred bytes of handles; Burn has no `Module` for `Box`.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug, Reparameterize)]
pub enum Classifier {
    /// A residual network.
    ResNet(ResNet),
    /// MobileNet version 1.
    MobileNetV1(MobileNetV1),
    /// MobileNet version 2.
    MobileNetV2(MobileNetV2),
    /// MobileNet version 3, large or small.
    MobileNetV3(MobileNetV3),
}

/// Evaluates `$body` with the network of any family.
macro_rules! each_family {
    ($classifier:expr, $network:ident => $body:expr) => {
        match $classifier {
            Classifier::ResNet($network) => $body,
            Classifier::MobileNetV1($network) => $body,
            Classifier::MobileNetV2($network) => $body,
            Classifier::MobileNetV3($network) => $body,
        }
    };
}

impl Walk for Classifier {
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        each_family!(self, network => network.features(walk, images))
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        each_family!(self, network => network.head(walk, map))
    }
}

impl Classifier {
    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        Walk::forward(self, images)
    }

    /// The map after each stage, in order; for detection and segmentation heads.
    pub fn forward_features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        Walk::forward_features(self, images)
    }

    /// The last layer, which gives the logits.
    pub(crate) fn classifier_mut(&mut self) -> &mut Linear {
        each_family!(self, network => &mut network.linear)
    }
}
