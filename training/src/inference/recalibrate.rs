//! Precise batch norm: running statistics averaged over many batches (Wu & Johnson, "Rethinking Batch in
//! BatchNorm", 2021).
//!
//! The running statistics that training leaves are moving averages over weights that changed in the
//! meantime. Here the weights are fixed: every norm's mean and variance become the averages over the
//! images of `N` batches of the batch's mean and of its unbiased variance, `mean = sum_k n_k mean_k /
//! sum_k n_k`, likewise `var`, where batch `k` has `n_k` images, with each layer reading the outputs that
//! the layers before it compute for the batch in training. The `k`-th batch enters with momentum `n_k /
//! (n_1 + .. + n_k)`, which is this average.

use burn::module::Module;
use burn::tensor::Tensor;
use dbb_datasets::{Batch, DataError};
use dbb_models::blocks::BatchNorm;
use dbb_models::{Classifier, Reparameterize};

use crate::device;
use crate::error::{Error, Result};

/// What a recalibration used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Batches.
    pub batches: usize,
    /// Images in them.
    pub images: usize,
}

/// A copy of a network in training form, on the inference device, with running statistics measured
/// on batches of its input. The network itself stays as it is.
///
/// # Errors
/// If the network has no batch norm, an image cannot be read, or no batch has two images.
pub fn recalibrate(
    network: &Classifier,
    batches: impl Iterator<Item = std::result::Result<Batch, DataError>>,
) -> Result<(Classifier, Seen)> {
    let device = device::of(network).inner().autodiff();
    // Batch statistics are taken on an autodiff device; nothing is differentiated.
    let mut network = network.valid().train().no_grad();
    let mut momenta = Vec::new();
    each_norm(&mut network, |norm| momenta.push(norm.momentum));
    if momenta.is_empty() {
        let text = "the network is folded and has no batch norm left; recalibrate its training \
                    form, then fold that";
        return Err(Error::Unusable(text.into()));
    }
    let mut seen = Seen::default();
    for batch in batches {
        let batch = batch?;
        // One image has no variance where a map has one position.
        if batch.len() < 2 {
            continue;
        }
        seen.batches += 1;
        seen.images += batch.len();
        each_norm(&mut network, |norm| norm.momentum = batch.len() as f64 / seen.images as f64);
        let (images, _): (Tensor<4>, _) = batch.to_tensors(&device);
        network.forward(images);
    }
    if seen.images == 0 {
        let text = "no batch has at least 2 images, which batch statistics need";
        return Err(Error::Unusable(text.into()));
    }
    let mut momenta = momenta.into_iter();
    each_norm(&mut network, |norm| norm.momentum = momenta.next().unwrap_or(norm.momentum));
    Ok((network.valid(), seen))
}

fn each_norm(network: &mut Classifier, mut change: impl FnMut(&mut BatchNorm)) {
    network.each_unit(&mut |unit| unit.norms_mut().into_iter().for_each(&mut change));
}
