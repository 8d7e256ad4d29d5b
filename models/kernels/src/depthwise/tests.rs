//! Against the definition in `f64`: convolutions, norms, padding and pools by nested loops,
//! gradients by central differences.

use super::*;
use crate::branch_sum::{Branch, BranchMap, BranchSum, SumGrad, SumStatistics, Wanted};
use crate::dense::PaddedNorm;
use crate::testing::{affordable, for_each_set, positive, random, widen};
use crate::{BatchStatistics, ConvShape, Norm};

fn shape(batch: usize, channels: usize, input: [usize; 2], k: usize, stride: usize) -> ConvShape {
    ConvShape {
        batch,
        in_channels: channels,
        out_channels: channels,
        input,
        kernel: [k, k],
        stride: [stride; 2],
        padding: [k / 2; 2],
        groups: channels,
    }
}

const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// The parameters of a block as one list of vectors, so that differences can step through all.
#[derive(Clone)]
struct Params {
    kxk: [Vec<f32>; 3],
    inner: [Vec<f32>; 5],
    second: [Vec<f32>; 3],
    average: [Vec<f32>; 2],
    /// Which branches there are.
    present: [bool; 3],
}

impl Params {
    fn new(shape: &ConvShape, m: usize, present: [bool; 3]) -> Self {
        let (c, taps) = (shape.out_channels, shape.kernel[0] * shape.kernel[1]);
        Self {
            kxk: [random(1, c * taps), positive(2, c), random(3, c)],
            inner: [
                random(4, c * m),
                positive(5, c * m),
                random(6, c * m),
                random(7, c * m),
                positive(9, c * m),
            ],
            second: [random(10, c * m * taps), positive(11, c), random(12, c)],
            average: [positive(13, c), random(14, c)],
            present,
        }
    }

    /// The branches that there are.
    fn branches(&self, shape: &ConvShape) -> Vec<Branch<'_>> {
        let norm = |gamma, beta| Some(Norm { gamma, beta, epsilon: EPSILON, fixed: None });
        let [weight, g, b] = &self.kxk;
        let map = BranchMap::Conv { weight, kernel: shape.kernel };
        let kxk = Branch { map, norm: norm(g, b) };
        let [weight, gamma, beta, running_mean, running_var] = &self.inner;
        let opening = PaddedNorm {
            weight,
            gamma,
            beta,
            running_mean,
            running_var,
            momentum: MOMENTUM,
            epsilon: EPSILON,
            fixed: false,
        };
        let [weight, g, b] = &self.second;
        let map = BranchMap::PaddedConv { opening, weight };
        let pointwise_kxk = Branch { map, norm: norm(g, b) };
        let [g, b] = &self.average;
        let average = Branch { map: BranchMap::Average, norm: norm(g, b) };
        let all = [kxk, pointwise_kxk, average].into_iter().zip(self.present);
        all.filter(|(_, present)| *present).map(|(branch, _)| branch).collect()
    }

    /// All trained parameters in `f64`, in the order of [`grads`].
    fn trained(&self) -> Vec<Vec<f64>> {
        let [w1, g1, b1, ..] = &self.inner;
        let all =
            [&self.kxk[..], &[w1.clone(), g1.clone(), b1.clone()], &self.second, &self.average];
        all.concat().iter().map(|v| widen(v)).collect()
    }
}

/// Of the parameters, those of absent branches empty.
fn grads(grads: &SumGrad, present: [bool; 3]) -> Vec<Vec<f32>> {
    let mut branches = grads.branches.iter().cloned();
    let mut next = |present: bool| branches.by_ref().take(usize::from(present)).next();
    let mut all = vec![];
    for (index, present) in present.into_iter().enumerate() {
        let grad = next(present).unwrap_or_default();
        let norm = grad.norm.unwrap_or_default().to_vec();
        let opening = grad.opening.map(|opening| vec![opening.weight, opening.gamma, opening.beta]);
        all.extend(match index {
            0 => [vec![grad.weight], norm].concat(),
            1 => [opening.unwrap_or(vec![vec![]; 3]), vec![grad.weight], norm].concat(),
            _ => norm,
        });
    }
    all
}

/// Mean and variance of all norms, those of absent branches empty.
fn statistics(found: &SumStatistics, present: [bool; 3]) -> [BatchStatistics; 4] {
    let mut branches = found.branches.iter().cloned();
    let [kxk, second, average] = present
        .map(|present| branches.by_ref().take(usize::from(present)).next().unwrap_or_default());
    [kxk.closing, second.opening, second.closing, average.closing].map(Option::unwrap_or_default)
}

const WANTED: Wanted = Wanted { input: true, residual: false, parameters: true };

fn activation(relu: bool) -> Activation {
    if relu { Activation::Relu } else { Activation::Identity }
}

/// A map `[batch, channels, height, width]`.
#[derive(Clone)]
struct Map {
    data: Vec<f64>,
    dims: [usize; 4],
}

/// Grouped convolution, one output per group, reading `padding_value[channel]` outside.
fn conv(x: &Map, weight: &[f64], shape: &ConvShape, padding_value: &[f64]) -> Map {
    let ([batch, inputs, h, w], channels) = (x.dims, shape.out_channels);
    let (m, [kh, kw], [oh, ow]) = (inputs / channels, shape.kernel, shape.output());
    let mut data = Vec::new();
    for n in 0..batch {
        for c in 0..channels {
            for i in 0..oh {
                for j in 0..ow {
                    let mut sum = 0.0;
                    for input in c * m..(c + 1) * m {
                        for ty in 0..kh {
                            for tx in 0..kw {
                                let iy = (i * shape.stride[0] + ty).wrapping_sub(shape.padding[0]);
                                let ix = (j * shape.stride[1] + tx).wrapping_sub(shape.padding[1]);
                                let value = if iy < h && ix < w {
                                    x.data[((n * inputs + input) * h + iy) * w + ix]
                                } else {
                                    padding_value[input]
                                };
                                sum += weight[(input * kh + ty) * kw + tx] * value;
                            }
                        }
                    }
                    data.push(sum);
                }
            }
        }
    }
    Map { data, dims: [batch, channels, oh, ow] }
}

/// Training batch norm: output, mean, biased variance.
fn norm(x: &Map, gamma: &[f64], beta: &[f64]) -> (Map, Vec<f64>, Vec<f64>) {
    let [batch, channels, h, w] = x.dims;
    let mut out = x.clone();
    let (mut means, mut variances) = (vec![], vec![]);
    for c in 0..channels {
        let at = |i: usize| (i / (h * w) * channels + c) * h * w + i % (h * w);
        let count = batch * h * w;
        let mean = (0..count).map(|i| x.data[at(i)]).sum::<f64>() / count as f64;
        let variance =
            (0..count).map(|i| (x.data[at(i)] - mean).powi(2)).sum::<f64>() / count as f64;
        let scale = gamma[c] / (variance + EPSILON).sqrt();
        (0..count).for_each(|i| out.data[at(i)] = beta[c] + scale * (x.data[at(i)] - mean));
        means.push(mean);
        variances.push(variance);
    }
    (out, means, variances)
}

struct Reference {
    /// Before the ReLU.
    y: Vec<f64>,
    stats: [(Vec<f64>, Vec<f64>); 4],
    borders: Vec<f64>,
}

/// The block by its definition, with given border values or its own.
fn reference(
    shape: &ConvShape,
    x: &[f64],
    trained: &[Vec<f64>],
    params: &Params,
    borders: Option<&[f64]>,
) -> Reference {
    let (channels, [h, w]) = (shape.in_channels, shape.input);
    let x = Map { data: x.to_vec(), dims: [shape.batch, channels, h, w] };
    let zeros = vec![0.0; channels];
    let mut y = vec![0.0; shape.output_len()];
    let mut stats: [(Vec<f64>, Vec<f64>); 4] = Default::default();
    let mut add = |map: Map| y.iter_mut().zip(map.data).for_each(|(y, v)| *y += v);
    if params.present[0] {
        let (out, mean, var) =
            norm(&conv(&x, &trained[0], shape, &zeros), &trained[1], &trained[2]);
        stats[0] = (mean, var);
        add(out);
    }
    let mut used = vec![];
    if params.present[1] {
        let m = trained[3].len() / channels;
        let mut inner = Map { data: vec![], dims: [shape.batch, channels * m, h, w] };
        for n in 0..shape.batch {
            for (j, weight) in trained[3].iter().enumerate() {
                let plane = &x.data[(n * channels + j / m) * h * w..][..h * w];
                inner.data.extend(plane.iter().map(|v| v * weight));
            }
        }
        let (inner, mean, var) = norm(&inner, &trained[4], &trained[5]);
        let count = (shape.batch * h * w) as f64;
        used = (0..channels * m)
            .map(|j| {
                let running =
                    |stat: f32, new: f64| (1.0 - MOMENTUM) * f64::from(stat) + MOMENTUM * new;
                let mean = running(params.inner[3][j], mean[j]);
                let var = running(params.inner[4][j], var[j] * count / (count - 1.0));
                trained[5][j] - trained[4][j] * mean / (var + EPSILON).sqrt()
            })
            .collect();
        if let Some(borders) = borders {
            used = borders.to_vec();
        }
        stats[1] = (mean, var);
        let (out, mean, var) =
            norm(&conv(&inner, &trained[6], shape, &used), &trained[7], &trained[8]);
        stats[2] = (mean, var);
        add(out);
    }
    if params.present[2] {
        let taps = shape.kernel[0] * shape.kernel[1];
        let pool = vec![1.0 / taps as f64; channels * taps];
        let (out, mean, var) = norm(&conv(&x, &pool, shape, &zeros), &trained[9], &trained[10]);
        stats[3] = (mean, var);
        add(out);
    }
    Reference { y, stats, borders: used }
}

/// Largest difference, relative to the largest expected value but at least `floor`.
fn error(actual: &[f32], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(floor, |max, v| max.max(v.abs()));
    let difference = |(&a, &e): (&f32, &f64)| match (f64::from(a) - e).abs() {
        // f64::max would pass over it.
        difference if difference.is_nan() => f64::INFINITY,
        difference => difference,
    };
    actual.iter().zip(expected).map(difference).fold(0.0, f64::max) / scale
}

fn check(shape: &ConvShape, params: &Params, x: &[f32], relu: bool, tolerance: f64) {
    let label = format!("{shape:?} relu {relu} {:?}", params.present);
    let branches = params.branches(shape);
    let block = BranchSum { shape: *shape, branches: &branches, outer: None };
    let expected = reference(shape, &widen(x), &params.trained(), params, None);
    let mut y = vec![f32::NAN; shape.output_len()];
    let (stats, saved) = block.forward(x, None, activation(relu), &mut y);
    let expected_y: Vec<f64> =
        expected.y.iter().map(|&v| if relu { v.max(0.0) } else { v }).collect();
    let e = error(&y, &expected_y, 1e-3);
    assert!(e < tolerance, "output {e:e} {label}");
    let all = statistics(&stats, params.present);
    for (i, (stats, (mean, variance))) in all.iter().zip(&expected.stats).enumerate() {
        let e = error(&stats.mean, mean, 1e-3);
        assert!(e < tolerance, "mean {i} {e:e} {label}");
        let e = error(&stats.var, variance, 1e-6);
        assert!(e < tolerance, "variance {i} {e:e} {label}");
    }

    let dy = random(99, y.len());
    let grad = block.backward(x, &y, &saved, &dy, WANTED);
    let dx = grad.input.clone().unwrap_or_default();
    if cfg!(miri) {
        // The differences take hours.
        return;
    }
    let pass: Vec<f64> =
        dy.iter().zip(&y).map(|(&g, &y)| if relu && y <= 0.0 { 0.0 } else { g.into() }).collect();
    let loss = |x: &[f64], trained: &[Vec<f64>]| -> f64 {
        let y = reference(shape, x, trained, params, Some(&expected.borders)).y;
        y.iter().zip(&pass).map(|(y, g)| y * g).sum()
    };
    let (x64, trained) = (widen(x), params.trained());
    let spread = x64.iter().fold(0.0_f64, |max, v| max.max((v - x64[0]).abs())).max(1e-3);
    let slope = |values: &mut dyn FnMut(f64) -> f64, step: f64| {
        (8.0 * (values(step) - values(-step)) - (values(2.0 * step) - values(-2.0 * step)))
            / (12.0 * step)
    };
    let mut expected_dx = vec![];
    for i in 0..x.len() {
        let mut moved = x64.clone();
        expected_dx.push(slope(
            &mut |d| {
                moved[i] = x64[i] + d;
                loss(&moved, &trained)
            },
            1e-3 * spread,
        ));
    }
    let e = error(&dx, &expected_dx, 1e-2);
    assert!(e < tolerance, "input gradient {e:e} {label}");
    for (i, actual) in grads(&grad, params.present).iter().enumerate() {
        let branch = [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2][i];
        if !params.present[branch] {
            assert!(actual.is_empty());
            continue;
        }
        let mut expected = vec![];
        for j in 0..trained[i].len() {
            let mut moved = trained.clone();
            expected.push(slope(
                &mut |d| {
                    moved[i][j] = trained[i][j] + d;
                    loss(&x64, &moved)
                },
                1e-4,
            ));
        }
        let e = error(actual, &expected, 1e-1);
        assert!(e < tolerance, "gradient {i} {e:e} {label}\n{actual:?}\n{expected:?}");
    }
}

const ALL: [bool; 3] = [true; 3];

#[test]
fn matches_the_definition() {
    for_each_set(|| {
        for (input, k, stride, m) in [
            ([7, 5], 3, 1, 2),
            ([7, 5], 3, 2, 2),
            ([6, 8], 3, 2, 1),
            ([1, 9], 3, 1, 3),
            ([2, 2], 3, 1, 2),
            ([2, 2], 5, 1, 1),
            ([6, 5], 5, 1, 2),
            ([7, 6], 5, 2, 2),
            ([1, 17], 3, 2, 1),
            ([5, 18], 3, 1, 1),
            ([5, 34], 3, 2, 1),
            ([1, 1], 3, 1, 2),
            ([5, 19], 3, 2, 2),
        ] {
            if !affordable(8 * input[0] * input[1] * k * k) {
                continue;
            }
            let shape = shape(3, 2, input, k, stride);
            let params = Params::new(&shape, m, ALL);
            let x = random(17, shape.input_len());
            check(&shape, &params, &x, stride == 1, 1e-5);
        }
    });
}

/// Batches of one or more bundles of interleaved images, most with one that is not full.
#[test]
fn interleaved_images_match_the_definition() {
    for_each_set(|| {
        for (batch, input, k, stride, m) in [
            (16, [4, 5], 3, 1, 2),
            (13, [3, 3], 3, 1, 1),
            (31, [4, 3], 3, 2, 2),
            (30, [2, 4], 3, 1, 1),
            (12, [5, 4], 5, 1, 1),
            (14, [1, 17], 3, 2, 1),
            (29, [4, 4], 3, 1, 1),
            (13, [1, 1], 3, 2, 1),
            (47, [1, 1], 3, 1, 2),
        ] {
            if !affordable(8 * batch * input[0] * input[1] * k * k) {
                continue;
            }
            let shape = shape(batch, 2, input, k, stride);
            let params = Params::new(&shape, m, ALL);
            let x = random(17, shape.input_len());
            check(&shape, &params, &x, stride == 1, 1e-5);
        }
    });
}

#[test]
fn takes_any_branches() {
    for_each_set(|| {
        for present in [
            [true, false, false],
            [false, true, false],
            [false, false, true],
            [true, false, true],
            [false, true, true],
        ] {
            let shape = shape(2, 2, if cfg!(miri) { [2, 3] } else { [5, 4] }, 3, 1);
            let params = Params::new(&shape, 2, present);
            check(&shape, &params, &random(5, shape.input_len()), true, 1e-5);
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "about precision alone")]
fn keeps_precision_far_from_zero() {
    for_each_set(|| {
        for stride in [1, 2] {
            let shape = shape(2, 2, [6, 7], 3, stride);
            let params = Params::new(&shape, 2, ALL);
            let x: Vec<f32> = random(5, shape.input_len()).iter().map(|v| 300.0 + v).collect();
            check(&shape, &params, &x, true, 1e-4);
        }
    });
}

#[test]
fn plain_convolutions_of_any_geometry() {
    for_each_set(|| {
        for (batch, input, kernel, stride, padding) in [
            (2, [7, 5], [3, 3], [1, 1], [1, 1]),
            (1, [14, 14], [3, 3], [2, 2], [1, 1]),
            (1, [1, 1], [3, 3], [2, 2], [1, 1]),
            (1, [1, 1], [3, 3], [1, 1], [1, 1]),
            (1, [4, 4], [5, 5], [2, 2], [2, 2]),
            (2, [9, 40], [1, 3], [1, 1], [0, 1]),
            (2, [9, 8], [3, 1], [2, 1], [1, 0]),
            (1, [11, 10], [7, 7], [3, 4], [3, 2]),
            (1, [9, 8], [2, 4], [1, 2], [0, 3]),
        ] {
            let shape = ConvShape { kernel, stride, padding, ..shape(batch, 5, input, 3, 1) };
            if !affordable(shape.macs()) {
                continue;
            }
            let [x, weight] = [shape.input_len(), shape.weight_len()].map(|n| random(3, n));
            let bias = random(4, 5);
            let map = Map { data: widen(&x), dims: [batch, 5, input[0], input[1]] };
            let expected = conv(&map, &widen(&weight), &shape, &[0.0; 5]);
            let area = shape.output_len() / (5 * batch);
            for activation in [Activation::Identity, Activation::Relu6, Activation::HardSwish] {
                let expected: Vec<f64> = (0..shape.output_len())
                    .map(|i| {
                        let bias = f64::from(bias[i / area % 5]);
                        let value = expected.data[i] + bias;
                        match activation {
                            Activation::Relu6 => value.clamp(0.0, 6.0),
                            Activation::HardSwish => value * (value + 3.0).clamp(0.0, 6.0) / 6.0,
                            _ => value,
                        }
                    })
                    .collect();
                let mut y = vec![f32::NAN; shape.output_len()];
                conv_forward(&shape, &x, &weight, Some(&bias), activation, &mut y);
                let e = error(&y, &expected, 1e-3);
                assert!(e < 1e-6, "{e:e} {shape:?}");
            }
        }
    });
}

#[test]
fn norms_of_any_geometry() {
    for_each_set(|| {
        for (kernel, stride, padding) in [
            ([3, 3], [1, 2], [1, 1]),
            ([1, 3], [1, 1], [0, 1]),
            ([3, 3], [1, 1], [0, 2]),
            ([3, 3], [1, 1], [0, 0]),
            ([3, 3], [2, 1], [0, 0]),
        ] {
            let input = if cfg!(miri) { [3, 4] } else { [5, 6] };
            let shape = ConvShape { kernel, stride, padding, ..shape(2, 2, input, 3, 1) };
            for present in [[true, false, false], ALL] {
                let params = Params::new(&shape, 1, present);
                check(&shape, &params, &random(5, shape.input_len()), true, 1e-5);
            }
        }
    });
}

#[test]
fn runs_are_equal_bit_for_bit() {
    for_each_set(|| {
        let shape = match cfg!(miri) {
            true => shape(2, 4, [3, 5], 3, 1),
            false => shape(3, 40, [9, 18], 3, 1),
        };
        let params = Params::new(&shape, 2, ALL);
        let x = random(5, shape.input_len());
        let run = || {
            let mut y = vec![0.0; shape.output_len()];
            let branches = params.branches(&shape);
            let block = BranchSum { shape, branches: &branches, outer: None };
            let (stats, saved) = block.forward(&x, None, Activation::Relu, &mut y);
            let grads = block.backward(&x, &y, &saved, &y, WANTED);
            (y, stats, grads)
        };
        assert_eq!(run(), run());
    });
}

#[test]
fn a_constant_channel_is_finite() {
    for_each_set(|| {
        let shape = shape(2, 1, [4, 4], 3, 1);
        let params = Params::new(&shape, 2, ALL);
        let x = vec![5.0; shape.input_len()];
        let mut y = vec![0.0; shape.output_len()];
        let branches = params.branches(&shape);
        let block = BranchSum { shape, branches: &branches, outer: None };
        let (stats, saved) = block.forward(&x, None, Activation::Identity, &mut y);
        assert_eq!(statistics(&stats, ALL)[1].var, [0.0; 2]);
        let dx = block.backward(&x, &y, &saved, &random(1, y.len()), WANTED).input.unwrap();
        assert!(y.iter().chain(&dx).all(|v| v.is_finite()));
    });
}
