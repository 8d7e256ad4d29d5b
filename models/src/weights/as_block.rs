//! A folded network in training form, for implementations without folded convolutions.

use burn::tensor::{Device, TensorData};

use super::error::WeightsError;
use crate::backbones::Classifier;
use crate::blocks::{BlockKind, Contents, PlainConv, constant};
use crate::form::Form;
use crate::model_config::ModelConfig;
use crate::state_dict::{StateDict, apply, collect, shapes, take_below};
use crate::walk::Walk;

/// A folded network in training form: what an unmodified implementation, which has no folded
/// convolutions, loads strictly. The kernel of each layer stands in the first convolution of the
/// block `kind`, with an identity batch norm that adds the bias; every other tensor but variances
/// is zero, so that further branches add nothing.
///
/// # Errors
/// If the network cannot be built, or the block cannot hold a plain convolution.
pub fn as_block(
    deploy: &Classifier,
    model: &ModelConfig,
    kind: BlockKind,
    device: &Device,
) -> Result<(Classifier, ModelConfig), WeightsError> {
    let model = ModelConfig {
        width: model.width,
        in_channels: model.in_channels,
        activation: model.activation,
        ..ModelConfig::new(model.arch, kind, model.num_classes)
    };
    let mut network = model.undrawn(Form::Train, device)?;
    let epsilon = model.arch.definition().norm().epsilon;
    let mut blank: StateDict = shapes(&network)
        .into_iter()
        .map(|(path, shape)| (path.clone(), blank(&path, shape)))
        .collect();
    let mut tensors = collect(deploy);
    for (name, unit) in network.units() {
        let layer = format!("{name}.");
        let (mut own, mut folded) =
            (take_below(&mut blank, &layer), take_below(&mut tensors, &layer));
        let (Contents::Block(block), Some(weight), Some(bias)) =
            (unit.contents(), folded.remove("weight"), folded.remove("bias"))
        else {
            continue;
        };
        block.take_plain(PlainConv(conv_bn(weight, bias, epsilon)), &mut own)?;
        tensors.extend(own.into_iter().map(|(key, data)| (layer.clone() + &key, data)));
    }
    apply(&mut network, tensors);
    Ok((network, model))
}

/// A tensor of a branch that adds nothing.
fn blank(path: &str, shape: Vec<usize>) -> TensorData {
    constant(shape, if path.ends_with("running_var") { 1.0 } else { 0.0 })
}

/// A convolution with bias as the tensors of a convolution and an identity batch norm, mean 0,
/// variance 1 and scale `sqrt(1 + epsilon)`, that adds the bias.
pub(crate) fn conv_bn(weight: TensorData, bias: TensorData, epsilon: f64) -> StateDict {
    let constant = |value: f64| constant(vec![bias.num_elements()], value);
    StateDict::from([
        ("conv.weight".into(), weight),
        ("bn.gamma".into(), constant((1.0 + epsilon).sqrt())),
        ("bn.running_mean".into(), constant(0.0)),
        ("bn.running_var".into(), constant(1.0)),
        ("bn.beta".into(), bias),
    ])
}
