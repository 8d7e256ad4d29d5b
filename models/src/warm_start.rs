//! A network in training form that starts as the function of another one.
//!
//! The reverse of a fold, for fine-tuning: weights of a plain network are put into a network of
//! blocks without changing what it computes. The first branch of a block (KxK of a Diverse Branch
//! Block, the square of an asymmetric one) takes the convolution and its batch norm; the closing
//! norm of every other branch gets scale 0 and shift 0. An OREPA block scales its other kernels by
//! 0; a QARepVGG block, whose branches have no norms to close, says in its file what it does.
//!
//! This is exact with batch statistics as well as with running ones. A closing norm gives
//! `gamma * n + beta`, where `n` is finite whatever it normalises with, since `epsilon` is
//! positive: with both at zero the branch adds zero, and the block is its first branch. The
//! branches are not lost. With `g` the gradient of the block's output, the first step sees
//! `sum(g * n)` for a `gamma` and `sum(g)` for a `beta`, neither of which is zero in general, and
//! nothing for what stands before them (their gradient has the factor `gamma`); from the second
//! step on those learn, too, from their fresh values. Two things differ from a plain network from
//! then on: the shifts of all branches receive the same gradient, so that their sum moves as many
//! times faster; and the running statistics of new branches begin at mean 0 and variance 1.
//!
//! What is folded already has no batch statistics to go back to. It becomes a convolution and a
//! norm that adds the bias (mean 0, variance 1, scale `sqrt(1 + epsilon)`): exact in evaluation,
//! not with batch statistics, unless the layer is frozen.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::LinearConfig;

use crate::backbones::Classifier;
use crate::blocks::{Contents, ConvUnit, PlainConv, constant};
use crate::error::ConfigError;
use crate::model_config::ModelConfig;
use crate::state_dict::take_below;
use crate::walk::Walk;
use crate::weights::{Dialect, KeyMap, StateDict, WeightsError, conv_bn};

/// A network that computes what another one does, and how its layers came to it.
#[derive(Debug)]
pub struct WarmStart {
    /// The network.
    pub network: Classifier,
    /// Layers whose tensors are those of the source.
    pub copied: usize,
    /// Blocks of several branches of which the first took the source's layer.
    pub joined: usize,
    /// Layers made from a folded convolution, or from a block that had to be folded first. Where
    /// there are any, the networks are equal in evaluation only.
    pub unfolded: usize,
}

impl ModelConfig {
    /// Puts the function of `source` into `network`, which this configuration describes and which
    /// is in training form. Both are of one architecture, width and number of classes
    /// ([`Classifier::with_new_head`]); their blocks and the form of the source are free. The
    /// parameters of `network` keep their identities and device.
    ///
    /// # Errors
    /// [`WeightsError::Keys`] if the networks are of other shapes. [`ConfigError::Option`] for a
    /// Diverse Branch Block without its KxK branch, which is the one to take a plain convolution.
    pub fn warm_start(
        &self,
        network: Classifier,
        source: &Classifier,
    ) -> Result<WarmStart, WeightsError> {
        let keys = KeyMap::new(Dialect::Native, self, &network)?;
        let mut fresh = keys.save(&network);
        let mut given = KeyMap::new(Dialect::Native, self, source)?.save(source);
        let (mut copied, mut joined, mut unfolded) = (0, 0, 0);
        let mut tensors = StateDict::new();
        let sources: BTreeMap<_, _> = source.units().into_iter().collect();
        for (name, unit) in network.units() {
            let layer = format!("{name}.");
            let Some(source) = sources.get(&name) else {
                continue; // the map names what is missing
            };
            let (own, theirs) = (take_below(&mut fresh, &layer), take_below(&mut given, &layer));
            let found = if shapes(&own) == shapes(&theirs) {
                copied += 1;
                theirs
            } else {
                let Contents::Block(block) = unit.contents() else {
                    return Err(not_in_training_form().into());
                };
                let plain = match source {
                    ConvUnit::Base(_) => theirs,
                    folded => {
                        unfolded += 1;
                        folded_conv_bn(folded, self.arch.definition().norm().epsilon)
                    }
                };
                joined += usize::from(unit.is_multi_branch());
                let mut tensors = own;
                block.take_plain(PlainConv(plain), &mut tensors)?;
                tensors
            };
            tensors.extend(found.into_iter().map(|(key, data)| (layer.clone() + &key, data)));
        }
        // What is no unit: the classifier, squeeze-and-excitation.
        tensors.extend(given);
        Ok(WarmStart { network: keys.load(network, &tensors)?, copied, joined, unfolded })
    }
}

impl Classifier {
    /// The network with a last layer for another number of classes, its weights drawn now.
    pub fn with_new_head(mut self, num_classes: usize) -> Self {
        let head = self.classifier_mut();
        let [features, _] = head.weight.lazy_shape().dims();
        // Burn draws a parameter when it is first read.
        *head = LinearConfig::new(features, num_classes).init(&head.weight.device()).materialize();
        self
    }
}

fn not_in_training_form() -> ConfigError {
    ConfigError::Option {
        option: "form",
        value: "deploy".into(),
        expected: "a network in training form, to start from weights",
    }
}

/// A unit in inference as a convolution and an identity batch norm that adds the bias.
fn folded_conv_bn(unit: &ConvUnit, epsilon: f64) -> StateDict {
    let conv = unit.fold();
    let channels = unit.spec().channels[1];
    // A folded convolution has a bias.
    let bias =
        conv.bias.map_or_else(|| constant(vec![channels], 0.0), |bias| bias.val().into_data());
    conv_bn(conv.weight.val().into_data(), bias, epsilon)
}

fn shapes(tensors: &StateDict) -> Vec<(&str, Vec<usize>)> {
    tensors.iter().map(|(key, data)| (key.as_str(), data.shape().to_vec())).collect()
}
