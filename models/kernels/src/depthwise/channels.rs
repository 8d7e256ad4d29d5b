//! Division of work by channel.

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm;

/// Runs `work` on contiguous ranges of channels in Rayon's current pool; the results are in the
/// order of the channels. Each channel is computed by a single task, so the division does not
/// affect results.
pub(super) fn map_channels<R: Send>(
    channels: usize,
    work: impl Fn(Range<usize>) -> R + Sync,
) -> Vec<R> {
    // Several tasks per thread, so that a slow task does not leave the other threads idle for long.
    let tasks = channels.min(8 * rayon::current_num_threads());
    let range = |task| gemm::part(0..channels, 1, task, tasks);
    (0..tasks).into_par_iter().map(|task| work(range(task))).collect()
}

/// Calls `work` with zeroed slices of the given lengths, each aligned to a cache line, from a
/// buffer that the thread keeps.
pub(super) fn with_scratch<R, const N: usize>(
    lengths: [usize; N],
    work: impl FnOnce([&mut [f32]; N]) -> R,
) -> R {
    const LINE: usize = 16;
    let total = lengths.iter().map(|length| length.next_multiple_of(LINE)).sum();
    gemm::with_scratch(total, |buffer| {
        buffer.fill(0.0);
        let mut rest = buffer;
        work(lengths.map(|length| {
            let (slice, tail) =
                std::mem::take(&mut rest).split_at_mut(length.next_multiple_of(LINE));
            rest = tail;
            &mut slice[..length]
        }))
    })
}
