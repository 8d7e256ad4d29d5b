//! Blocks of a state dict folded without the network around them.
//!
//! The paper's repositories give the branches of a block names of their own, below whatever prefix
//! the network has for the layer: `neck.3.dbb_origin.conv.weight`. Names and shapes say all that a
//! fold needs. What they leave open, stride, padding and sometimes the groups, changes nothing
//! about the folded kernel.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::dtype::{is_float, narrowed};
use super::error::WeightsError;
use super::finite::check_finite;
use super::key_map::KeyMap;
use super::state_dict::StateDict;
use crate::blocks::{Block, BlockKind, Branch, ConvSpec, ConvUnit, DbbConfig, NormConfig};
use crate::layer_pattern::matches;

/// Modules of a Diverse Branch Block, by branch.
const DBB: [(&str, Branch); 4] = [
    ("dbb_origin", Branch::Kxk),
    ("dbb_1x1", Branch::Pointwise),
    ("dbb_1x1_kxk", Branch::PointwiseKxk),
    ("dbb_avg", Branch::Average),
];
/// Modules of an Asymmetric Convolution Block.
const ACB: [&str; 6] = ["square_conv", "square_bn", "ver_conv", "ver_bn", "hor_conv", "hor_bn"];
/// Names of blocks that an error about a pattern lists.
const PATTERN_NAMES: usize = 12;
/// Height and width of the random map a fold is checked on: room for an inner and a border.
const PROBE: usize = 5;

/// What a state dict does not say of its blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockFold {
    /// Epsilon of the batch norms; PyTorch's default is 1e-5, some detectors have 1e-3.
    pub epsilon: f64,
    /// Groups by pattern of the block's name (`*` stands for any text; the last match wins), where
    /// shapes leave them open: all of an Asymmetric Convolution Block, and a Diverse Branch Block
    /// without its 1x1-KxK branch. The folded kernel is the same for all of them.
    pub groups: Vec<(String, usize)>,
}

impl Default for BlockFold {
    fn default() -> Self {
        Self { epsilon: NormConfig::default().epsilon, groups: Vec::new() }
    }
}

/// A block that was folded.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedBlock {
    /// Its prefix in the state dict, without the last dot; empty where the file is one block.
    pub name: String,
    /// What it was.
    pub kind: BlockKind,
    /// Shape of the folded kernel, `[out, in / groups, kh, kw]`.
    pub kernel: [usize; 4],
    /// Groups, `None` where neither the shapes nor [`BlockFold::groups`] say.
    pub groups: Option<usize>,
    /// Largest difference between both forms on a random map.
    pub max_abs_diff: f64,
    /// The same, relative to the largest output.
    pub max_rel_diff: f64,
}

/// Whether a state dict holds a folded block.
pub fn has_folded_blocks(tensors: &StateDict) -> bool {
    let of_block = |part: &str| {
        let mut blocks = BlockKind::ALL.into_iter().filter(|kind| kind.is_multi_branch());
        blocks.any(|kind| kind.folded_module() == part)
    };
    tensors.keys().any(|key| key.split('.').any(of_block))
}

impl BlockFold {
    /// Folds every block, in `f64`, and leaves every other tensor as it is. The folded kernel and
    /// bias have the type of the block's own kernels and stand below the block's prefix as the
    /// paper's code calls them, `dbb_reparam.weight` or `fused_conv.weight`.
    ///
    /// # Errors
    /// A pattern that no block has; a block that lacks a tensor or has one too many, shapes or groups that contradict each
    /// other, and a folded value beyond the range of its type; each names the block.
    /// [`WeightsError::NonFinite`] for a tensor of a block, since no fold of it can be checked;
    /// other tensors may hold what they like.
    pub fn fold(
        &self,
        mut tensors: StateDict,
    ) -> Result<(StateDict, Vec<FoldedBlock>), WeightsError> {
        let blocks = take_blocks(&mut tensors);
        self.check_patterns(blocks.keys().map(|prefix| name(prefix)))?;
        let mut folded = Vec::new();
        for (prefix, (kind, block)) in blocks {
            let name = name(&prefix).to_string();
            let refused =
                |detail: String| WeightsError::Block { path: None, name: name.clone(), detail };
            let shapes = Shapes::of(kind, &block).map_err(refused)?;
            let chosen = self.groups.iter().rev().find(|(pattern, _)| matches(pattern, &name));
            let chosen = chosen.map(|(_, groups)| *groups);
            let groups = match (shapes.groups, chosen) {
                (Some(found), Some(given)) if found != given => {
                    return Err(refused(format!(
                        "its shapes have {found} groups, {given} were asked for"
                    )));
                }
                (found, given) => found.or(given),
            };
            let unit = shapes.unit(groups.unwrap_or(1)).map_err(|e| refused(e.to_string()))?;
            let unit = unit.with_norm(NormConfig { epsilon: self.epsilon, ..Default::default() });
            let keys = KeyMap::official_unit(&unit, kind);
            let unit = keys.load(unit, &block).map_err(|error| error.below(&prefix))?;
            check_finite(&block).map_err(|error| error.below(&prefix))?;

            let params = unit.equivalent();
            let module = format!("{prefix}{}", kind.folded_module());
            let kernel = params.kernel.shape();
            for (tensor, values, shape) in [
                ("weight", params.kernel.data, kernel.to_vec()),
                ("bias", params.bias, vec![kernel[0]]),
            ] {
                let key = format!("{module}.{tensor}");
                if tensors.contains_key(&key) {
                    return Err(refused(format!("the file holds its folded form {key} as well")));
                }
                let data = narrowed(&key, TensorData::new(values, shape), shapes.dtype)?;
                tensors.insert(key, data);
            }
            let [max_abs_diff, max_rel_diff] = difference(&unit);
            folded.push(FoldedBlock { name, kind, kernel, groups, max_abs_diff, max_rel_diff });
        }
        Ok((tensors, folded))
    }

    /// That every pattern is that of a block.
    fn check_patterns<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), WeightsError> {
        let is_idle = |pattern: &str| !names.clone().any(|name| matches(pattern, name));
        let Some((pattern, _)) = self.groups.iter().find(|(pattern, _)| is_idle(pattern)) else {
            return Ok(());
        };
        let mut known: Vec<&str> = names.clone().take(PATTERN_NAMES).collect();
        if names.count() > known.len() {
            known.push("...");
        }
        let detail = match known.is_empty() {
            true => "the file holds no block to fold".into(),
            false => format!("no block has such a name; the blocks are {}", known.join(", ")),
        };
        Err(WeightsError::Block { path: None, name: pattern.clone(), detail })
    }
}

/// The name of the block below a prefix.
fn name(prefix: &str) -> &str {
    prefix.trim_end_matches('.')
}

/// The blocks of a state dict by prefix, taken out of it, with their keys below the prefix.
fn take_blocks(tensors: &mut StateDict) -> BTreeMap<String, (BlockKind, StateDict)> {
    let mut blocks = BTreeMap::<String, (BlockKind, StateDict)>::new();
    let keys: Vec<_> = tensors.keys().filter_map(|key| Some((key.clone(), place(key)?))).collect();
    // Nothing but the square convolution tells such a block from modules with a name in common.
    let is_acb = |prefix: &str| tensors.contains_key(&format!("{prefix}square_conv.weight"));
    let keys: Vec<_> = keys
        .into_iter()
        .filter(|(key, (at, kind))| *kind == BlockKind::Dbb || is_acb(&key[..*at]))
        .collect();
    for (key, (at, kind)) in keys {
        // The key was found in it.
        let data = tensors.remove(&key).expect("a key of the state dict");
        let (prefix, rest) = key.split_at(at);
        let (_, block) = blocks.entry(prefix.to_string()).or_insert((kind, StateDict::new()));
        // Ports of the paper's code keep the identity-based weight in a module of its own, and the
        // identity, which is no parameter, beside it.
        match rest.strip_prefix("dbb_1x1_kxk.idconv1.") {
            Some("id_tensor") => None,
            Some("conv.weight") => block.insert("dbb_1x1_kxk.idconv1.weight".into(), data),
            _ => block.insert(rest.to_string(), data),
        };
    }
    blocks
}

/// Where a block's own part of a key begins, and what the block is.
fn place(key: &str) -> Option<(usize, BlockKind)> {
    let mut at = 0;
    for part in key.split('.') {
        if DBB.iter().any(|(module, _)| *module == part) {
            return Some((at, BlockKind::Dbb));
        }
        if ACB.contains(&part) {
            return Some((at, BlockKind::Acb));
        }
        at += part.len() + 1;
    }
    None
}

/// What the shapes of a block's tensors say.
struct Shapes {
    kind: BlockKind,
    /// Shape of the block's kernel, `[out, in / groups, kh, kw]`.
    kernel: [usize; 4],
    groups: Option<usize>,
    /// Type of the block's kernel.
    dtype: DType,
    branches: Vec<Branch>,
    internal_channels: Option<usize>,
}

impl Shapes {
    fn of(kind: BlockKind, block: &StateDict) -> Result<Self, String> {
        let shape = |key: &str| -> Result<Option<[usize; 4]>, String> {
            let Some(data) = block.get(key) else { return Ok(None) };
            let shape = data.shape().to_vec();
            let ok = is_float(data.dtype()) && !shape.contains(&0);
            let kernel = <[usize; 4]>::try_from(shape.clone()).ok().filter(|_| ok);
            let wrong = format!("{key} {shape:?} is no kernel [out, in / groups, height, width]");
            kernel.map(Some).ok_or(wrong)
        };
        let (origin, second) = match kind {
            BlockKind::Acb => (shape("square_conv.weight")?, None),
            _ => (shape("dbb_origin.conv.weight")?, shape("dbb_1x1_kxk.conv2.weight")?),
        };
        let first = match shape("dbb_1x1_kxk.idconv1.weight")? {
            None => shape("dbb_1x1_kxk.conv1.weight")?,
            first => first,
        };
        // Kernel size and outputs stand in either KxK convolution, the inputs of a group in the
        // first of those that read the block's input.
        let (Some([outputs, _, kh, kw]), Some([_, per_group, ..])) =
            (origin.or(second), origin.or(first))
        else {
            return Err("it has no KxK branch to tell its kernel size by".into());
        };
        let has = |module: &str| block.keys().any(|key| key.split('.').next() == Some(module));
        let groups = match (first, second) {
            // The KxK convolution reads `internal / groups` of the `internal` channels.
            (Some([internal, ..]), Some([_, internal_per_group, ..])) => {
                if internal % internal_per_group != 0 {
                    return Err(format!(
                        "its 1x1 convolution writes {internal} channels, of which its KxK \
                         convolution reads {internal_per_group} in each group"
                    ));
                }
                Some(internal / internal_per_group)
            }
            // Only a depthwise block pools its own input.
            _ if has("dbb_avg") && !block.contains_key("dbb_avg.conv.weight") => Some(outputs),
            _ => None,
        };
        let dtype = |key: &str| block.get(key).map(TensorData::dtype);
        let dtype = ["square_conv.weight", "dbb_origin.conv.weight", "dbb_1x1_kxk.conv2.weight"]
            .into_iter()
            .find_map(dtype)
            .unwrap_or(DType::F32);
        Ok(Self {
            kind,
            kernel: [outputs, per_group, kh, kw],
            groups,
            dtype,
            branches: DBB.into_iter().filter(|(m, _)| has(m)).map(|(_, b)| b).collect(),
            internal_channels: first.map(|[internal, ..]| internal),
        })
    }

    /// A block of these shapes; stride 1 and the usual padding stand for any.
    fn unit(&self, groups: usize) -> Result<ConvUnit, crate::ConfigError> {
        let [outputs, per_group, kh, kw] = self.kernel;
        let spec = ConvSpec::new([per_group.saturating_mul(groups), outputs], [kh, kw])
            .with_padding([kh / 2, kw / 2])
            .with_groups(groups);
        let block = match self.kind {
            BlockKind::Acb => Block::Acb,
            _ => Block::Dbb(DbbConfig {
                branches: self.branches.clone(),
                internal_channels: self.internal_channels,
                ..DbbConfig::default()
            }),
        };
        ConvUnit::new(&spec, &block, &Device::default())
    }
}

/// Largest difference, absolute and relative, between a block and its fold on a random map.
fn difference(unit: &ConvUnit) -> [f64; 2] {
    let device = Device::default();
    let spec = unit.spec();
    let [height, width] = spec.kernel_size.map(|kernel| kernel + PROBE);
    let shape = [1, spec.channels[0], height, width];
    let input = TensorData::new(random_values(shape.iter().product(), 0), shape);
    let input = Tensor::<4>::from_data(input, &device);
    let host = |tensor: Tensor<4>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
    let folded = ConvUnit::Folded(unit.fuse());
    let (trained, folded) = (host(unit.forward(input.clone())), host(folded.forward(input)));
    let worst = |m: f64, v: f64| if v.is_nan() || v > m { v } else { m };
    let abs = trained.iter().zip(&folded).fold(0.0, |m, (a, b)| worst(m, (a - b).abs()));
    let largest = trained.iter().fold(f64::MIN_POSITIVE, |m, v| worst(m, v.abs()));
    [abs, abs / largest]
}

/// Values from -2 to 2, as normalised images have them; equal for an equal `seed`.
pub fn random_values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        // SplitMix64 (Steele et al., 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 40) as f32 / (1u64 << 24) as f32 * 4.0 - 2.0
    };
    (0..count).map(|_| next()).collect()
}
