//! What blocks keep of an input whose mean is far from zero, against the definition in `f64`.

mod definition;

use crate::branches::{Branch as Summand, BranchMap, BranchSum, SumGrad, SumStatistics, Wanted};
use crate::dense::{DenseBlock, PaddedNorm};
use crate::testing::{ROUNDOFF, affordable, for_each_set, positive, random, widen};
use crate::{Activation, ConvNorm, ConvShape, Norm};
use definition::{Branch, EPSILON, Found, MOMENTUM, Opening};

fn norm(seed: u64, channels: usize) -> definition::Norm {
    definition::Norm { gamma: positive(seed, channels), beta: random(seed + 1, channels) }
}

fn shape(batch: usize, channels: [usize; 2], input: [usize; 2], stride: usize) -> ConvShape {
    ConvShape {
        batch,
        in_channels: channels[0],
        out_channels: channels[1],
        input,
        kernel: [3; 2],
        stride: [stride; 2],
        padding: [1; 2],
        groups: 1,
    }
}

fn opening(shape: &ConvShape, channels: usize, seed: u64) -> Opening {
    let shape = ConvShape {
        out_channels: channels,
        kernel: [1; 2],
        stride: [1; 2],
        padding: [0; 2],
        ..*shape
    };
    Opening {
        shape,
        weight: random(seed, shape.weight_len()),
        norm: norm(seed + 1, channels),
        running_mean: random(seed + 3, channels),
        running_var: positive(seed + 4, channels),
    }
}

fn branch(name: &'static str, shape: ConvShape, opening: Option<Opening>, seed: u64) -> Branch {
    let weight = random(seed, shape.weight_len());
    let norm = norm(seed + 1, shape.out_channels);
    Branch { name, opening, shape, weight, trained: true, norm }
}

fn average(shape: ConvShape, opening: Option<Opening>, seed: u64) -> Branch {
    let channels = shape.out_channels;
    let shape = ConvShape { in_channels: channels, groups: channels, ..shape };
    let mut average = branch("average", shape, opening, seed);
    average.weight.fill(1.0 / 9.0);
    average.trained = false;
    average
}

/// A block and its input.
struct Case {
    name: String,
    shape: ConvShape,
    branches: Vec<Branch>,
    x: Vec<f32>,
    /// Adds zeros, which keeps a dense block from the form for few channels.
    residual: bool,
}

/// Everything that a block computes, in the order of the definition.
fn results(y: Vec<f32>, stats: SumStatistics, grad: SumGrad, wanted: Wanted) -> Vec<Vec<f64>> {
    assert_eq!(grad.input.is_some(), wanted.input, "a gradient of the input where it is wanted");
    let mut found = vec![y, grad.input.unwrap_or_default()];
    for (stats, grad) in stats.branches.into_iter().zip(grad.branches) {
        let opening = stats.opening.into_iter();
        found.extend(opening.chain(stats.closing).flat_map(|stats| [stats.mean, stats.var]));
        found.extend(grad.norm.unwrap());
        // An average has none.
        found.extend(Some(grad.weight).filter(|weight| !weight.is_empty()));
        found.extend(
            grad.opening
                .into_iter()
                .flat_map(|opening| [opening.gamma, opening.beta, opening.weight]),
        );
    }
    found.iter().map(|values| widen(values)).collect()
}

impl Case {
    fn depthwise(channels: usize, batch: usize, input: [usize; 2], stride: usize) -> Self {
        let shape = shape(batch, [channels; 2], input, stride);
        let shape = ConvShape { groups: channels, ..shape };
        let internal = 2 * channels;
        let inner = ConvShape { in_channels: internal, ..shape };
        let branches = vec![
            branch("kxk", shape, None, 10),
            branch("1x1-kxk", inner, Some(opening(&shape, internal, 20)), 30),
            average(shape, None, 40),
        ];
        let name = format!("depthwise {channels}x{batch}x{input:?} s{stride}");
        Self { name, shape, branches, x: Vec::new(), residual: false }
    }

    fn dense(channels: [usize; 2], batch: usize, input: [usize; 2], stride: usize) -> Self {
        let shape = shape(batch, channels, input, stride);
        let pointwise = ConvShape { kernel: [1; 2], padding: [0; 2], ..shape };
        let branches = vec![
            branch("kxk", shape, None, 10),
            branch("1x1", pointwise, None, 15),
            branch("1x1-kxk", shape, Some(opening(&shape, channels[0], 20)), 30),
            average(shape, Some(opening(&shape, channels[1], 50)), 40),
        ];
        let name = format!("dense {channels:?}x{batch}x{input:?} s{stride}");
        Self { name, shape, branches, x: Vec::new(), residual: true }
    }

    /// The case without a residual.
    fn patches(self) -> Self {
        Self { residual: false, name: format!("{} patches", self.name), ..self }
    }

    /// Noise about a mean of so many standard deviations.
    fn about(mut self, ratio: f64) -> Self {
        self.name += &format!(", mean {ratio}");
        let mean = ratio / 3f64.sqrt();
        self.x = random(1, self.shape.input_len());
        self.x.iter_mut().for_each(|value| *value = (mean + f64::from(*value)) as f32);
        self
    }

    fn grad(&self) -> Vec<f32> {
        random(2, self.shape.output_len())
    }

    fn kernel(&self) -> Vec<Vec<f64>> {
        match self.shape.is_depthwise() {
            true => self.depthwise_kernel(),
            false => self.dense_kernel(),
        }
    }

    fn depthwise_kernel(&self) -> Vec<Vec<f64>> {
        let [kxk, second, average] = &self.branches[..] else { unreachable!() };
        let map = BranchMap::Conv { weight: &kxk.weight, kernel: self.shape.kernel };
        let kxk = Summand { map, norm: Some(borrow(&kxk.norm)) };
        let map = BranchMap::PaddedConv { opening: padded(second), weight: &second.weight };
        let second = Summand { map, norm: Some(borrow(&second.norm)) };
        let average = Summand { map: BranchMap::Average, norm: Some(borrow(&average.norm)) };
        let branches = [kxk, second, average];
        let block = BranchSum { shape: self.shape, branches: &branches, outer: None };
        let mut y = vec![0.0; self.shape.output_len()];
        let (stats, saved) = block.forward(&self.x, None, Activation::Identity, &mut y);
        let wanted = Wanted { input: true, residual: false, parameters: true };
        let grad = block.backward(&self.x, &y, &saved, &self.grad(), wanted);
        results(y, stats, grad, wanted)
    }

    fn dense_kernel(&self) -> Vec<Vec<f64>> {
        let [kxk, pointwise, second, average] = &self.branches[..] else { unreachable!() };
        let block = DenseBlock {
            shape: self.shape,
            kxk: closed(kxk),
            pointwise: closed(pointwise),
            pointwise_kxk: (padded(second), closed(second)),
            average: (padded(average), borrow(&average.norm)),
        };
        let mut y = vec![0.0; self.shape.output_len()];
        let zeros = vec![0.0; y.len()];
        let residual = self.residual.then_some(&zeros[..]);
        let (stats, saved) = block.forward(&self.x, residual, Activation::Identity, &mut y);
        let wanted = Wanted { input: self.residual, residual: false, parameters: true };
        let grad = block.backward(&self.x, &y, &saved, &self.grad(), wanted);
        results(y, stats, grad, wanted)
    }

    /// The first values of each channel, as many as `count` says, become zero.
    fn dark(mut self, count: impl Fn(&ConvShape) -> usize) -> Self {
        let planes = self.x.chunks_mut(self.shape.input_positions()).take(self.shape.in_channels);
        planes.for_each(|plane| plane[..count(&self.shape)].fill(0.0));
        self.name += ", some dark";
        self
    }

    /// The first channel becomes constant.
    fn constant(mut self) -> Self {
        let planes = self.x.chunks_mut(self.shape.input_positions());
        planes.step_by(self.shape.in_channels).for_each(|plane| plane.fill(173.3));
        self.name += ", a constant channel";
        self
    }

    /// Checks every result with every instruction set, within so many times the bound.
    fn check(&self, factor: f64) {
        let exact = definition::block::<f64>(&self.branches, &self.x, &self.grad());
        let bound = factor * if self.shape.is_depthwise() { DEPTHWISE } else { DENSE };
        for_each_set(|| {
            let found = self.kernel();
            assert_eq!(found.len(), exact.len());
            // A gradient of the input that is not wanted is empty.
            for (exact, found) in exact.iter().zip(&found).filter(|(_, found)| !found.is_empty()) {
                let error = error(exact, found);
                assert!(error < bound, "{}, {}: off by {error:.1e}", self.name, exact.name);
            }
        });
    }

    /// Prints the largest errors of the kernel and of the definition in `f32`.
    fn report(&self) {
        let grad = self.grad();
        let exact = definition::block::<f64>(&self.branches, &self.x, &grad);
        let rounded = definition::block::<f32>(&self.branches, &self.x, &grad);
        let rounded = rounded.into_iter().map(|found| found.values).collect();
        type Belongs = fn(&str) -> bool;
        let columns: [(&str, Belongs); 5] = [
            ("output", |name| name == "output"),
            ("mean", |name| name.ends_with("mean")),
            ("variance", |name| name.ends_with("variance")),
            ("input gradient", |name| name == "input gradient"),
            ("gradient", |name| name.ends_with("gradient") && name != "input gradient"),
        ];
        println!("{}", self.name);
        let both = [self.kernel(), rounded];
        for (column, belongs) in columns {
            let [kernel, definition] = both.each_ref().map(|found| {
                let results = exact
                    .iter()
                    .zip(found)
                    .filter(|(exact, found)| belongs(&exact.name) && !found.is_empty());
                let errors = results.map(|(exact, found)| (error(exact, found), &exact.name));
                let worst = errors.max_by(|a, b| a.0.total_cmp(&b.0));
                worst.map_or(String::new(), |(error, name)| format!("{error:.1e} {name}"))
            });
            println!("    {column:<16} kernel {kernel:<42} definition {definition}");
        }
    }
}

/// The largest error relative to the value or its scale, or to a tenth of the largest scale: a
/// constant channel has none of its own.
fn error(exact: &Found, found: &[f64]) -> f64 {
    assert_eq!(exact.values.len(), found.len(), "{}", exact.name);
    let least = 0.1 * exact.scale.iter().copied().fold(0.0, f64::max);
    let mut worst = 0.0;
    for ((value, scale), found) in exact.values.iter().zip(&exact.scale).zip(found) {
        let error = (found - value).abs() / value.abs().max(*scale).max(least);
        if error > worst || error.is_nan() {
            worst = error;
        }
    }
    worst
}

fn borrow(norm: &definition::Norm) -> Norm<'_> {
    Norm { gamma: &norm.gamma, beta: &norm.beta, epsilon: EPSILON, fixed: None }
}

fn closed(branch: &Branch) -> ConvNorm<'_> {
    ConvNorm { weight: &branch.weight, norm: borrow(&branch.norm) }
}

fn padded(branch: &Branch) -> PaddedNorm<'_> {
    let opening = branch.opening.as_ref().unwrap();
    PaddedNorm {
        weight: &opening.weight,
        gamma: &opening.norm.gamma,
        beta: &opening.norm.beta,
        running_mean: &opening.running_mean,
        running_var: &opening.running_var,
        momentum: MOMENTUM,
        epsilon: EPSILON,
        fixed: false,
    }
}

/// What may be left of an error relative to the scales of [`Found`]: with the shift near the mean,
/// a sum loses no more than the roundings of its own terms, at most a few hundred in a row, and a
/// result is behind a few of them. No bound depends on the mean.
const DEPTHWISE: f64 = 32.0 * ROUNDOFF;

/// As [`DEPTHWISE`]; a value passes up to three products of matrices, each of up to hundreds of
/// terms.
const DENSE: f64 = 160.0 * ROUNDOFF;

/// How much more may be lost where a few values are far from all others: they are most of each sum
/// of squares, so that the others round relative to them, and equal values round alike instead of
/// independently.
const ODD: f64 = 10.0;

#[test]
fn a_mean_far_from_zero_costs_nothing() {
    for ratio in [30.0, 300.0, 3000.0] {
        for case in small() {
            case.about(ratio).check(1.0);
        }
    }
}

#[test]
fn an_odd_row_costs_nothing() {
    for case in small() {
        case.about(300.0).dark(|shape| shape.input[1]).check(ODD);
    }
    // Of channels that sum their squares about a shift, the mean must be many deviations from it.
    for stride in [1, 2] {
        let case = Case::depthwise(2, 8, [33, 36], stride);
        if affordable(case.shape.macs()) {
            case.about(3000.0).dark(|shape| shape.input[1]).check(ODD);
        }
    }
}

#[test]
fn an_odd_image_costs_nothing() {
    for case in small() {
        // The channels of a dense block then rise and fall together, far more than each for itself:
        // merged kernels hold the differences of large weights.
        let factor = if case.shape.is_depthwise() { ODD } else { 3.0 * ODD };
        case.about(300.0).dark(|shape| shape.input_positions()).check(factor);
    }
}

#[test]
fn a_constant_channel_costs_the_others_nothing() {
    for case in small() {
        case.about(300.0).constant().check(1.0);
    }
}

/// Blocks of every form, quickly computed.
fn small() -> Vec<Case> {
    let cases = vec![
        Case::depthwise(3, 3, [25, 22], 1),
        Case::depthwise(3, 3, [25, 22], 2),
        Case::depthwise(3, 16, [12, 9], 1),
        Case::depthwise(3, 14, [12, 9], 2),
        Case::dense([4, 5], 3, [13, 12], 1),
        Case::dense([4, 5], 3, [13, 12], 2),
        // Too few positions to merge kernels.
        Case::dense([4, 24], 2, [7, 8], 1),
        Case::dense([3, 5], 3, [13, 12], 1).patches(),
        Case::dense([3, 5], 3, [13, 12], 2).patches(),
    ];
    cases.into_iter().filter(|case| affordable(case.shape.macs())).collect()
}

const RATIOS: [f64; 5] = [0.0, 3.0, 30.0, 300.0, 3000.0];

/// Prints the errors of kernels and definition, each with the result that is worst: the table of
/// `docs/PERFORMANCE.md`.
#[test]
#[ignore = "a measurement, which takes minutes"]
fn table() {
    let blocks: [fn() -> Case; 9] = [
        || Case::depthwise(8, 4, [7, 7], 1),
        || Case::depthwise(4, 4, [64, 64], 1),
        || Case::depthwise(4, 4, [64, 64], 2),
        || Case::dense([8, 8], 4, [4, 4], 1),
        || Case::dense([8, 8], 4, [32, 32], 1),
        || Case::dense([8, 8], 4, [32, 32], 2),
        || Case::dense([4, 4], 16, [256, 256], 1),
        || Case::dense([3, 8], 4, [32, 32], 2).patches(),
        || Case::dense([3, 8], 16, [256, 256], 2).patches(),
    ];
    for block in blocks {
        for ratio in RATIOS {
            block().about(ratio).report();
        }
        block().about(300.0).dark(|shape| shape.input[1]).report();
        block().about(300.0).dark(|shape| shape.input_positions()).report();
        block().about(300.0).constant().report();
    }
}
