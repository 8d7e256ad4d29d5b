//! Names of tensors in other code bases.
//!
//! To add a dialect, name it in [`Dialect`], write its table beside [`OFFICIAL_BLOCKS`], and
//! say in [`official_layer`] how it names the layers of each architecture.

use burn::module::Module;
use burn::tensor::{DType, TensorData};
use serde::{Deserialize, Serialize};

use super::error::WeightsError;
use super::state_dict::{StateDict, apply, collect, shapes};
use crate::blocks::{BlockKind, ConvUnit};
use crate::zoo::{Arch, Classifier, ModelConfig};

/// A way to name the tensors of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The paths and layouts of our Burn modules.
    Native,
    /// The names of the paper's repository, in PyTorch's layouts.
    Official,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 2] = [Self::Native, Self::Official];

    /// Whether the dialect has names for an architecture.
    pub fn supports(self, arch: Arch) -> bool {
        match self {
            Self::Native => true,
            Self::Official => official_layer(arch, "stem").is_some(),
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Official => "official",
        })
    }
}

/// Native and official beginnings of a tensor's path within a block; the first match counts.
const OFFICIAL_BLOCKS: [(BlockKind, &[(&str, &str)]); 3] = [
    (BlockKind::Base, &[]),
    (
        BlockKind::Dbb,
        &[
            ("origin.", "dbb_origin."),
            ("pointwise.", "dbb_1x1."),
            ("pointwise_kxk.", "dbb_1x1_kxk."),
            ("average.avg_bn.", "dbb_avg.avgbn."),
            ("average.", "dbb_avg."),
        ],
    ),
    (
        BlockKind::Acb,
        &[
            ("square.conv.", "square_conv."),
            ("square.bn.", "square_bn."),
            ("vertical.conv.", "ver_conv."),
            ("vertical.bn.", "ver_bn."),
            ("horizontal.conv.", "hor_conv."),
            ("horizontal.bn.", "hor_bn."),
        ],
    ),
];

/// The module that holds the folded convolution of a block in the paper's code.
fn official_fused(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Base => "conv",
        BlockKind::Dbb => "dbb_reparam",
        BlockKind::Acb => "fused_conv",
    }
}

/// The official name of a layer, or `None` where the paper's repository has no such network.
fn official_layer(arch: Arch, layer: &str) -> Option<String> {
    match arch {
        Arch::ResNet18
        | Arch::ResNet34
        | Arch::ResNet50
        | Arch::ResNet101
        | Arch::ResNet152
        | Arch::ResNet18Cifar => {
            Some(if layer == "stem" { "stage0.conv1".into() } else { layer.into() })
        }
        Arch::MobileNetV1 => Some(match layer.strip_prefix("blocks.") {
            Some(block) => format!("stem.{block}"),
            None => layer.replace("stem", "conv1"),
        }),
        Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet44 | Arch::ResNet56 | Arch::ResNet110 => None,
    }
}

/// The official name of a tensor within a unit, such as `dbb_origin.conv.weight`.
fn official_tensor(unit: &ConvUnit, kind: BlockKind, tensor: &str) -> String {
    if matches!(unit, ConvUnit::Fused(_)) {
        return format!("{}.{tensor}", official_fused(kind));
    }
    let table = OFFICIAL_BLOCKS.iter().find(|(block, _)| *block == kind).map_or(&[][..], |t| t.1);
    let renamed = table
        .iter()
        .find_map(|(native, official)| Some(format!("{official}{}", tensor.strip_prefix(native)?)))
        .unwrap_or_else(|| tensor.to_string());
    let identity_based = match unit {
        ConvUnit::Dbb(block) => {
            block.pointwise_kxk.as_ref().is_some_and(|branch| branch.conv1.is_identity_based())
        }
        _ => false,
    };
    let renamed = match renamed.strip_prefix("dbb_1x1_kxk.conv1.") {
        Some(rest) if identity_based => format!("dbb_1x1_kxk.idconv1.{rest}"),
        _ => renamed,
    };
    match renamed.rsplit_once('.') {
        Some((module, "gamma")) => format!("{module}.weight"),
        Some((module, "beta")) => format!("{module}.bias"),
        _ => renamed,
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
        let units = network.units([model.arch.default_resolution(); 2]);
        Ok(Self::build(network, |native| {
            if dialect == Dialect::Native {
                return (native.to_string(), false);
            }
            let placed = units.iter().find_map(|placed| {
                Some((placed, native.strip_prefix(&placed.name)?.strip_prefix('.')?))
            });
            match placed {
                Some((placed, tensor)) => {
                    let layer = official_layer(model.arch, &placed.name).unwrap_or_default();
                    let tensor = official_tensor(placed.unit, model.block_of(placed), tensor);
                    (format!("{layer}.{tensor}"), false)
                }
                None => (native.to_string(), native == "linear.weight"),
            }
        }))
    }

    /// The official keys of a single unit, without any prefix. `kind` is the block the unit is,
    /// or was before it was folded.
    pub fn official_unit(unit: &ConvUnit, kind: BlockKind) -> Self {
        Self::build(unit, |native| (official_tensor(unit, kind, native), false))
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
    /// (`num_batches_tracked`) are left aside.
    ///
    /// # Errors
    /// [`WeightsError::Keys`] names every missing, unexpected and misshapen key.
    pub fn load<M: Module>(&self, mut module: M, tensors: &StateDict) -> Result<M, WeightsError> {
        let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
        let mut native = StateDict::new();
        for key in &self.0 {
            let Some(data) = tensors.get(&key.foreign) else {
                missing.push(key.foreign.clone());
                continue;
            };
            if data.shape().to_vec() != key.shape {
                let found = data.shape().to_vec();
                misshapen.push(format!("{} {found:?} (expected {:?})", key.foreign, key.shape));
                continue;
            }
            let data = data.clone().convert_dtype(DType::F32);
            native.insert(key.native.clone(), if key.transpose { transposed(data) } else { data });
        }
        let known = |name: &str| {
            name.ends_with("num_batches_tracked") || self.0.iter().any(|key| key.foreign == name)
        };
        let unexpected: Vec<_> = tensors.keys().filter(|name| !known(name)).cloned().collect();
        if !(missing.is_empty() && misshapen.is_empty() && unexpected.is_empty()) {
            return Err(WeightsError::Keys { path: None, missing, unexpected, misshapen });
        }
        let applied = apply(&mut module, native);
        assert_eq!(applied, self.0.len(), "the map was made for this module");
        Ok(module)
    }
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
