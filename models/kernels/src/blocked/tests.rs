use super::*;
use crate::testing::{
    activated, affordable, assert_within, each_term, for_each_set, largest, random, shape,
    with_threads,
};
use crate::{Activation, ConvShape, pool};

fn blocked(values: &[f32], [batch, channels]: [usize; 2], [height, width]: [usize; 2]) -> Map {
    Map::from_planes(values, [batch, channels, height, width])
}

/// Convolutions of every algorithm: blocks that are whole and others, one vector and several panels, maps
/// that tasks divide and one position, every border.
fn shapes() -> Vec<ConvShape> {
    let shapes = [
        shape(2, [3, 40, 1], [15, 14], [3, 3], [2, 2], [1, 1]),
        shape(1, [3, 64, 1], [30, 29], [7, 7], [2, 2], [3, 3]),
        shape(2, [1, 16, 1], [9, 35], [11, 11], [4, 4], [2, 2]),
        shape(2, [4, 17, 1], [9, 9], [2, 3], [3, 1], [1, 0]),
        shape(2, [64, 96, 1], [9, 8], [1, 1], [1, 1], [0, 0]),
        shape(2, [17, 16, 1], [30, 29], [1, 1], [1, 1], [0, 0]),
        shape(3, [40, 50, 1], [16, 24], [1, 1], [1, 1], [0, 0]),
        shape(1, [20, 43, 1], [7, 7], [1, 1], [2, 2], [0, 0]),
        shape(1, [20, 43, 1], [5, 6], [1, 1], [1, 1], [2, 1]),
        shape(1, [1024, 15, 1], [3, 4], [1, 1], [1, 1], [0, 0]),
        shape(2, [16, 24, 1], [9, 8], [3, 3], [2, 2], [1, 1]),
        shape(2, [5, 24, 1], [12, 17], [3, 3], [1, 1], [1, 1]),
        shape(1, [33, 20, 1], [11, 6], [5, 1], [3, 2], [0, 2]),
        shape(1, [5, 7, 1], [1, 1], [3, 3], [1, 1], [1, 1]),
        // By Winograd's algorithm.
        shape(2, [17, 35, 1], [9, 8], [3, 3], [1, 1], [0, 0]),
        shape(2, [16, 16, 1], [5, 13], [3, 3], [1, 1], [2, 2]),
        shape(3, [34, 40, 1], [6, 7], [3, 3], [1, 1], [1, 0]),
        shape(1, [24, 16, 1], [1, 1], [3, 3], [1, 1], [1, 1]),
        shape(1, [16, 20, 1], [3, 150], [3, 3], [1, 1], [1, 1]),
        shape(9, [48, 33, 1], [12, 12], [3, 3], [1, 1], [1, 1]),
        shape(1, [80, 90, 1], [14, 14], [3, 3], [1, 1], [1, 1]),
        // Depthwise.
        shape(2, [6, 6, 6], [6, 7], [3, 3], [1, 1], [1, 1]),
        shape(2, [33, 33, 33], [30, 29], [3, 3], [2, 2], [1, 1]),
        shape(1, [16, 16, 16], [20, 31], [5, 5], [1, 1], [2, 2]),
        shape(1, [20, 20, 20], [9, 24], [5, 3], [3, 3], [2, 0]),
        shape(2, [18, 18, 18], [2, 1], [3, 3], [1, 1], [1, 1]),
        shape(1, [18, 18, 18], [1, 1], [3, 3], [2, 2], [3, 3]),
    ];
    shapes.into_iter().filter(|shape| affordable(shape.macs())).collect()
}

#[test]
fn convolutions_agree_with_the_definition() {
    for_each_set(|| shapes().iter().for_each(agrees_with_the_definition));
}

fn agrees_with_the_definition(shape: &ConvShape) {
    let (x, w) = (random(1, shape.input_len()), random(2, shape.weight_len()));
    let (bias, residual) = (random(3, shape.out_channels), random(4, shape.output_len()));
    let mut sums = vec![0.0; shape.output_len()];
    each_term(shape, |i, k, o| sums[o] += f64::from(x[i]) * f64::from(w[k]));
    let positions = shape.output_positions();
    let input = blocked(&x, [shape.batch, shape.in_channels], shape.input);
    let residual_map = blocked(&residual, [shape.batch, shape.out_channels], shape.output());
    let weight = Weight::new(shape, &w).expect("the shape is served");
    let few = shape.in_channels <= 4 && shape.groups == 1;
    let input = if few { Source::Planes(&x) } else { Source::Blocked(&input) };
    for (add, activation) in [
        (false, Activation::Identity),
        (true, Activation::Relu),
        (false, Activation::Relu6),
        (true, Activation::HardSwish),
    ] {
        let epilogue = Epilogue {
            bias: add.then_some(&bias),
            residual: add.then_some(&residual_map),
            activation,
        };
        let found = convolve(shape, input, &weight, epilogue);
        assert_eq!(found.dims(), shape.output_shape());
        let before: Vec<f64> = (0..sums.len())
            .map(|index| match add {
                true => {
                    let bias = bias[index / positions % shape.out_channels];
                    sums[index] + f64::from(bias) + f64::from(residual[index])
                }
                false => sums[index],
            })
            .collect();
        let expected: Vec<f64> = before.iter().map(|&value| activated(activation, value)).collect();
        // The steepest slope is that of hard-swish, 1.5.
        let bound = 3e-6 * largest(&before, 1e-3);
        assert_within(
            format_args!("{activation:?} of {shape:?}"),
            &found.to_planes(),
            &expected,
            bound,
        );
        assert!(found.values().iter().all(|value| value.is_finite()), "of {shape:?}");
    }
}

#[test]
fn a_separable_convolution_is_both_convolutions() {
    for_each_set(|| {
        for (first, channels) in [
            (shape(2, [33, 33, 33], [30, 29], [3, 3], [2, 2], [1, 1]), 40),
            (shape(3, [16, 16, 16], [24, 31], [5, 5], [1, 1], [2, 2]), 16),
            (shape(1, [8, 8, 8], [25, 3], [3, 3], [1, 1], [1, 1]), 70),
            (shape(1, [20, 20, 20], [5, 5], [3, 3], [1, 1], [1, 1]), 30),
        ] {
            if !affordable(first.macs()) {
                continue;
            }
            let [batch, between, height, width] = first.output_shape();
            let second = ConvShape {
                input: [height, width],
                ..ConvShape::pointwise(batch, [between, channels], 1)
            };
            let x = random(1, first.input_len());
            let (w, v) = (random(2, first.weight_len()), random(3, second.weight_len()));
            let (bias, other_bias) = (random(4, between), random(5, channels));
            let input = blocked(&x, [batch, first.in_channels], first.input);
            let [filters, weight] = [(&first, &w), (&second, &v)]
                .map(|(shape, values)| Weight::new(shape, values).expect("the shape is served"));
            let residual =
                blocked(&random(6, second.output_len()), [batch, channels], [height, width]);
            let depthwise = Depthwise {
                shape: first,
                weight: &filters,
                bias: Some(&bias),
                activation: Activation::Relu6,
            };
            let epilogue = Epilogue {
                bias: Some(&other_bias),
                residual: Some(&residual),
                activation: Activation::Relu,
            };
            let found = convolve_separable(&depthwise, &input, channels, &weight, epilogue);
            let between =
                Epilogue { bias: Some(&bias), residual: None, activation: Activation::Relu6 };
            let map = convolve(&first, Source::Blocked(&input), &filters, between);
            let expected = convolve(&second, Source::Blocked(&map), &weight, epilogue);
            // Each output is the same sum in the same order.
            assert_eq!(*found.to_planes(), *expected.to_planes(), "{first:?}");
        }
    });
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for_each_set(|| {
        for shape in shapes() {
            let (x, w) = (random(1, shape.input_len()), random(2, shape.weight_len()));
            let input = blocked(&x, [shape.batch, shape.in_channels], shape.input);
            let weight = Weight::new(&shape, &w).expect("the shape is served");
            let few = shape.in_channels <= 4 && shape.groups == 1;
            let input = if few { Source::Planes(&x) } else { Source::Blocked(&input) };
            let [one, four] = [1, 4].map(|threads| {
                let run = || convolve(&shape, input, &weight, Epilogue::default()).to_planes();
                with_threads(threads, run)
            });
            assert_eq!(*one, *four, "{shape:?}");
        }
    });
}

#[test]
fn maps_are_read_back() {
    for dims in [[2, 33, 3, 5], [1, 16, 1, 1], [3, 1, 9, 2]] {
        let values = random(1, dims.iter().product());
        assert_eq!(*Map::from_planes(&values, dims).to_planes(), *values);
    }
}

#[test]
fn pools_agree_with_those_of_planes() {
    for (shape, nan) in [
        (shape(2, [20, 20, 1], [13, 12], [3, 3], [2, 2], [1, 1]), None),
        (shape(1, [16, 16, 1], [6, 7], [2, 2], [2, 2], [0, 0]), Some(40)),
    ] {
        let mut x = random(1, shape.input_len());
        if let Some(place) = nan {
            x[place] = f32::NAN;
        }
        let input = blocked(&x, [shape.batch, shape.in_channels], shape.input);
        let mut expected = vec![0.0; shape.output_len()];
        let mut places = vec![0; expected.len()];
        pool::max(&shape, &x, &mut expected, &mut places);
        let found = max_pool(&shape, &input).to_planes();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(&expected), "{shape:?}");
        let planes = x.chunks_exact(shape.input_positions());
        for (found, plane) in means(&input).into_iter().zip(planes) {
            let sum: f64 = plane.iter().map(|&value| f64::from(value)).sum();
            let expected = sum / plane.len() as f64;
            let error = (f64::from(found) - expected).abs();
            assert!(error < 1e-6 || expected.is_nan() && found.is_nan(), "{found} for {expected}");
        }
    }
}

#[test]
fn what_is_nan_stays_so() {
    for_each_set(|| {
        for shape in shapes() {
            let mut x = random(1, shape.input_len());
            x.fill(f32::NAN);
            let w = random(2, shape.weight_len());
            let input = blocked(&x, [shape.batch, shape.in_channels], shape.input);
            let weight = Weight::new(&shape, &w).expect("the shape is served");
            let few = shape.in_channels <= 4 && shape.groups == 1;
            let input = if few { Source::Planes(&x) } else { Source::Blocked(&input) };
            let epilogue = Epilogue { activation: Activation::Relu6, ..Epilogue::default() };
            let mut reached = vec![false; shape.output_len()];
            each_term(&shape, |_, _, o| reached[o] = true);
            let found = convolve(&shape, input, &weight, epilogue).to_planes();
            let seen = found.iter().zip(reached).all(|(value, reached)| value.is_nan() || !reached);
            assert!(seen, "{shape:?}");
        }
    });
}
