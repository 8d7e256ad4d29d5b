//! Every public function against geometries that cannot be, and against the smallest that can.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::parameters::{Parameters, SHAPE, WANTED};
use crate::blocked;
use crate::branches::{BranchSum, SumGrad, SumSaved, SumStatistics, Wanted};
use crate::conv::{self, Matrix};
use crate::norm::{self, Gate, Gradients};
use crate::testing::{affordable, for_each_set, random};
use crate::{Activation, ConvShape, Epilogue, Norm, depthwise, moments, pool};

const IDENTITY: Epilogue<'static> =
    Epilogue { bias: None, residual: None, accumulate: false, activation: Activation::Identity };

/// What a function panics with.
fn refusal(call: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("it must be refused");
    let text = panic.downcast_ref::<&str>().map(|&text| text.to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("a sentence")
}

#[test]
fn impossible_convolutions_are_refused_by_every_function() {
    // Several make the lengths wrap to those of the empty slices.
    let table = [
        (ConvShape { batch: 1 << 62, ..SHAPE }, "memory"),
        (ConvShape { in_channels: 1 << 62, out_channels: 1 << 62, ..SHAPE }, "memory"),
        (ConvShape { input: [1 << 62, 4], ..SHAPE }, "padded plane"),
        (ConvShape { input: [1 << 32, 1 << 32], ..SHAPE }, "padded plane"),
        (ConvShape { input: [usize::MAX, 1], ..SHAPE }, "padded plane"),
        (ConvShape { padding: [1 << 63, 1 << 63], ..SHAPE }, "padded plane"),
        (ConvShape { padding: [usize::MAX, 1], ..SHAPE }, "padded plane"),
        (ConvShape { kernel: [1 << 62, 4], ..SHAPE }, "the kernel is larger"),
        (ConvShape { kernel: [usize::MAX, 3], ..SHAPE }, "the kernel is larger"),
        (ConvShape { stride: [0, 1], ..SHAPE }, "the stride is zero"),
        (ConvShape { batch: 0, ..SHAPE }, "the batch is zero"),
        (ConvShape { in_channels: 0, out_channels: 0, ..SHAPE }, "channels is zero"),
        (ConvShape { input: [0, 5], ..SHAPE }, "of the input is zero"),
        (ConvShape { kernel: [3, 0], ..SHAPE }, "of the kernel is zero"),
    ];
    for (shape, reason) in &table {
        refused_by_all(shape, true, reason);
    }
    // Of a pool the groups play no part.
    for (groups, reason) in [(0, "groups is zero"), (3, "do not divide")] {
        refused_by_all(&ConvShape { groups, ..SHAPE }, false, reason);
    }
}

fn refused_by_all(shape: &ConvShape, by_pools: bool, reason: &str) {
    let parameters = Parameters::none(shape);
    let dense = parameters.dense();
    // What other passes have saved.
    let [full, separate] = [SHAPE, ConvShape { groups: SHAPE.out_channels, ..SHAPE }];
    let saved = Saved::of(&full, &separate);
    let calls: [(&str, &mut dyn FnMut()); 12] = [
        ("conv::forward", &mut || conv::forward(shape, &[], &[], &mut [], IDENTITY)),
        ("conv::forward_with_stats", &mut || {
            conv::forward_with_stats(shape, &[], &[], &mut []);
        }),
        ("conv::backward_input", &mut || {
            conv::backward_input(shape, &[], &[], &mut [], false);
        }),
        ("conv::backward_weight", &mut || conv::backward_weight(shape, &[], &[], &mut [])),
        ("blocked::Weight::new", &mut || {
            blocked::Weight::new(shape, &[]);
        }),
        ("DenseBlock::forward", &mut || {
            dense.forward(&[], None, Activation::Identity, &mut []);
        }),
        ("DenseBlock::backward", &mut || {
            dense.backward(&[], &[], &saved.dense, &[], WANTED);
        }),
        ("depthwise::conv_forward", &mut || {
            depthwise::conv_forward(shape, &[], &[], None, Activation::Relu, &mut []);
        }),
        ("BranchSum::forward", &mut || {
            parameters.forward(3, &[], &mut []);
        }),
        ("BranchSum::backward, dense", &mut || {
            parameters.backward(1, &[], &[], &saved.conv_norm, &[]);
        }),
        ("BranchSum::backward, depthwise", &mut || {
            parameters.backward(3, &[], &[], &saved.depthwise, &[]);
        }),
        ("ConvShape::output_len", &mut || {
            shape.output_len();
        }),
    ];
    let pools: [(&str, &mut dyn FnMut()); 4] = [
        ("pool::average", &mut || pool::average(shape, &[], &mut [])),
        ("pool::average_backward", &mut || {
            pool::average_backward(shape, &[], &mut [], false);
        }),
        ("pool::max", &mut || pool::max(shape, &[], &mut [], &mut [])),
        ("pool::max_backward", &mut || pool::max_backward(shape, &[], &[], &mut [])),
    ];
    let pools = pools.into_iter().filter(|_| by_pools);
    for (name, call) in calls.into_iter().chain(pools) {
        let text = refusal(call);
        assert!(text.contains(reason), "{name} of {shape:?}: {text}");
    }
}

/// What forward passes save.
struct Saved {
    conv_norm: SumSaved,
    dense: crate::dense::DenseSaved,
    depthwise: SumSaved,
}

impl Saved {
    fn of(full: &ConvShape, separate: &ConvShape) -> Self {
        let (x, mut y) = (random(1, full.input_len()), vec![0.0; full.output_len()]);
        let parameters = Parameters::new(full);
        let conv_norm = parameters.forward(1, &x, &mut y).1;
        let dense = parameters.dense().forward(&x, None, Activation::Identity, &mut y).1;
        let depthwise = Parameters::new(separate).forward(3, &x, &mut y).1;
        Self { conv_norm, dense, depthwise }
    }
}

#[test]
fn impossible_maps_are_refused_by_every_function() {
    for (dims, reason) in [
        ([1 << 62, 4, 1], "memory"),
        ([1 << 32, 1 << 32, 1], "memory"),
        ([1, 1 << 62, 1], "memory"),
        ([0, 4, 1], "without values"),
        ([1 << 62, 1 << 62, 0], "without values"),
        ([3, 0, 2], "without values"),
    ] {
        let map: &[&[f32]] = &[&[]];
        let sums = norm::Sums { gradient: vec![], products: vec![] };
        let gradients = Gradients::new(&[], &[], &[], &[], &sums, 1);
        let calls: [(&str, &mut dyn FnMut()); 6] = [
            ("moments::sums", &mut || drop(moments::sums(&[], dims))),
            ("moments::covariance", &mut || drop(moments::covariance(&[], &[], dims))),
            ("norm::statistics", &mut || drop(norm::statistics(&[], dims))),
            ("norm::apply", &mut || {
                norm::apply(map, &[], &[], None, Activation::Identity, dims, &mut []);
            }),
            ("norm::reduce", &mut || drop(norm::reduce(map, &[], &[], Gate::Open, dims))),
            ("norm::backward_input", &mut || {
                let d_maps: &mut [&mut [f32]] = &mut [&mut []];
                norm::backward_input(map, &gradients, &[], Gate::Open, dims, d_maps, None);
            }),
        ];
        for (name, call) in calls {
            let text = refusal(call);
            assert!(text.contains(reason), "{name} of {dims:?}: {text}");
        }
    }
}

#[test]
fn padding_that_takes_more_room_than_any_map_is_refused() {
    let (padding, stride) = ([1 << 14; 2], [1 << 15; 2]);
    let shape = ConvShape { input: [1, 1], kernel: [1, 1], padding, stride, groups: 4, ..SHAPE };
    let parameters = Parameters::new(&shape);
    let mut y = vec![0.0; shape.output_len()];
    let x = random(1, shape.input_len());
    let text = refusal(|| {
        depthwise::conv_forward(&shape, &x, &parameters.weight, None, Activation::Relu, &mut y);
    });
    assert!(text.contains("the padding is too large"), "{text}");
}

fn matmul(
    [rows, depth, columns]: [usize; 3],
    [a, b]: [(&[f32], [usize; 2]); 2],
    c: &mut [f32],
    accumulate: bool,
) {
    let [a, b] = [(a, [rows, depth]), (b, [depth, columns])]
        .map(|((values, strides), size)| Matrix { values, size, strides });
    conv::matmul(a, b, c, accumulate);
}

#[test]
fn matrices_that_leave_their_slices_are_refused() {
    let (a, b) = ([1.0; 12], [1.0; 12]);
    let product = |sizes, a_strides, b_strides, c: usize| {
        move || matmul(sizes, [(&a, a_strides), (&b, b_strides)], &mut vec![0.0; c], false)
    };
    for (call, reason) in [
        (product([3, 4, 3], [1 << 61, 1], [3, 1], 9), "A has more values"),
        (product([3, 4, 3], [1 << 63, 1], [3, 1], 9), "A has more values"),
        (product([3, 4, 3], [4, 1], [1 << 62, 1], 9), "B has more values"),
        (product([3, 4, 3], [4, 1], [3, 1 << 63], 9), "B has more values"),
        (product([1 << 32, 0, 1 << 32], [1, 1], [1, 1], 0), "C has more values"),
        (product([3, 4, 3], [5, 1], [3, 1], 9), "A is too short"),
        (product([3, 4, 3], [4, 1], [3, 1], 8), "values of C"),
    ] {
        let text = refusal(call);
        assert!(text.contains(reason), "{reason}: {text}");
    }
}

#[test]
fn a_stride_that_no_slice_bounds_is_that_of_a_single_value() {
    const FAR: usize = 1 << 61;
    for_each_set(|| {
        let (a, b, mut c) = ([2.0, 3.0], [5.0, 7.0], [0.0]);
        matmul([1, 2, 1], [(&a, [FAR, 1]), (&b, [1, FAR])], &mut c, false);
        assert_eq!(c, [31.0]);
        matmul([1, 1, 1], [(&a, [FAR; 2]), (&b, [FAR; 2])], &mut c, true);
        assert_eq!(c, [41.0]);
        // A product over nothing.
        matmul([1, 0, 1], [(&[], [FAR; 2]); 2], &mut c, true);
        assert_eq!(c, [41.0]);
        matmul([1, 0, 1], [(&[], [FAR; 2]); 2], &mut c, false);
        assert_eq!(c, [0.0]);

        for groups in [1, 4] {
            // One output in place of several.
            let [far, near] =
                [FAR, 7].map(|stride| ConvShape { stride: [stride; 2], groups, ..SHAPE });
            assert_eq!(far.output(), [1, 1]);
            assert_eq!(every_result(&far), every_result(&near));
        }
    });
}

/// The results of every function that takes a shape of as many outputs as inputs.
fn every_result(shape: &ConvShape) -> Vec<(&'static str, Vec<f32>)> {
    let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
    let parameters = Parameters::new(shape);
    let [mut y, mut again, mut mean, mut max, mut norm] =
        [(); 5].map(|()| vec![f32::NAN; dy.len()]);
    let [mut dx, mut d_mean, mut d_max] = [(); 3].map(|()| vec![f32::NAN; x.len()]);
    let mut dw = vec![f32::NAN; shape.weight_len()];
    let mut places = vec![0; dy.len()];
    conv::forward(shape, &x, &parameters.weight, &mut y, IDENTITY);
    conv::forward_with_stats(shape, &x, &parameters.weight, &mut again);
    conv::backward_input(shape, &dy, &parameters.weight, &mut dx, false);
    conv::backward_weight(shape, &x, &dy, &mut dw);
    pool::average(shape, &x, &mut mean);
    pool::average_backward(shape, &dy, &mut d_mean, false);
    pool::max(shape, &x, &mut max, &mut places);
    pool::max_backward(shape, &dy, &places, &mut d_max);
    let (mut statistics, saved) = parameters.forward(1, &x, &mut norm);
    let statistics = statistics.branches.remove(0).closing.unwrap();
    let mut grad = parameters.backward(1, &x, &norm, &saved, &dy);
    let (input, grad) = (grad.input, grad.branches.remove(0));
    let mut results = vec![
        ("y", y),
        ("y with statistics", again),
        ("dx", dx),
        ("dw", dw),
        ("mean", mean),
        ("gradient of the mean", d_mean),
        ("max", max),
        ("gradient of the max", d_max),
        ("mean of the norm", statistics.mean),
        ("variance of the norm", statistics.var),
        ("norm", norm),
        ("norm's dx", input.unwrap()),
        ("norm's dw", grad.weight),
    ];
    results.extend(grad.norm.unwrap().map(|grad| ("parameters of the norm", grad)));
    results.extend(block_results(shape, &parameters, &x, &dy));
    results
}

/// The results of the block with all branches.
fn block_results(
    shape: &ConvShape,
    parameters: &Parameters,
    x: &[f32],
    dy: &[f32],
) -> Vec<(&'static str, Vec<f32>)> {
    let mut y = vec![f32::NAN; dy.len()];
    let mut results = Vec::new();
    if shape.groups == 1 {
        let block = parameters.dense();
        for input in [true, false] {
            let (found, saved) = block.forward(x, None, Activation::Identity, &mut y);
            let grad = block.backward(x, &y, &saved, dy, Wanted { input, ..WANTED });
            assert_eq!(grad.input.is_some(), input, "a gradient of the input where it is wanted");
            push_results(&mut results, y.clone(), found, grad);
        }
    } else {
        let (found, saved) = parameters.forward(3, x, &mut y);
        let grad = parameters.backward(3, x, &y, &saved, dy);
        assert!(grad.input.is_some(), "a gradient of the input");
        push_results(&mut results, y, found, grad);
    }
    results
}

fn push_results(
    results: &mut Vec<(&'static str, Vec<f32>)>,
    y: Vec<f32>,
    found: SumStatistics,
    grad: SumGrad,
) {
    results.extend([("block", y), ("block's dx", grad.input.unwrap_or_default())]);
    for grad in grad.branches {
        results.push(("weight", grad.weight));
        if let Some(opening) = grad.opening {
            results.push(("weight of the opening", opening.weight));
            results.push(("scale of the opening", opening.gamma));
            results.push(("shift of the opening", opening.beta));
        }
        results.extend(grad.norm.unwrap().map(|grad| ("parameters of the norm", grad)));
    }
    let statistics = found.branches.into_iter().flat_map(|found| [found.opening, found.closing]);
    results
        .extend(statistics.flatten().flat_map(|found| [("mean", found.mean), ("var", found.var)]));
}

#[test]
fn the_smallest_maps_give_numbers() {
    for_each_set(|| {
        for groups in [1, 4] {
            for (batch, input, kernel, stride) in [
                (2, [3, 5], [3, 3], [2, 1]),
                (2, [5, 6], [3, 3], [1, 1]),
                (2, [1, 1], [3, 3], [1, 1]),
                (2, [1, 1], [3, 3], [2, 2]),
                (2, [1, 1], [1, 1], [1, 1]),
                (1, [1, 2], [3, 3], [1, 1]),
                (1, [2, 1], [5, 5], [1, 1]),
                (1, [3, 3], [1, 1], [2, 2]),
                // Images of depthwise maps are interleaved.
                (13, [1, 1], [3, 3], [1, 1]),
                (13, [2, 2], [3, 3], [2, 2]),
            ] {
                let padding = kernel.map(|size| size / 2);
                let shape = ConvShape { batch, input, kernel, stride, padding, groups, ..SHAPE };
                if !affordable(input[0] * input[1] * kernel[0] * kernel[1] * 4) {
                    continue;
                }
                for (name, values) in every_result(&shape) {
                    let finite = values.iter().all(|value| value.is_finite());
                    assert!(finite, "{name} of {shape:?}: {values:?}");
                }
            }
        }
    });
}

#[test]
fn norms_in_training_refuse_a_single_value_per_channel() {
    const REASON: &str = "batch norm needs more than one value per channel in training";
    // One position, by the input or by the stride.
    for (input, padding, stride) in
        [([1, 1], [1, 1], [1, 1]), ([3, 3], [1, 1], [9, 9]), ([3, 3], [0, 0], [1, 1])]
    {
        for groups in [1, 4] {
            let shape = ConvShape { batch: 1, input, padding, stride, groups, ..SHAPE };
            let parameters = Parameters::new(&shape);
            let x = random(1, shape.input_len());
            let mut y = vec![0.0; shape.output_len()];
            let text = refusal(|| {
                parameters.forward(1, &x, &mut y);
            });
            assert!(text.contains(REASON), "{shape:?}: {text}");
            let text = refusal(|| match groups {
                1 => drop(parameters.dense().forward(&x, None, Activation::Identity, &mut y)),
                _ => drop(parameters.forward(3, &x, &mut y)),
            });
            let padded = padding == [1, 1] || groups > 1;
            let reason = if padded { REASON } else { "pads an odd kernel by half of it" };
            assert!(text.contains(reason), "{shape:?}: {text}");
        }
    }
}

/// A single position that becomes several by its padding: the norm of the input has one value, those
/// of the outputs have more.
#[test]
fn a_single_padded_position_is_refused_by_the_norm_that_sees_it() {
    let shape = ConvShape { batch: 1, input: [1, 1], padding: [2, 2], groups: 4, ..SHAPE };
    let parameters = Parameters::new(&shape);
    let x = random(1, shape.input_len());
    let mut y = vec![f32::NAN; shape.output_len()];
    let text = refusal(|| {
        parameters.forward(3, &x, &mut y);
    });
    assert!(text.contains("more than one value per channel"), "{text}");
    for_each_set(|| {
        let mut y = vec![f32::NAN; shape.output_len()];
        let (_, saved) = parameters.forward(1, &x, &mut y);
        let dx = parameters.backward(1, &x, &y, &saved, &random(2, y.len())).input.unwrap();
        assert!(y.iter().chain(&dx).all(|value| value.is_finite()));
    });
}

#[test]
fn the_norm_of_a_single_value_is_its_shift() {
    for_each_set(|| {
        let dims = [1, 3, 1];
        let (map, dy) = (random(1, 3), random(2, 3));
        let found = norm::statistics(&map, dims);
        assert_eq!(found.var, [0.0; 3]);
        let sums = norm::reduce(&[&map], &found.mean, &dy, Gate::Open, dims);
        let gradients = Gradients::new(&[1.0; 3], &found.mean, &[1e2; 3], &[false], &sums, 1);
        let mut d_map = [f32::NAN; 3];
        norm::backward_input(&[&map], &gradients, &dy, Gate::Open, dims, &mut [&mut d_map], None);
        assert_eq!(gradients.gamma, [0.0; 3]);
        // Nothing but rounding of 100 times the gradient.
        assert!(d_map.iter().all(|value| value.abs() < 2e2 * f32::EPSILON), "{d_map:?}");
    });
}

#[test]
fn a_dense_block_refuses_a_padding_that_its_branches_do_not_share() {
    for (kernel, padding) in
        [([3, 3], [0, 0]), ([3, 3], [1, 0]), ([2, 2], [1, 1]), ([5, 3], [1, 1])]
    {
        let shape = ConvShape { input: [6, 6], kernel, padding, ..SHAPE };
        let parameters = Parameters::new(&shape);
        let x = random(1, shape.input_len());
        let mut y = vec![0.0; shape.output_len()];
        let text = refusal(|| {
            parameters.dense().forward(&x, None, Activation::Identity, &mut y);
        });
        assert!(text.contains("pads an odd kernel by half of it"), "{shape:?}: {text}");
    }
}

#[test]
fn parameters_of_other_channels_are_refused() {
    let parameters = Parameters::new(&SHAPE);
    let x = random(1, SHAPE.input_len());
    let mut y = vec![0.0; SHAPE.output_len()];
    let long = [1.0; 5];
    let mut branches = parameters.branches();
    branches[0].norm = Some(Norm { gamma: &long, ..parameters.norm() });
    let block = BranchSum { shape: SHAPE, branches: &branches, outer: None };
    let text = refusal(|| {
        block.forward(&x, None, Activation::Identity, &mut y);
    });
    assert!(text.contains("scale and shift of a norm"), "{text}");
    let mut block = parameters.dense();
    block.average.0.running_var = &long;
    let text = refusal(|| {
        block.forward(&x, None, Activation::Identity, &mut y);
    });
    assert!(text.contains("parameters of a padded norm"), "{text}");
}
