//! Division of the planes of a map among threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::{gemm, team};

/// The number of values below which a second thread costs more than it saves. In tests it is small,
/// so that small maps are divided as well.
const SMALL: usize = if cfg!(test) { 1 << 6 } else { 1 << 14 };

/// Tasks per thread: several, so that a slow task does not leave the other threads idle for long.
const TASKS_PER_THREAD: usize = 4;

fn tasks(planes: usize, positions: usize) -> usize {
    let threads = rayon::current_num_threads();
    match threads == 1 || planes * positions < SMALL {
        true => 1,
        false => (threads * TASKS_PER_THREAD).min(planes),
    }
}

/// Runs `work` on ranges that cover all planes, each once.
pub(crate) fn for_each(planes: usize, positions: usize, work: impl Fn(Range<usize>) + Sync) {
    match tasks(planes, positions) {
        1 => work(0..planes),
        tasks => team::for_each(tasks, |index| work(gemm::part(0..planes, 1, index, tasks))),
    }
}

/// Calls `work` on ranges that cover all planes, each once, to add to `len` sums. The sums of the
/// ranges are added in the order of the ranges, which depend on the number of threads.
pub(crate) fn reduce(
    planes: usize,
    positions: usize,
    len: usize,
    work: impl Fn(Range<usize>, &mut [f64]) + Sync,
) -> Vec<f64> {
    let tasks = tasks(planes, positions);
    let mut sums = vec![0.0; len];
    if tasks == 1 {
        work(0..planes, &mut sums);
        return sums;
    }
    let mut parts = vec![0.0; tasks * len];
    parts
        .par_chunks_mut(len.max(1))
        .enumerate()
        .for_each(|(index, part)| work(gemm::part(0..planes, 1, index, tasks), part));
    for part in parts.chunks(len.max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}
