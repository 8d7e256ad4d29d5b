//! A value that is no number, or whose square is none, is seen: in the outputs, the statistics and
//! the gradients that depend on it by the definition.

use crate::blocked;
use crate::branches::{Branch, BranchMap, BranchSum, Wanted};
use crate::conv::{self, Matrix};
use crate::dense::{DenseBlock, PaddedNorm};
use crate::depthwise;
use crate::norm::{self, Gate};
use crate::testing::{positive, random, widen, with_threads};
use crate::{Activation, ConvNorm, ConvShape, Epilogue, Norm, moments, pool};

const NAN: &[f32] = &[f32::NAN];
/// What no activation cuts off.
const RISING: &[f32] = &[f32::NAN, f32::INFINITY];
const BROKEN: &[f32] = &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
/// With values whose squares overflow.
const ALL: &[f32] = &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e20, -1e20];

const EPSILON: f64 = 1e-5;

/// Results by name.
type Results = Vec<(&'static str, Vec<f32>)>;

/// An input, what is put into it, and the results that must show it.
type Probe<'a> = (&'a str, Vec<f32>, &'a [f32], &'a [&'a str]);

/// Puts every bad value at several places of each input in turn; `run` makes the results of all.
#[track_caller]
fn check<const N: usize>(label: &str, probes: [Probe; N], run: impl Fn(&[Vec<f32>; N]) -> Results) {
    let good = probes.each_ref().map(|(_, values, ..)| values.clone());
    for (name, values) in run(&good) {
        assert!(values.iter().all(|value| value.is_finite()), "{label}: {name} without reason");
    }
    for (index, (input, values, bad, shows)) in probes.iter().enumerate() {
        for &bad in *bad {
            for at in [0, values.len() / 2, values.len() - 1] {
                let mut inputs = good.clone();
                inputs[index][at] = bad;
                let results = run(&inputs);
                for name in *shows {
                    let found = results.iter().find(|(known, _)| known == name);
                    let (_, values) = found.unwrap_or_else(|| panic!("{label}: no {name}"));
                    let hidden = values.iter().all(|value| value.is_finite());
                    assert!(!hidden, "{label}: {name} hides {bad} in {input} at {at}");
                }
            }
        }
    }
}

fn square(batch: usize, [inputs, outputs]: [usize; 2], size: usize, stride: usize) -> ConvShape {
    ConvShape {
        batch,
        in_channels: inputs,
        out_channels: outputs,
        input: [size; 2],
        kernel: [3; 2],
        stride: [stride; 2],
        padding: [1; 2],
        groups: 1,
    }
}

const WANTED: Wanted = Wanted { input: true, residual: false, parameters: true };

fn relu_if(relu: bool) -> Activation {
    if relu { Activation::Relu } else { Activation::Identity }
}

/// A convolution and its norm.
fn plain<'a>(
    shape: &ConvShape,
    weight: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
) -> [Branch<'a>; 1] {
    let norm = Norm { gamma, beta, epsilon: EPSILON, fixed: None };
    [Branch { map: BranchMap::Conv { weight, kernel: shape.kernel }, norm: Some(norm) }]
}

fn shapes() -> Vec<ConvShape> {
    let mut shapes = vec![];
    for stride in [1, 2] {
        shapes.push(square(2, [3, 4], 7, stride));
        shapes.push(ConvShape { groups: 2, ..square(2, [4, 6], 7, stride) });
        shapes.push(ConvShape { groups: 3, ..square(2, [3, 3], 7, stride) });
    }
    shapes
}

#[test]
fn convolutions_show_it() {
    for shape in shapes() {
        let (x, w) = (random(1, shape.input_len()), random(2, shape.weight_len()));
        let (bias, residual) = (random(3, shape.out_channels), random(4, shape.output_len()));
        for (activation, bad, added) in [
            (Activation::Identity, BROKEN, BROKEN),
            (Activation::Relu, NAN, RISING),
            (Activation::Relu6, NAN, NAN),
            (Activation::HardSwish, NAN, RISING),
        ] {
            let probes = [
                ("x", x.clone(), bad, &["y", "bare"][..]),
                ("w", w.clone(), bad, &["y", "bare"]),
                ("bias", bias.clone(), added, &["y", "bare"]),
                ("residual", residual.clone(), added, &["y"]),
            ];
            check(&format!("{shape:?} {activation:?}"), probes, |[x, w, bias, residual]| {
                let (mut y, mut bare) = (residual.clone(), residual.clone());
                let plain = Epilogue { bias: Some(bias), activation, ..Epilogue::default() };
                conv::forward(&shape, x, w, &mut bare, plain);
                let added = Epilogue { residual: Some(residual), ..plain };
                conv::forward(&shape, x, w, &mut y, added);
                vec![("y", y), ("bare", bare)]
            });
        }
        let probes =
            [("x", x.clone(), ALL, &["mean", "var"][..]), ("w", w.clone(), ALL, &["mean", "var"])];
        check(&format!("{shape:?} statistics"), probes, |[x, w]| {
            let mut y = vec![0.0; shape.output_len()];
            let found = conv::forward_with_stats(&shape, x, w, &mut y);
            // As they are stored; a mean of 1e20 is a number.
            let var: Vec<f32> = found.var.iter().map(|&value| value as f32).collect();
            let mean = found.mean.iter().zip(&var).map(|(&mean, var)| mean as f32 + 0.0 * var);
            vec![("mean", mean.collect()), ("var", var)]
        });
        let probes = [
            ("x", x, BROKEN, &["dw"][..]),
            ("w", w, BROKEN, &["dx"]),
            ("dy", residual, BROKEN, &["dx", "dw"]),
        ];
        check(&format!("{shape:?} backward"), probes, |[x, w, dy]| {
            let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
            conv::backward_input(&shape, dy, w, &mut dx, false);
            conv::backward_weight(&shape, x, dy, &mut dw);
            vec![("dx", dx), ("dw", dw)]
        });
    }
}

#[test]
fn depthwise_convolutions_show_it() {
    for stride in [1, 2, 3] {
        let shape = ConvShape { groups: 2, ..square(2, [2, 2], 7, stride) };
        for (activation, bad) in [
            (Activation::Identity, BROKEN),
            (Activation::Relu, NAN),
            // Infinities become 6.
            (Activation::Relu6, NAN),
        ] {
            let probes = [
                ("x", random(1, shape.input_len()), bad, &["y", "separable"][..]),
                ("w", random(2, shape.weight_len()), bad, &["y", "separable"]),
                ("bias", random(3, 2), bad, &["y", "separable"]),
            ];
            check(&format!("stride {stride} {activation:?}"), probes, |[x, w, bias]| {
                let mut y = vec![0.0; shape.output_len()];
                depthwise::conv_forward(&shape, x, w, Some(bias), activation, &mut y);
                vec![("y", y), ("separable", separable(&shape, [x, w, bias], activation))]
            });
        }
    }
}

/// A depthwise convolution of two channels and a 1x1 convolution, in the channel-blocked layout.
fn separable(shape: &ConvShape, [x, w, bias]: [&[f32]; 3], activation: Activation) -> Vec<f32> {
    let [batch, channels, height, width] = shape.output_shape();
    let second = ConvShape::pointwise(batch, [channels, 3], height * width);
    let [filters, weight] = [(shape, w), (&second, &[1.0, 0.5, -1.0, 2.0, 0.25, -0.5])]
        .map(|(shape, weight)| blocked::Weight::new(shape, weight).unwrap());
    let input = blocked::Map::from_planes(x, [batch, channels, shape.input[0], shape.input[1]]);
    let epilogue = blocked::Epilogue { bias: Some(bias), activation, residual: None };
    let map = blocked::convolve(shape, blocked::Source::Blocked(&input), &filters, epilogue);
    let planes = map.to_planes();
    let source = blocked::Source::Planes(&planes);
    blocked::convolve(&second, source, &weight, Default::default()).to_planes().into_vec()
}

#[test]
fn products_and_moments_show_it() {
    let probes = [("a", random(1, 35), BROKEN, &["c"][..]), ("b", random(2, 42), BROKEN, &["c"])];
    check("product", probes, |[a, b]| {
        let mut c = vec![0.0; 30];
        conv::matmul(Matrix::row_major(a, [5, 7]), Matrix::row_major(b, [7, 6]), &mut c, false);
        vec![("c", c)]
    });
    let dims = [2, 3, 41];
    let probes = [
        ("x", random(1, 246), ALL, &["covariance"][..]),
        ("finite", random(1, 246), BROKEN, &["sums"]),
        ("shift", random(2, 3), ALL, &["covariance"]),
    ];
    check("moments", probes, |[x, finite, shift]| {
        let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        let covariance = moments::covariance(x, &widen(shift), dims);
        let sums = moments::sums(finite, dims);
        vec![("covariance", narrow(covariance)), ("sums", narrow(sums))]
    });
}

#[test]
fn pools_show_it() {
    for stride in [1, 2] {
        let shape = ConvShape { groups: 3, ..square(2, [3, 3], 7, stride) };
        let x = random(1, shape.input_len());
        let probes = [
            ("x", x.clone(), NAN, &["max", "average"][..]),
            ("rising", x, RISING, &["max of rising"]),
            ("dy", random(2, shape.output_len()), BROKEN, &["d_max", "d_average"]),
        ];
        check(&format!("pools of stride {stride}"), probes, |[x, rising, dy]| {
            let [mut max, mut average, mut of_rising] = [(); 3].map(|()| vec![0.0; dy.len()]);
            let mut places = vec![0; dy.len()];
            pool::max(&shape, rising, &mut of_rising, &mut places);
            pool::max(&shape, x, &mut max, &mut places);
            pool::average(&shape, x, &mut average);
            let [mut d_max, mut d_average] = [(); 2].map(|()| vec![0.0; x.len()]);
            pool::max_backward(&shape, dy, &places, &mut d_max);
            pool::average_backward(&shape, dy, &mut d_average, false);
            vec![
                ("max", max),
                ("average", average),
                ("max of rising", of_rising),
                ("d_max", d_max),
                ("d_average", d_average),
            ]
        });
    }
}

#[test]
fn norms_show_it() {
    let dims @ [batch, channels, positions] = [3, 2, 37];
    let len = batch * channels * positions;
    for relu in [false, true] {
        // A gradient counts where it passes; with ReLU the residual opens every gate.
        let lift = if relu { 20.0 } else { 0.0 };
        let residual = random(5, len).iter().map(|value| value + lift).collect();
        let all = ["y", "mean", "var", "d_gamma", "d_o"];
        let probes = [
            ("o", random(1, len), BROKEN, &all[..]),
            ("p", random(2, len), ALL, &["y", "var", "d_p"]),
            ("gamma", positive(3, 2 * channels), BROKEN, &["y"]),
            ("beta", random(4, channels), RISING, &["y"]),
            ("residual", residual, RISING, &["y"]),
            ("dy", random(6, len), BROKEN, &["d_gamma", "d_beta", "d_o", "d_p", "d_residual"]),
        ];
        check(&format!("norms, relu {relu}"), probes, |[o, p, gamma, beta, residual, dy]| {
            let maps = [&o[..], p];
            let found = maps.map(|map| norm::statistics(map, dims));
            let mean: Vec<f64> = found.iter().flat_map(|found| found.mean.clone()).collect();
            let var: Vec<f64> = found.iter().flat_map(|found| found.var.clone()).collect();
            let inv_std: Vec<f64> =
                var.iter().map(|&var| norm::inverse_std(var, EPSILON)).collect();
            let scale: Vec<f32> =
                gamma.iter().zip(&inv_std).map(|(&g, s)| (f64::from(g) * s) as f32).collect();
            let centre = |at: usize| f64::from(scale[at]) * mean[at];
            let shift: Vec<f32> = (0..channels)
                .map(|c| (f64::from(beta[c]) - centre(c) - centre(channels + c)) as f32)
                .collect();
            let mut y = vec![0.0; len];
            norm::apply(&maps, &scale, &shift, Some(residual), relu_if(relu), dims, &mut y);
            let gate = if relu { Gate::Values(Activation::Relu, &y) } else { Gate::Open };
            let sums = norm::reduce(&maps, &mean, dy, gate, dims);
            let found =
                norm::Gradients::new(gamma, &mean, &inv_std, &[false; 2], &sums, batch * positions);
            let [mut d_o, mut d_p, mut d_residual] = [(); 3].map(|()| vec![0.0; len]);
            let d_maps = &mut [&mut d_o[..], &mut d_p];
            norm::backward_input(&maps, &found, dy, gate, dims, d_maps, Some(&mut d_residual));
            let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
            vec![
                ("mean", narrow(&mean)),
                ("var", narrow(&var)),
                ("y", y),
                ("d_gamma", found.gamma),
                ("d_beta", found.beta),
                ("d_o", d_o),
                ("d_p", d_p),
                ("d_residual", d_residual),
            ]
        });
    }
}

#[test]
fn a_gate_lets_gradients_pass_where_the_output_is_nan() {
    let (y, map) = ([f32::NAN, -1.0, 0.0, 2.0], [f32::NAN, -1.0, 0.0, 2.0]);
    let dy = [1.0, 2.0, 3.0, 4.0];
    for gate in [
        Gate::Values(Activation::Relu, &y),
        Gate::Affine { activation: Activation::Relu, scale: &[1.0], shift: &[0.0] },
    ] {
        let dims = [1, 1, 4];
        let sums = norm::reduce(&[&map], &[0.0], &dy, gate, dims);
        assert_eq!(sums.gradient, [5.0]);
        assert!(sums.products[0].is_nan());
        let found = norm::Gradients::new(&[1.0], &[0.0], &[1.0], &[false], &sums, 4);
        let (mut d_map, mut d_residual) = ([0.0; 4], [0.0; 4]);
        let d_maps = &mut [&mut d_map[..]];
        norm::backward_input(&[&map], &found, &dy, gate, dims, d_maps, Some(&mut d_residual));
        assert_eq!(d_residual, [1.0, 0.0, 0.0, 4.0]);
        assert!(d_map.iter().all(|value| value.is_nan()));
    }
}

#[test]
fn plain_blocks_show_it() {
    for shape in shapes() {
        let outputs = shape.out_channels;
        for (relu, with_residual) in [(false, false), (true, false), (true, true)] {
            // With ReLU the shift opens every gate.
            let beta = positive(4, outputs).iter().map(|v| v + 20.0 * f32::from(relu)).collect();
            let added: &[f32] = if with_residual { RISING } else { &[] };
            let all: &[&str] = &["y", "mean", "var", "dw", "dx", "d_gamma"];
            let probes = [
                ("x", random(1, shape.input_len()), BROKEN, all),
                ("squared x", random(1, shape.input_len()), ALL, &["y of squared", "var"][..]),
                ("w", random(2, shape.weight_len()), BROKEN, all),
                ("gamma", positive(3, outputs), BROKEN, &["y", "dx", "dw"]),
                ("beta", beta, RISING, &["y"]),
                ("residual", random(5, shape.output_len()), added, &["y"]),
                ("dy", random(6, shape.output_len()), BROKEN, &["dx", "dw", "d_gamma", "d_beta"]),
            ];
            let label = format!("{shape:?} relu {relu} residual {with_residual}");
            check(&label, probes, |[x, squared, weight, gamma, beta, residual, dy]| {
                let branches = plain(&shape, weight, gamma, beta);
                let block = BranchSum { shape, branches: &branches, outer: None };
                let [mut y, mut of_squared] = [(); 2].map(|()| vec![0.0; shape.output_len()]);
                let residual = with_residual.then_some(&residual[..]);
                let activation = relu_if(relu);
                let (squares, _) = block.forward(squared, residual, activation, &mut of_squared);
                let (found, saved) = block.forward(x, residual, activation, &mut y);
                let wanted = Wanted { residual: with_residual, ..WANTED };
                let mut grad = block.backward(x, &y, &saved, dy, wanted);
                let branch = grad.branches.remove(0);
                let [d_gamma, d_beta] = branch.norm.unwrap();
                let [found, squares] =
                    [found, squares].map(|mut f| f.branches.remove(0).closing.unwrap());
                let var = [found.var, squares.var].concat();
                vec![
                    ("y", y),
                    ("y of squared", of_squared),
                    ("mean", found.mean),
                    ("var", var),
                    ("dx", grad.input.unwrap()),
                    ("dw", branch.weight),
                    ("d_gamma", d_gamma),
                    ("d_beta", d_beta),
                ]
            });
        }
    }
}

#[test]
fn depthwise_blocks_show_it() {
    for (stride, kernel, relu) in [(1, 3, true), (2, 3, true), (1, 5, false)] {
        let (c, m) = (2, 2);
        let shape = ConvShape {
            groups: c,
            kernel: [kernel; 2],
            padding: [kernel / 2; 2],
            ..square(2, [c, c], 7, stride)
        };
        let taps = kernel * kernel;
        let beta =
            |seed| positive(seed, c).iter().map(|v| v + 20.0 * f32::from(relu)).collect::<Vec<_>>();
        let kxk: &[&str] = &["y", "kxk var", "d_kxk", "d_kxk gamma", "dx"];
        let inner: &[&str] = &["y", "inner var", "second var", "d_first", "d_gamma1", "dx"];
        let probes = [
            (
                "x",
                random(1, shape.input_len()),
                ALL,
                &["y", "kxk var", "inner var", "second var", "average var", "dx", "d_kxk"][..],
            ),
            ("kxk", random(2, c * taps), ALL, kxk),
            ("kxk gamma", positive(3, c), BROKEN, &["y", "d_kxk", "dx"]),
            ("kxk beta", beta(4), RISING, &["y"]),
            ("first", positive(5, c * m), ALL, inner),
            ("gamma1", positive(6, c * m), BROKEN, &["y", "second var", "d_first", "dx"]),
            ("beta1", random(7, c * m), BROKEN, &["y", "second var", "dx"]),
            ("running mean", random(8, c * m), BROKEN, &["y", "second var", "dx"]),
            ("running var", positive(9, c * m), NAN, &["y", "second var", "dx"]),
            ("second", random(10, c * m * taps), ALL, &["y", "second var", "d_second", "dx"]),
            ("gamma2", positive(11, c), BROKEN, &["y", "d_second", "dx"]),
            ("beta2", beta(12), RISING, &["y"]),
            ("average gamma", positive(13, c), BROKEN, &["y", "dx"]),
            ("average beta", beta(14), RISING, &["y"]),
            (
                "dy",
                random(15, shape.output_len()),
                BROKEN,
                &["dx", "d_kxk", "d_kxk gamma", "d_kxk beta", "d_first", "d_gamma1", "d_beta1"],
            ),
        ];
        check(&format!("depthwise {shape:?}"), probes, |inputs| {
            let [x, w, g, b, w1, g1, b1, mean, var, w2, g2, b2, ga, ba, dy] = inputs;
            let opening = PaddedNorm {
                weight: w1,
                gamma: g1,
                beta: b1,
                running_mean: mean,
                running_var: var,
                momentum: 0.1,
                epsilon: EPSILON,
                fixed: false,
            };
            let [kxk] = plain(&shape, w, g, b);
            let [second] = plain(&shape, w2, g2, b2);
            let [average] = plain(&shape, &[], ga, ba);
            let branches = [
                kxk,
                Branch { map: BranchMap::PaddedConv { opening, weight: w2 }, ..second },
                Branch { map: BranchMap::Average, ..average },
            ];
            let block = BranchSum { shape, branches: &branches, outer: None };
            let mut y = vec![0.0; dy.len()];
            let (found, saved) = block.forward(x, None, relu_if(relu), &mut y);
            let mut grads = block.backward(x, &y, &saved, dy, WANTED);
            let dx = grads.input.take().unwrap();
            let [kxk, second, average] = <[_; 3]>::try_from(found.branches).unwrap();
            let [d_kxk, d_second, _] = <[_; 3]>::try_from(grads.branches).unwrap();
            let ([d_gamma, d_beta], opening) = (d_kxk.norm.unwrap(), d_second.opening.unwrap());
            vec![
                ("y", y),
                ("kxk var", kxk.closing.unwrap().var),
                ("inner var", second.opening.unwrap().var),
                ("second var", second.closing.unwrap().var),
                ("average var", average.closing.unwrap().var),
                ("dx", dx),
                ("d_kxk", d_kxk.weight),
                ("d_kxk gamma", d_gamma),
                ("d_kxk beta", d_beta),
                ("d_first", opening.weight),
                ("d_gamma1", opening.gamma),
                ("d_beta1", opening.beta),
                ("d_second", d_second.weight),
            ]
        });
    }
}

/// By the maps, merged and not, and by the patches.
#[test]
fn dense_blocks_show_it() {
    for (channels @ [inputs, internal, outputs], size, stride, wants_input) in [
        ([3, 3, 2], 7, 1, true),
        ([3, 2, 2], 7, 2, true),
        ([2, 2, 9], 4, 1, true),
        ([2, 2, 3], 7, 1, false),
        ([2, 2, 3], 7, 2, false),
    ] {
        let shape = square(2, [inputs, outputs], size, stride);
        let beta = |seed| positive(seed, outputs).iter().map(|v| v + 20.0).collect::<Vec<_>>();
        let everywhere: &[&str] = match wants_input {
            true => &["y", "statistics", "d_kxk", "d_opening", "d_second", "d_average", "dx"],
            false => &["y", "statistics", "d_kxk", "d_opening", "d_second", "d_average"],
        };
        let probes = [
            ("x", random(1, shape.input_len()), ALL, everywhere),
            ("kxk", random(2, shape.weight_len()), ALL, &["y", "statistics", "d_kxk"][..]),
            ("1x1", random(3, outputs * inputs), ALL, &["y", "statistics", "d_1x1"]),
            ("opening", positive(4, internal * inputs), ALL, &["y", "statistics", "d_second"]),
            ("opening gamma", positive(5, internal), BROKEN, &["y", "statistics", "d_second"]),
            ("opening beta", random(6, internal), BROKEN, &["y", "statistics", "d_second"]),
            ("second", random(7, outputs * internal * 9), ALL, &["y", "statistics", "d_second"]),
            ("average", positive(8, outputs * inputs), ALL, &["y", "statistics", "d_average"]),
            ("average beta", random(9, outputs), BROKEN, &["y", "statistics", "d_average"]),
            ("running mean", random(10, outputs.max(internal)), NAN, &["y", "statistics"]),
            ("gamma", positive(11, outputs), BROKEN, &["y", "d_kxk"]),
            ("beta", beta(12), RISING, &["y"]),
            (
                "dy",
                random(13, shape.output_len()),
                BROKEN,
                &["d_kxk", "d_1x1", "d_opening", "d_second", "d_average", "d_gamma"],
            ),
        ];
        check(&format!("dense {channels:?} {size} stride {stride}"), probes, |inputs| {
            let [x, kxk, one, first, g1, b1, second, average, ba, running, gamma, beta, dy] =
                inputs;
            let ones = vec![1.0; outputs.max(internal)];
            let norm = Norm { gamma, beta, epsilon: EPSILON, fixed: None };
            let opening = |weight, gamma, beta, width: usize| PaddedNorm {
                weight,
                gamma,
                beta,
                running_mean: &running[..width],
                running_var: &ones[..width],
                momentum: 0.1,
                epsilon: EPSILON,
                fixed: false,
            };
            let block = DenseBlock {
                shape,
                kxk: ConvNorm { weight: kxk, norm },
                pointwise: ConvNorm { weight: one, norm },
                pointwise_kxk: (
                    opening(first, g1, b1, internal),
                    ConvNorm { weight: second, norm },
                ),
                average: (opening(average, &ones[..outputs], ba, outputs), norm),
            };
            let mut y = vec![0.0; dy.len()];
            let (found, saved) = block.forward(x, None, Activation::Relu, &mut y);
            let wanted = Wanted { input: wants_input, ..WANTED };
            let grad = block.backward(x, &y, &saved, dy, wanted);
            let found = found.branches.into_iter().flat_map(|found| [found.opening, found.closing]);
            let var: Vec<Vec<f32>> = found.flatten().map(|found| found.var).collect();
            let [d_kxk, d_one, d_second, d_average] = <[_; 4]>::try_from(grad.branches).unwrap();
            let [d_gamma, _] = d_kxk.norm.unwrap();
            vec![
                ("y", y),
                ("statistics", var.concat()),
                ("dx", grad.input.unwrap_or_default()),
                ("d_kxk", d_kxk.weight),
                ("d_1x1", d_one.weight),
                ("d_opening", d_second.opening.unwrap().weight),
                ("d_second", d_second.weight),
                ("d_average", d_average.opening.unwrap().weight),
                ("d_gamma", d_gamma),
            ]
        });
    }
}

/// Depthwise channels share scratch memory: what one leaves there must not reach the next.
#[test]
fn it_stays_in_its_channel() {
    for (batch, stride) in [(2, 1), (2, 2), (2, 3), (13, 1), (13, 2)] {
        let shape = ConvShape { groups: 3, ..square(batch, [3, 3], 7, stride) };
        let [plane, out] = [shape.input_positions(), shape.output_positions()];
        let mut x = random(1, shape.input_len());
        for image in 0..batch {
            x[(3 * image + 1) * plane..][..plane].fill(f32::NAN);
        }
        let (weight, gamma, beta) = (random(2, 27), positive(3, 3), random(4, 3));
        let dy = random(5, shape.output_len());
        let (y, dx) = with_threads(1, || {
            let branches = plain(&shape, &weight, &gamma, &beta);
            let block = BranchSum { shape, branches: &branches, outer: None };
            let mut y = vec![0.0; dy.len()];
            let (_, saved) = block.forward(&x, None, Activation::Relu, &mut y);
            (y.clone(), block.backward(&x, &y, &saved, &dy, WANTED).input.unwrap())
        });
        for (index, plane) in y.chunks_exact(out).chain(dx.chunks_exact(plane)).enumerate() {
            assert!(plane.iter().all(|value| value.is_nan() == (index % 3 == 1)), "plane {index}");
        }
    }
}
