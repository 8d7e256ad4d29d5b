//! Kernel magnitudes by position over all layers of one kernel size.

use serde::Serialize;

use super::layer::{LayerBranches, Matrix};

/// The layers of a kernel size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// How many layers.
    pub layers: usize,
    /// The average kernel magnitude matrix of ACNet (Ding et al., ICCV 2019, section 4.4): mean
    /// absolute values by position over the largest of them, averaged over the layers.
    pub magnitude: Matrix,
    /// The branches, in the order in which they first occur.
    pub branches: Vec<WindowBranch>,
}

/// A branch over all layers of a kernel size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowBranch {
    /// What it computes.
    pub name: String,
    /// Layers that have it; the means are over these.
    pub layers: usize,
    /// Mean share.
    pub share: f64,
    /// Mean absolute values by position over the largest of the *folded* kernel of the layer, so
    /// that branches can be compared; averaged over the layers.
    pub magnitude: Matrix,
}

/// The kernel sizes above 1x1, in the order in which they first occur.
pub(super) fn over(layers: &[LayerBranches]) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for layer in layers {
        let [.., height, width] = layer.kernel;
        let kernel = [height, width];
        // A layer whose kernel is zero everywhere has no largest value.
        let largest = layer.magnitude.iter().flatten().copied().fold(0.0, f64::max);
        if kernel == [1, 1] || largest == 0.0 {
            continue;
        }
        let found = windows.iter().position(|window| window.kernel == kernel);
        let index = found.unwrap_or_else(|| {
            windows.push(Window {
                kernel,
                layers: 0,
                magnitude: vec![vec![0.0; width]; height],
                branches: Vec::new(),
            });
            windows.len() - 1
        });
        let window = &mut windows[index];
        window.layers += 1;
        add(&mut window.magnitude, &layer.magnitude, largest);
        for branch in &layer.branches {
            let found = window.branches.iter().position(|of| of.name == branch.name);
            let index = found.unwrap_or_else(|| {
                window.branches.push(WindowBranch {
                    name: branch.name.clone(),
                    layers: 0,
                    share: 0.0,
                    magnitude: vec![vec![0.0; width]; height],
                });
                window.branches.len() - 1
            });
            let sum = &mut window.branches[index];
            sum.layers += 1;
            sum.share += branch.share;
            add(&mut sum.magnitude, &branch.magnitude, largest);
        }
    }
    for window in &mut windows {
        divide(&mut window.magnitude, window.layers as f64);
        for branch in &mut window.branches {
            branch.share /= branch.layers as f64;
            divide(&mut branch.magnitude, branch.layers as f64);
        }
    }
    windows
}

fn add(sum: &mut Matrix, matrix: &Matrix, divisor: f64) {
    let values = sum.iter_mut().flatten().zip(matrix.iter().flatten());
    values.for_each(|(sum, value)| *sum += value / divisor);
}

fn divide(matrix: &mut Matrix, divisor: f64) {
    matrix.iter_mut().flatten().for_each(|value| *value /= divisor);
}

#[cfg(test)]
mod tests {
    use super::super::{Amplification, BranchShare};
    use super::*;

    fn layer(
        kernel: [usize; 4],
        magnitude: Matrix,
        branches: &[(&str, f64, f64)],
    ) -> LayerBranches {
        let branches = branches.iter().map(|&(name, share, factor)| BranchShare {
            name: name.into(),
            norm: 1.0,
            share,
            projection: 0.0,
            magnitude: magnitude
                .iter()
                .map(|row| row.iter().map(|value| factor * value).collect())
                .collect(),
            scales: None,
        });
        LayerBranches {
            name: "layer".into(),
            block: "dbb".into(),
            kernel,
            branches: branches.collect(),
            magnitude,
            amplification: Amplification { median: 1.0, max: 1.0 },
            fold_difference: 0.0,
        }
    }

    /// Two layers of one row with the largest values 4 and 10; a third is pointwise, a fourth zero.
    #[test]
    fn every_layer_counts_the_same() {
        let layers = [
            layer([2, 2, 1, 2], vec![vec![4.0, 1.0]], &[("kxk", 0.75, 0.5), ("1x1", 0.25, 2.0)]),
            layer([2, 2, 1, 2], vec![vec![5.0, 10.0]], &[("kxk", 0.25, 1.0)]),
            layer([2, 2, 1, 1], vec![vec![9.0]], &[("1x1", 1.0, 1.0)]),
            layer([2, 2, 1, 2], vec![vec![0.0, 0.0]], &[("kxk", 0.0, 1.0)]),
        ];
        let windows = over(&layers);
        let [window] = &windows[..] else { panic!("one kernel size") };
        assert_eq!((window.kernel, window.layers), ([1, 2], 2));
        assert_eq!(window.magnitude, [[0.75, 0.625]]);
        let [kxk, pointwise] = &window.branches[..] else { panic!("two branches") };
        assert_eq!((kxk.layers, kxk.share), (2, 0.5));
        assert_eq!(kxk.magnitude, [[0.5, 0.5625]]);
        assert_eq!((pointwise.layers, pointwise.share), (1, 0.25));
        assert_eq!(pointwise.magnitude, [[2.0, 0.5]]);
    }
}
