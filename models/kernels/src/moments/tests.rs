use super::*;
use crate::testing::{assert_close, assert_close_f64, random, with_threads};
use pulp::Scalar;

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

fn reference(x: &[f32], shift: &[f32], [batch, channels, positions]: [usize; 3]) -> Vec<f64> {
    let mut products = vec![0.0; channels * channels];
    for i in 0..channels {
        for j in 0..channels {
            for image in 0..batch {
                for position in 0..positions {
                    let value = |channel: usize| {
                        let at = (image * channels + channel) * positions + position;
                        f64::from(x[at]) - f64::from(shift[channel])
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
    for (seed, dims) in DIMS.into_iter().enumerate() {
        let x: Vec<f32> =
            random(seed as u64, dims.iter().product()).iter().map(|value| value + 30.0).collect();
        let shift: Vec<f32> = random(9, dims[1]).iter().map(|value| value * 0.1 + 30.0).collect();
        let truth = reference(&x, &shift, dims);
        let scale = (dims[0] * dims[2]) as f64 * 1e-7;
        for threads in [1, 3, 16] {
            let found = with_threads(threads, || covariance(&x, &shift, dims));
            assert_close(&found, &truth, scale.max(1e-5));
            assert_eq!(found, with_threads(threads, || covariance(&x, &shift, dims)));
        }
    }
}

#[test]
fn vectors_and_scalars_agree() {
    let dims = [5, 6, 49];
    let (x, shift) = (random(1, 5 * 6 * 49), random(2, 6));
    let mut products = vec![0.0; 64];
    Covariance { x: &x, shift: &shift, dims, range: 3..200, products: &mut products }
        .with_simd(Scalar);
    let mut fast = vec![0.0; 64];
    Arch::new().dispatch(Covariance {
        x: &x,
        shift: &shift,
        dims,
        range: 3..200,
        products: &mut fast,
    });
    for i in 0..6 {
        assert_close_f64(&fast[i * 8..=i * 9], &products[i * 8..=i * 9], 1e-5);
    }
    let (mut plain, mut fast) = (vec![0.0; 6], vec![0.0; 6]);
    Sums { map: &x, range: 0..30, positions: 49, sums: &mut plain }.with_simd(Scalar);
    Arch::new().dispatch(Sums { map: &x, range: 0..30, positions: 49, sums: &mut fast });
    assert_close_f64(&fast, &plain, 1e-6);
}

#[test]
fn sums_follow_the_definition() {
    for dims @ [batch, channels, positions] in DIMS {
        let x = random(5, dims.iter().product());
        let mut truth = vec![0.0; channels];
        for image in 0..batch {
            for (channel, truth) in truth.iter_mut().enumerate() {
                let plane = &x[(image * channels + channel) * positions..][..positions];
                *truth += plane.iter().map(|&value| f64::from(value)).sum::<f64>();
            }
        }
        assert_close_f64(&sums(&x, dims), &truth, 1e-5);
    }
}
