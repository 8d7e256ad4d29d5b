//! The branches of one layer.

use dbb_models::algebra::Kernel;
use dbb_models::blocks::ConvUnit;
use dbb_models::weights::fold_difference;
use serde::Serialize;

/// A value for every position of a window, row by row.
pub type Matrix = Vec<Vec<f64>>;

/// A layer and its branches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerBranches {
    /// Path of the layer in the network.
    pub name: String,
    /// Its block, or `folded`.
    pub block: String,
    /// Shape of the folded kernel, `[out, in / groups, height, width]`.
    pub kernel: [usize; 4],
    /// Mean absolute value of the folded kernel by position.
    pub magnitude: Matrix,
    /// At least one.
    pub branches: Vec<BranchShare>,
    /// How far the branches cancel.
    pub amplification: Amplification,
    /// Largest difference of the outputs of block and folded convolution on a random map, relative
    /// to the largest output; both are computed in `f32`.
    pub fold_difference: f64,
}

/// What a branch contributes to the folded kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BranchShare {
    /// What the branch computes.
    pub name: String,
    /// Frobenius norm of its kernel, norms folded in.
    pub norm: f64,
    /// Its norm over the sum of the norms of all branches of the layer.
    pub share: f64,
    /// Its part of the folded kernel itself: the inner product of both over the squared norm of the
    /// folded kernel. Those of all branches add up to 1; negative where the branch works against
    /// the others.
    pub projection: f64,
    /// Mean absolute value of its kernel by position.
    pub magnitude: Matrix,
    /// The scales of its closing norm, if there is one.
    pub scales: Option<Scales>,
}

/// Absolute values of the scales of a closing norm: quantiles over the channels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scales {
    /// The smallest.
    pub min: f64,
    /// A tenth is smaller.
    pub p10: f64,
    /// Half are smaller.
    pub median: f64,
    /// Nine tenths are smaller.
    pub p90: f64,
    /// The largest.
    pub max: f64,
}

/// The condition number of the sum of the branches: the sum of the norms of the branches' filters
/// over the norm of the folded filter. It is 1 where the branches agree or there is one; where they
/// cancel, rounding errors of the branches grow by this factor relative to the result (Higham,
/// *Accuracy and Stability of Numerical Algorithms*, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Amplification {
    /// Over the output channels.
    pub median: f64,
    /// The worst output channel; infinite where the branches cancel entirely.
    pub max: f64,
}

impl LayerBranches {
    /// Measures a unit.
    pub fn new(name: String, unit: &ConvUnit) -> Self {
        let parts = unit.parts();
        let kernels: Vec<&Kernel> = parts.iter().map(|part| &part.kernel).collect();
        let folded = sum(&kernels);
        let squared = dot(&folded.data, &folded.data);
        let norms: Vec<f64> = kernels.iter().map(|kernel| norm(&kernel.data)).collect();
        let total: f64 = norms.iter().sum();
        let branches = parts.iter().zip(&norms).map(|(part, &norm)| BranchShare {
            name: part.name.clone(),
            norm,
            share: ratio(norm, total),
            projection: ratio(dot(&part.kernel.data, &folded.data), squared),
            magnitude: magnitude(&part.kernel),
            scales: part.scales.as_deref().map(Scales::of),
        });
        Self {
            name,
            block: unit.kind().map_or("folded", |kind| kind.name()).into(),
            kernel: folded.shape(),
            magnitude: magnitude(&folded),
            branches: branches.collect(),
            amplification: Amplification::of(&kernels, &folded),
            fold_difference: match unit.kind() {
                Some(_) => fold_difference(unit)[1],
                None => 0.0,
            },
        }
    }

    /// A branch by its name.
    pub fn branch(&self, name: &str) -> Option<&BranchShare> {
        self.branches.iter().find(|branch| branch.name == name)
    }
}

impl Scales {
    fn of(scales: &[f64]) -> Self {
        let mut values: Vec<f64> = scales.iter().map(|scale| scale.abs()).collect();
        values.sort_by(f64::total_cmp);
        // The nearest rank: a value that occurs.
        let at = |fraction: f64| values[(fraction * (values.len() - 1) as f64).round() as usize];
        Self { min: at(0.0), p10: at(0.1), median: at(0.5), p90: at(0.9), max: at(1.0) }
    }
}

impl Amplification {
    fn of(kernels: &[&Kernel], folded: &Kernel) -> Self {
        let filter = folded.in_per_group * folded.taps();
        let of_channel = |channel: usize| {
            let filter = |kernel: &Kernel| norm(&kernel.data[channel * filter..][..filter]);
            let branches: f64 = kernels.iter().map(|kernel| filter(kernel)).sum();
            // A channel that no branch uses amplifies nothing.
            if branches == 0.0 { 1.0 } else { branches / filter(folded) }
        };
        let mut values: Vec<f64> = (0..folded.out_channels).map(of_channel).collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}

fn sum(kernels: &[&Kernel]) -> Kernel {
    let mut sum = kernels[0].clone();
    for kernel in &kernels[1..] {
        sum.data.iter_mut().zip(&kernel.data).for_each(|(sum, value)| *sum += value);
    }
    sum
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

/// A ratio of parts to a whole; 0 of nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// The mean absolute value by position.
fn magnitude(kernel: &Kernel) -> Matrix {
    let [height, width] = kernel.size;
    let filters = (kernel.out_channels * kernel.in_per_group) as f64;
    let mean = |tap: usize| {
        kernel.data.iter().skip(tap).step_by(height * width).map(|v| v.abs()).sum::<f64>() / filters
    };
    (0..height).map(|row| (0..width).map(|column| mean(row * width + column)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use dbb_models::weights::{BlockFold, StateDict};

    use super::*;

    /// A block of one channel: a 3x3 kernel of ones scaled by 2 and a 1x1 kernel of 3 scaled by -1,
    /// whose sum is 2 at eight positions and -1 in the centre.
    fn block() -> LayerBranches {
        let vector = |value: f32| TensorData::new(vec![value], [1]);
        let mut state = StateDict::from([
            ("rbr_dense.conv.weight".into(), TensorData::new(vec![1f32; 9], [1, 1, 3, 3])),
            ("rbr_1x1.conv.weight".into(), TensorData::new(vec![3f32], [1, 1, 1, 1])),
        ]);
        for (branch, scale) in [("rbr_dense", 2.0), ("rbr_1x1", -1.0)] {
            for (tensor, value) in
                [("weight", scale), ("bias", 0.5), ("running_mean", 0.0), ("running_var", 1.0)]
            {
                state.insert(format!("{branch}.bn.{tensor}"), vector(value));
            }
        }
        let options = BlockFold { epsilon: 0.0, ..BlockFold::default() };
        let mut units = options.units(state).unwrap();
        let (name, unit) = units.remove(0);
        LayerBranches::new(name, &unit)
    }

    #[test]
    fn numbers_of_a_block_by_hand() {
        let layer = block();
        assert_eq!((&*layer.block, layer.kernel), ("repvgg", [1, 1, 3, 3]));
        assert_eq!(layer.magnitude, [[2.0, 2.0, 2.0], [2.0, 1.0, 2.0], [2.0, 2.0, 2.0]]);
        let [kxk, pointwise] = &layer.branches[..] else { panic!("two branches") };
        assert_eq!((&*kxk.name, &*pointwise.name), ("kxk", "1x1"));
        // Norms 2 sqrt(9) and 3; the folded kernel has the squared norm 8 * 4 + 1.
        assert_eq!((kxk.norm, pointwise.norm), (6.0, 3.0));
        assert_eq!((kxk.share, pointwise.share), (2.0 / 3.0, 1.0 / 3.0));
        assert_eq!((kxk.projection, pointwise.projection), (30.0 / 33.0, 3.0 / 33.0));
        assert_eq!(pointwise.magnitude, [[0.0; 3], [0.0, 3.0, 0.0], [0.0; 3]]);
        assert_eq!(pointwise.scales.map(|scales| scales.median), Some(1.0));
        let expected = 9.0 / 33f64.sqrt();
        let Amplification { median, max } = layer.amplification;
        assert!((median - expected).abs() < 1e-12 && median == max);
        assert!(layer.fold_difference < 1e-6);
    }

    #[test]
    fn quantiles_are_values_that_occur() {
        let scales = Scales::of(&(0..=10).map(|i| -f64::from(i)).collect::<Vec<_>>());
        assert_eq!(scales, Scales { min: 0.0, p10: 1.0, median: 5.0, p90: 9.0, max: 10.0 });
        let one = Scales::of(&[3.0]);
        assert_eq!((one.min, one.p90), (3.0, 3.0));
    }
}
