//! The kernel and its gradients against the formula in `f64`.

use super::*;
use crate::testing::{affordable, assert_close, for_each_set, random, widen, with_threads};

const SHAPES: [[usize; 6]; 5] = [
    [4, 3, 9, 1, 5, 8],
    [6, 2, 9, 2, 3, 8],
    [5, 1, 9, 5, 2, 8],
    [3, 4, 25, 1, 4, 2],
    [16, 24, 9, 1, 24, 8],
];

fn shape([outputs, per_group, taps, groups, internal, expansion]: [usize; 6]) -> OrepaShape {
    OrepaShape { outputs, per_group, taps, groups, internal, expansion }
}

fn is_affordable(shape: &OrepaShape) -> bool {
    affordable(shape.lengths().origin * shape.internal)
}

struct Values {
    parts: [Vec<f32>; 9],
    window: Vec<f32>,
    prior: Vec<f32>,
    identity: Vec<f32>,
}

impl Values {
    fn new(shape: &OrepaShape) -> Self {
        let mut seed = 0;
        let parts = shape.lengths().into_list().map(|len| {
            seed += 1;
            random(seed, len)
        });
        Self {
            parts,
            window: random(10, shape.taps),
            prior: random(11, shape.outputs * shape.taps),
            identity: random(12, shape.lengths().first),
        }
    }

    fn parts(&self) -> OrepaParts<&[f32]> {
        OrepaParts::from_list(self.parts.each_ref().map(Vec::as_slice))
    }

    fn constants(&self) -> OrepaConstants<'_> {
        OrepaConstants { window: &self.window, prior: &self.prior, identity: &self.identity }
    }

    /// The formula above, in `f64`.
    fn kernel(&self, shape: &OrepaShape, parts: &OrepaParts<Vec<f64>>) -> Vec<f64> {
        let OrepaShape { outputs, per_group, taps, groups, internal, expansion } = *shape;
        let [window, prior, identity] =
            [&self.window, &self.prior, &self.identity].map(|values| widen(values));
        let mut kernel = Vec::new();
        for o in 0..outputs {
            let (g, j) = (o / (outputs / groups), o % (outputs / groups));
            let v = |branch: usize| parts.scales[branch * outputs + o];
            for i in 0..per_group {
                let pair = o * per_group + i;
                for t in 0..taps {
                    let sequence: f64 = (0..internal)
                        .map(|m| {
                            let place = (g * internal + m) * per_group + i;
                            parts.second[(o * internal + m) * taps + t]
                                * (parts.first[place] + identity[place])
                        })
                        .sum();
                    let separable: f64 = (0..expansion)
                        .map(|e| {
                            let row = j * groups + g;
                            parts.separable[(row * per_group + i) * expansion + e]
                                * parts.depthwise[((g * per_group + i) * expansion + e) * taps + t]
                        })
                        .sum();
                    let centre = if t == taps / 2 { v(4) * parts.pointwise[pair] } else { 0.0 };
                    kernel.push(
                        v(0) * parts.origin[pair * taps + t]
                            + v(1) * parts.average[pair] * window[t]
                            + v(2) * parts.frequency[pair] * prior[o * taps + t]
                            + v(3) * sequence
                            + centre
                            + v(5) * separable,
                    );
                }
            }
        }
        kernel
    }
}

#[test]
fn the_kernel_is_the_sum_of_its_branches() {
    for_each_set(|| {
        for shape in SHAPES.map(shape).into_iter().filter(is_affordable) {
            let values = Values::new(&shape);
            let wide = values.parts.each_ref().map(|part| widen(part));
            let expected = values.kernel(&shape, &OrepaParts::from_list(wide));
            let mut kernel = vec![f32::NAN; expected.len()];
            shape.forward(&values.parts(), &values.constants(), &mut kernel);
            assert_close(&kernel, &expected, 1e-5);
        }
    });
}

/// The kernel is linear in every part by itself, so that a central difference is exact.
#[test]
fn gradients_are_finite_differences() {
    for_each_set(|| {
        for shape in SHAPES.map(shape).into_iter().filter(is_affordable) {
            let values = Values::new(&shape);
            let grad = random(20, shape.lengths().origin);
            let found = shape.backward(&values.parts(), &values.constants(), &grad);
            let wide = values.parts.each_ref().map(|part| widen(part));
            let loss = |parts: &[Vec<f64>; 9]| -> f64 {
                let kernel = values.kernel(&shape, &OrepaParts::from_list(parts.clone()));
                kernel.iter().zip(&grad).map(|(k, &g)| k * f64::from(g)).sum()
            };
            for (part, found) in found.into_list().into_iter().enumerate() {
                // Some of a long part are enough.
                let step = (found.len() / if cfg!(miri) { 2 } else { 24 }).max(1);
                for place in (0..found.len()).step_by(step) {
                    let moved = |by: f64| {
                        let mut parts = wide.clone();
                        parts[part][place] += by;
                        loss(&parts)
                    };
                    let expected = moved(0.5) - moved(-0.5);
                    assert_close(&found[place..=place], &[expected], 2e-5);
                }
            }
        }
    });
}

#[test]
fn runs_with_equally_many_threads_are_equal() {
    for_each_set(|| {
        for shape in SHAPES.map(shape).into_iter().filter(is_affordable) {
            let values = Values::new(&shape);
            let grad = random(20, shape.lengths().origin);
            let run = || {
                let mut kernel = vec![f32::NAN; grad.len()];
                shape.forward(&values.parts(), &values.constants(), &mut kernel);
                let grads = shape.backward(&values.parts(), &values.constants(), &grad);
                (kernel, grads.into_list())
            };
            for threads in [1, 3] {
                assert_eq!(with_threads(threads, run), with_threads(threads, run));
            }
        }
    });
}

#[test]
#[should_panic(expected = "every extent is at least 1")]
fn an_empty_shape_is_refused() {
    let shape = OrepaShape { internal: 0, ..shape(SHAPES[0]) };
    let values = Values::new(&shape);
    shape.forward(&values.parts(), &values.constants(), &mut vec![0.0; shape.lengths().origin]);
}
