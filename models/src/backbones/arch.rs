//! The architectures of the zoo.

use super::Arch;
use crate::blocks::{Activation, BlockKind};
use crate::dialects::{Dialect, Layers, Names, UnitNames};

/// Makes [`Arch`] from the table of architectures. A row is
/// `Variant = name, network, height and width of the images, names in other code bases;`.
macro_rules! architectures {
    ($(
        $(#[$doc:meta])*
        $Variant:ident = $name:literal, $network:expr, $side:literal, $names:expr;
    )*) => {
        crate::names::named! {
            /// An architecture of the zoo.
            #[allow(missing_docs)] // the names are those of the papers
            pub enum Arch: "arch" {
                $($(#[$doc])* $Variant = $name,)*
            }
        }

        impl Arch {
            /// Image size (height and width) the paper trains this architecture with.
            pub fn default_resolution(self) -> usize {
                match self {
                    $(Self::$Variant => $side,)*
                }
            }

            /// What the architecture is made of.
            pub(crate) fn definition(self) -> Definition {
                match self {
                    $(Self::$Variant => $network.into(),)*
                }
            }

            /// The names that other code bases have for its layers.
            fn foreign_names(self) -> &'static [Names] {
                match self {
                    $(Self::$Variant => &$names,)*
                }
            }
        }
    };
}
pub(super) use architectures;

impl Arch {
    /// Classes of the data set the paper trains this architecture with: ImageNet's or CIFAR-10's.
    pub fn default_classes(self) -> usize {
        if self.default_resolution() > 32 { 1000 } else { 10 }
    }

    /// The dialects that have names for this architecture, [`Dialect::Native`] first.
    pub fn dialects(self) -> Vec<Dialect> {
        let foreign = self.foreign_names().iter().map(|names| names.dialect);
        std::iter::once(Dialect::Native).chain(foreign).collect()
    }

    /// The only block of this architecture that a dialect has names for; `None` if it has names for
    /// every block, or none for the architecture.
    pub fn only_block(self, dialect: Dialect) -> Option<BlockKind> {
        self.names(dialect)?.units.only()
    }

    /// The names of a dialect for this architecture.
    pub(crate) fn names(self, dialect: Dialect) -> Option<&'static Names> {
        self.foreign_names().iter().find(|names| names.dialect == dialect)
    }
}

/// What a network is in another code base that makes networks by name.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignModel {
    /// The widths there are.
    pub widths: &'static [f64],
    /// The name, if there is a network of the width.
    pub name: Option<String>,
    /// The modules of the convolutions that read the image.
    pub first_convs: Vec<String>,
    /// The module of the classifier.
    pub classifier: String,
    /// The nonlinearity that the code base gives the network, where ours leaves it open.
    pub activation: Option<Activation>,
}

impl Arch {
    /// What another code base calls this architecture of some width; `None` if it has no names for
    /// it, or makes none by name.
    pub fn foreign_model(self, dialect: Dialect, width: f64) -> Option<ForeignModel> {
        let names = self.names(dialect)?;
        let models = names.models.as_ref()?;
        let layers = Layers(Vec::new());
        let first_convs = match names.units {
            UnitNames::Blocks(module) => vec![module("stem")],
            UnitNames::OneBlock { module, port, .. } => {
                port.convs.iter().map(|conv| format!("{}.{conv}", module("stem"))).collect()
            }
            UnitNames::ConvBn { modules, .. } => {
                let [conv, _] = modules(&layers, "stem");
                vec![conv]
            }
        };
        let name = || match models.prefix {
            Some(prefix) => format!("{prefix}_{:03.0}", 100.0 * width),
            None => self.to_string(),
        };
        Some(ForeignModel {
            widths: models.widths,
            name: models.widths.contains(&width).then(name),
            first_convs,
            classifier: (names.others)(&layers, "linear"),
            activation: names.activation,
        })
    }
}

impl Dialect {
    /// Whether the dialect has names for an architecture.
    pub fn supports(self, arch: Arch) -> bool {
        arch.dialects().contains(&self)
    }
}
