//! From the tensors of a module to those of a state dict and back.

use burn::module::Module;
use burn::tensor::{DType, TensorData};

use super::error::WeightsError;
use crate::backbones::Classifier;
use crate::blocks::{BlockKind, ConvUnit};
use crate::dialects::{Dialect, Layers, Names, UnitNames, official, pytorch_norm};
use crate::model_config::ModelConfig;
use crate::state_dict::{StateDict, apply, collect, shapes};
use crate::walk::Walk;

/// The tensors of a module under the names of a dialect.
#[derive(Clone, Debug)]
pub struct KeyMap {
    keys: Vec<Key>,
    biases: Vec<Bias>,
}

#[derive(Clone, Debug)]
struct Key {
    native: String,
    foreign: String,
    /// Burn keeps the weight of a linear layer as `[in, out]`, PyTorch as `[out, in]`.
    transpose: bool,
    shape: Vec<usize>,
}

/// The bias that a code base gives a convolution before a batch norm, which takes it away again. It is
/// written as zero, and what is read is taken from the running mean.
#[derive(Clone, Debug)]
struct Bias {
    foreign: String,
    running_mean: String,
    channels: usize,
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
        if dialect == Dialect::Native {
            return Ok(Self::build(network, false, |native| native.into()));
        }
        let Some(names) = model.arch.names(dialect) else {
            return Err(WeightsError::Dialect { arch: model.arch, dialect });
        };
        if let Some(block) = names.units.only()
            && !network.units().iter().all(|(_, unit)| names.units.fit(unit))
        {
            return Err(WeightsError::Unfolded { dialect, block });
        }
        let (units, layers) = (network.units(), Layers(network.layer_names()));
        let mut map = Self::build(network, true, |native| {
            let placed = units.iter().find_map(|(layer, unit)| {
                Some((layer, *unit, native.strip_prefix(layer.as_str())?.strip_prefix('.')?))
            });
            match placed {
                None => (names.others)(&layers, native),
                Some((layer, unit, tensor)) => {
                    let block = || model.block_of(layer, unit);
                    in_unit(names, &layers, layer, unit, block, tensor)
                }
            }
        });
        if let UnitNames::ConvBn { modules, bias: true } = names.units {
            let bias = |(layer, unit): &(String, &ConvUnit)| Bias {
                foreign: format!("{}.bias", modules(&layers, layer)[0]),
                running_mean: format!("{layer}.bn.running_mean"),
                channels: unit.spec().channels[1],
            };
            map.biases = units.iter().map(bias).collect();
        }
        Ok(map)
    }

    /// The official keys of a single unit, without any prefix. `kind` is the block the unit is,
    /// or was before it was folded.
    pub fn official_unit(unit: &ConvUnit, kind: BlockKind) -> Self {
        Self::build(unit, true, |native| official::tensor(unit, kind, native))
    }

    /// The keys of a module under foreign names, in our layouts or in PyTorch's.
    fn build(module: &impl Module, pytorch: bool, foreign: impl Fn(&str) -> String) -> Self {
        let key = |(native, mut shape): (String, Vec<usize>)| {
            let foreign = foreign(&native);
            let is_linear = shape.len() == 2 && native.ends_with(".weight");
            let transpose = pytorch && is_linear;
            if transpose {
                shape.reverse();
            }
            Key { native, foreign, transpose, shape }
        };
        Self { keys: shapes(module).into_iter().map(key).collect(), biases: Vec::new() }
    }

    /// How many keys a state dict has in common with this map.
    pub fn matches(&self, tensors: &StateDict) -> usize {
        self.foreign().filter(|key| tensors.contains_key(*key)).count()
    }

    /// How many tensors of a state dict have another shape, if it has those of this map and no
    /// others.
    pub(super) fn misshapen(&self, tensors: &StateDict) -> Option<usize> {
        let count = tensors.keys().filter(|key| !Self::is_counter(key)).count();
        if count != self.foreign().count() || self.matches(tensors) != count {
            return None;
        }
        let misshapen = |key: &&Key| tensors[&key.foreign].shape().to_vec() != key.shape;
        Some(self.keys.iter().filter(misshapen).count())
    }

    /// The names of all tensors in the dialect.
    fn foreign(&self) -> impl Iterator<Item = &String> {
        let keys = self.keys.iter().map(|key| &key.foreign);
        keys.chain(self.biases.iter().map(|bias| &bias.foreign))
    }

    /// Whether a key counts batches or averaged steps, which no network needs.
    pub(super) fn is_counter(key: &str) -> bool {
        key.ends_with("num_batches_tracked") || key == "n_averaged"
    }

    /// The tensor of a state dict that stands for the module's own of a native path.
    pub fn find<'a>(&self, native: &str, tensors: &'a StateDict) -> Option<&'a TensorData> {
        tensors.get(&self.keys.iter().find(|key| key.native == native)?.foreign)
    }

    /// The tensors of a module under the names and in the layouts of the dialect.
    pub fn save(&self, module: &impl Module) -> StateDict {
        let mut tensors = collect(module);
        let named = self.keys.iter().filter_map(|key| {
            let data = tensors.remove(&key.native)?;
            let data = if key.transpose { transposed(data) } else { data };
            Some((key.foreign.clone(), data))
        });
        let zeros =
            |bias: &Bias| (bias.foreign.clone(), TensorData::zeros::<f32, _>([bias.channels]));
        named.chain(self.biases.iter().map(zeros)).collect()
    }

    /// Puts tensors into a module, all of them or none. Counters of batches
    /// (`num_batches_tracked`) and of averaged steps (`n_averaged`) are ignored.
    ///
    /// # Errors
    /// [`WeightsError::Keys`] names every missing, unexpected and misshapen key.
    pub fn load<M: Module>(&self, mut module: M, tensors: &StateDict) -> Result<M, WeightsError> {
        let (mut missing, mut misshapen, mut classes) = (Vec::new(), Vec::new(), None);
        let mut native = StateDict::new();
        for key in &self.keys {
            let Some(data) = tensors.get(&key.foreign) else {
                missing.push(key.foreign.clone());
                continue;
            };
            if data.shape().to_vec() != key.shape {
                let found = data.shape().to_vec();
                let (outputs, inputs) = if key.transpose { (0, 1) } else { (1, 0) };
                // The classifier reads the same features, but has other classes.
                if key.native == "linear.weight" && found.get(inputs) == Some(&key.shape[inputs]) {
                    classes = found.get(outputs).map(|&found| [found, key.shape[outputs]]);
                }
                misshapen.push(format!("{} {found:?} (expected {:?})", key.foreign, key.shape));
                continue;
            }
            let data = data.clone().convert_dtype(DType::F32);
            native.insert(key.native.clone(), if key.transpose { transposed(data) } else { data });
        }
        for Bias { foreign, running_mean, channels } in &self.biases {
            match (tensors.get(foreign), native.get_mut(running_mean)) {
                (None, _) => missing.push(foreign.clone()),
                (Some(bias), _) if bias.shape().to_vec() != [*channels] => {
                    let found = bias.shape().to_vec();
                    misshapen.push(format!("{foreign} {found:?} (expected [{channels}])"));
                }
                (Some(bias), Some(mean)) => *mean = difference(mean, bias),
                // The mean is among those missing or misshapen.
                (Some(_), None) => {}
            }
        }
        let known = |name: &str| Self::is_counter(name) || self.foreign().any(|key| key == name);
        let unexpected: Vec<_> = tensors.keys().filter(|name| !known(name)).cloned().collect();
        if !(missing.is_empty() && misshapen.is_empty() && unexpected.is_empty()) {
            let (path, lookalike, classes) = (None, None, classes.map(Box::new));
            let keys =
                WeightsError::Keys { path, lookalike, missing, unexpected, misshapen, classes };
            return Err(keys);
        }
        let applied = apply(&mut module, native);
        assert_eq!(applied, self.keys.len(), "the map was made for this module");
        Ok(module)
    }
}

/// The name of a tensor of a unit.
fn in_unit(
    names: &Names,
    layers: &Layers,
    layer: &str,
    unit: &ConvUnit,
    block: impl FnOnce() -> BlockKind,
    tensor: &str,
) -> String {
    match names.units {
        UnitNames::Blocks(module) => {
            format!("{}.{}", module(layer), official::tensor(unit, block(), tensor))
        }
        UnitNames::OneBlock { module, kind, port } => {
            let tensor = match unit.kind() {
                None => format!("{}.{tensor}", port.folded),
                Some(_) => port.ported(&official::tensor(unit, kind, tensor)),
            };
            format!("{}.{tensor}", module(layer))
        }
        UnitNames::ConvBn { modules, .. } => {
            let [conv, bn] = modules(layers, layer);
            match pytorch_norm(tensor).strip_prefix("bn.") {
                Some(tensor) => format!("{bn}.{tensor}"),
                None => tensor.replace("conv", &conv),
            }
        }
    }
}

/// The element-wise difference of two vectors.
fn difference(left: &TensorData, right: &TensorData) -> TensorData {
    let values: Vec<_> = left.iter::<f64>().zip(right.iter::<f64>()).map(|(l, r)| l - r).collect();
    let channels = values.len();
    TensorData::new(values, [channels]).convert_dtype(DType::F32)
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
