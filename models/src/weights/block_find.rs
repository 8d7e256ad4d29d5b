//! Blocks of a state dict found by the names of their tensors.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::blocks::{BlockKind, Port};
use crate::layer_pattern::matches;
use crate::state_dict::StateDict;

/// A block of a state dict, taken out of it.
pub(super) struct FoundBlock {
    /// What stands before the names of its tensors.
    pub prefix: String,
    pub kind: BlockKind,
    /// Its tensors under their official names.
    pub tensors: StateDict,
    /// The module of the folded convolution, where it is not the official one.
    pub folded_module: Option<&'static str>,
}

/// The name of the block below a prefix.
pub(super) fn name(prefix: &str) -> &str {
    prefix.trim_end_matches('.')
}

/// The blocks with names that mark them, and those of others that match a pattern, by prefix.
pub(super) fn take_blocks(tensors: &mut StateDict, unmarked: &[String]) -> Vec<FoundBlock> {
    let mut blocks = Vec::new();
    let prefixes: BTreeSet<_> = tensors.keys().filter_map(|key| prefix(key)).collect();
    for prefix in prefixes {
        let has = |name: &str| is_held(tensors, &format!("{prefix}{name}"));
        let timm = |kind: BlockKind| kind.official().timm.filter(|timm| timm.recognises(&has));
        if let Some(kind) =
            BlockKind::ALL.into_iter().find(|kind| (kind.official().recognises)(&has))
        {
            let official = kind.official();
            let taken = take(tensors, &prefix, &[official.marks, official.common].concat());
            let named = taken
                .into_iter()
                .filter_map(|(key, data)| Some(((official.canonical)(&key)?, data)));
            let tensors = named.collect();
            blocks.push(FoundBlock { prefix, kind, tensors, folded_module: None });
        } else if let Some((kind, port)) =
            BlockKind::ALL.into_iter().find_map(|kind| Some((kind, timm(kind)?)))
        {
            blocks.push(take_port(tensors, prefix, kind, &port));
        }
    }
    let names = unmarked_blocks(tensors).into_iter();
    for name in names.filter(|name| unmarked.iter().any(|pattern| matches(pattern, name))) {
        let prefix = if name.is_empty() { name } else { format!("{name}.") };
        blocks.push(take_port(tensors, prefix, BlockKind::RepVgg, &UNMARKED));
    }
    blocks.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    blocks
}

/// RepConv of YOLOv9 and Ultralytics' YOLO.
const UNMARKED: Port = Port {
    convs: &["conv1.conv", "conv2.conv"],
    modules: &[("conv1", "rbr_dense"), ("conv2", "rbr_1x1"), ("bn", "rbr_identity")],
    folded: "conv",
};

/// Takes a block with the names of a port.
fn take_port(tensors: &mut StateDict, prefix: String, kind: BlockKind, port: &Port) -> FoundBlock {
    let modules: Vec<_> = port.modules.iter().map(|(module, _)| *module).collect();
    let taken = take(tensors, &prefix, &modules).into_iter();
    let tensors = taken.map(|(key, data)| (port.official(&key), data)).collect();
    FoundBlock { prefix, kind, tensors, folded_module: Some(port.folded) }
}

/// Names of what may be a RepConv block of YOLOv9 or Ultralytics' YOLO: modules `conv1` and `conv2`
/// of a convolution and a norm each, a KxK and a 1x1 one of equal channels. Two convolutions in a row
/// may look the same, so that such blocks are folded on demand alone ([`BlockFold::unmarked`]).
///
/// [`BlockFold::unmarked`]: super::BlockFold::unmarked
pub fn unmarked_blocks(tensors: &StateDict) -> Vec<String> {
    let shape = |key: String| Some(tensors.get(&key)?.shape().to_vec());
    let block = |key: &String| {
        let prefix = key.strip_suffix("conv1.conv.weight")?;
        if !(prefix.is_empty() || prefix.ends_with('.')) {
            return None;
        }
        let [outputs, inputs, kh, kw] = shape(key.clone())?[..] else { return None };
        let second = shape(format!("{prefix}conv2.conv.weight"))?;
        let norms = ["conv1", "conv2"];
        let has_norms = norms.iter().all(|of| is_held(tensors, &format!("{prefix}{of}.bn")));
        let fits = kh == kw && kh > 1 && kh % 2 == 1 && second == [outputs, inputs, 1, 1];
        (fits && has_norms).then(|| name(prefix).to_string())
    };
    tensors.keys().filter_map(block).collect()
}

/// Takes what lies below a prefix in some modules, or is a tensor of such a name; keys begin after
/// the prefix.
fn take(tensors: &mut StateDict, prefix: &str, modules: &[&str]) -> StateDict {
    let (mut taken, mut rest) = (StateDict::new(), StateDict::new());
    for (key, data) in std::mem::take(tensors) {
        let below = key.strip_prefix(prefix);
        match below.filter(|below| modules.iter().any(|module| is_below(below, module))) {
            Some(below) => taken.insert(below.to_string(), data),
            None => rest.insert(key, data),
        };
    }
    *tensors = rest;
    taken
}

/// Whether a state dict holds a tensor, or one of a module.
fn is_held(tensors: &StateDict, name: &str) -> bool {
    let from = tensors.range::<str, _>((Bound::Included(name), Bound::Unbounded));
    let mut near = from.map(|(key, _)| key).take_while(|key| key.starts_with(name));
    near.any(|key| is_below(key, name))
}

/// Whether a name is that of a module or tensor, or lies below it.
fn is_below(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What stands before the part of a key that marks a block.
fn prefix(key: &str) -> Option<String> {
    let marks = |part: &str| {
        BlockKind::ALL.into_iter().map(BlockKind::official).any(|official| {
            official.marks.contains(&part) || official.timm.is_some_and(|timm| timm.mark() == part)
        })
    };
    let mut at = 0;
    for part in key.split('.') {
        if marks(part) {
            return Some(key[..at].to_string());
        }
        at += part.len() + 1;
    }
    None
}
