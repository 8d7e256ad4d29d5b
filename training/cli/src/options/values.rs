//! Values of flags that completions can list.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use dbb_models::quantize::Granularity;
use dbb_models::weights::Dialect;
use dbb_models::{Arch, BlockKind, Form, Implementation};

use dbb_training::deploy::rounding::Precision;

/// An architecture; completions offer its names.
pub fn arch() -> impl TypedValueParser<Value = Arch> {
    one_of(Arch::ALL, Arch::name)
}

/// A block; completions offer its names.
pub fn block() -> impl TypedValueParser<Value = BlockKind> {
    one_of(BlockKind::ALL, BlockKind::name)
}

/// Names of tensors; completions offer those of the dialects, and the help says whose they are.
pub fn dialect() -> impl TypedValueParser<Value = Dialect> {
    let help = |dialect| match dialect {
        Dialect::Native => "Names of this project",
        Dialect::Official => "Names of the papers' own repositories (DBB, RepVGG, MobileOne)",
        Dialect::Torchvision => {
            "Names of torchvision; a folded network is written as convolutions with identity batch \
             norms, so that torchvision's own network loads it"
        }
        Dialect::Timm => {
            "Names of timm, a folded network with identity batch norms, too; its ResNets have \
             torchvision's names"
        }
        Dialect::Akamaster => {
            "Names of akamaster's pytorch_resnet_cifar10, with identity batch norms"
        }
    };
    let values = Dialect::ALL.map(|value| PossibleValue::new(value.name()).help(help(value)));
    PossibleValuesParser::new(values).try_map(|name| name.parse())
}

/// The number type of weights; completions offer its names.
pub fn precision() -> impl TypedValueParser<Value = Precision> {
    one_of(Precision::ALL, Precision::name)
}

/// The form of a network; completions offer both.
pub fn form() -> impl TypedValueParser<Value = Form> {
    one_of(Form::ALL, Form::name)
}

/// The implementation of the layers; completions offer both.
pub fn implementation() -> impl TypedValueParser<Value = Implementation> {
    one_of(Implementation::ALL, Implementation::name)
}

/// What shares a scale in 8 bits; completions offer the names.
pub fn granularity() -> impl TypedValueParser<Value = Granularity> {
    one_of(Granularity::ALL, Granularity::name)
}

/// One of these values by its name.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(values.map(name)).try_map(move |text| {
        let value = values.into_iter().find(|&value| name(value) == text);
        // The parser accepts no other text.
        value.ok_or_else(|| format!("no value is called {text}"))
    })
}
