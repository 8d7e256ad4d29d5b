//! The names that other code bases have for the layers and tensors of networks: one file per code
//! base.
//!
//! A file holds one [`Names`] for each family of networks; the rows of the table in
//! [`backbones`](crate::backbones) say which architecture has which. To add a dialect, name it in
//! [`Dialect`] and give its names a file.

pub(crate) mod akamaster;
pub(crate) mod official;
pub(crate) mod timm;
pub(crate) mod torchvision;

use crate::blocks::{Activation, BlockKind, ConvUnit, Port};
use crate::names::named;

named! {
    /// A way to name the tensors of a network.
    pub enum Dialect: "dialect" {
        /// The paths and layouts of our Burn modules.
        Native = "native",
        /// The names of the papers' repositories, in PyTorch's layouts.
        Official = "official",
        /// The names of torchvision, for plain convolutions with batch norm only.
        Torchvision = "torchvision",
        /// The names of timm, for its own blocks only: in most networks plain convolutions with
        /// batch norm.
        Timm = "timm",
        /// The names of the best-known CIFAR ResNets, for plain convolutions with batch norm only.
        Akamaster = "akamaster",
    }
}

/// What a dialect calls the layers of a network.
#[derive(Debug)]
pub(crate) struct Names {
    pub dialect: Dialect,
    pub units: UnitNames,
    /// The name of a tensor that belongs to no convolution unit, from its native one.
    pub others: fn(&Layers, &str) -> String,
    /// The nonlinearity that the code base gives a network where ours leaves it open.
    pub activation: Option<Activation>,
    /// The networks that the code base makes by name, if that matters to anyone.
    pub models: Option<Models>,
}

/// The names under which a code base makes the networks of an architecture.
#[derive(Debug)]
pub(crate) struct Models {
    /// What stands before the width in percent; without it, the architecture has the same name as
    /// here.
    pub prefix: Option<&'static str>,
    /// The widths there are.
    pub widths: &'static [f64],
}

/// What a dialect calls convolution units, by the path of the layer.
#[derive(Debug)]
pub(crate) enum UnitNames {
    /// The module of the unit, whatever it holds; its block names the tensors in it.
    Blocks(fn(&str) -> String),
    /// The module of a unit that is a block of one kind, or its fold.
    OneBlock {
        module: fn(&str) -> String,
        kind: BlockKind,
        /// The names within the unit.
        port: Port,
    },
    /// The modules of a plain convolution and of its batch norm.
    ConvBn {
        modules: fn(&Layers, &str) -> [String; 2],
        /// Whether the convolution has a bias although the norm follows.
        bias: bool,
    },
}

impl UnitNames {
    /// The only block there are names for, which a folded network is written as
    /// ([`as_block`](crate::weights::as_block)); `None` if there are names for all.
    pub fn only(&self) -> Option<BlockKind> {
        match self {
            Self::Blocks(_) => None,
            Self::OneBlock { kind, .. } => Some(*kind),
            Self::ConvBn { .. } => Some(BlockKind::Base),
        }
    }

    /// Whether there are names for a unit.
    pub fn fit(&self, unit: &ConvUnit) -> bool {
        match self {
            Self::Blocks(_) => true,
            Self::OneBlock { kind, .. } => unit.kind().is_none_or(|of| of == *kind),
            Self::ConvBn { .. } => unit.kind() == Some(BlockKind::Base),
        }
    }
}

/// The paths of the layers of a network, in order of computation: all that names depend on.
#[derive(Debug)]
pub(crate) struct Layers(pub Vec<String>);

impl Layers {
    /// Whether a block has a part: `blocks.3` and `expand`.
    fn has(&self, block: &str, part: &str) -> bool {
        let path = format!("{block}.{part}");
        self.0.iter().any(|layer| {
            layer.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// How many blocks there are, `blocks.0` and so on.
    fn blocks(&self) -> usize {
        let indices = self.0.iter().filter_map(|layer| {
            layer.strip_prefix("blocks.")?.split('.').next()?.parse::<usize>().ok()
        });
        indices.max().map_or(0, |last| last + 1)
    }
}

/// The index in `blocks.3`.
fn block_index(block: &str) -> usize {
    // The names come from the network's own layers.
    block.rsplit('.').next().and_then(|index| index.parse().ok()).expect("a block has an index")
}

/// PyTorch calls the scale and shift of a batch norm `weight` and `bias`.
pub(crate) fn pytorch_norm(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((module, "gamma")) => format!("{module}.weight"),
        Some((module, "beta")) => format!("{module}.bias"),
        _ => path.to_string(),
    }
}
