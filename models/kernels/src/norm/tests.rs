use super::*;
use crate::testing::{
    affordable, assert_close, assert_close_f64, assert_sums_close, for_each_set, random, widen,
    with_set, with_threads,
};
use crate::{Activation, InstructionSet};

const EPSILON: f64 = 1e-5;

const DIMS: [[usize; 3]; 8] = [
    [1, 1, 1],
    [2, 3, 1],
    [1, 5, 7],
    [3, 4, 49],
    [5, 2, 16],
    [2, 3, 1025],
    [4, 7, 64],
    [2, 17, 3000],
];

/// A sum of norms straight from its definition, in `f64`, and its gradients.
struct Reference {
    y: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
    d_maps: Vec<Vec<f64>>,
    d_residual: Vec<f64>,
    d_gamma: Vec<f64>,
    d_beta: Vec<f64>,
    /// Of the terms that each is the sum of.
    magnitudes: Magnitudes,
}

/// Sums of the magnitudes of terms: what rounding errors are relative to.
#[derive(Default)]
struct Magnitudes {
    y: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
    d_maps: Vec<Vec<f64>>,
    d_gamma: Vec<f64>,
    d_beta: Vec<f64>,
}

fn values_of(channel: usize, [batch, channels, positions]: Dims) -> impl Iterator<Item = usize> {
    (0..batch).flat_map(move |image| {
        let start = (image * channels + channel) * positions;
        start..start + positions
    })
}

fn reference(
    branches: &[Vec<f32>],
    gamma: &[f32],
    beta: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    dy: &[f32],
    dims: Dims,
) -> Reference {
    let [batch, channels, positions] = dims;
    let (len, count) = (batch * channels * positions, (batch * positions) as f64);
    let (mut mean, mut var, mut y) = (vec![], vec![], vec![0.0; len]);
    let mut magnitudes = Magnitudes { y: vec![0.0; len], ..Default::default() };
    for branch in branches {
        for channel in 0..channels {
            let values = || values_of(channel, dims).map(|i| f64::from(branch[i]));
            let found = values().sum::<f64>() / count;
            mean.push(found);
            var.push(values().map(|value| (value - found).powi(2)).sum::<f64>() / count);
            magnitudes.mean.push(values().map(f64::abs).sum::<f64>() / count);
        }
    }
    // The sums are about a shift, which a channel's mean is not exactly.
    magnitudes.var =
        var.iter().zip(&magnitudes.mean).map(|(v, m)| 2.0 * v + 1e-12 * m * m).collect();
    for (channel, &beta) in beta.iter().enumerate() {
        for i in values_of(channel, dims) {
            let residual = residual.map_or(0.0, |map| f64::from(map[i]));
            y[i] = f64::from(beta) + residual;
            magnitudes.y[i] = f64::from(beta).abs() + residual.abs();
            for (b, branch) in branches.iter().enumerate() {
                let at = b * channels + channel;
                let scale = f64::from(gamma[at]) / (var[at] + EPSILON).sqrt();
                y[i] += scale * (f64::from(branch[i]) - mean[at]);
                magnitudes.y[i] += scale.abs() * (f64::from(branch[i]).abs() + mean[at].abs());
            }
        }
    }
    let behind = |i: usize| if relu && y[i] <= 0.0 { 0.0 } else { f64::from(dy[i]) };
    let d_residual: Vec<f64> = (0..len).map(behind).collect();
    let over = |channel: usize, term: &dyn Fn(usize) -> f64| -> f64 {
        values_of(channel, dims).map(term).sum()
    };
    let d_beta: Vec<f64> = (0..channels).map(|channel| over(channel, &|i| d_residual[i])).collect();
    magnitudes.d_beta =
        (0..channels).map(|channel| over(channel, &|i| d_residual[i].abs())).collect();
    let mut d_gamma = vec![];
    let mut d_maps = vec![vec![0.0; len]; branches.len()];
    magnitudes.d_maps = d_maps.clone();
    for (b, branch) in branches.iter().enumerate() {
        for (channel, d_beta) in d_beta.iter().enumerate() {
            let at = b * channels + channel;
            let std = (var[at] + EPSILON).sqrt();
            let normal = |i: usize| (f64::from(branch[i]) - mean[at]) / std;
            let product = over(channel, &|i| d_residual[i] * normal(i));
            let products = over(channel, &|i| (d_residual[i] * normal(i)).abs());
            d_gamma.push(product);
            magnitudes.d_gamma.push(products);
            for i in values_of(channel, dims) {
                let scale = f64::from(gamma[at]) / std;
                d_maps[b][i] =
                    scale * (d_residual[i] - d_beta / count - normal(i) * product / count);
                magnitudes.d_maps[b][i] = scale.abs()
                    * (d_residual[i].abs()
                        + magnitudes.d_beta[channel] / count
                        + normal(i).abs() * products / count);
            }
        }
    }
    if relu {
        y.iter_mut().for_each(|y| *y = y.max(0.0));
    }
    Reference { y, mean, var, d_maps, d_residual, d_gamma, d_beta, magnitudes }
}

/// Two maps as the channels of one buffer.
fn stack<T: Copy>(a: &[T], b: &[T], [_, channels, positions]: Dims) -> Vec<T> {
    let image = channels * positions;
    a.chunks(image).zip(b.chunks(image)).flat_map(|(a, b)| [a, b].concat()).collect()
}

#[test]
fn sums_of_norms_and_their_gradients_follow_the_definition() {
    for_each_set(|| {
        for (case, dims) in DIMS.into_iter().enumerate() {
            if !affordable(4 * dims.iter().product::<usize>()) {
                continue;
            }
            for count in 1..=4 {
                for (with_residual, relu) in [(false, false), (true, true), (false, true)] {
                    check(case as u64 * 10 + count as u64, dims, count, with_residual, relu);
                }
            }
        }
    });
}

fn check(seed: u64, dims: Dims, count: usize, with_residual: bool, relu: bool) {
    let [batch, channels, positions] = dims;
    let len = batch * channels * positions;
    let branches: Vec<Vec<f32>> = (0..count)
        .map(|b| random(seed + b as u64, len).iter().map(|v| v * (b + 1) as f32 + 0.5).collect())
        .collect();
    let gamma = random(seed + 11, count * channels);
    let beta = random(seed + 12, channels);
    let residual = with_residual.then(|| random(seed + 13, len));
    let residual = residual.as_deref();
    let dy = random(seed + 14, len);
    let truth = reference(&branches, &gamma, &beta, residual, relu, &dy, dims);

    // The first two branches share a buffer.
    let buffers: Vec<Vec<f32>> = match &branches[..] {
        [a] => vec![a.clone()],
        [a, b, rest @ ..] => {
            std::iter::once(stack(a, b, dims)).chain(rest.iter().cloned()).collect()
        }
        [] => unreachable!(),
    };
    let maps: Vec<&[f32]> = buffers.iter().map(Vec::as_slice).collect();
    let found =
        maps.iter().map(|map| statistics(map, [batch, map.len() / batch / positions, positions]));
    let (mut mean, mut var) = (vec![], vec![]);
    for statistics in found {
        mean.extend(statistics.mean);
        var.extend(statistics.var);
    }
    let terms = &truth.magnitudes;
    assert_sums_close(&mean, &truth.mean, &terms.mean);
    assert_sums_close(&var, &truth.var, &terms.var);

    let inv_std: Vec<f64> = var.iter().map(|var| 1.0 / (var + EPSILON).sqrt()).collect();
    let scale: Vec<f32> =
        gamma.iter().zip(&inv_std).map(|(&g, s)| (f64::from(g) * s) as f32).collect();
    let shift: Vec<f32> = (0..channels)
        .map(|channel| {
            (0..count).fold(f64::from(beta[channel]), |shift, b| {
                let at = b * channels + channel;
                shift - f64::from(gamma[at]) * inv_std[at] * mean[at]
            }) as f32
        })
        .collect();
    let mut y = vec![0.0; len];
    let activation = if relu { Activation::Relu } else { Activation::Identity };
    apply(&maps, &scale, &shift, residual, activation, dims, &mut y);
    assert_sums_close(&widen(&y), &truth.y, &terms.y);
    let mask: Vec<f32> = truth.y.iter().map(|&y| y as f32).collect();
    let gate = if relu { Gate::Values(Activation::Relu, &mask) } else { Gate::Open };
    let sums = reduce(&maps, &mean, &dy, gate, dims);
    let gradients =
        Gradients::new(&gamma, &mean, &inv_std, &vec![false; count], &sums, batch * positions);
    assert_sums_close(&widen(&gradients.beta), &truth.d_beta, &terms.d_beta);
    assert_sums_close(&widen(&gradients.gamma), &truth.d_gamma, &terms.d_gamma);
    let mut d_maps: Vec<Vec<f32>> = maps.iter().map(|map| vec![f32::NAN; map.len()]).collect();
    let mut d_residual = vec![f32::NAN; len];
    let mut outputs: Vec<&mut [f32]> = d_maps.iter_mut().map(Vec::as_mut_slice).collect();
    let wanted = with_residual.then_some(d_residual.as_mut_slice());
    backward_input(&maps, &gradients, &dy, gate, dims, &mut outputs, wanted);
    if with_residual {
        assert_close(&d_residual, &truth.d_residual, 0.0);
    }
    // As the buffers hold them.
    let buffers = |mut maps: Vec<Vec<f64>>| {
        if count > 1 {
            let second = maps.remove(1);
            maps[0] = stack(&maps[0], &second, dims);
        }
        maps
    };
    let (expected, terms) = (buffers(truth.d_maps), buffers(truth.magnitudes.d_maps));
    for ((found, expected), terms) in d_maps.iter().zip(&expected).zip(&terms) {
        assert_sums_close(&widen(found), expected, terms);
    }
}

#[test]
#[cfg_attr(miri, ignore = "about the definition alone")]
fn gradients_are_slopes_of_the_definition() {
    let dims = [2, 2, 5];
    let branches = [random(1, 20), random(2, 20)];
    let (gamma, beta, dy) = (random(3, 4), random(4, 2), random(5, 20));
    let loss = |branches: &[Vec<f32>], gamma: &[f32]| -> f64 {
        let found = reference(branches, gamma, &beta, None, true, &dy, dims);
        found.y.iter().zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum()
    };
    let truth = reference(&branches, &gamma, &beta, None, true, &dy, dims);
    let step = 1.0 / 4096.0;
    for (b, at) in [(0, 0), (0, 13), (1, 7), (1, 19)] {
        let moved = |by: f32| {
            let mut branches = branches.clone();
            branches[b][at] += by;
            loss(&branches, &gamma)
        };
        let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        assert!((slope - truth.d_maps[b][at]).abs() < 1e-4);
    }
    for at in 0..4 {
        let moved = |by: f32| {
            let mut gamma = gamma.clone();
            gamma[at] += by;
            loss(&branches, &gamma)
        };
        let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        assert!((slope - truth.d_gamma[at]).abs() < 1e-4);
    }
}

#[test]
fn the_output_is_found_again_from_the_maps() {
    for_each_set(|| {
        let dims @ [batch, channels, positions] = [3, 5, if cfg!(miri) { 7 } else { 83 }];
        let len = batch * channels * positions;
        let (a, b, dy) = (random(1, len), random(2, len), random(3, len));
        for maps in [&[&a[..]][..], &[&a, &b]] {
            let scale = random(4, maps.len() * channels);
            let (mean, shift) = (vec![0.1; maps.len() * channels], random(5, channels));
            let mut y = vec![0.0; len];
            apply(maps, &scale, &shift, None, Activation::Relu, dims, &mut y);
            let run = |gate| {
                let sums = reduce(maps, &mean, &dy, gate, dims);
                let inv_std = vec![1.5; scale.len()];
                let gradients = Gradients::new(
                    &scale,
                    &mean,
                    &inv_std,
                    &vec![false; maps.len()],
                    &sums,
                    batch * positions,
                );
                let (mut d_a, mut d_b) = (vec![0.0; len], vec![0.0; len]);
                let outputs = &mut [&mut d_a[..], &mut d_b[..]][..maps.len()];
                backward_input(maps, &gradients, &dy, gate, dims, outputs, None);
                (sums, d_a, d_b)
            };
            assert_eq!(
                run(Gate::Values(Activation::Relu, &y)),
                run(Gate::Affine { activation: Activation::Relu, scale: &scale, shift: &shift })
            );
        }
    });
}

#[test]
fn a_mean_far_from_zero_costs_no_accuracy() {
    for_each_set(|| {
        let dims = [8, 3, if cfg!(miri) { 20 } else { 1000 }];
        let map: Vec<f32> =
            random(3, dims.iter().product()).iter().map(|value| value + 300.0).collect();
        let truth =
            reference(std::slice::from_ref(&map), &[1.0; 3], &[0.0; 3], None, false, &map, dims);
        let found = statistics(&map, dims);
        for channel in 0..3 {
            assert!((found.mean[channel] - truth.mean[channel]).abs() < 1e-6);
            assert!((found.var[channel] / truth.var[channel] - 1.0).abs() < 1e-6);
        }
    });
}

#[test]
fn a_constant_channel_has_no_variance() {
    for_each_set(|| {
        for value in [0.0, 0.1, 12345.678, -1e-20] {
            let found = statistics(&vec![value; 2 * 3 * 70], [2, 3, 70]);
            assert_eq!(found.var, [0.0; 3]);
            assert_eq!(found.mean, [f64::from(value); 3]);
        }
    });
}

#[test]
fn runs_with_equally_many_threads_are_equal() {
    for_each_set(|| {
        let dims: Dims = [6, 5, if cfg!(miri) { 15 } else { 1500 }];
        let [map, dy] = [1, 2].map(|seed| random(seed, dims.iter().product()));
        let run = |threads| {
            with_threads(threads, || {
                let found = statistics(&map, dims);
                let sums =
                    reduce(&[&map], &found.mean, &dy, Gate::Values(Activation::Relu, &map), dims);
                (found, sums)
            })
        };
        assert_eq!(run(3), run(3));
        let (one, many) = (run(1), run(16));
        assert_close_f64(&one.0.var, &many.0.var, 1e-6);
        assert_close_f64(&one.1.products, &many.1.products, 1e-6);
    });
}

#[test]
fn instruction_sets_agree() {
    let dims = [2, 3, 53];
    let (map, dy) = (random(1, 318), random(2, 318));
    let (scale, shift) = ([0.5, -1.0, 2.0], [0.1, 0.2, 0.3]);
    let run = || {
        let found = statistics(&map, dims);
        let mut y = vec![0.0; 318];
        apply(&[&map], &scale, &shift, Some(&dy), Activation::Relu, dims, &mut y);
        let gate = Gate::Values(Activation::Relu, &y);
        let sums = reduce(&[&map], &found.mean, &dy, gate, dims);
        let gradients = Gradients::new(&scale, &found.mean, &[1.5, 1.0, 0.5], &[false], &sums, 106);
        let (mut d_map, mut d_residual) = (vec![0.0; 318], vec![0.0; 318]);
        let outputs = &mut [&mut d_map[..]];
        backward_input(&[&map], &gradients, &dy, gate, dims, outputs, Some(&mut d_residual));
        (y, d_map, d_residual, found, sums)
    };
    let plain = with_set(InstructionSet::Portable, run);
    for_each_set(|| {
        let found = run();
        assert_close(&found.0, &widen(&plain.0), 1e-6);
        assert_close(&found.1, &widen(&plain.1), 1e-6);
        assert_close(&found.2, &widen(&plain.2), 0.0);
        assert_close_f64(&found.3.mean, &plain.3.mean, 1e-6);
        assert_close_f64(&found.3.var, &plain.3.var, 1e-6);
        assert_close_f64(&found.4.gradient, &plain.4.gradient, 1e-6);
        assert_close_f64(&found.4.products, &plain.4.products, 1e-6);
    });
}

#[test]
fn relu_lets_nan_pass() {
    let map = [f32::NAN, -1.0, 2.0];
    for_each_set(|| {
        let mut y = [7.0; 3];
        apply(&[&map], &[1.0], &[0.0], None, Activation::Relu, [1, 1, 3], &mut y);
        assert!(y[0].is_nan());
        assert_eq!(y[1..], [0.0, 2.0]);
    });
}

#[test]
#[should_panic(expected = "length of a map")]
fn a_map_of_another_length_is_refused() {
    apply(&[&[0.0; 5]], &[1.0], &[0.0], None, Activation::Identity, [1, 1, 4], &mut [0.0; 4]);
}

#[test]
fn a_sample_unlike_the_rest_costs_nothing() {
    for_each_set(|| {
        let dims = [1, 2, 4096];
        let mut x: Vec<f32> = random(3, 8192).iter().map(|value| 300.0 + value).collect();
        // All that the shift is guessed from.
        for start in (256..4096).step_by(512) {
            x[start..start + 16].fill(0.0);
        }
        let found = statistics(&x, dims);
        for (channel, values) in x.chunks_exact(4096).enumerate() {
            let wide = widen(values);
            let mean = wide.iter().sum::<f64>() / 4096.0;
            let var = wide.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 4096.0;
            assert!((found.mean[channel] - mean).abs() < 1e-6 * var.sqrt());
            assert!(
                (found.var[channel] - var).abs() < 1e-6 * var,
                "{} for {var}",
                found.var[channel]
            );
        }
    });
}
