//! Folding with a measured difference, refused beyond a tolerance.

use burn::tensor::{Tensor, TensorData};
use dbb_models::weights::{
    BlockFold, FoldedBlock, LoadOptions, StateDict, WeightsFile, has_folded_blocks, is_constant,
    relative,
};
use dbb_models::{Classifier, Reparameterize, Walk, summary::learnable_params};
use serde::Serialize;

use crate::classification::best;
use crate::device;
use crate::error::{Error, Result};
use crate::inference::probe::Probe;
use crate::run::metrics::host;
use crate::text::plural;

/// Largest difference of logits that is accepted, relative to the largest logit.
pub const TOLERANCE: f64 = 1e-4;

/// Logits of a network and of another form of it, compared image by image.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogitDifference {
    images: usize,
    agreeing: usize,
    max_abs_diff: f64,
    max_abs: f64,
}

impl LogitDifference {
    /// Compares the logits of one batch.
    pub fn add(&mut self, train_form: Tensor<2>, deploy: Tensor<2>) {
        let [images, classes] = train_form.dims();
        let (a, b) = (host(train_form.into_data()), host(deploy.into_data()));
        self.images += images;
        for (a, b) in a.chunks(classes).zip(b.chunks(classes)) {
            let diff = a.iter().zip(b).fold(0.0f64, |m, (a, b)| worst(m, f64::from(a - b).abs()));
            self.max_abs = a.iter().fold(self.max_abs, |m, v| worst(m, f64::from(v.abs())));
            self.max_abs_diff = worst(self.max_abs_diff, diff);
            self.agreeing += usize::from(best(a) == best(b));
        }
    }

    /// Largest difference relative to the largest logit.
    pub fn max_rel_diff(&self) -> f64 {
        relative(self.max_abs_diff, self.max_abs)
    }

    /// Percent of images with the same label.
    pub fn top1_agreement(&self) -> f64 {
        100.0 * self.agreeing as f64 / self.images.max(1) as f64
    }
}

/// The larger value; NaN counts as the largest.
fn worst(a: f64, b: f64) -> f64 {
    if b.is_nan() || b > a { b } else { a }
}

/// A fold and how exact it is.
#[derive(Clone, Debug, Serialize)]
pub struct FoldReport {
    /// Blocks of several branches that were folded.
    pub blocks_folded: usize,
    /// Learnable parameters before.
    pub params_train: usize,
    /// Parameters after.
    pub params_deploy: usize,
    /// Largest difference of logits.
    pub max_abs_diff: f64,
    /// The same relative to the largest logit.
    pub max_rel_diff: f64,
    /// Percent of images with the same label.
    pub top1_agreement: f64,
    /// What both forms were compared on.
    pub compared_on: String,
}

/// Folds a network and compares both forms.
///
/// # Errors
/// If an image cannot be read, or the difference is beyond [`TOLERANCE`].
pub fn fold(network: &Classifier, probe: &Probe) -> Result<(Classifier, FoldReport)> {
    let deploy = network.reparameterize();
    let device = device::of(network);
    let mut comparison = LogitDifference::default();
    for batch in probe.batches() {
        let images: Tensor<4> = Tensor::from_data(batch?.images, &device);
        comparison.add(network.forward(images.clone()), deploy.forward(images));
    }
    let compared_on = probe.describe();
    if comparison.images == 0 {
        let text = format!("there is no image to compare the fold on: {compared_on}");
        return Err(Error::Unusable(text));
    }
    let report = FoldReport {
        blocks_folded: multi_branch_blocks(network),
        params_train: learnable_params(network),
        params_deploy: learnable_params(&deploy),
        max_abs_diff: comparison.max_abs_diff,
        max_rel_diff: comparison.max_rel_diff(),
        top1_agreement: comparison.top1_agreement(),
        compared_on: format!("{compared_on} ({})", plural(comparison.images, "image")),
    };
    // A label can only change where its margin is below twice the difference, so labels hold within
    // the tolerance as well.
    if within_tolerance(report.max_rel_diff) {
        Ok((deploy, report))
    } else {
        Err(Error::Fold { max_rel_diff: report.max_rel_diff, tolerance: TOLERANCE })
    }
}

/// Folds every block in a file of an unknown network, each checked against its training form.
///
/// # Errors
/// If the file holds no block, one that cannot be folded, or one whose fold differs by more than
/// [`TOLERANCE`]; weights that are NaN or infinite, if they are in a block or not accepted.
pub fn fold_blocks(
    file: WeightsFile,
    options: &BlockFold,
    weights: LoadOptions,
) -> Result<(StateDict, Vec<FoldedBlock>)> {
    if !weights.allow_nonfinite {
        file.check_finite()?;
    }
    let path = file.path;
    let is_folded = has_folded_blocks(&file.tensors);
    let (tensors, blocks) = options.fold(file.tensors).map_err(|error| error.in_file(&path))?;
    if blocks.is_empty() && !is_folded {
        return Err(Error::NoBlocks(path));
    }
    match blocks.iter().find(|block| !within_tolerance(block.max_rel_diff)) {
        Some(block) => Err(Error::BlockFold {
            name: block.name.clone(),
            max_rel_diff: block.max_rel_diff,
            tolerance: TOLERANCE,
        }),
        None => Ok((tensors, blocks)),
    }
}

/// NaN is beyond every tolerance.
fn within_tolerance(max_rel_diff: f64) -> bool {
    max_rel_diff <= TOLERANCE
}

/// Learnable values of a state dict: all floating-point values except running statistics and
/// constants of blocks.
pub fn learnable_values(tensors: &StateDict) -> usize {
    let learnable = |(key, data): &(&String, &TensorData)| {
        let statistic = ["running_mean", "running_var"].iter().any(|end| key.ends_with(end));
        data.dtype().is_float() && !statistic && !is_constant(key)
    };
    tensors.iter().filter(learnable).map(|(_, data)| data.num_elements()).sum()
}

/// Blocks of several branches in a network.
pub fn multi_branch_blocks(network: &Classifier) -> usize {
    network.units().iter().filter(|(_, unit)| unit.is_multi_branch()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn a_difference_of_one_in_ten_thousand_is_within_tolerance() {
        assert!(within_tolerance(1e-4));
        assert!(!within_tolerance(1.1e-4) && !within_tolerance(f64::NAN));
    }

    #[test]
    fn differences_are_relative_to_the_largest_logit() {
        let device = Device::default();
        let tensor = |rows: [[f32; 2]; 2]| Tensor::<2>::from_floats(rows, &device);
        let mut comparison = LogitDifference::default();
        comparison.add(tensor([[1.0, -4.0], [3.0, 0.0]]), tensor([[1.0, -4.5], [2.0, 2.25]]));
        assert_eq!((comparison.images, comparison.agreeing), (2, 1));
        assert_eq!(comparison.max_abs_diff, 2.25);
        assert_eq!(comparison.max_rel_diff(), 0.5625);
    }

    /// It is saved as JSON, which has no infinity.
    #[test]
    fn a_difference_from_logits_of_zero_is_finite() {
        let device = Device::default();
        let mut comparison = LogitDifference::default();
        comparison.add(Tensor::zeros([1, 2], &device), Tensor::ones([1, 2], &device));
        assert!(comparison.max_rel_diff() > 1.0 && comparison.max_rel_diff().is_finite());
    }

    #[test]
    fn no_number_is_the_worst_difference() {
        let device = Device::default();
        let mut comparison = LogitDifference::default();
        let nan = Tensor::<2>::from_floats([[f32::NAN, 0.0]], &device);
        comparison.add(Tensor::from_floats([[1.0, 0.0]], &device), nan);
        assert!(comparison.max_rel_diff().is_nan());
    }
}
