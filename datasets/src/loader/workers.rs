//! The threads that build batches.
//!
//! Workers build whole batches. The consumer hands out jobs in order and keeps, in the same order,
//! the channel on which each result will arrive; so batches come out in order whichever worker
//! finishes first, and no more than the window of handed-out jobs is ever in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use super::{Batch, plan::Plan};
use crate::DataError;

/// A batch to build and where to send it.
struct Job {
    batch: usize,
    reply: mpsc::SyncSender<Result<Batch, DataError>>,
}

/// The threads of an epoch and the batches they have to deliver.
pub(super) struct Workers {
    epoch: u64,
    jobs: Option<mpsc::Sender<Job>>,
    /// Batches handed out and not yet taken, in order.
    pending: VecDeque<(usize, mpsc::Receiver<Result<Batch, DataError>>)>,
    /// Most batches handed out at a time.
    window: usize,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// `None` where batches are built in the calling thread: without workers, or if the system
    /// grants no thread.
    pub(super) fn start(plan: &Arc<Plan>, epoch: u64, order: &Arc<[usize]>) -> Option<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<JoinHandle<()>> = (0..plan.config.workers.min(plan.batches()))
            .map_while(|number| {
                let (plan, order) = (Arc::clone(plan), Arc::clone(order));
                let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
                let work = move || {
                    while let Some(job) = take(&queue) {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        // The consumer may be gone: then the batch is dropped.
                        let _ = job.reply.send(plan.build_guarded(epoch, job.batch, &order));
                    }
                };
                std::thread::Builder::new().name(format!("loader-{number}")).spawn(work).ok()
            })
            .collect();
        if threads.is_empty() {
            return None;
        }
        Some(Self {
            epoch,
            jobs: Some(jobs),
            pending: VecDeque::new(),
            window: plan.config.prefetch.max(threads.len()),
            stop,
            threads,
        })
    }

    /// Whether a batch can be handed out.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < self.window
    }

    /// Batches handed out and not yet taken.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Hands out a batch.
    pub(super) fn submit(&mut self, batch: usize) {
        let (reply, result) = mpsc::sync_channel(1);
        if let Some(jobs) = &self.jobs {
            // A queue without workers drops the job, and the dropped reply tells the consumer.
            let _ = jobs.send(Job { batch, reply });
        }
        self.pending.push_back((batch, result));
    }

    /// Waits for the first of the batches handed out; `None` where there is none.
    pub(super) fn next(&mut self) -> Option<Result<Batch, DataError>> {
        let (batch, result) = self.pending.pop_front()?;
        Some(result.recv().unwrap_or_else(|_| {
            let message = "its worker is gone".to_owned();
            Err(DataError::Panic { epoch: self.epoch, batch, message })
        }))
    }
}

fn take(queue: &Mutex<mpsc::Receiver<Job>>) -> Option<Job> {
    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.recv().ok()
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Panics were turned into errors already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{LoaderConfig, loader::testing::*};

    #[test]
    fn the_number_of_workers_changes_nothing() {
        let content = |workers| content(&loader(Fake::of(50), training(8, workers)), 3);
        let alone = content(0);
        assert_eq!(alone.len(), 7);
        for workers in [1, 4, 30] {
            assert!(content(workers) == alone, "{workers} workers");
        }
    }

    #[test]
    fn an_unreadable_image_is_an_error_in_its_place() {
        for workers in [0, 3] {
            let fake = Fake { fails: Some(9), ..Fake::of(20) };
            let config = LoaderConfig { shuffle: false, ..training(4, workers) };
            let results: Vec<_> = loader(fake, config).epoch(0).collect();
            let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
            assert_eq!(good, [true, true, false, true, true]);
            let error = results[2].as_ref().unwrap_err().to_string();
            assert!(error.contains("record 9"), "{error}");
        }
    }

    #[test]
    fn a_panic_is_an_error_in_its_place() {
        for workers in [0, 2] {
            let fake = Fake { panics: Some(5), ..Fake::of(12) };
            let config = LoaderConfig { shuffle: false, ..training(4, workers) };
            let results: Vec<_> = loader(fake, config).epoch(7).collect();
            let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
            assert_eq!(good, [true, false, true]);
            let error = results[1].as_ref().unwrap_err().to_string();
            assert!(error.contains("batch 1 of epoch 7 panicked"), "{error}");
            assert!(error.contains("a bug in a decoder"), "{error}");
        }
    }

    #[test]
    fn workers_stay_within_the_window_and_stop_with_the_iterator() {
        let reads = Arc::new(AtomicUsize::new(0));
        let fake = Fake { reads: Arc::clone(&reads), ..Fake::of(1000) };
        let config = LoaderConfig { prefetch: 3, ..training(10, 2) };
        let mut epoch = loader(fake, config).epoch(0);
        assert_eq!(epoch.next().unwrap().unwrap().len(), 10);
        // Dropping joins the workers: whatever they read, they have read by then.
        drop(epoch);
        let read = reads.load(Ordering::Relaxed);
        assert!((10..=40).contains(&read), "{read} images for one batch and a window of three");
    }
}
