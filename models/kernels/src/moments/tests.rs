use super::*;
use crate::InstructionSet;
use crate::testing::{
    affordable, assert_close_f64, assert_sums_close, for_each_set, random, widen, with_set,
    with_threads,
};

const DIMS: [[usize; 3]; 8] = [
    [1, 1, 1],
    [3, 5, 7],
    [2, 4, 16],
    [5, 6, 49],
    [1, 9, 1100],
    [40, 13, 64],
    [3, 17, 900],
    [2, 66, 1024],
];

fn reference(x: &[f32], shift: &[f64], [batch, channels, positions]: [usize; 3]) -> Vec<f64> {
    let mut products = vec![0.0; channels * channels];
    for i in 0..channels {
        for j in 0..channels {
            for image in 0..batch {
                for position in 0..positions {
                    let value = |channel: usize| {
                        let at = (image * channels + channel) * positions + position;
                        f64::from(x[at]) - shift[channel]
                    };
                    products[i * channels + j] += value(i) * value(j);
                }
            }
        }
    }
    products
}

#[test]
fn covariances_follow_the_definition() {
    for_each_set(|| {
        for (seed, dims) in DIMS.into_iter().enumerate() {
            if !affordable(dims[1] * dims.iter().product::<usize>()) {
                continue;
            }
            let x: Vec<f32> = random(seed as u64, dims.iter().product())
                .iter()
                .map(|value| value + 30.0)
                .collect();
            let shift: Vec<f64> =
                random(9, dims[1]).iter().map(|&value| f64::from(value) * 0.1 + 30.0).collect();
            let truth = reference(&x, &shift, dims);
            for threads in [1, 3, if cfg!(miri) { 4 } else { 16 }] {
                let found = with_threads(threads, || covariance(&x, &shift, dims));
                assert_close_f64(&found, &truth, 1e-12);
                assert_eq!(found, with_threads(threads, || covariance(&x, &shift, dims)));
            }
        }
    });
}

#[test]
fn instruction_sets_agree() {
    let dims = [5, 6, 49];
    let (x, shift) = (random(1, 5 * 6 * 49), widen(&random(2, 6)));
    let run = || (covariance(&x, &shift, dims), sums(&x, dims));
    let plain = with_set(InstructionSet::Portable, run);
    for_each_set(|| {
        let found = run();
        assert_close_f64(&found.0, &plain.0, 1e-12);
        assert_close_f64(&found.1, &plain.1, 1e-6);
    });
}

#[test]
fn sums_follow_the_definition() {
    for_each_set(|| {
        for dims @ [batch, channels, positions] in DIMS {
            if !affordable(dims.iter().product()) {
                continue;
            }
            let x = random(5, dims.iter().product());
            let (mut truth, mut magnitudes) = (vec![0.0; channels], vec![0.0; channels]);
            for image in 0..batch {
                for channel in 0..channels {
                    let plane = &x[(image * channels + channel) * positions..][..positions];
                    for &value in plane {
                        truth[channel] += f64::from(value);
                        magnitudes[channel] += f64::from(value.abs());
                    }
                }
            }
            assert_sums_close(&sums(&x, dims), &truth, &magnitudes);
        }
    });
}
