//! Blocks of a state dict folded without the network around them.
//!
//! The papers' repositories give the branches of a block names of their own, below whatever prefix
//! the network has for the layer: `neck.3.dbb_origin.conv.weight`. Names and shapes say all that a
//! fold needs. What they leave open, stride, padding and sometimes the groups, changes nothing
//! about the folded kernel.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::block_find::{FoundBlock, name, take_blocks, unmarked_blocks};
use super::dtype::narrowed;
use super::error::WeightsError;
use super::finite::check_finite;
use super::key_map::KeyMap;
use crate::blocks::{BlockKind, BlockTensors, ConvSpec, ConvUnit, Description, NormConfig};
use crate::layer_pattern::matches;
use crate::state_dict::StateDict;

/// Names of blocks that an error about a pattern lists.
const PATTERN_NAMES: usize = 12;
/// Height and width of the random map a fold is checked on: room for an inner and a border.
const PROBE: usize = 5;

/// What a state dict does not say of its blocks. Patterns are those of the block's name (`*` stands
/// for any text; the last match wins).
#[derive(Clone, Debug, PartialEq)]
pub struct BlockFold {
    /// Epsilon of the batch norms; PyTorch's default is 1e-5, some detectors have 1e-3.
    pub epsilon: f64,
    /// Groups by pattern, where shapes leave them open. The folded kernel is the same for all of
    /// them, but that of a QARepVGG block, whose identity depends on the number of channels.
    pub groups: Vec<(String, usize)>,
    /// Strides by pattern, by default 1. The folded kernel is the same for all of them, but that of
    /// a QARepVGG block: with stride 1 it has an identity, which leaves no tensor.
    pub strides: Vec<(String, usize)>,
    /// Names of the RepConv blocks whose modules are called as those of others are
    /// ([`unmarked_blocks`]), by pattern.
    pub unmarked: Vec<String>,
}

impl Default for BlockFold {
    fn default() -> Self {
        let epsilon = NormConfig::default().epsilon;
        Self { epsilon, groups: Vec::new(), strides: Vec::new(), unmarked: Vec::new() }
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
    /// Whether an identity was folded in or left out although no tensor, option or number of channels
    /// tells: `Some(true)` is in.
    pub assumed_identity: Option<bool>,
    /// Largest difference between both forms on a random map.
    pub max_abs_diff: f64,
    /// The same, relative to the largest output.
    pub max_rel_diff: f64,
}

/// Whether a state dict holds a folded block.
pub fn has_folded_blocks(tensors: &StateDict) -> bool {
    let of_block = |part: &str| {
        let mut blocks = BlockKind::ALL.into_iter().filter(|kind| kind.is_multi_branch());
        blocks.any(|kind| {
            let module = kind.official().folded_module;
            [[1, 1], [3, 3]].into_iter().any(|size| module(size) == part)
        })
    };
    tensors.keys().any(|key| key.split('.').any(of_block))
}

/// Whether a tensor of an official state dict is a constant of a block, and no parameter.
pub fn is_constant(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    BlockKind::ALL.into_iter().any(|kind| kind.official().constants.contains(&last))
}

impl BlockFold {
    /// Folds every block, in `f64`, and leaves every other tensor as it is. The folded kernel and
    /// bias have the type of the block's own kernels and stand below the block's prefix as its
    /// authors' code calls them, such as `dbb_reparam.weight` or `rbr_reparam.weight`.
    ///
    /// # Errors
    /// A pattern that no block has; a block that lacks a tensor or has one too many, shapes or groups
    /// that contradict each other, and a folded value beyond the range of its type; each names the
    /// block. [`WeightsError::NonFinite`] for a tensor of a block, since no fold of it can be
    /// checked; other tensors may hold what they like.
    pub fn fold(&self, tensors: StateDict) -> Result<(StateDict, Vec<FoldedBlock>), WeightsError> {
        let (mut tensors, blocks) = self.take(tensors)?;
        let mut folded = Vec::new();
        for block in blocks {
            let block = self.rebuild(block)?;
            let params = block.unit.equivalent();
            let kernel = params.kernel.shape();
            let module = block.folded_module(kernel);
            for (tensor, values, shape) in [
                ("weight", params.kernel.data, kernel.to_vec()),
                ("bias", params.bias, vec![kernel[0]]),
            ] {
                let key = format!("{module}.{tensor}");
                if tensors.contains_key(&key) {
                    let detail = format!("the file holds its folded form {key} as well");
                    return Err(refused(&block.prefix, detail));
                }
                let data = narrowed(&key, TensorData::new(values, shape), block.dtype)?;
                tensors.insert(key, data);
            }
            let [max_abs_diff, max_rel_diff] = fold_difference(&block.unit);
            folded.push(FoldedBlock {
                name: name(&block.prefix).into(),
                kind: block.kind,
                kernel,
                groups: block.geometry.groups,
                assumed_identity: block.geometry.assumed_identity,
                max_abs_diff,
                max_rel_diff,
            });
        }
        Ok((tensors, folded))
    }

    /// Every block with its name, in training form and by name.
    ///
    /// # Errors
    /// As [`Self::fold`], but for what a folded value may not be.
    pub fn units(&self, tensors: StateDict) -> Result<Vec<(String, ConvUnit)>, WeightsError> {
        let (_, blocks) = self.take(tensors)?;
        let unit = |block: FoundBlock| {
            let name = name(&block.prefix).to_string();
            Ok((name, self.rebuild(block)?.unit))
        };
        blocks.into_iter().map(unit).collect()
    }

    /// The blocks of a state dict, and its other tensors.
    fn take(&self, mut tensors: StateDict) -> Result<(StateDict, Vec<FoundBlock>), WeightsError> {
        let unmarked = unmarked_blocks(&tensors);
        check_patterns(self.unmarked.iter(), unmarked.iter().map(String::as_str))?;
        let blocks = take_blocks(&mut tensors, &self.unmarked);
        let patterns = self.groups.iter().chain(&self.strides).map(|(pattern, _)| pattern);
        check_patterns(patterns, blocks.iter().map(|block| name(&block.prefix)))?;
        Ok((tensors, blocks))
    }

    /// A block as a unit of the network that it is from.
    fn rebuild(&self, found: FoundBlock) -> Result<RebuiltBlock, WeightsError> {
        let FoundBlock { prefix, kind, tensors: block, folded_module } = found;
        let refused = |detail: String| refused(&prefix, detail);
        let description = (kind.official().describe)(&BlockTensors(&block)).map_err(refused)?;
        let geometry = self.geometry(name(&prefix), &description).map_err(refused)?;
        let unit = ConvUnit::new(&geometry.spec, &description.block, &Device::default())
            .map_err(|error| refused(error.to_string()))?
            .with_norm(NormConfig { epsilon: self.epsilon, ..Default::default() });
        let keys = KeyMap::official_unit(&unit, kind);
        let unit = keys.load(unit, &block).map_err(|error| error.below(&prefix))?;
        check_finite(&block).map_err(|error| error.below(&prefix))?;
        let dtype = description.dtype;
        Ok(RebuiltBlock { prefix, kind, unit, geometry, folded_module, dtype })
    }

    /// The geometry to build a block with; usual values stand for what changes nothing about its
    /// fold.
    ///
    /// # Errors
    /// If names, shapes and what was chosen contradict each other.
    fn geometry(&self, name: &str, described: &Description) -> Result<Geometry, String> {
        let chosen = |patterns: &[(String, usize)]| {
            let found = patterns.iter().rev().find(|(pattern, _)| matches(pattern, name));
            found.map(|(_, number)| *number)
        };
        let (chosen_groups, stride) = (chosen(&self.groups), chosen(&self.strides));
        let groups = match (described.groups, chosen_groups) {
            (Some(found), Some(given)) if found != given => {
                return Err(format!("its shapes have {found} groups, {given} were asked for"));
            }
            (found, given) => found.or(given),
        };
        let [outputs, per_group, kh, kw] = described.kernel;
        let of_stride = |stride: usize| {
            let inputs = per_group.saturating_mul(groups.unwrap_or(1));
            ConvSpec::new([inputs, outputs], [kh, kw])
                .with_padding([kh / 2, kw / 2])
                .with_groups(groups.unwrap_or(1))
                .with_stride([stride; 2])
        };
        let spec = match described.identity {
            // A block of stride 1 that keeps its channels has an identity, one that strides has none.
            Some(true) => of_stride(1),
            Some(false) => of_stride(2),
            None => of_stride(stride.unwrap_or(1)),
        };
        if described.identity == Some(true) {
            if let Some(stride) = stride.filter(|&stride| stride != 1) {
                return Err(format!("it has an identity branch, which no stride of {stride} has"));
            }
            if !spec.keeps_shape() {
                return Err("it has an identity branch, but other inputs than outputs".into());
            }
        }
        let may_be_grouped = groups.is_none() && per_group < outputs;
        let is_open = stride.is_none() && per_group.saturating_mul(groups.unwrap_or(1)) == outputs
            || may_be_grouped && outputs.is_multiple_of(per_group) && stride.is_none_or(|s| s == 1);
        let open = described.identity.is_none() && is_open;
        Ok(Geometry { groups, assumed_identity: open.then(|| spec.keeps_shape()), spec })
    }
}

/// The geometry of a block of a state dict.
struct Geometry {
    spec: ConvSpec,
    groups: Option<usize>,
    assumed_identity: Option<bool>,
}

/// A block of a state dict as a unit.
struct RebuiltBlock {
    prefix: String,
    kind: BlockKind,
    unit: ConvUnit,
    geometry: Geometry,
    folded_module: Option<&'static str>,
    dtype: DType,
}

impl RebuiltBlock {
    /// The path of the folded convolution, whose kernel has this shape.
    fn folded_module(&self, [.., height, width]: [usize; 4]) -> String {
        let official = || (self.kind.official().folded_module)([height, width]);
        format!("{}{}", self.prefix, self.folded_module.unwrap_or_else(official))
    }
}

/// An error about the block below a prefix.
fn refused(prefix: &str, detail: String) -> WeightsError {
    WeightsError::Block { path: None, name: name(prefix).into(), detail }
}

/// That every pattern is that of a block.
fn check_patterns<'a>(
    mut patterns: impl Iterator<Item = &'a String>,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), WeightsError> {
    let is_idle = |pattern: &str| !names.clone().any(|name| matches(pattern, name));
    let Some(pattern) = patterns.find(|pattern| is_idle(pattern)) else {
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

/// Largest difference between a block and its fold on a random map: absolute, and relative to the
/// largest output.
pub fn fold_difference(unit: &ConvUnit) -> [f64; 2] {
    let device = Device::default();
    let spec = unit.spec();
    let [height, width] = spec.kernel_size.map(|kernel| kernel + PROBE);
    let shape = [1, spec.channels[0], height, width];
    let input = TensorData::new(random_values(shape.iter().product(), 0), shape);
    let input = Tensor::<4>::from_data(input, &device);
    let host = |tensor: Tensor<4>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
    let folded = ConvUnit::Folded(unit.fold());
    let (trained, folded) = (host(unit.forward(input.clone())), host(folded.forward(input)));
    let worst = |m: f64, v: f64| if v.is_nan() || v > m { v } else { m };
    let abs = trained.iter().zip(&folded).fold(0.0, |m, (a, b)| worst(m, (a - b).abs()));
    let largest = trained.iter().fold(0.0, |m, v| worst(m, v.abs()));
    [abs, relative(abs, largest)]
}

/// A difference of outputs relative to the largest of them, or of their squares to the sum of these. It
/// is finite where all outputs are zero, too.
pub fn relative(difference: f64, largest: f64) -> f64 {
    difference / largest.max(f64::from(f32::MIN_POSITIVE))
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
