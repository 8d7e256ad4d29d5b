//! A folded network as the plain network it deploys as.

use burn::tensor::{Device, TensorData};

use super::error::WeightsError;
use super::state_dict::{apply, collect};
use crate::blocks::{BlockKind, ConvUnit, NormConfig};
use crate::walk::Walk;
use crate::zoo::{Classifier, Form, LayerBlocks, ModelConfig};

/// A folded network as convolutions without bias and batch norms that add the bias: what a
/// stock implementation, which knows no folded convolutions, loads unchanged. The norms have mean
/// 0, variance 1 and scale `sqrt(1 + epsilon)`, so that they change nothing else.
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
    for (name, unit) in deploy.units() {
        let (Some(weight), Some(bias)) =
            (folded.remove(&format!("{name}.weight")), folded.remove(&format!("{name}.bias")))
        else {
            continue;
        };
        let channels = unit.spec().channels[1];
        let constant = |value: f64| TensorData::new(vec![value as f32; channels], [channels]);
        let scale = (1.0 + epsilon).sqrt();
        folded.insert(format!("{name}.conv.weight"), weight);
        folded.insert(format!("{name}.bn.beta"), bias);
        folded.insert(format!("{name}.bn.gamma"), constant(scale));
        folded.insert(format!("{name}.bn.running_mean"), constant(0.0));
        folded.insert(format!("{name}.bn.running_var"), constant(1.0));
    }
    apply(&mut network, folded);
    Ok((network, model))
}
