//! Against the definition in `f64`: every branch as it is written, gradients by central
//! differences.

use super::*;
use crate::arithmetic::to_f32;
use crate::testing::{affordable, assert_within, for_each_set, largest, random, widen};

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// A convolution over a map already padded.
fn conv(shape: &ConvShape, x: &[f64], weight: &[f64]) -> Vec<f64> {
    let [height, width] = [0, 1].map(|axis| shape.input[axis] + 2 * shape.padding[axis]);
    let [rows, columns] = shape.output();
    let [kh, kw] = shape.kernel;
    let mut y = Vec::new();
    for n in 0..shape.batch {
        for o in 0..shape.out_channels {
            for position in 0..rows * columns {
                let (row, column) =
                    (position / columns * shape.stride[0], position % columns * shape.stride[1]);
                let mut sum = 0.0;
                for c in 0..shape.in_channels {
                    for tap in 0..kh * kw {
                        let (row, column) = (row + tap / kw, column + tap % kw);
                        sum += x[((n * shape.in_channels + c) * height + row) * width + column]
                            * weight[(o * shape.in_channels + c) * kh * kw + tap];
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

/// A map with its planes padded by the channel's value.
fn pad(shape: &ConvShape, channels: usize, x: &[f64], values: &[f64]) -> Vec<f64> {
    let [height, width] = shape.input;
    let [top, left] = shape.padding;
    let mut padded = Vec::new();
    for (index, plane) in x.chunks_exact(height * width).enumerate() {
        for row in 0..height + 2 * top {
            for column in 0..width + 2 * left {
                let inside =
                    (top..top + height).contains(&row) && (left..left + width).contains(&column);
                padded.push(if inside {
                    plane[(row - top) * width + column - left]
                } else {
                    values[index % channels]
                });
            }
        }
    }
    padded
}

/// Normalised map, mean and biased variance.
fn batch_norm(
    x: &[f64],
    channels: usize,
    positions: usize,
    gamma: &[f64],
    beta: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut mean, mut var) = (vec![0.0; channels], vec![0.0; channels]);
    let count = (x.len() / channels) as f64;
    let channel = |index: usize| index / positions % channels;
    x.iter().enumerate().for_each(|(i, v)| mean[channel(i)] += v / count);
    x.iter()
        .enumerate()
        .for_each(|(i, v)| var[channel(i)] += (v - mean[channel(i)]).powi(2) / count);
    let y = x
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let c = channel(i);
            (v - mean[c]) / (var[c] + EPSILON).sqrt() * gamma[c] + beta[c]
        })
        .collect();
    (y, mean, var)
}

/// The gradient of the input of [`batch_norm`] from that of its output.
fn batch_norm_grad(
    x: &[f64],
    channels: usize,
    positions: usize,
    gamma: &[f64],
    grad: &[f64],
) -> Vec<f64> {
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    let (normal, _, var) = batch_norm(x, channels, positions, &ones, &zeros);
    let count = (x.len() / channels) as f64;
    let channel = |index: usize| index / positions % channels;
    let (mut sum, mut product) = (vec![0.0; channels], vec![0.0; channels]);
    for (index, (normal, grad)) in normal.iter().zip(grad).enumerate() {
        sum[channel(index)] += grad / count;
        product[channel(index)] += grad * normal / count;
    }
    let of = |(index, (normal, grad)): (usize, (&f64, &f64))| {
        let c = channel(index);
        gamma[c] / (var[c] + EPSILON).sqrt() * (grad - sum[c] - normal * product[c])
    };
    normal.iter().zip(grad).enumerate().map(of).collect()
}

/// Input and parameters, in the order of the definition.
const NAMES: [&str; 19] = [
    "input",
    "residual",
    "kxk",
    "kxk gamma",
    "kxk beta",
    "1x1",
    "1x1 gamma",
    "1x1 beta",
    "opening",
    "opening gamma",
    "opening beta",
    "second",
    "second gamma",
    "second beta",
    "average 1x1",
    "average opening gamma",
    "average opening beta",
    "average gamma",
    "average beta",
];

struct Case {
    shape: ConvShape,
    internal: usize,
    relu: bool,
    /// Mean of the input, whose deviation is about one half.
    mean: f64,
}

impl Case {
    fn parameters(&self) -> Vec<Vec<f64>> {
        let shape = &self.shape;
        let (inputs, outputs, internal) = (shape.in_channels, shape.out_channels, self.internal);
        let window = shape.kernel[0] * shape.kernel[1];
        let lengths = [
            shape.input_len(),
            shape.output_len(),
            outputs * inputs * window,
            outputs,
            outputs,
            outputs * inputs,
            outputs,
            outputs,
            internal * inputs,
            internal,
            internal,
            outputs * internal * window,
            outputs,
            outputs,
            outputs * inputs,
            outputs,
            outputs,
            outputs,
            outputs,
        ];
        let mut parameters: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(seed, &length)| widen(&random(seed as u64 + 1, length)))
            .collect();
        parameters[0].iter_mut().for_each(|value| *value += self.mean);
        // What the kernels see is rounded.
        parameters.iter().map(|p| p.iter().map(|&v| f64::from(v as f32)).collect()).collect()
    }

    /// The map before the activation, and means and variances of the norms in the order of
    /// [`SumStatistics`]. The border values are constants.
    fn definition(
        &self,
        p: &[Vec<f64>],
        borders: &[Vec<f64>; 2],
    ) -> (Vec<f64>, Vec<[Vec<f64>; 2]>) {
        let shape = &self.shape;
        let (inputs, outputs, internal) = (shape.in_channels, shape.out_channels, self.internal);
        let (positions, output_positions) = (shape.input_positions(), shape.output_positions());
        let x = &p[0];
        let padded = pad(shape, inputs, x, &vec![0.0; inputs]);
        let mut statistics = Vec::new();
        let mut norm = |x: &[f64], channels, positions, gamma: usize| {
            let (y, mean, var) = batch_norm(x, channels, positions, &p[gamma], &p[gamma + 1]);
            statistics.push([mean, var]);
            y
        };
        let kxk = norm(&conv(shape, &padded, &p[2]), outputs, output_positions, 3);

        let strided = ConvShape { kernel: [1, 1], padding: [0, 0], ..*shape };
        let pointwise = norm(&conv(&strided, x, &p[5]), outputs, output_positions, 6);

        let opening = ConvShape::pointwise(shape.batch, [inputs, internal], positions);
        let opened = norm(&conv(&opening, x, &p[8]), internal, positions, 9);
        let inner = ConvShape { in_channels: internal, ..*shape };
        let opened = pad(shape, internal, &opened, &borders[0]);
        let second = norm(&conv(&inner, &opened, &p[11]), outputs, output_positions, 12);

        let opening = ConvShape::pointwise(shape.batch, [inputs, outputs], positions);
        let opened = norm(&conv(&opening, x, &p[14]), outputs, positions, 15);
        let opened = pad(shape, outputs, &opened, &borders[1]);
        let pool = ConvShape { in_channels: outputs, ..*shape };
        let average =
            norm(&conv(&pool, &opened, &self.mean_kernel()), outputs, output_positions, 17);

        let y = (0..kxk.len()).map(|i| kxk[i] + pointwise[i] + second[i] + average[i] + p[1][i]);
        (y.collect(), statistics)
    }

    fn borders(&self, p: &[Vec<f64>]) -> [Vec<f64>; 2] {
        let zeros = [vec![0.0; self.internal], vec![0.0; self.shape.out_channels]];
        let (_, statistics) = self.definition(p, &zeros);
        let count = (self.shape.batch * self.shape.input_positions()) as f64;
        [(2, 9), (4, 15)].map(|(norm, gamma): (usize, usize)| {
            let [mean, var] = &statistics[norm];
            (0..mean.len())
                .map(|c| {
                    let mean = MOMENTUM * mean[c] + (1.0 - MOMENTUM) * running_mean(c);
                    let var = MOMENTUM * var[c] * count / (count - 1.0)
                        + (1.0 - MOMENTUM) * running_var(c);
                    p[gamma + 1][c] - mean * p[gamma][c] / (var + EPSILON).sqrt()
                })
                .collect()
        })
    }

    /// For both openings, the sums of the magnitudes of the terms that make the gradients of weight
    /// and scale.
    fn opening_terms(
        &self,
        p: &[Vec<f64>],
        borders: &[Vec<f64>; 2],
        active: &[bool],
        weights: &[f64],
    ) -> [[Vec<f64>; 2]; 2] {
        let shape = &self.shape;
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        let positions = shape.input_positions();
        let behind = |i: usize| if active[i] { weights[i] } else { 0.0 };
        let behind: Vec<f64> = (0..weights.len()).map(behind).collect();
        [(8, 11, self.internal, &borders[0]), (14, 16, outputs, &borders[1])].map(
            |(opening, second, channels, border)| {
                let around = ConvShape { in_channels: channels, ..*shape };
                let average = second == 16;
                let kernel = if average { self.mean_kernel() } else { p[second].clone() };
                let into = ConvShape::pointwise(shape.batch, [inputs, channels], positions);
                let map = conv(&into, &p[0], &p[opening]);
                let [gamma, beta] = [&p[opening + 1], &p[opening + 2]];
                let (opened, _, var) = batch_norm(&map, channels, positions, gamma, beta);
                let (normal, ..) = batch_norm(
                    &map,
                    channels,
                    positions,
                    &vec![1.0; channels],
                    &vec![0.0; channels],
                );
                let closed = conv(&around, &pad(shape, channels, &opened, border), &kernel);
                let grad = batch_norm_grad(
                    &closed,
                    outputs,
                    shape.output_positions(),
                    &p[second + 1],
                    &behind,
                );
                let magnitudes: Vec<f64> = kernel.iter().map(|value| value.abs()).collect();
                // What reaches a closing norm of one channel's values, given by position.
                let terms = |channel: usize, value: &dyn Fn(usize, usize) -> f64| -> f64 {
                    let values: Vec<f64> = (0..map.len())
                        .map(|index| {
                            let (plane, position) = (index / positions, index % positions);
                            let (image, own) = (plane / channels, plane % channels);
                            if own == channel { value(image, position).abs() } else { 0.0 }
                        })
                        .collect();
                    let padded = pad(shape, channels, &values, &vec![0.0; channels]);
                    let reached = conv(&around, &padded, &magnitudes);
                    reached.iter().zip(&grad).map(|(value, grad)| value * grad.abs()).sum()
                };
                let scale = |c: usize| gamma[c] / (var[c] + EPSILON).sqrt();
                let weight = (0..channels * inputs).map(|index| {
                    let (channel, input) = (index / inputs, index % inputs);
                    terms(channel, &|image, position| {
                        scale(channel) * p[0][(image * inputs + input) * positions + position]
                    })
                });
                let gamma = (0..channels).map(|channel| {
                    terms(channel, &|image, position| {
                        normal[(image * channels + channel) * positions + position]
                    })
                });
                [weight.collect(), gamma.collect()]
            },
        )
    }

    /// The average over the window as a convolution.
    fn mean_kernel(&self) -> Vec<f64> {
        let (outputs, window) =
            (self.shape.out_channels, self.shape.kernel[0] * self.shape.kernel[1]);
        let tap = |i: usize| i / window / outputs == i / window % outputs;
        (0..outputs * outputs * window)
            .map(|i| if tap(i) { 1.0 / window as f64 } else { 0.0 })
            .collect()
    }

    /// Compares output, statistics and gradients; `tolerance` is relative to the largest value, or
    /// to the terms of a gradient that cancels.
    fn check(&self, tolerance: f64) {
        if !affordable(self.shape.macs()) {
            return;
        }
        // With a residual by the maps; without by the patches, where they are small, unless the
        // gradient of the input is wanted.
        for [residual, wants_input] in [[true, true], [false, false], [false, true]] {
            self.check_form(residual, wants_input, tolerance);
        }
    }

    fn check_form(&self, residual: bool, wants_input: bool, tolerance: f64) {
        let mut exact = self.parameters();
        if !residual {
            exact[1].fill(0.0);
        }
        let borders = self.borders(&exact);
        let (before, expected_statistics) = self.definition(&exact, &borders);
        let active: Vec<bool> = before.iter().map(|&v| !self.relu || v > 0.0).collect();
        let expected: Vec<f64> =
            before.iter().zip(&active).map(|(&v, &active)| if active { v } else { 0.0 }).collect();

        let p: Vec<Vec<f32>> = exact.iter().map(|values| to_f32(values)).collect();
        let running = [self.internal, self.shape.out_channels].map(|channels| {
            [running_mean, running_var]
                .map(|value| (0..channels).map(|c| value(c) as f32).collect())
        });
        let block = self.block(&p, &running);
        let mut y = vec![f32::NAN; self.shape.output_len()];
        let added = residual.then_some(&p[1][..]);
        let activation = if self.relu { Activation::Relu } else { Activation::Identity };
        let (statistics, saved) = block.forward(&p[0], added, activation, &mut y);
        assert_within("output", &y, &expected, tolerance * largest(&expected, 1e-3));
        let found =
            statistics.branches.into_iter().flat_map(|found| [found.opening, found.closing]);
        let found: Vec<_> = found.flatten().collect();
        assert_eq!(found.len(), expected_statistics.len());
        for (index, (found, expected)) in found.iter().zip(&expected_statistics).enumerate() {
            for (name, found, expected) in
                [("mean", &found.mean, &expected[0]), ("variance", &found.var, &expected[1])]
            {
                let bound = tolerance * largest(expected, 1e-3);
                assert_within(format_args!("{name} {index}"), found, expected, bound);
            }
        }

        let dy = random(99, y.len());
        let weights = widen(&dy);
        let wanted = Wanted { input: wants_input, residual, parameters: true };
        let grad = block.backward(&p[0], &y, &saved, &dy, wanted);
        let mut gradients = vec![grad.input.unwrap_or_default(), grad.residual.unwrap_or_default()];
        for grad in grad.branches {
            gradients.extend(grad.opening.into_iter().flat_map(|o| [o.weight, o.gamma, o.beta]));
            // An average has none.
            gradients.extend(Some(grad.weight).filter(|weight| !weight.is_empty()));
            gradients.extend(grad.norm.into_iter().flatten());
        }
        // The differences take hours under Miri.
        if !cfg!(miri) {
            let truth = Truth { case: self, exact, borders, active, weights };
            truth.check_gradients(&gradients, [wants_input, residual], tolerance);
        }
    }

    fn block<'a>(&self, p: &'a [Vec<f32>], running: &'a [[Vec<f32>; 2]; 2]) -> DenseBlock<'a> {
        let norm = |gamma: usize| Norm {
            gamma: &p[gamma],
            beta: &p[gamma + 1],
            epsilon: EPSILON,
            fixed: None,
        };
        let opening = |weight: usize, running: &'a [Vec<f32>; 2]| PaddedNorm {
            weight: &p[weight],
            gamma: &p[weight + 1],
            beta: &p[weight + 2],
            running_mean: &running[0],
            running_var: &running[1],
            momentum: MOMENTUM,
            epsilon: EPSILON,
            fixed: false,
        };
        DenseBlock {
            shape: self.shape,
            kxk: ConvNorm { weight: &p[2], norm: norm(3) },
            pointwise: ConvNorm { weight: &p[5], norm: norm(6) },
            pointwise_kxk: (opening(8, &running[0]), ConvNorm { weight: &p[11], norm: norm(12) }),
            average: (opening(14, &running[1]), norm(17)),
        }
    }
}

/// What the gradients are compared with.
struct Truth<'a> {
    case: &'a Case,
    exact: Vec<Vec<f64>>,
    borders: [Vec<f64>; 2],
    /// Where the activation passes the gradient.
    active: Vec<bool>,
    /// The gradient of the output.
    weights: Vec<f64>,
}

impl Truth<'_> {
    fn loss(&self, parameters: &[Vec<f64>]) -> f64 {
        let (y, _) = self.case.definition(parameters, &self.borders);
        let terms = y.iter().zip(&self.active).zip(&self.weights);
        terms.filter(|((_, active), _)| **active).map(|((y, _), w)| y * w).sum()
    }

    fn difference(&self, index: usize, i: usize) -> f64 {
        let step = 1e-5;
        let [above, below] = [step, -step].map(|by| {
            let mut moved = self.exact.clone();
            moved[index][i] += by;
            self.loss(&moved)
        });
        (above - below) / (2.0 * step)
    }

    fn check_gradients(&self, gradients: &[Vec<f32>], wanted: [bool; 2], tolerance: f64) {
        let Self { case, exact, borders, active, weights } = self;
        let openings = case.opening_terms(exact, borders, active, weights);
        assert_eq!(gradients.len(), NAMES.len(), "gradients of every parameter");
        for (index, (gradient, name)) in gradients.iter().zip(NAMES).enumerate() {
            let wanted = wanted.get(index).copied().unwrap_or(true);
            let expected = if wanted { exact[index].len() } else { 0 };
            assert_eq!(gradient.len(), expected, "{name}");
            if !wanted {
                continue;
            }
            // The gradient of a norm's input is orthogonal to that input, so that the gradients of
            // an opening's weight and scale cancel to what the border and epsilon leave: their
            // error is relative to the terms, whichever order they are added in. With one input
            // channel the 1x1 cancels as well; its terms add up to more than 0.1.
            let terms = match index {
                8 | 9 => openings[0][index - 8].as_slice(),
                14 | 15 => &openings[1][index - 14],
                _ => &[],
            };
            let places = (0..gradient.len()).step_by(gradient.len().div_ceil(9));
            let expected: Vec<_> = places.map(|i| (i, self.difference(index, i))).collect();
            let values: Vec<f64> = expected.iter().map(|&(_, value)| value).collect();
            let least = largest(&values, 0.1);
            for (i, expected) in expected {
                let found = gradient[i];
                let scale = terms.get(i).copied().unwrap_or(0.0).max(least);
                let error = (f64::from(found) - expected).abs();
                assert!(error <= tolerance * scale, "{name} at {i}: {found} for {expected}");
            }
        }
    }
}

fn running_mean(channel: usize) -> f64 {
    0.25 * channel as f64 - 0.5
}

fn running_var(channel: usize) -> f64 {
    0.5 + 0.125 * channel as f64
}

fn case(
    [batch, inputs, internal, outputs]: [usize; 4],
    input: [usize; 2],
    kernel: usize,
    stride: usize,
) -> Case {
    let shape = ConvShape {
        batch,
        in_channels: inputs,
        out_channels: outputs,
        input,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        groups: 1,
    };
    Case { shape, internal, relu: true, mean: 0.0 }
}

#[test]
fn merged_kernels_are_the_definition() {
    let cases = [
        ([3, 3, 3, 2], [7, 5], 3, 1),
        ([2, 3, 4, 2], [7, 6], 3, 2),
        ([4, 2, 2, 3], [8, 8], 5, 1),
        ([2, 1, 1, 1], [9, 7], 5, 2),
    ];
    let small = [([2, 2, 2, 1], [4, 3], 3, 1)];
    for_each_set(|| {
        for &(channels, input, kernel, stride) in if cfg!(miri) { &small[..] } else { &cases } {
            let case = case(channels, input, kernel, stride);
            let positions = channels[0] * input[0] * input[1];
            assert!(positions > kernel * kernel * channels[3], "not the case that is to be tested");
            case.check(2e-5);
            Case { relu: false, ..case }.check(2e-5);
        }
    });
}

#[test]
fn separate_kernels_are_the_definition() {
    for_each_set(|| {
        for (channels, input, kernel, stride) in [
            ([2, 3, 3, 4], [3, 4], 3, 1),
            ([2, 2, 3, 5], [5, 4], 3, 2),
            ([4, 2, 2, 6], [6, 6], 5, 1),
        ] {
            let case = case(channels, input, kernel, stride);
            let positions = channels[0] * input[0] * input[1];
            assert!(
                positions <= kernel * kernel * channels[3],
                "not the case that is to be tested"
            );
            case.check(2e-5);
        }
    });
}

#[test]
fn channels_too_many_for_patches_are_the_definition() {
    for_each_set(|| {
        let case = case([2, 7, 7, 3], [6, 5], 3, 1);
        case.check(2e-5);
    });
}

#[test]
fn a_mean_far_from_zero_costs_little() {
    for_each_set(|| {
        Case { mean: 30.0, ..case([3, 3, 3, 2], [7, 5], 3, 1) }.check(3e-4);
    });
}
