//! Names of tensors in other code bases.
//!
//! To add a dialect, name it in [`Dialect`], give its names a file of their own, and translate
//! to them in [`KeyMap::new`].

use burn::module::Module;
use burn::tensor::{DType, TensorData};
use serde::{Deserialize, Serialize};

use super::error::WeightsError;
use super::state_dict::{StateDict, apply, collect, shapes};
use super::{akamaster, official, timm, torchvision};
use crate::blocks::{Activation, BlockKind, ConvUnit};
use crate::walk::Walk;
use crate::zoo::{Arch, Classifier, ModelConfig};

/// A way to name the tensors of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The paths and layouts of our Burn modules.
    Native,
    /// The names of the paper's repository, in PyTorch's layouts.
    Official,
    /// The names of torchvision, for plain convolutions with batch norm only.
    Torchvision,
    /// The names of timm where torchvision has others, for plain convolutions with batch norm only.
    Timm,
    /// The names of the best-known CIFAR ResNets, for plain convolutions with batch norm only.
    Akamaster,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 5] =
        [Self::Native, Self::Official, Self::Torchvision, Self::Timm, Self::Akamaster];

    /// Whether the dialect has names for an architecture.
    pub fn supports(self, arch: Arch) -> bool {
        match self {
            Self::Native => true,
            Self::Official => official::layer(arch, "stem").is_some(),
            Self::Torchvision => torchvision::knows(arch),
            Self::Timm => timm::knows(arch),
            Self::Akamaster => akamaster::knows(arch),
        }
    }

    /// Whether it has names for plain convolutions with batch norm only, so that a folded network
    /// is written as such ([`as_conv_bn`](super::as_conv_bn)).
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Torchvision | Self::Timm | Self::Akamaster)
    }

    /// The configuration as the code base of the dialect trains it: timm's MobileNetV1 has ReLU6.
    pub(super) fn trained(self, model: &ModelConfig) -> ModelConfig {
        let mut model = model.clone();
        if self == Self::Timm && model.arch == Arch::MobileNetV1 {
            model.activation = model.activation.or(Some(Activation::Relu6));
        }
        model
    }

    /// The modules of a layer's convolution and batch norm in a plain dialect.
    fn layer(self, network: &Classifier, layer: &str) -> [String; 2] {
        match self {
            Self::Timm => timm::layer(network, layer),
            _ => torchvision::layer(network, layer),
        }
    }

    /// The name, in a plain dialect, of a tensor that belongs to no convolution with batch norm.
    fn dense_tensor(self, network: &Classifier, native: &str) -> String {
        match self {
            Self::Timm => timm::dense_tensor(native),
            Self::Akamaster => native.to_string(),
            _ => torchvision::dense_tensor(network, native),
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Official => "official",
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
            Self::Akamaster => "akamaster",
        })
    }
}

/// The tensors of a module under the names of a dialect.
#[derive(Clone, Debug)]
pub struct KeyMap(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    native: String,
    foreign: String,
    /// Burn keeps the weight of a linear layer as `[in, out]`, PyTorch as `[out, in]`.
    transpose: bool,
    shape: Vec<usize>,
}

impl KeyMap {
    /// The keys of a network.
    ///
    /// # Errors
    /// If the dialect has no names for the architecture.
    pub fn new(
        dialect: Dialect,
        model: &ModelConfig,
        network: &Classifier,
    ) -> Result<Self, WeightsError> {
        if !dialect.supports(model.arch) {
            let available: Vec<_> = Dialect::ALL
                .into_iter()
                .filter(|dialect| dialect.supports(model.arch))
                .map(|dialect| dialect.to_string())
                .collect();
            return Err(WeightsError::Dialect {
                arch: model.arch.to_string(),
                dialect: dialect.to_string(),
                available: available.join(", "),
            });
        }
        if dialect.is_plain() && !is_plain(network) {
            return Err(WeightsError::Unfolded { dialect: dialect.to_string() });
        }
        let units = network.units();
        Ok(Self::build(network, |native| {
            let placed = units.iter().find_map(|(layer, unit)| {
                Some((layer, unit, native.strip_prefix(layer.as_str())?.strip_prefix('.')?))
            });
            // What is no unit is the classifier, whose matrices PyTorch keeps the other way round,
            // or squeeze-and-excitation.
            let transposed = matches!(native, "linear.weight" | "hidden.weight");
            match (dialect, placed) {
                (Dialect::Native, _) => (native.to_string(), false),
                (Dialect::Official, None) => (native.to_string(), transposed),
                (Dialect::Official, Some((layer, unit, tensor))) => {
                    let tensor = official::tensor(unit, model.block_of(layer, unit), tensor);
                    let layer = official::layer(model.arch, layer).unwrap_or_default();
                    (format!("{layer}.{tensor}"), false)
                }
                (_, None) => (dialect.dense_tensor(network, native), transposed),
                (_, Some((layer, _, tensor))) => {
                    let [conv, bn] = dialect.layer(network, layer);
                    let tensor = match official::pytorch_norm(tensor).strip_prefix("bn.") {
                        Some(tensor) => format!("{bn}.{tensor}"),
                        None => tensor.replace("conv", &conv),
                    };
                    (tensor, false)
                }
            }
        }))
    }

    /// The official keys of a single unit, without any prefix. `kind` is the block the unit is,
    /// or was before it was folded.
    pub fn official_unit(unit: &ConvUnit, kind: BlockKind) -> Self {
        Self::build(unit, |native| (official::tensor(unit, kind, native), false))
    }

    fn build(module: &impl Module, foreign: impl Fn(&str) -> (String, bool)) -> Self {
        let key = |(native, mut shape): (String, Vec<usize>)| {
            let (foreign, transpose) = foreign(&native);
            if transpose {
                shape.reverse();
            }
            Key { native, foreign, transpose, shape }
        };
        Self(shapes(module).into_iter().map(key).collect())
    }

    /// How many keys a state dict has in common with this map.
    pub fn matches(&self, tensors: &StateDict) -> usize {
        self.0.iter().filter(|key| tensors.contains_key(&key.foreign)).count()
    }

    /// The tensor of a state dict that stands for the module's own of a native path.
    pub fn find<'a>(&self, native: &str, tensors: &'a StateDict) -> Option<&'a TensorData> {
        tensors.get(&self.0.iter().find(|key| key.native == native)?.foreign)
    }

    /// The tensors of a module under the names and in the layouts of the dialect.
    pub fn save(&self, module: &impl Module) -> StateDict {
        let mut tensors = collect(module);
        let named = self.0.iter().filter_map(|key| {
            let data = tensors.remove(&key.native)?;
            let data = if key.transpose { transposed(data) } else { data };
            Some((key.foreign.clone(), data))
        });
        named.collect()
    }

    /// Puts tensors into a module, all of them or none. Counters of batches
    /// (`num_batches_tracked`) and of averaged steps (`n_averaged`) are left aside.
    ///
    /// # Errors
    /// [`WeightsError::Keys`] names every missing, unexpected and misshapen key.
    pub fn load<M: Module>(&self, mut module: M, tensors: &StateDict) -> Result<M, WeightsError> {
        let (mut missing, mut misshapen, mut classes) = (Vec::new(), Vec::new(), None);
        let mut native = StateDict::new();
        for key in &self.0 {
            let Some(data) = tensors.get(&key.foreign) else {
                missing.push(key.foreign.clone());
                continue;
            };
            if data.shape().to_vec() != key.shape {
                let found = data.shape().to_vec();
                // The classifier reads the same features, but has other classes.
                if key.native == "linear.weight" && found.get(1..) == Some(&key.shape[1..]) {
                    classes = Some([found[0], key.shape[0]]);
                }
                misshapen.push(format!("{} {found:?} (expected {:?})", key.foreign, key.shape));
                continue;
            }
            let data = data.clone().convert_dtype(DType::F32);
            native.insert(key.native.clone(), if key.transpose { transposed(data) } else { data });
        }
        let known = |name: &str| {
            name.ends_with("num_batches_tracked")
                || name == "n_averaged"
                || self.0.iter().any(|key| key.foreign == name)
        };
        let unexpected: Vec<_> = tensors.keys().filter(|name| !known(name)).cloned().collect();
        if !(missing.is_empty() && misshapen.is_empty() && unexpected.is_empty()) {
            return Err(WeightsError::Keys { path: None, missing, unexpected, misshapen, classes });
        }
        let applied = apply(&mut module, native);
        assert_eq!(applied, self.0.len(), "the map was made for this module");
        Ok(module)
    }
}

/// Whether every unit is a plain convolution with batch norm.
fn is_plain(network: &Classifier) -> bool {
    network.units().iter().all(|(_, unit)| matches!(unit, ConvUnit::Base(_)))
}

/// A matrix of 32-bit floats with its axes exchanged.
fn transposed(data: TensorData) -> TensorData {
    let [rows, columns] = data.shape().dims();
    let values: Vec<f32> = data.iter::<f32>().collect();
    let transposed: Vec<f32> = (0..columns)
        .flat_map(|c| (0..rows).map(move |r| (r, c)))
        .map(|(r, c)| values[r * columns + c])
        .collect();
    TensorData::new(transposed, [columns, rows])
}
