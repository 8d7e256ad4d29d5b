//! What every block in training form offers.

use burn::tensor::{DType, Tensor};

use super::Block;
use crate::algebra::ConvParams;
use crate::cpu_ops;
use crate::error::ConfigError;
use crate::implementation::LayerCount;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::branch_part::BranchPart;
use crate::layers::branch_sum::{BranchSum, Positions};
use crate::layers::conv_spec::ConvSpec;
use crate::layers::epilogue::Epilogue;
use crate::state_dict::StateDict;

/// A block in training form: in inference it is equal to one convolution with bias.
///
/// To add a block, implement this trait, `OfficialBlock` and `new` in a file of its own, and name
/// the block in the list in `blocks/unit.rs`.
pub trait ConvBlock {
    /// The geometry of the convolution that the block folds into.
    fn spec(&self) -> ConvSpec;

    /// The branches.
    fn sum(&self) -> BranchSum<'_>;

    /// `[batch, in, height, width]` to `[batch, out, height', width']`, then the epilogue.
    fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        self.sum().forward_then(input, epilogue)
    }

    /// The equivalent kernel and bias, in `f64` on the host.
    fn equivalent(&self) -> ConvParams {
        self.sum().equivalent()
    }

    /// What each branch adds to the equivalent kernel.
    fn parts(&self) -> Vec<BranchPart> {
        self.sum().parts()
    }

    /// Multiply-accumulate operations of the convolutions of all branches, as the block defines
    /// them, for one image whose map has so many positions before and after the stride.
    fn macs(&self, positions: Positions) -> usize {
        self.sum().macs(positions)
    }

    /// Every batch norm.
    fn norms_mut(&mut self) -> Vec<&mut BatchNorm>;

    /// Puts a plain convolution and its batch norm into the block, so that the block starts as
    /// what they compute. `own` holds the tensors of the block by their paths in it and keeps the
    /// fresh ones of what can still learn.
    ///
    /// # Errors
    /// If the block was configured without a branch that can take the convolution.
    fn take_plain(&self, plain: PlainConv, own: &mut StateDict) -> Result<(), ConfigError>;

    /// Native and official beginnings of a tensor's path within the block; the first match counts.
    fn official_names(&self) -> Vec<(&'static str, &'static str)>;
}

impl BranchSum<'_> {
    /// `[batch, in, height, width]` to `[batch, out, height', width']`, then the epilogue.
    ///
    /// # Panics
    /// If there is no branch.
    pub fn forward_then(&self, input: Tensor<4>, epilogue: Epilogue) -> Tensor<4> {
        cpu_ops::branch_sum(self, &input, &epilogue)
            .unwrap_or_else(|| LayerCount::plain(|| self.definition(&input, epilogue)))
    }
}

/// A plain convolution and its batch norm, as tensors with the paths of a
/// [`ConvBn`](super::ConvBn).
#[derive(Clone, Debug)]
pub struct PlainConv(pub StateDict);

impl PlainConv {
    /// Makes them the tensors of the convolution and norm below two paths of a block.
    pub(crate) fn put(self, conv: &str, norm: &str, own: &mut StateDict) {
        for (key, data) in self.0 {
            let path = match key.strip_prefix("bn.") {
                Some(parameter) => format!("{norm}{parameter}"),
                None => conv.to_string(),
            };
            own.insert(path, data);
        }
    }
}

/// Sets the scale and shift of norms to zero: what they close adds nothing until it has learnt.
/// Each is named by its path in the block, with the last dot, and may be absent.
pub(crate) fn close(norms: &[&str], own: &mut StateDict) {
    for (key, data) in own {
        let parameter = norms.iter().find_map(|norm| key.strip_prefix(norm));
        if matches!(parameter, Some("gamma" | "beta")) {
            *data = constant(data.shape().to_vec(), 0.0);
        }
    }
}

/// A tensor of equal values.
pub(crate) fn constant(shape: Vec<usize>, value: f64) -> burn::tensor::TensorData {
    let count = shape.iter().product();
    burn::tensor::TensorData::new(vec![value as f32; count], shape)
}

/// Tells whether a block of a state dict has a tensor of a name or below it.
pub(crate) type HasTensor<'a> = &'a dyn Fn(&str) -> bool;

/// How the authors' code of a block stores it, so that it is found and folded in any state dict.
pub(crate) trait OfficialBlock {
    /// Modules and tensors directly below a block's prefix that mark such a block.
    const MARKS: &'static [&'static str];

    /// Further ones that belong to the block, with names that others have, too.
    const COMMON: &'static [&'static str] = &[];

    /// Those of them that are no parameters.
    const CONSTANTS: &'static [&'static str] = &[];

    /// Whether the authors make such blocks of 1x1 convolutions, too.
    const POINTWISE: bool = false;

    /// The names of timm, if it has the block.
    const TIMM: Option<Port> = None;

    /// Whether a block with a mark is of this kind. By default the marks decide.
    fn recognises(has: HasTensor<'_>) -> bool {
        Self::MARKS.iter().any(|mark| has(mark))
    }

    /// The authors' own name of a tensor that ports of their code name otherwise; `None` for one
    /// that is no parameter.
    fn canonical(key: &str) -> Option<String> {
        Some(key.to_string())
    }

    /// What names and shapes say about a block.
    ///
    /// # Errors
    /// A sentence about what is missing or contradicts itself.
    fn describe(block: &BlockTensors<'_>) -> Result<Description, String>;

    /// The module that holds the folded convolution.
    fn folded_module(kernel_size: [usize; 2]) -> &'static str;
}

/// What a port of the authors' code calls the modules of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    /// Convolutions that every such block has. Together they tell it from others.
    pub convs: &'static [&'static str],
    /// Every module, by the port's name and by the authors'.
    pub modules: &'static [(&'static str, &'static str)],
    /// The module of the folded convolution.
    pub folded: &'static str,
}

impl Port {
    /// The module that comes first in a block's names.
    pub fn mark(&self) -> &'static str {
        self.modules[0].0
    }

    /// Whether a block has the names of the port.
    pub fn recognises(&self, has: HasTensor<'_>) -> bool {
        self.convs.iter().all(|conv| has(conv))
    }

    /// The authors' name of a tensor.
    pub fn official(&self, key: &str) -> String {
        renamed(key, self.modules.iter().copied())
    }

    /// The port's name of a tensor of a block in training form.
    pub fn ported(&self, official: &str) -> String {
        renamed(official, self.modules.iter().map(|&(port, official)| (official, port)))
    }
}

/// A tensor's path with its first module named otherwise.
fn renamed(key: &str, mut names: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let (module, rest) = key.split_at(key.find('.').unwrap_or(key.len()));
    let name = names.find(|(from, _)| *from == module).map_or(module, |(_, to)| to);
    format!("{name}{rest}")
}

/// [`OfficialBlock`] as a value.
pub(crate) struct OfficialForm {
    pub marks: &'static [&'static str],
    pub common: &'static [&'static str],
    pub constants: &'static [&'static str],
    pub pointwise: bool,
    pub timm: Option<Port>,
    pub recognises: fn(HasTensor<'_>) -> bool,
    pub canonical: fn(&str) -> Option<String>,
    pub describe: fn(&BlockTensors<'_>) -> Result<Description, String>,
    pub folded_module: fn([usize; 2]) -> &'static str,
}

impl OfficialForm {
    pub fn of<B: OfficialBlock>() -> Self {
        Self {
            marks: B::MARKS,
            common: B::COMMON,
            constants: B::CONSTANTS,
            pointwise: B::POINTWISE,
            timm: B::TIMM,
            recognises: B::recognises,
            canonical: B::canonical,
            describe: B::describe,
            folded_module: B::folded_module,
        }
    }
}

/// What a block of a state dict is.
pub(crate) struct Description {
    pub block: Block,
    /// Shape of the folded kernel, `[out, in / groups, height, width]`.
    pub kernel: [usize; 4],
    /// Where names and shapes say.
    pub groups: Option<usize>,
    /// Whether the block has the identity branch that goes with stride 1 and an unchanged number of
    /// channels; `None` if no tensor tells.
    pub identity: Option<bool>,
    /// Type of the block's kernels.
    pub dtype: DType,
}

/// The tensors of a block by their official names.
pub(crate) struct BlockTensors<'a>(pub &'a StateDict);

impl BlockTensors<'_> {
    /// Whether there is a tensor of a module, or the tensor itself.
    pub fn has(&self, module: &str) -> bool {
        self.0.keys().any(|key| {
            key.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Shape of a kernel, `[out, in / groups, height, width]`; `None` if there is no such tensor.
    pub fn shape(&self, key: &str) -> Result<Option<[usize; 4]>, String> {
        let Some(data) = self.0.get(key) else { return Ok(None) };
        let shape = data.shape().to_vec();
        let ok = data.dtype().is_float() && !shape.contains(&0);
        let kernel = <[usize; 4]>::try_from(shape.clone()).ok().filter(|_| ok);
        let wrong = format!("{key} {shape:?} is no kernel [out, in / groups, height, width]");
        kernel.map(Some).ok_or(wrong)
    }

    /// [`Self::shape`] of a tensor that the block cannot do without.
    pub fn kernel(&self, key: &str) -> Result<[usize; 4], String> {
        self.shape(key)?.ok_or_else(|| format!("it has no {key}"))
    }

    /// The type of a tensor; `f32` if there is none.
    pub fn dtype(&self, key: &str) -> DType {
        self.0.get(key).map_or(DType::F32, |data| data.dtype())
    }

    /// The groups of a block whose outputs are as many as its inputs.
    pub fn groups_of_equal_channels(kernel: [usize; 4]) -> Option<usize> {
        let [outputs, per_group, ..] = kernel;
        outputs.is_multiple_of(per_group).then_some(outputs / per_group)
    }
}

/// The groups of a 1x1 convolution that writes `internal` channels and a KxK convolution that reads
/// `per_group` of them in each group.
///
/// # Errors
/// A sentence, if they do not go together.
pub(crate) fn groups_of_sequence(internal: usize, per_group: usize) -> Result<usize, String> {
    match internal.is_multiple_of(per_group) {
        true => Ok(internal / per_group),
        false => Err(format!(
            "its 1x1 convolution writes {internal} channels, of which its KxK convolution reads \
             {per_group} in each group"
        )),
    }
}
