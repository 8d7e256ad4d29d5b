//! A folded network as the plain network it deploys as.

use burn::tensor::{Device, TensorData};

use super::error::WeightsError;
use crate::backbones::Classifier;
use crate::blocks::{BlockKind, ConvUnit, NormConfig};
use crate::by_layer::LayerBlocks;
use crate::form::Form;
use crate::model_config::ModelConfig;
use crate::state_dict::{StateDict, apply, collect};
use crate::walk::Walk;

/// A folded network as convolutions without bias and identity batch norms that add the bias: what
/// an unmodified implementation, which has no folded convolutions, loads strictly.
///
/// # Errors
/// If the plain network cannot be built.
pub fn as_conv_bn(
    deploy: &Classifier,
    model: &ModelConfig,
    device: &Device,
) -> Result<(Classifier, ModelConfig), WeightsError> {
    let model =
        ModelConfig { block: BlockKind::Base, blocks: LayerBlocks::default(), ..model.clone() };
    let mut network = model.undrawn(Form::Train, device)?;
    let epsilon = match network.units().first() {
        Some((_, ConvUnit::Base(block))) => block.bn.epsilon,
        _ => NormConfig::default().epsilon,
    };
    let mut folded = collect(deploy);
    for (name, _) in deploy.units() {
        let (Some(weight), Some(bias)) =
            (folded.remove(&format!("{name}.weight")), folded.remove(&format!("{name}.bias")))
        else {
            continue;
        };
        let unit = conv_bn(weight, bias, epsilon).into_iter();
        folded.extend(unit.map(|(key, data)| (format!("{name}.{key}"), data)));
    }
    apply(&mut network, folded);
    Ok((network, model))
}

/// A convolution with bias as the tensors of a convolution and an identity batch norm, mean 0,
/// variance 1 and scale `sqrt(1 + epsilon)`, that adds the bias.
pub(crate) fn conv_bn(weight: TensorData, bias: TensorData, epsilon: f64) -> StateDict {
    let channels = bias.num_elements();
    let constant = |value: f64| TensorData::new(vec![value as f32; channels], [channels]);
    StateDict::from([
        ("conv.weight".into(), weight),
        ("bn.beta".into(), bias),
        ("bn.gamma".into(), constant((1.0 + epsilon).sqrt())),
        ("bn.running_mean".into(), constant(0.0)),
        ("bn.running_var".into(), constant(1.0)),
    ])
}
