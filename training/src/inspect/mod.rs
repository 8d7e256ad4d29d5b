//! What the branches of trained blocks have learnt: their shares in the folded kernels, the scales of
//! their closing norms, kernel magnitudes by position, and how well the folds are conditioned.

mod layer;
mod windows;

use dbb_models::Walk;
use dbb_models::blocks::ConvUnit;
use dbb_models::weights::{BlockFold, LoadOptions, WeightsFile, has_folded_blocks};
use serde::Serialize;

pub use layer::{Amplification, BranchShare, LayerBranches, Matrix, Scales};
pub use windows::{Window, WindowBranch};

use crate::error::{Error, Result};
use crate::inference::loaded_model::LoadedModel;

/// The branches of a network, layer by layer and over all layers.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// What was inspected: the file.
    pub file: String,
    /// Architecture and block, if they are known.
    pub network: Option<String>,
    /// The blocks of several branches, in order of computation; in a network that has none, the
    /// convolutions above 1x1. Of a file that does not describe its network, in the order of their
    /// names, numbers by value.
    pub layers: Vec<LayerBranches>,
    /// The same over all layers of a kernel size, those above 1x1.
    pub windows: Vec<Window>,
}

impl Inspection {
    /// Inspects the network of a run or weights file.
    ///
    /// # Errors
    /// If it has nothing to inspect: neither a block of several branches nor a kernel above 1x1.
    pub fn of_network(target: &LoadedModel) -> Result<Self> {
        let units = target.network.units();
        let has_branches = units.iter().any(|(_, unit)| unit.is_multi_branch());
        let inspected = units.into_iter().filter(|(_, unit)| match has_branches {
            true => unit.is_multi_branch(),
            false => unit.spec().kernel_size != [1, 1],
        });
        let layers: Vec<_> = inspected.map(|(name, unit)| LayerBranches::new(name, unit)).collect();
        let model = &target.metadata.model;
        if layers.is_empty() {
            let file = target.path.display();
            let text =
                format!("{file} has neither a block of several branches nor a kernel above 1x1");
            return Err(Error::Unusable(text));
        }
        let network = format!("{} with {} blocks", model.arch, model.block);
        Ok(Self::new(target.path.display().to_string(), Some(network), layers))
    }

    /// Inspects the blocks of a file that does not describe its network.
    ///
    /// # Errors
    /// If it holds no block in training form, or one that cannot be folded; weights that are NaN or
    /// infinite, if they are in a block or not accepted.
    pub fn of_blocks(file: WeightsFile, options: &BlockFold, weights: LoadOptions) -> Result<Self> {
        if !weights.allow_nonfinite {
            file.check_finite()?;
        }
        let path = file.path;
        let is_folded = has_folded_blocks(&file.tensors);
        let units = options.units(file.tensors).map_err(|error| error.in_file(&path))?;
        if units.is_empty() && is_folded {
            let text =
                format!("the blocks of {} are folded; their branches are gone", path.display());
            return Err(Error::Unusable(text));
        }
        if units.is_empty() {
            return Err(Error::NoBlocks(path));
        }
        let layer = |(name, unit): (String, ConvUnit)| LayerBranches::new(name, &unit);
        let mut layers: Vec<_> = units.into_iter().map(layer).collect();
        layers.sort_by_cached_key(|layer| by_number(&layer.name));
        Ok(Self::new(path.display().to_string(), None, layers))
    }

    pub(crate) fn new(file: String, network: Option<String>, layers: Vec<LayerBranches>) -> Self {
        let windows = windows::over(&layers);
        Self { file, network, layers, windows }
    }

    /// The names of all branches, in the order in which they first occur.
    pub fn branch_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for branch in self.layers.iter().flat_map(|layer| &layer.branches) {
            if !names.contains(&&*branch.name) {
                names.push(&branch.name);
            }
        }
        names
    }

    /// The mean share of a branch over the layers that have it.
    pub fn mean_share(&self, branch: &str) -> f64 {
        let shares = self.layers.iter().filter_map(|layer| Some(layer.branch(branch)?.share));
        crate::statistics::mean(&shares.collect::<Vec<_>>())
    }

    /// The layer with the largest of some value; NaN counts as the largest.
    pub fn worst(&self, value: impl Fn(&LayerBranches) -> f64) -> Option<&LayerBranches> {
        self.layers.iter().max_by(|a, b| value(a).total_cmp(&value(b)))
    }
}

/// A key that sorts `stage.2` before `stage.10`.
fn by_number(name: &str) -> Vec<(usize, String)> {
    // A word is below every number, as in module paths: `stage1.conv` comes before `stage1.0`.
    let part = |part: &str| match part.parse::<usize>() {
        Ok(number) => (number.saturating_add(1), String::new()),
        Err(_) => (0, part.to_string()),
    };
    name.split('.').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["b.0", "a.10.x", "a.2.x", "a.2", ""];
        names.sort_by_cached_key(|name| by_number(name));
        assert_eq!(names, ["", "a.2", "a.2.x", "a.10.x", "b.0"]);
    }
}
