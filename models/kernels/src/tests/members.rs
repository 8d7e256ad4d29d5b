//! Parts of a batch, whose norms take the statistics of the whole.

use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use super::parameters::{Parameters, SHAPE};
use crate::branches::{BranchSum, SumGrad, SumStatistics, Wanted};
use crate::testing::{assert_within, largest, random, widen};
use crate::{Activation, ConvShape, Members};

/// Threads that wait for each other at every sum.
#[derive(Debug)]
struct Threads {
    images: usize,
    barrier: Barrier,
    total: Mutex<Vec<f64>>,
}

impl Members for Threads {
    fn images(&self) -> usize {
        self.images
    }

    fn sum(&self, values: &mut [f64]) {
        {
            let mut total = self.total.lock().unwrap();
            total.resize(values.len(), 0.0);
            total.iter_mut().zip(&*values).for_each(|(total, value)| *total += value);
        }
        self.barrier.wait();
        values.copy_from_slice(&self.total.lock().unwrap());
        if self.barrier.wait().is_leader() {
            self.total.lock().unwrap().clear();
        }
        self.barrier.wait();
    }
}

type Pass = (Vec<f32>, SumStatistics, SumGrad);

/// Output, statistics and gradients of a part, or of the whole batch.
fn pass(block: &BranchSum, x: &[f32], dy: &[f32], members: Option<&dyn Members>) -> Pass {
    let wanted = Wanted { input: true, residual: true, parameters: true };
    let (mut y, act) = (vec![0.0; dy.len()], Activation::HardSwish);
    let (statistics, grad) = match members {
        None => {
            let (statistics, saved) = block.forward(x, Some(dy), act, &mut y);
            (statistics, block.backward(x, &y, &saved, dy, wanted))
        }
        Some(members) => {
            let (statistics, saved) = block.forward_in_group(x, Some(dy), act, &mut y, members);
            (statistics, block.backward_in_group(x, &y, &saved, dy, wanted, members))
        }
    };
    (y, statistics, grad)
}

/// The gradients of all parameters, one list after the other.
fn parameters(grad: &SumGrad) -> Vec<f64> {
    let mut all = Vec::new();
    for branch in &grad.branches {
        all.extend(widen(&branch.weight));
        if let Some(opening) = &branch.opening {
            for list in [&opening.weight, &opening.gamma, &opening.beta] {
                all.extend(widen(list));
            }
        }
        branch.norm.iter().flatten().for_each(|list| all.extend(widen(list)));
    }
    grad.outer.iter().flatten().for_each(|list| all.extend(widen(list)));
    all
}

/// Dense, grouped and depthwise sums of every kind of branch, with and without a norm of the sum, on
/// parts of 3, 2 and 2 images: outputs and gradients of the input are those of the whole batch, the
/// gradients of the parameters add up to it, and the statistics are equal on all members.
#[test]
fn parts_are_the_batch() {
    for (groups, count, outer) in [(1, 3, true), (1, 2, false), (2, 3, true), (4, 3, false)] {
        let shape = ConvShape { input: [6, 5], groups, batch: 7, ..SHAPE };
        let (x, dy) = (random(1, shape.input_len()), random(2, shape.output_len()));
        let weights = Parameters::new(&shape);
        let block = |batch: usize| ConvShape { batch, ..shape };
        let sum_of = |shape: ConvShape, run: &dyn Fn(&BranchSum) -> Pass| {
            let branches = &weights.branches()[..count];
            run(&BranchSum { shape, branches, outer: outer.then(|| weights.norm()) })
        };
        let (y, statistics, grad) = sum_of(shape, &|sum| pass(sum, &x, &dy, None));

        let bounds = [0, 3, 5, 7];
        let members =
            Arc::new(Threads { images: 7, barrier: Barrier::new(3), total: Mutex::default() });
        let part = |values: &[f32], member: usize| {
            let image = values.len() / 7;
            values[bounds[member] * image..bounds[member + 1] * image].to_vec()
        };
        let found: Vec<Pass> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|member| {
                    let (x, dy) = (part(&x, member), part(&dy, member));
                    let shape = block(bounds[member + 1] - bounds[member]);
                    let (members, sum_of) = (Arc::clone(&members), &sum_of);
                    scope.spawn(move || sum_of(shape, &|sum| pass(sum, &x, &dy, Some(&*members))))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });

        let compare = |what: &str, found: Vec<f32>, expected: &[f32]| {
            let expected = widen(expected);
            let bound = 2e-5 * largest(&expected, 1.0);
            assert_within(format!("{what}, {groups} groups"), &found, &expected, bound);
        };
        compare("the output", found.iter().flat_map(|part| part.0.clone()).collect(), &y);
        let inputs = |grad: &SumGrad| grad.input.clone().unwrap();
        let input = found.iter().flat_map(|part| inputs(&part.2)).collect();
        compare("the input's gradient", input, &inputs(&grad));
        let expected = parameters(&grad);
        let mut summed = vec![0.0; expected.len()];
        for (_, _, grad) in &found {
            summed.iter_mut().zip(parameters(grad)).for_each(|(sum, own)| *sum += own);
        }
        let summed: Vec<f32> = summed.iter().map(|value| *value as f32).collect();
        let bound = 5e-5 * largest(&expected, 1.0);
        assert_within("the parameters' gradients", &summed, &expected, bound);
        for (_, own, _) in &found {
            assert_eq!(own, &found[0].1, "members differ");
            let lists = |statistics: &SumStatistics| {
                let mut statistics = statistics.clone();
                statistics
                    .all_mut()
                    .flat_map(|s| [s.mean.clone(), s.var.clone()])
                    .collect::<Vec<_>>()
            };
            for (own, whole) in lists(own).into_iter().zip(lists(&statistics)) {
                compare("a statistic", own, &whole);
            }
        }
    }
}
