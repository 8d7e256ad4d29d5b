//! The hidden layers of a classifier, as AlexNet (Krizhevsky et al., NeurIPS 2012) and VGG have
//! them.

use burn::nn::{Dropout, Linear, LinearConfig};
use burn::tensor::Device;

use crate::blocks::Activation;
use crate::walk::Interpreter;

/// What is dropped after every hidden layer of the ImageNet networks.
pub(super) const DROPOUT: f64 = 0.5;

/// A chain of layers with these output channels.
pub(super) fn layers(mut inputs: usize, channels: &[usize], device: &Device) -> Vec<Linear> {
    let layer = |&outputs: &usize| {
        let layer = LinearConfig::new(inputs, outputs).init(device);
        inputs = outputs;
        layer
    };
    channels.iter().map(layer).collect()
}

/// Every layer with ReLU, then the dropout.
pub(super) fn walk<'n, I: Interpreter<'n>>(
    layers: &'n [Linear],
    dropout: Option<&'n Dropout>,
    walk: &mut I,
    mut features: I::Features,
) -> I::Features {
    for (index, layer) in layers.iter().enumerate() {
        let name = format_args!("hidden.{index}");
        features = walk.linear(&name, layer, features, Some(Activation::Relu));
        if let Some(dropout) = dropout {
            features = walk.dropout(dropout, features);
        }
    }
    features
}
