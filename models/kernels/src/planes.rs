//! Work on the planes of a map, shared among threads.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Values below which a second thread costs more than it saves.
const SMALL: usize = 1 << 14;

/// Tasks a thread gets, so that a late one does not leave the others idle for long.
const TASKS_PER_THREAD: usize = 4;

fn tasks(planes: usize, positions: usize) -> usize {
    let threads = rayon::current_num_threads();
    match threads == 1 || planes * positions < SMALL {
        true => 1,
        false => (threads * TASKS_PER_THREAD).min(planes),
    }
}

fn task(planes: usize, tasks: usize, index: usize) -> Range<usize> {
    index * planes / tasks..(index + 1) * planes / tasks
}

/// Runs `work` on ranges that cover all planes, each once.
pub(crate) fn for_each(planes: usize, positions: usize, work: impl Fn(Range<usize>) + Sync) {
    match tasks(planes, positions) {
        1 => work(0..planes),
        tasks => (0..tasks).into_par_iter().for_each(|index| work(task(planes, tasks, index))),
    }
}

/// Lets `work` add to `len` sums over ranges that cover all planes, each once. The sums of the
/// ranges are added in their order, which the number of threads determines.
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
        .for_each(|(index, part)| work(task(planes, tasks, index), part));
    for part in parts.chunks(len.max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}

/// A map that tasks share; those that write have planes of their own.
#[derive(Clone, Copy)]
pub(crate) struct SharedMap<'a, T = f32> {
    start: *mut T,
    len: usize,
    map: PhantomData<&'a mut [T]>,
}

// SAFETY: tasks write to planes of their own, as `plane` demands.
unsafe impl<T: Send> Send for SharedMap<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMap<'_, T> {}

impl<'a, T> SharedMap<'a, T> {
    pub fn new(map: &'a mut [T]) -> Self {
        Self { start: map.as_mut_ptr(), len: map.len(), map: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The first value of a plane, within the map.
    pub fn start(&self, plane: usize, positions: usize) -> *mut T {
        assert!((plane + 1) * positions <= self.len);
        self.start.wrapping_add(plane * positions)
    }

    /// A plane.
    ///
    /// # Safety
    /// The map was not given for reading only, and no one else has this plane at the same time.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn plane(&self, plane: usize, positions: usize) -> &mut [T] {
        // SAFETY: as the caller promises.
        unsafe { self.slice(plane * positions..(plane + 1) * positions) }
    }

    /// A part of the map.
    ///
    /// # Safety
    /// The map was not given for reading only, and no one else has this part at the same time.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the part lies in the map, and is this caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

impl<'a> SharedMap<'a> {
    /// A map that is only read.
    pub fn reading(map: &'a [f32]) -> Self {
        Self { start: map.as_ptr().cast_mut(), len: map.len(), map: PhantomData }
    }
}
