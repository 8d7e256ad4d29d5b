//! Against the definition in `f64`: convolutions, norms, padding and pools by nested loops,
//! gradients by central differences.

use super::*;
use crate::Norm;
use crate::padded_norm::PaddedNorm;
use crate::testing::{assert_within, for_each_set, largest, random, widen};
use crate::{Activation, ConvShape, FixedStatistics};

const EPSILON: f64 = 1e-3;
const MOMENTUM: f64 = 0.1;

/// What a norm normalises with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Batch,
    Constants,
    /// There is no norm.
    Nothing,
}
use Of::{Batch, Constants, Nothing};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Conv([usize; 2]),
    Identity,
    Average,
    /// With so many internal channels.
    PaddedConv(usize),
    PaddedAverage,
}
use Kind::{Average, Conv, Identity, PaddedAverage, PaddedConv};

#[derive(Clone, Debug)]
struct Case {
    shape: ConvShape,
    branches: Vec<(Kind, Of)>,
    opening: Of,
    outer: Of,
    residual: bool,
    activation: Activation,
}

/// Tensors of a branch in [`Case::values`]: weight, those of the opening, scale, shift.
const PER_BRANCH: usize = 6;

impl Case {
    fn new(shape: ConvShape, branches: &[(Kind, Of)], activation: Activation) -> Self {
        let branches = branches.to_vec();
        Self { shape, branches, opening: Batch, outer: Nothing, residual: false, activation }
    }

    fn internal(&self, kind: Kind) -> usize {
        match kind {
            PaddedConv(internal) => internal,
            PaddedAverage => self.shape.out_channels,
            _ => 0,
        }
    }

    /// Everything that has a gradient: input, residual, scale and shift of the outer norm, and
    /// the tensors of every branch. What there is not is empty.
    fn values(&self) -> Vec<Vec<f32>> {
        let shape = &self.shape;
        let (outputs, groups) = (shape.out_channels, shape.groups);
        let around_one = |seed, len| random(seed, len).iter().map(|v| 1.0 + 0.5 * v).collect();
        let some = |there: bool, values: Vec<f32>| if there { values } else { Vec::new() };
        let norm = self.outer != Nothing;
        let input = random(1, shape.input_len()).iter().map(|v| v + 0.5).collect();
        let mut values = vec![
            input,
            some(self.residual, random(2, shape.output_len())),
            some(norm, around_one(3, outputs)),
            some(norm, random(4, outputs)),
        ];
        for (index, &(kind, of)) in self.branches.iter().enumerate() {
            let seed = 10 + 20 * index as u64;
            let internal = self.internal(kind);
            let window = shape.kernel[0] * shape.kernel[1];
            let weight = match kind {
                Conv([kh, kw]) => outputs * (shape.in_channels / groups) * kh * kw,
                PaddedConv(internal) => outputs * (internal / groups) * window,
                _ => 0,
            };
            let norm = of != Nothing;
            values.push(random(seed, weight));
            values.push(random(seed + 1, internal * (shape.in_channels / groups)));
            values.push(around_one(seed + 2, internal));
            values.push(random(seed + 3, internal));
            values.push(some(norm, around_one(seed + 4, outputs)));
            values.push(some(norm, random(seed + 5, outputs)));
        }
        values
    }

    /// Means and variances that norms start from or take as constants: of every branch that of
    /// the opening and of the closing norm, and of the outer norm.
    fn statistics(&self) -> Vec<[Vec<f32>; 2]> {
        let var = |seed, len| random(seed, len).iter().map(|v| 1.2 + v).collect();
        let pair = |seed, len| [random(seed, len), var(seed + 1, len)];
        let outputs = self.shape.out_channels;
        let mut all = vec![];
        for (index, &(kind, _)) in self.branches.iter().enumerate() {
            let seed = 500 + 10 * index as u64;
            all.push(pair(seed, self.internal(kind)));
            all.push(pair(seed + 2, outputs));
        }
        all.push(pair(900, outputs));
        all
    }

    fn norm<'a>(
        of: Of,
        values: &'a [Vec<f32>],
        [mean, var]: &'a [Vec<f32>; 2],
    ) -> Option<Norm<'a>> {
        let fixed = (of == Constants).then_some(FixedStatistics { mean, var });
        let norm = Norm { gamma: &values[0], beta: &values[1], epsilon: EPSILON, fixed };
        (of != Nothing).then_some(norm)
    }

    fn branches<'a>(&self, values: &'a [Vec<f32>], stats: &'a [[Vec<f32>; 2]]) -> Vec<Branch<'a>> {
        let all = self.branches.iter().zip(values[4..].chunks_exact(PER_BRANCH));
        let branches = all.zip(stats.chunks(2)).map(|((&(kind, of), values), stats)| {
            let [running_mean, running_var] = &stats[0];
            let opening = PaddedNorm {
                weight: &values[1],
                gamma: &values[2],
                beta: &values[3],
                running_mean,
                running_var,
                momentum: MOMENTUM,
                epsilon: EPSILON,
                fixed: self.opening == Constants,
            };
            let weight = &values[0];
            let map = match kind {
                Conv(kernel) => BranchMap::Conv { weight, kernel },
                Identity => BranchMap::Identity,
                Average => BranchMap::Average,
                PaddedConv(_) => BranchMap::PaddedConv { opening, weight },
                PaddedAverage => BranchMap::PaddedAverage { opening },
            };
            Branch { map, norm: Self::norm(of, &values[4..], &stats[1]) }
        });
        branches.collect()
    }

    /// Compares values, statistics and gradients with the definition, with every instruction set.
    fn check(&self, tolerance: f64) {
        if cfg!(miri) && self.shape.macs() > 1 << 12 {
            return;
        }
        let (values, stats) = (self.values(), self.statistics());
        let exact: Vec<Vec<f64>> = values.iter().map(|values| widen(values)).collect();
        let truth = self.definition(&exact, &stats, None);
        let dy = random(7, self.shape.output_len());
        let slopes: Vec<f64> = truth
            .before
            .iter()
            .zip(&dy)
            .map(|(&before, &dy)| f64::from(dy) * derivative(self.activation, before))
            .collect();
        let expected =
            if cfg!(miri) { vec![] } else { self.differences(&exact, &stats, &truth, &slopes) };
        for_each_set(|| {
            let branches = self.branches(&values, &stats);
            let outer = Self::norm(self.outer, &values[2..], &stats[stats.len() - 1]);
            let sum = BranchSum { shape: self.shape, branches: &branches, outer };
            let run = |parameters| {
                let residual = self.residual.then_some(&values[1][..]);
                let mut y = vec![f32::NAN; dy.len()];
                let (found, saved) = sum.forward(&values[0], residual, self.activation, &mut y);
                let wanted = Wanted { input: true, residual: self.residual, parameters };
                let grad = sum.backward(&values[0], &y, &saved, &dy, wanted);
                (y, found, grad)
            };
            let (y, found, grad) = run(true);
            let again = run(true);
            assert_eq!((&y, &found, &grad), (&again.0, &again.1, &again.2));
            let bare = run(false).2;
            assert_eq!((&bare.input, &bare.residual), (&grad.input, &grad.residual));

            let after: Vec<f64> =
                truth.before.iter().map(|&v| activate(self.activation, v)).collect();
            self.close("y", &y, &after, tolerance);
            self.check_statistics(&found, &truth, tolerance);
            if cfg!(miri) {
                return;
            }
            let empty = vec![];
            let pair = |pair: &Option<[Vec<f32>; 2]>| pair.clone().unwrap_or_default().to_vec();
            let mut all = vec![
                grad.input.clone().unwrap_or_default(),
                grad.residual.clone().unwrap_or_default(),
            ];
            all.extend(pair(&grad.outer));
            for branch in &grad.branches {
                let opening = branch.opening.as_ref();
                all.push(branch.weight.clone());
                all.push(opening.map_or(empty.clone(), |grad| grad.weight.clone()));
                all.push(opening.map_or(empty.clone(), |grad| grad.gamma.clone()));
                all.push(opening.map_or(empty.clone(), |grad| grad.beta.clone()));
                all.extend(pair(&branch.norm));
            }
            for (index, (found, expected)) in all.iter().zip(&expected).enumerate() {
                self.close(&format!("gradient {index}"), found, expected, tolerance);
            }
        });
    }

    fn check_statistics(&self, found: &SumStatistics, truth: &Truth, tolerance: f64) {
        let found = found
            .branches
            .iter()
            .flat_map(|branch| [&branch.opening, &branch.closing])
            .chain([&found.outer]);
        for (index, (found, expected)) in found.zip(&truth.statistics).enumerate() {
            assert_eq!(found.is_some(), expected.is_some(), "statistics {index} of {self:?}");
            if let (Some(found), Some([mean, var])) = (found, expected) {
                self.close(&format!("mean {index}"), &found.mean, mean, tolerance);
                self.close(&format!("variance {index}"), &found.var, var, tolerance);
            }
        }
    }

    /// Relative to the largest value.
    fn close(&self, what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
        let bound = tolerance * largest(expected, 0.1);
        assert_within(format_args!("{what} of {self:?}"), found, expected, bound);
    }

    /// The gradients of everything by central differences of the definition.
    fn differences(
        &self,
        values: &[Vec<f64>],
        stats: &[[Vec<f32>; 2]],
        truth: &Truth,
        slopes: &[f64],
    ) -> Vec<Vec<f64>> {
        let loss = |values: &[Vec<f64>]| -> f64 {
            let found = self.definition(values, stats, Some(&truth.borders));
            found.before.iter().zip(slopes).map(|(v, s)| v * s).sum()
        };
        let mut moved = values.to_vec();
        let mut grads = vec![];
        for tensor in 0..values.len() {
            let mut grad = vec![];
            for index in 0..values[tensor].len() {
                let step = 1e-4;
                let mut at = |by: f64| {
                    moved[tensor][index] = values[tensor][index] + by;
                    loss(&moved)
                };
                grad.push((at(step) - at(-step)) / (2.0 * step));
                at(0.0);
            }
            grads.push(grad);
        }
        grads
    }

    /// The 1x1 convolution and the norm that open a branch: the map, its statistics and the value
    /// of its padding.
    fn open(
        &self,
        x: &[f64],
        internal: usize,
        values: &[Vec<f64>],
        stats: &[Vec<f32>; 2],
    ) -> (Vec<f64>, Option<[Vec<f64>; 2]>, Vec<f64>) {
        let first = ConvShape {
            out_channels: internal,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [0, 0],
            ..self.shape
        };
        let map = convolve(&first, x, &values[1], &vec![0.0; self.shape.in_channels]);
        let dims = first.output_dims();
        let (map, found) = normalise(&map, dims, self.opening, &values[2..], stats);
        let count = (dims[0] * dims[2]) as f64;
        let border = (0..internal).map(|c| {
            let kept = [0, 1].map(|i| f64::from(stats[i][c]));
            let [mean, var] = match &found {
                None => kept,
                Some([mean, var]) => [
                    (1.0 - MOMENTUM) * kept[0] + MOMENTUM * mean[c],
                    (1.0 - MOMENTUM) * kept[1] + MOMENTUM * var[c] * count / (count - 1.0),
                ],
            };
            values[3][c] - values[2][c] * mean / (var + EPSILON).sqrt()
        });
        let border = border.collect();
        (map, found, border)
    }

    /// The block straight from its definition, with given values of the padding or its own.
    fn definition(
        &self,
        values: &[Vec<f64>],
        stats: &[[Vec<f32>; 2]],
        borders: Option<&[Vec<f64>]>,
    ) -> Truth {
        let shape = &self.shape;
        let dims = shape.output_dims();
        let x = &values[0];
        let mut truth = Truth::default();
        let mut sum = vec![0.0; shape.output_len()];
        let branches = self.branches.iter().zip(values[4..].chunks_exact(PER_BRANCH));
        for (index, ((&(kind, of), values), stats)) in branches.zip(stats.chunks(2)).enumerate() {
            let internal = self.internal(kind);
            let opened = |truth: &mut Truth| {
                let given = borders.map(|borders| borders[index].clone());
                let (map, found, border) = self.open(x, internal, values, &stats[0]);
                let border = given.unwrap_or(border);
                truth.borders.push(border.clone());
                truth.statistics.push(found);
                (map, border)
            };
            let average = |channels: usize, map: &[f64], border: &[f64]| {
                let window = shape.kernel[0] * shape.kernel[1];
                let pool = ConvShape { in_channels: channels, groups: channels, ..*shape };
                let weight = vec![1.0 / window as f64; channels * window];
                convolve(&pool, map, &weight, border)
            };
            let zeros = vec![0.0; shape.in_channels.max(internal)];
            let map = match kind {
                PaddedConv(_) => {
                    let (map, border) = opened(&mut truth);
                    let inner = ConvShape { in_channels: internal, ..*shape };
                    convolve(&inner, &map, &values[0], &border)
                }
                PaddedAverage => {
                    let (map, border) = opened(&mut truth);
                    average(internal, &map, &border)
                }
                kind => {
                    truth.borders.push(vec![]);
                    truth.statistics.push(None);
                    match kind {
                        Conv(kernel) => {
                            // Embedded in the window.
                            let [h, w] = shape.kernel;
                            let [top, left] = [(h - kernel[0]) / 2, (w - kernel[1]) / 2];
                            let mut weight = vec![0.0; shape.weight_len()];
                            for (tap, &value) in values[0].iter().enumerate() {
                                let size = kernel[0] * kernel[1];
                                let (plane, row, column) =
                                    (tap / size, tap % size / kernel[1], tap % kernel[1]);
                                weight[(plane * h + top + row) * w + left + column] = value;
                            }
                            convolve(shape, x, &weight, &zeros)
                        }
                        Identity => x.clone(),
                        _ => average(shape.in_channels, x, &zeros),
                    }
                }
            };
            let (map, found) = normalise(&map, dims, of, &values[4..], &stats[1]);
            truth.statistics.push(found);
            sum.iter_mut().zip(map).for_each(|(sum, value)| *sum += value);
        }
        let (sum, found) = normalise(&sum, dims, self.outer, &values[2..], &stats[stats.len() - 1]);
        truth.statistics.push(found);
        truth.before = sum;
        truth.before.iter_mut().zip(&values[1]).for_each(|(sum, value)| *sum += value);
        truth
    }
}

#[derive(Default)]
struct Truth {
    /// Before the activation.
    before: Vec<f64>,
    /// Mean and biased variance of every norm that uses those of the batch.
    statistics: Vec<Option<[Vec<f64>; 2]>>,
    borders: Vec<Vec<f64>>,
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

fn derivative(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::Relu6 => f64::from(u8::from(x > 0.0 && x < 6.0)),
        Activation::HardSwish if x <= -3.0 => 0.0,
        Activation::HardSwish if x >= 3.0 => 1.0,
        Activation::HardSwish => (2.0 * x + 3.0) / 6.0,
    }
}

/// Grouped convolution that reads `border[channel]` outside.
fn convolve(shape: &ConvShape, x: &[f64], weight: &[f64], border: &[f64]) -> Vec<f64> {
    let ([height, width], [kh, kw], [oh, ow]) = (shape.input, shape.kernel, shape.output());
    let (c, d) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let mut y = Vec::with_capacity(shape.output_len());
    for image in 0..shape.batch {
        for output in 0..shape.out_channels {
            for position in 0..oh * ow {
                let mut sum = 0.0;
                for tap in 0..c * kh * kw {
                    let (channel, ky, kx) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                    let channel = output / d * c + channel;
                    let row = (position / ow * shape.stride[0] + ky).wrapping_sub(shape.padding[0]);
                    let col = (position % ow * shape.stride[1] + kx).wrapping_sub(shape.padding[1]);
                    let value = if row < height && col < width {
                        x[((image * shape.in_channels + channel) * height + row) * width + col]
                    } else {
                        border[channel]
                    };
                    sum += weight[output * c * kh * kw + tap] * value;
                }
                y.push(sum);
            }
        }
    }
    y
}

type Found = Option<[Vec<f64>; 2]>;

/// A norm of a map, and its mean and biased variance if it uses them.
fn normalise(
    map: &[f64],
    [batch, channels, positions]: [usize; 3],
    of: Of,
    values: &[Vec<f64>],
    constants: &[Vec<f32>; 2],
) -> (Vec<f64>, Found) {
    if of == Nothing {
        return (map.to_vec(), None);
    }
    let count = (batch * positions) as f64;
    let over = |channel: usize| {
        (0..batch).flat_map(move |image| {
            let start = (image * channels + channel) * positions;
            start..start + positions
        })
    };
    let (mut means, mut vars, mut y) = (vec![], vec![], map.to_vec());
    for channel in 0..channels {
        let (mean, var) = if of == Constants {
            (constants[0][channel].into(), constants[1][channel].into())
        } else {
            let mean = over(channel).map(|i| map[i]).sum::<f64>() / count;
            (mean, over(channel).map(|i| (map[i] - mean).powi(2)).sum::<f64>() / count)
        };
        let scale = values[0][channel] / (var + EPSILON).sqrt();
        over(channel).for_each(|i| y[i] = values[1][channel] + scale * (map[i] - mean));
        means.push(mean);
        vars.push(var);
    }
    (y, (of == Batch).then_some([means, vars]))
}

fn shape(channels: [usize; 2], kernel: usize, stride: usize, groups: usize) -> ConvShape {
    ConvShape {
        batch: 2,
        in_channels: channels[0],
        out_channels: channels[1],
        input: [5, 4],
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        groups,
    }
}

/// Dense, grouped and depthwise geometries that keep the channels, the last with enough images to interleave them.
fn square(kernel: usize, stride: usize) -> [ConvShape; 4] {
    let [dense, grouped, depthwise] = [1, 2, 4].map(|groups| shape([4, 4], kernel, stride, groups));
    [dense, grouped, depthwise, ConvShape { batch: 13, ..depthwise }]
}

const ACB: [(Kind, Of); 3] = [(Conv([3, 3]), Batch), (Conv([3, 1]), Batch), (Conv([1, 3]), Batch)];

#[test]
fn asymmetric_convolutions() {
    for shape in square(3, 1).into_iter().chain(square(3, 2)) {
        Case { residual: true, ..Case::new(shape, &ACB, Activation::Relu) }.check(2e-5);
    }
    Case::new(shape([3, 5], 3, 1, 1), &ACB, Activation::Identity).check(2e-5);
}

#[test]
fn kernels_larger_than_their_padding() {
    for padding in [[0, 0], [1, 0], [0, 2]] {
        for shape in square(3, 2) {
            let shape = ConvShape { padding, ..shape };
            Case::new(shape, &ACB, Activation::Relu).check(2e-5);
        }
    }
    let wide = [
        (Conv([5, 5]), Batch),
        (Conv([3, 3]), Batch),
        (Conv([1, 5]), Batch),
        (Conv([1, 1]), Batch),
    ];
    for shape in square(5, 1) {
        let shape = ConvShape { padding: [1, 2], ..shape };
        Case::new(shape, &wide, Activation::Identity).check(2e-5);
    }
}

#[test]
fn repvgg_with_every_activation() {
    let branches = [(Conv([3, 3]), Batch), (Conv([1, 1]), Batch), (Identity, Batch)];
    for shape in square(3, 1) {
        for activation in
            [Activation::Identity, Activation::Relu, Activation::Relu6, Activation::HardSwish]
        {
            for residual in [false, true] {
                Case { residual, ..Case::new(shape, &branches, activation) }.check(2e-5);
            }
        }
    }
}

#[test]
fn mobileone_with_more_branches_than_a_pass_takes() {
    let mut branches = vec![(Conv([3, 3]), Batch); 4];
    branches.extend([(Conv([1, 1]), Batch), (Identity, Batch)]);
    for shape in square(3, 1) {
        for activation in [Activation::Relu, Activation::HardSwish] {
            Case::new(shape, &branches, activation).check(2e-5);
        }
        Case { residual: true, ..Case::new(shape, &branches, Activation::Relu6) }.check(2e-5);
    }
    branches.pop();
    for shape in square(3, 2) {
        Case::new(shape, &branches, Activation::Relu).check(2e-5);
    }
}

#[test]
fn branches_without_norms_and_a_norm_of_the_sum() {
    for of in [Batch, Constants] {
        let branches = [(Conv([3, 3]), of), (Conv([1, 1]), Nothing), (Identity, Nothing)];
        for shape in square(3, 1) {
            for outer in [Batch, Constants] {
                for (activation, residual) in
                    [(Activation::Relu, true), (Activation::HardSwish, false)]
                {
                    let case = Case::new(shape, &branches, activation);
                    Case { outer, residual, ..case }.check(2e-5);
                }
            }
        }
    }
    // Over opened branches as well.
    for shape in square(3, 1) {
        let branches = [(PaddedConv(4), Nothing), (Average, Batch), (PaddedConv(8), Constants)];
        Case { outer: Batch, ..Case::new(shape, &branches, Activation::Relu) }.check(2e-5);
    }
}

#[test]
fn subsets_of_a_diverse_branch_block() {
    let all = [
        (Conv([3, 3]), Batch),
        (Conv([1, 1]), Batch),
        (PaddedConv(4), Batch),
        (PaddedAverage, Batch),
    ];
    for subset in 1..16 {
        let branches: Vec<_> =
            (0..4).filter(|branch| subset & 1 << branch != 0).map(|branch| all[branch]).collect();
        for groups in [1, 2, 4] {
            let stride = 1 + subset % 2;
            let shape = shape([4, 4], 3, stride, groups);
            // A closing norm undoes the scale of an opening one: their gradients are what is left
            // of larger terms.
            Case::new(shape, &branches, Activation::Relu).check(1e-4);
        }
    }
    for groups in [1, 2] {
        let branches = [all[0], (PaddedConv(6), Batch), all[3]];
        let shape = shape([4, 6], 5, 2, groups);
        Case { residual: true, ..Case::new(shape, &branches, Activation::Relu6) }.check(4e-5);
    }
}

#[test]
fn a_dense_diverse_branch_block_with_every_activation() {
    let branches = [
        (Conv([3, 3]), Batch),
        (Conv([1, 1]), Batch),
        (PaddedConv(5), Batch),
        (PaddedAverage, Batch),
    ];
    // By its maps, and of few input channels.
    for channels in [[8, 4], [3, 4]] {
        for activation in [Activation::Identity, Activation::Relu6, Activation::HardSwish] {
            for residual in [false, true] {
                let case = Case::new(shape(channels, 3, 1, 1), &branches, activation);
                Case { residual, ..case }.check(4e-5);
            }
        }
    }
}

#[test]
fn norms_with_constants() {
    for (opening, closing) in [(Constants, Constants), (Batch, Constants), (Constants, Batch)] {
        let dense = [
            (Conv([3, 3]), closing),
            (Conv([1, 1]), Constants),
            (PaddedConv(4), closing),
            (PaddedAverage, closing),
        ];
        let depthwise = [(Conv([3, 3]), closing), (PaddedConv(8), closing), (Average, Constants)];
        for stride in [1, 2] {
            for shape in square(3, stride) {
                let branches = if shape.is_depthwise() { &depthwise[..] } else { &dense[..] };
                for activation in [Activation::Relu, Activation::HardSwish] {
                    let case = Case::new(shape, branches, activation);
                    Case { opening, residual: stride == 1, ..case }.check(4e-5);
                }
            }
        }
    }
}

#[test]
fn a_single_convolution_of_any_geometry() {
    for (kernel, stride, padding) in [
        ([3, 3], [1, 2], [1, 1]),
        ([1, 3], [1, 1], [0, 1]),
        ([3, 3], [1, 1], [0, 2]),
        ([1, 1], [2, 2], [0, 0]),
    ] {
        for shape in square(3, 1) {
            let shape = ConvShape { kernel, stride, padding, ..shape };
            for of in [Batch, Constants, Nothing] {
                Case::new(shape, &[(Conv(kernel), of)], Activation::Relu).check(2e-5);
            }
        }
    }
}

#[test]
#[should_panic(expected = "a kernel in the middle of the window")]
fn a_kernel_beside_the_middle_is_refused() {
    Case::new(shape([2, 2], 3, 1, 1), &[(Conv([2, 1]), Nothing)], Activation::Relu).check(1.0);
}

#[test]
#[should_panic(expected = "keeps the shape of its input")]
fn an_identity_of_another_shape_is_refused() {
    Case::new(shape([4, 4], 3, 2, 1), &[(Identity, Nothing)], Activation::Relu).check(1.0);
}
